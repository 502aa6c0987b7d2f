"""The facts of a run that its reports show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Waits:
    """The calls and retries of a stage: ``in_flight`` are in calls, ``parked`` wait for a retry.

    ``oldest_s`` is the age of the oldest pending record; percentiles are of the latest calls, and
    None without any. ``is_paused``: the circuit is open.
    """

    in_flight: int = 0
    parked: int = 0
    retries: int = 0
    is_paused: bool = False
    oldest_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Lookups:
    """What the lookups of a stage cost: ``keys`` were asked for in ``queries``.

    ``without_row`` is the number of records for which there was no row.
    """

    queries: int
    keys: int
    without_row: int


@dataclass(frozen=True, slots=True)
class StageCounts:
    """Counts of a stage. Inputs: ``taken``, the sum of the next five. Outputs: ``given``.

    ``waits`` has more about records that are pending; None for a stage in which none can be.
    ``lookups`` is None for a stage that looks up no rows.
    """

    name: str
    kind: str
    taken: int
    handled: int
    dropped: int
    skipped: int
    dead_lettered: int
    pending: int
    given: int
    late: int = 0
    waits: Waits | None = None
    lookups: Lookups | None = None


@dataclass(frozen=True, slots=True)
class SettingReport:
    """One of an app's own settings: its value as JSON, ``***`` for a secret, and its origin."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Started:
    """The facts of the start report."""

    app: str
    where: str
    state: str
    sources: list[str]
    sinks: list[str]
    waiting: int | None = None
    settings: list[SettingReport] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StateSize:
    """How large a state is; the size in bytes is an estimate."""

    name: str
    keys: int
    bytes: int


@dataclass(frozen=True, slots=True)
class TimeReport:
    """What a run keeps, and how far event time has come.

    ``watermarks`` are those of the stages that wait for them, as ISO 8601; empty text before the
    first records. ``waiting`` is the number of open windows and of records that wait for others.
    """

    states: list[StateSize] = field(default_factory=list)
    watermarks: dict[str, str] = field(default_factory=dict)
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The progress of a run.

    ``lag`` is the number of records not read yet, and ``bytes_read`` are the bytes that were read
    and those that are known; each is None if not known.
    """

    records_in: int
    records_out: int
    elapsed_s: float
    lag: int | None
    commits: int
    time: TimeReport = field(default_factory=TimeReport)
    pending: int = 0
    dead_lettered: int = 0
    waits: dict[str, Waits] = field(default_factory=dict)
    bytes_read: tuple[int, int] | None = None

    @property
    def rate(self) -> float:
        """Records in per second since the start."""
        return self.records_in / self.elapsed_s if self.elapsed_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Crash:
    """The record at which a run has failed, and how many runs in a row have failed there."""

    RUNS_MAX: ClassVar[int] = 3

    stage: str
    topic: str
    partition: int
    offset: int
    runs: int

    @property
    def is_loop(self) -> bool:
        """Whether another start would only fail again."""
        return self.runs >= self.RUNS_MAX


@dataclass(frozen=True, slots=True)
class Ended:
    """The facts of the end report."""

    app: str
    exit_code: int
    reason: str
    records_in: int
    records_out: int
    dropped: int
    skipped: int
    elapsed_s: float
    rate: float
    p99_ms: float
    commits: int
    unacknowledged: dict[str, int]
    stages: list[StageCounts]
    look: str = ""
    lag: int | None = None
    error: str = ""
    hint: str = ""
    sink_topics: list[str] = field(default_factory=list)
    time: TimeReport = field(default_factory=TimeReport)
    dead_lettered: int = 0
    pending: int = 0
    letter_topics: list[str] = field(default_factory=list)
    letter_looks: list[str] = field(default_factory=list)
    replayed: int = 0
    crash: Crash | None = None
