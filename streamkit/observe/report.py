"""Reports of a running job: as lines for people, or as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import IO, Any, ClassVar, Protocol

from streamkit.observe.streams import ReportStream, escaped
from streamkit.units import counted, shown_bytes

_LINE_WIDTH = 100


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
class StageCounts:
    """Counts of a stage. Inputs: ``taken``, the sum of the next five. Outputs: ``given``.

    ``waits`` has more about records that are pending; None for a stage in which none can be.
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


@dataclass(frozen=True, slots=True)
class Started:
    """The facts of the start report."""

    app: str
    where: str
    state: str
    sources: list[str]
    sinks: list[str]
    waiting: int | None = None


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
    """The progress of a run. ``lag`` is the number of records not read yet; None if not known."""

    records_in: int
    records_out: int
    elapsed_s: float
    lag: int | None
    commits: int
    time: TimeReport = field(default_factory=TimeReport)
    pending: int = 0
    dead_lettered: int = 0
    waits: dict[str, Waits] = field(default_factory=dict)

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
    crash: Crash | None = None


class Reporter(Protocol):
    """Writes the reports of a run."""

    def started(self, started: Started) -> None: ...

    def progress(self, snapshot: Snapshot, *, total: int | None) -> None: ...

    def phase(self, name: str, detail: str) -> None: ...

    def note(self, text: str) -> None: ...

    def ended(self, ended: Ended) -> None: ...

    @property
    def progress_every_s(self) -> float:
        """How often to call `progress`."""


class TextReporter:
    """Writes lines to standard error; on a terminal, the progress line is updated in place."""

    def __init__(self, out: IO[str] | None = None, *, is_terminal: bool | None = None) -> None:
        self._out = ReportStream(sys.stderr if out is None else out)
        self._is_terminal = self._out.is_terminal if is_terminal is None else is_terminal
        self._is_live = False

    @property
    def progress_every_s(self) -> float:
        return 0.25 if self._is_terminal else 5.0

    def started(self, started: Started) -> None:
        self._line(f"{started.app}: running on {started.where}")
        for source in started.sources:
            self._line(f"  source  {source}")
        for sink in started.sinks:
            self._line(f"  sink    {sink}")
        self._line(f"  state   {started.state}")
        if started.waiting is not None:
            self._line(f"  {counted(started.waiting, 'record')} waiting")

    def progress(self, snapshot: Snapshot, *, total: int | None) -> None:
        text = (
            f"{snapshot.records_in:,} in, {snapshot.records_out:,} out, "
            f"{snapshot.rate:,.0f}/s, {counted(snapshot.commits, 'commit')}"
        )
        if snapshot.lag is not None:
            text += f", {snapshot.lag:,} left"
            if total and snapshot.rate > 0 and snapshot.lag:
                text += f" (about {snapshot.lag / snapshot.rate:,.0f} s)"
        text += _waits_text(snapshot) + _kept_text(snapshot.time)
        if self._is_terminal:
            self._out.write(f"\r{escaped(text)[:_LINE_WIDTH]:<{_LINE_WIDTH}}")
            self._is_live = True
        else:
            self._line(text)

    def phase(self, name: str, detail: str) -> None:
        self._line(f"{name}{': ' if detail else ''}{detail}")

    def note(self, text: str) -> None:
        self._line(text)

    def ended(self, ended: Ended) -> None:
        self._line("")
        for line in ended_lines(ended):
            self._line(line)

    def _line(self, text: str) -> None:
        if self._is_live:
            self._out.write("\r" + " " * _LINE_WIDTH + "\r")
            self._is_live = False
        self._out.line(text)


class JsonReporter:
    """Writes one JSON object per line to standard output, each with its ``event``."""

    progress_every_s = 1.0

    def __init__(self, out: IO[str] | None = None) -> None:
        self._out = ReportStream(sys.stdout if out is None else out)

    def started(self, started: Started) -> None:
        self._write("started", asdict(started))

    def progress(self, snapshot: Snapshot, *, total: int | None) -> None:
        self._write("progress", {**asdict(snapshot), "rate": snapshot.rate, "total": total})

    def phase(self, name: str, detail: str) -> None:
        self._write("phase", {"phase": name, "detail": detail})

    def note(self, text: str) -> None:
        self._write("note", {"text": text})

    def ended(self, ended: Ended) -> None:
        self._write("ended", asdict(ended))

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        self._out.write(json.dumps({"event": event, **fields}) + "\n")


