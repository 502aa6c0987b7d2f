"""What both kinds of queues of pending records share: retries, the circuit, watermarks. No I/O.

A stage whose function is called outside of slices has a `CallQueue`; a plain function with retries,
which the task calls in each slice, has a `RetryQueue`.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

from streamkit.frames.column_rows import ColumnRows
from streamkit.limits import PARKED_RECORDS_MAX, QUEUED_BYTES_MAX, QUEUED_RECORDS_MAX
from streamkit.policies import Policy, wanted_delay_s
from streamkit.runtime.circuit import Circuit
from streamkit.runtime.failures import ends_the_job
from streamkit.runtime.feeds import estimated_bytes
from streamkit.state.pending import PendingRecord, PendingRecords

_LATENCIES_KEPT: Final = 4_096


@dataclass(frozen=True, slots=True)
class Later:
    """When to try again. ``counts``: the call that failed was an attempt."""

    due_s: float
    counts: bool


@dataclass(frozen=True, slots=True)
class Chances:
    """What a delay depends on: a random share from 0 to 1, and the time in s since 1970."""

    share: Callable[[], float] = lambda: 1.0
    wall_s: Callable[[], float] = lambda: 0.0


class PendingQueue(ABC):
    """The records that wait in one stage.

    Args:
        records: Where they are stored; those of the last run are in it.
        policy: What happens to a record that fails.
        chances: What a delay depends on.
        waiting_max: How many records may wait that are not parked.
    """

    def __init__(
        self,
        records: PendingRecords,
        policy: Policy,
        chances: Chances,
        waiting_max: int = QUEUED_RECORDS_MAX,
    ) -> None:
        self.records = records
        self._policy = policy
        self._chances = chances
        self._waiting_max = waiting_max
        self._mean_bytes = 0.0
        self.circuit = Circuit(policy.retry)
        self.running = 0
        self.retries = 0
        # Whether nothing begins any more, because the job stops and what waits is stored.
        self.is_held = False
        self.latencies_s: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        # What may go on; what waits for its time; and the results for the task.
        self._queue: deque[PendingRecord] = deque()
        self._parked: list[tuple[float, int, PendingRecord]] = []
        self._ready: deque[PendingRecord] = deque()
        self._groups: dict[Hashable, deque[PendingRecord]] = {}
        self._marks: list[tuple[int, int]] = []
        # The first record of the last call that began while the circuit was open.
        self._probe: PendingRecord | None = None

    def __len__(self) -> int:
        return len(self.records)

    @property
    def is_full(self) -> bool:
        """Whether no more records should be added."""
        if self.is_held:  # no record leaves, and only those come that cannot be read again
            return False
        parked, total = len(self._parked), len(self)
        return (
            parked >= PARKED_RECORDS_MAX
            or total - parked >= self._waiting_max
            or total * self._mean_bytes >= QUEUED_BYTES_MAX
        )

    @property
    def has_ready(self) -> bool:
        """Whether results are next."""
        return bool(self._ready)

    @property
    def is_working(self) -> bool:
        """Whether something happens without a wait for a retry, a batch or the circuit."""
        begins = bool(self._queue) and not (self.is_paused or self.is_held)
        return self.running > 0 or bool(self._ready) or begins

    @property
    def is_paused(self) -> bool:
        """Whether the circuit is open."""
        return self.circuit.is_open

    @property
    def parked(self) -> int:
        """How many records wait for a retry."""
        return len(self._parked)

    def oldest_s(self) -> float | None:
        """Return since when the oldest record is here; None if there is none."""
        first = next(iter(self.records.by_number.values()), None)
        return None if first is None else first.since_s

    def lowest_mark_ms(self) -> int | None:
        """Return the lowest watermark by which a record here is judged later."""
        while self._marks and self._marks[0][1] not in self.records.by_number:
            heapq.heappop(self._marks)
        return self._marks[0][0] if self._marks else None

    @abstractmethod
    def next_s(self) -> float | None:
        """Return when something happens without an event; None if nothing does."""

    # --- records ---------------------------------------------------------------------

    def add(self, records: Sequence[PendingRecord], now_s: float) -> None:
        """Take records, in order."""
        self._mean_bytes += (_bytes_of(records[0]) - self._mean_bytes) / 8
        self.records.add(records)
        self._begin(records, now_s)

    @abstractmethod
    def take(self, most: int) -> list[PendingRecord]:
        """Return the next results, in order."""

    def remove(self, records: Sequence[PendingRecord]) -> None:
        """Remove records whose results are delivered, in order."""
        self.records.remove(records)
        self.pass_over(records)

    @abstractmethod
    def pass_over(self, records: Sequence[PendingRecord]) -> None:
        """Let what waits for these records go on; nothing more happens with them in this run."""

    @abstractmethod
    def give_back(self, records: Sequence[PendingRecord]) -> None:
        """Take back records whose results could not be delivered now; they are next."""

    @abstractmethod
    def _enter(self, records: Sequence[PendingRecord]) -> None:
        """Give new records their places."""

    def _begin(self, records: Sequence[PendingRecord], now_s: float) -> None:
        for record in records:
            record.since_s = now_s
            if record.mark_ms is not None:
                heapq.heappush(self._marks, (record.mark_ms, record.number))
        self._enter(records)

    # --- retries ---------------------------------------------------------------------

    def later(
        self, attempts: int, error: BaseException, now_s: float, first: PendingRecord | None
    ) -> Later | None:
        """Note that a function has failed for a record.

        Args:
            attempts: How many attempts have failed before.
            error: The error.
            now_s: The monotonic time.
            first: The first record of the call; None if it has not waited here.

        Returns:
            When to try again; None if it is not to be tried again.
        """
        retry = self._policy.retry
        is_probe = first is not None and first is self._probe
        if retry is None or not retry.is_for(error) or ends_the_job(error):
            self.circuit.failed_for_good(is_probe=is_probe)
            return None
        share = self._chances.share()
        wanted_s = wanted_delay_s(error, self._chances.wall_s())
        counts = True
        if retry.may_open_circuit(error):
            counts = self.circuit.failed(now_s, error, share, wanted_s, is_probe=is_probe)
        else:  # the called service has answered
            self.circuit.succeeded()
        attempts += counts
        if counts and attempts >= retry.attempts:
            return None
        return Later(now_s + retry.delay_after_s(max(1, attempts), share, wanted_s), counts)

    def park(self, record: PendingRecord, later: Later) -> None:
        """Let a record wait until it is tried again."""
        self.retries += 1
        record.attempts += later.counts
        record.error = None
        record.stage = "parked"
        record.due_s = later.due_s
        record.is_retried = True
        self.records.change(record)
        heapq.heappush(self._parked, (later.due_s, record.number, record))

    def _note_begin(self, first: PendingRecord) -> None:
        if self.circuit.began():
            self._probe = first

    def _wake(self, now_s: float) -> None:
        woken = []
        while self._parked and self._parked[0][0] <= now_s:
            woken.append(heapq.heappop(self._parked)[2])
        self._requeue(woken)

    def _requeue(self, records: Sequence[PendingRecord]) -> None:
        for record in reversed(records):
            record.stage = "queued"
            self._queue.appendleft(record)


def _bytes_of(record: PendingRecord) -> int:
    columns = record.columns
    if isinstance(columns, ColumnRows):
        return columns.mean_bytes
    return estimated_bytes(record.value)
