"""Decides which calls of a stage begin, and which results are next. No I/O, no clock.

| state of a record | event | next |
|---|---|---|
| queued | a call may begin: concurrency, rate and circuit allow it | running |
| | an earlier record of its key is retried | held |
| held | it is the first of its key | queued |
| running | the call returns, or fails for good | done |
| | the call fails and is to be made again | parked |
| parked | its time has come | queued |
| done | its turn | given to the task |
| given | the task has delivered its result | removed |
| any | the job stops | stored with the last commit; the next run begins with it |

| order | a call begins | a result is given |
|---|---|---|
| of the input | in order | in order; a record that is retried comes later, then those of its key |
| of each key | when it is the first of its key | when it is done |
| none | in order | when it is done |

A plain function with retries has no calls: the task calls it for each slice. Only records that
failed are here, and later ones of their keys. "Done" then means that the task may try again.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from streamkit.errors import RowError
from streamkit.limits import PARKED_RECORDS_MAX, QUEUED_BYTES_MAX, QUEUED_RECORDS_MAX
from streamkit.policies import Policy, wanted_delay_s
from streamkit.runtime.circuit import Circuit, Rate
from streamkit.runtime.feeds import estimated_bytes
from streamkit.state.pending import PendingRecord, PendingRecords

Order = Literal["input", "key", "none"]
_LATENCIES_KEPT: Final = 4_096


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How many calls of a stage may be in progress, and of how many records each is.

    ``is_inline``: the stage has no calls, because the task itself calls the function.
    """

    order: Order = "key"
    concurrency: int = 1
    rate_per_s: float | None = None
    batch: int | None = None
    max_wait_s: float = 0.0
    is_inline: bool = False


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