def ended_lines(ended: Ended) -> list[str]:
    """Return the lines of the end report; the last one is the command to look at the result."""
    lines = [f"{ended.app}: {ended.reason} after {ended.elapsed_s:.1f} s"]
    width = max([len(stage.name) for stage in ended.stages], default=0)
    for stage in ended.stages:
        parts = [f"{stage.taken:>12,} in", f"{stage.given:>12,} out"]
        if stage.dropped:
            late = f", {stage.late:,} of them late" if stage.late else ""
            parts.append(f"{stage.dropped:,} dropped{late}")
        if stage.skipped:
            parts.append(f"{stage.skipped:,} skipped")
        if stage.dead_lettered:
            parts.append(counted(stage.dead_lettered, "dead letter"))
        if stage.pending:
            parts.append(f"{stage.pending:,} pending")
        lines.append(f"  {stage.name:<{width}} {' '.join(parts)}")
        if stage.waits is not None:
            lines.append(f"  {'':<{width}} {_calls_text(stage.waits)}")
    lines.append(
        f"  {ended.records_in:,} records in, {ended.records_out:,} out, {ended.dropped:,} dropped, "
        f"{ended.skipped:,} skipped"
        + (f", {counted(ended.dead_lettered, 'dead letter')}" if ended.dead_lettered else "")
    )
    lines.append(
        f"  {ended.rate:,.0f} records/s, p99 {ended.p99_ms:.0f} ms from arrival to the sinks, "
        f"{counted(ended.commits, 'commit')}"
    )
    for state in ended.time.states:
        size = shown_bytes(state.bytes)
        lines.append(f"  state of {state.name}: {counted(state.keys, 'key')}, about {size}")
    for stage_name, watermark in ended.time.watermarks.items():
        lines.append(f"  watermark of {stage_name}: {watermark or 'none yet'}")
    if ended.time.waiting:
        lines.append(
            f"  {ended.time.waiting:,} open windows and waiting records go on with the next run; "
            "--drain completes them"
        )
    if ended.pending:
        lines.append(f"  {counted(ended.pending, 'record')} pending: the next run begins with them")
    for sink, count in ended.unacknowledged.items():
        lines.append(f"  NOT FLUSHED: {count:,} records for {sink}; the next run sends them again")
    if ended.error:
        lines.append(f"error: {ended.error}")
    if ended.hint:
        lines.append(f"hint: {ended.hint}")
    if ended.crash is not None and ended.crash.is_loop:
        lines.append(
            f"crash loop: {ended.crash.runs} runs in a row have failed at this record; another "
            "start fails again until the cause is fixed"
        )
        lines.append("hint: --on-crash-loop dead-letter puts the record aside")
    if ended.look:
        lines.append(f"look at the result: {ended.look}")
    for topic in ended.letter_topics if ended.dead_lettered else ():
        lines.append(f"look at the dead letters: streamkit dlq list {topic}")
    return lines


def _calls_text(waits: Waits) -> str:
    """Return what the end report says of the calls of a stage."""
    parts = []
    if waits.p50_ms is not None and waits.p99_ms is not None:
        parts.append(f"calls p50 {waits.p50_ms:,.1f} ms, p99 {waits.p99_ms:,.1f} ms")
    parts.append("1 retry" if waits.retries == 1 else f"{waits.retries:,} retries")
    if waits.parked:
        parts.append(f"{waits.parked:,} wait for a retry")
    if waits.is_paused:
        parts.append("the circuit is open")
    return ", ".join(parts)


def _waits_text(snapshot: Snapshot) -> str:
    """Return what the progress line says of pending records."""
    text = f", {snapshot.pending:,} pending" if snapshot.pending else ""
    if snapshot.dead_lettered:
        text += f", {counted(snapshot.dead_lettered, 'dead letter')}"
    paused = [name for name, waits in snapshot.waits.items() if waits.is_paused]
    return text + (f", paused: {', '.join(paused)}" if paused else "")


def _kept_text(time: TimeReport) -> str:
    """Return what the progress line says of states and watermarks."""
    text = ""
    if time.states:
        text += f", {counted(sum(each.keys for each in time.states), 'key')} kept"
    known = [each for each in time.watermarks.values() if each]
    if known:
        text += f", watermark {min(known)}"
    return text


class RateLimited:
    """Forwards the first note about a topic, then at most one every 5 seconds."""

    def __init__(self, note: Callable[[str], None], now_s: Callable[[], float]) -> None:
        self._note = note
        self._now_s = now_s
        self._last_s: dict[str, float] = {}

    def __call__(self, topic: str, text: str) -> None:
        now_s = self._now_s()
        if now_s - self._last_s.get(topic, float("-inf")) >= 5.0:
            self._last_s[topic] = now_s
            self._note(text)