class CallQueue:
    """The records of one stage that wait, are in calls, or have results.

    Args:
        records: Where they are stored; those of the last run are in it.
        limits: How many calls may be in progress.
        policy: What happens to a record whose call fails.
        chances: What a delay depends on.
        now_s: The monotonic time.
    """

    def __init__(
        self,
        records: PendingRecords,
        limits: CallLimits,
        policy: Policy,
        chances: Chances,
        now_s: float,
    ) -> None:
        self.records = records
        self.limits = limits
        self._policy = policy
        self._chances = chances
        self.circuit = Circuit(policy.retry)
        self._rate = Rate(limits.rate_per_s)
        self._mean_bytes = 0.0
        self._waiting_max = max(4 * limits.concurrency, QUEUED_RECORDS_MAX)
        # Whether batches begin that are not full, because no more records come.
        self.is_flushing = False
        # Whether the limit of the rate counts; in tests, no time passes.
        self.is_paced = True
        self.running = 0
        self.retries = 0
        self.latencies_s: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._queue: deque[PendingRecord] = deque()
        self._parked: list[tuple[float, int, PendingRecord]] = []
        self._ready: deque[PendingRecord] = deque()
        # What is not given yet, in order; and by group what is out of this line.
        self._line: deque[PendingRecord] = deque()
        self._groups: dict[Hashable, deque[PendingRecord]] = {}
        # Which records of a group are retried, and those of the line that wait for them.
        self._retried: dict[Hashable, set[int]] = {}
        self._held: dict[Hashable, list[PendingRecord]] = {}
        self._marks: list[tuple[int, int]] = []
        # The first record of the last call that began while the circuit was open.
        self._probe: PendingRecord | None = None
        self._enter(list(records.by_number.values()), now_s)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def is_full(self) -> bool:
        """Whether no more records should be added."""
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
        return self.running > 0 or bool(self._ready) or bool(self._queue and not self.is_paused)

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

    # --- records come and go ---------------------------------------------------------

    def add(self, records: Sequence[PendingRecord], now_s: float) -> None:
        """Take records, in order."""
        self._mean_bytes += (estimated_bytes(records[0].value) - self._mean_bytes) / 8
        self.records.add(records)
        self._enter(records, now_s)

    @property
    def has_blocked(self) -> bool:
        """Whether new records may have to wait here."""
        return bool(self._groups) or self.circuit.is_open

    def is_blocked(self, group: Hashable) -> bool:
        """Return whether a new record of a group must wait here."""
        return group in self._groups or self.circuit.is_open

    def remove(self, records: Sequence[PendingRecord]) -> None:
        """Remove records whose results are delivered, in order."""
        self.records.remove(records)
        for record in records:
            if record.is_retried:
                self._no_longer_retried(record)
            if record.is_aside:
                self._leave_group(record)
            elif record.is_retried:
                self._release_held(record.group)

    def give_back(self, records: Sequence[PendingRecord]) -> None:
        """Take back records whose results could not be delivered now; they are next."""
        for record in reversed(records):
            if self.limits.is_inline and self._groups[record.group][0] is not record:
                record.stage = "held"
                continue
            record.stage = "done"
            self._ready.appendleft(record)

    def put_aside(self, record: PendingRecord, later: Later | None, now_s: float) -> None:
        """Let a record wait that the task was given, or that is new.

        It waits until it is tried again, for an earlier record of its group, or for the circuit.
        """
        group = self._groups.get(record.group)
        is_first = group is None or group[0] is record
        if record.number < 0:
            record.stage = "queued" if later is None else "parked"
            self.add((record,), now_s)
        elif later is None and is_first:
            self._requeue([record])
        if later is not None and is_first:
            self.park(record, later)
        elif not is_first:
            record.stage = "held"
            if later is not None:  # it has failed, but an earlier one is tried first
                record.attempts += later.counts
                self.records.change(record)

    def take(self, most: int) -> list[PendingRecord]:
        """Return the next results, in order."""
        taken: list[PendingRecord] = []
        ready = self._ready
        while ready and len(taken) < most:
            record = ready.popleft()
            record.stage = "given"
            taken.append(record)
            if self.limits.is_inline and not self.circuit.is_open:
                for follower in list(self._groups[record.group])[1:]:
                    follower.stage = "given"
                    taken.append(follower)
        return taken

    def _enter(self, records: Sequence[PendingRecord], now_s: float) -> None:
        order = self.limits.order
        for record in records:
            record.since_s = now_s
            if order == "key":
                self._join_group(record)
        if order != "key":
            self._queue += records
            if order == "input":
                self._line += records
        for record in records:
            if record.mark_ms is not None:
                heapq.heappush(self._marks, (record.mark_ms, record.number))

    def _join_group(self, record: PendingRecord) -> None:
        record.is_aside = True
        group = self._groups.get(record.group)
        if group is None:
            self._groups[record.group] = deque((record,))
            if record.stage == "queued":
                self._queue.append(record)
        else:
            group.append(record)
            if record.stage == "queued" and self.limits.order == "key":
                record.stage = "held"

    def _leave_group(self, record: PendingRecord) -> None:
        group = self._groups[record.group]
        if self.limits.is_inline and group[0] is not record:
            # One step has dropped it, and a later one has failed for a record before it.
            group.remove(record)
            return
        assert group[0] is record, "results of a group are delivered in order"
        group.popleft()
        if not group:
            del self._groups[record.group]
            self._release_held(record.group)
            return
        first = group[0]
        if first.stage == "held":
            first.stage = "queued"
            self._queue.append(first)
        elif first.stage == "done":
            self._ready.append(first)

    def _no_longer_retried(self, record: PendingRecord) -> None:
        retried = self._retried[record.group]
        retried.remove(record.number)
        if not retried:
            del self._retried[record.group]

    def _release_held(self, group: Hashable) -> None:
        """Let those records of a group be called that come before all of it that is retried."""
        if group in self._groups or group not in self._held:
            return
        held = [each for each in self._held.pop(group) if each.stage == "held"]
        still = [each for each in held if self._is_after_retried(each)]
        if still:
            self._held[group] = still
        self._requeue([each for each in held if not self._is_after_retried(each)])

    # --- calls -----------------------------------------------------------------------

    def next_call(self, now_s: float) -> list[PendingRecord]:
        """Begin the next call and return its records; nothing if none may begin now."""
        if self._parked:
            self._wake(now_s)
        if not self._queue or self.running >= self.limits.concurrency:
            return []
        if not self.circuit.allows(now_s) or not self._has_batch(now_s):
            return []
        if self.is_paced and not self._rate.allows(now_s):
            return []
        call = self._taken_from_queue()
        if call:
            self.running += 1
            self._rate.began(now_s)
            self._note_begin(call[0])
        return call

    def poll(self, now_s: float) -> None:
        """Find out which records the task may try again, if the task makes the calls."""
        self._wake(now_s)
        if self.circuit.is_open:
            probe = self._probe if self.circuit.is_probing else None
            self._requeue([each for each in self._ready if each is not probe])
            self._ready = deque(each for each in self._ready if each is probe)
        while self._queue and self.circuit.allows(now_s):
            record = self._queue.popleft()
            record.stage = "done"
            self._ready.append(record)
            self._note_begin(record)

    def may_call(self, taken: Sequence[PendingRecord]) -> bool:
        """Return whether the task may try records that it took before."""
        return not self.circuit.is_open or (
            self.circuit.is_probing and len(taken) == 1 and taken[0] is self._probe
        )

    def next_s(self) -> float | None:
        """Return when something happens without an event; None if nothing does."""
        times = [self._parked[0][0]] if self._parked else []
        is_free = self.running < self.limits.concurrency and not self.circuit.is_probing
        if self._queue and is_free:
            found = [self._rate.next_s(), self.circuit.next_s()]
            if self.limits.batch is not None and not self.is_flushing:
                found.append(self._queue[0].since_s + self.limits.max_wait_s)
            known = [each for each in found if each is not None]
            times += [max(known)] if known else []
        return min(times, default=None)

    def finish(
        self,
        call: Sequence[PendingRecord],
        results: Sequence[object],
        error: BaseException | None,
        now_s: float,
    ) -> None:
        """Note that a call has ended: with one result for each of its records, or an error."""
        self.running -= 1
        if error is None:
            self.circuit.succeeded()
            for record, result in zip(call, results, strict=True):
                record.result = result
                self._done(record)
        elif isinstance(error, RowError) and 0 <= error.row < len(call):
            self._requeue([each for row, each in enumerate(call) if row != error.row])
            self._failed([call[error.row]], error.__cause__ or error, now_s, call[0])
        else:
            self._failed(call, error, now_s, call[0])
        self._advance()

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
        if retry is None or not retry.is_for(error):
            self.circuit.failed_for_good(is_probe=is_probe)
            return None
        share = self._chances.share()
        wanted_s = wanted_delay_s(error, self._chances.wall_s())
        counts = self.circuit.failed(now_s, error, share, is_probe=is_probe)
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
        record.due_s = due_s = later.due_s
        if not record.is_retried:
            record.is_retried = True
            self._retried.setdefault(record.group, set()).add(record.number)
        self.records.change(record)
        heapq.heappush(self._parked, (due_s, record.number, record))

    def _note_begin(self, first: PendingRecord) -> None:
        if self.circuit.began():
            self._probe = first

    def _taken_from_queue(self) -> list[PendingRecord]:
        size = self.limits.batch or 1
        queue = self._queue
        call: list[PendingRecord] = []
        while queue and len(call) < size:
            record = queue[0]
            if call and (record.is_alone or call[0].is_alone):
                break
            queue.popleft()
            if self._must_be_held(record):
                record.stage = "held"
                self._held.setdefault(record.group, []).append(record)
                continue
            record.stage = "running"
            call.append(record)
        return call

    def _must_be_held(self, record: PendingRecord) -> bool:
        if record.is_retried or self.limits.order != "input":
            return False
        if record.is_aside:
            return self._groups[record.group][0] is not record
        return self._is_after_retried(record)

    def _is_after_retried(self, record: PendingRecord) -> bool:
        retried = self._retried.get(record.group)
        return retried is not None and min(retried) < record.number

    def _has_batch(self, now_s: float) -> bool:
        size = self.limits.batch
        if size is None or len(self._queue) >= size or self.is_flushing:
            return True
        first = self._queue[0]
        return first.is_alone or now_s >= first.since_s + self.limits.max_wait_s

    def _wake(self, now_s: float) -> None:
        woken = []
        while self._parked and self._parked[0][0] <= now_s:
            woken.append(heapq.heappop(self._parked)[2])
        self._requeue(woken)

    def _requeue(self, records: Sequence[PendingRecord]) -> None:
        for record in reversed(records):
            record.stage = "queued"
            self._queue.appendleft(record)

    def _failed(
        self,
        call: Sequence[PendingRecord],
        error: BaseException,
        now_s: float,
        first: PendingRecord,
    ) -> None:
        later = self.later(max(each.attempts for each in call), error, now_s, first)
        if later is not None:
            for record in call:
                self.park(record, later)
        elif len(call) > 1 and self._policy.last != "fail":
            for record in call:  # which of them has failed is not known
                record.is_alone = True
            self._requeue(call)
        else:
            for record in call:
                record.error = error
                self._done(record)

    def _done(self, record: PendingRecord) -> None:
        record.stage = "done"
        if self.limits.order == "none" or (
            record.is_aside and self._groups[record.group][0] is record
        ):
            self._ready.append(record)

    def _advance(self) -> None:
        """Take from the line what is next."""
        line = self._line
        while line:
            record = line[0]
            if record.group in self._groups or (record.is_retried and record.stage != "done"):
                line.popleft()
                record.is_aside = True
                self._groups.setdefault(record.group, deque()).append(record)
            elif record.stage == "done":
                line.popleft()
                self._ready.append(record)
            else:
                return
