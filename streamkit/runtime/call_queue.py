"""Decides which calls of a stage begin, and which results are next. No I/O, no clock.

| state of a record | event | next |
|---|---|---|
| queued | a call may begin: concurrency, rate and circuit allow it | running |
| | an earlier record of its key is retried | held |
| held | no earlier record of its key is retried any more; by key: it is the first | queued |
| running | the call returns, or fails for good | done |
| | the call fails and is to be made again | parked |
| parked | its time has come | queued |
| done | its turn | given to the task |
| given | the task has delivered its result | removed |
| any | the job stops | stored with the last commit; the next run begins with it |

| order | a call begins | a result is given |
|---|---|---|
| of the input | in order | in order; a record that is retried comes later, then those of its key |
| of each key | when the one before it of its key has ended | when the call has ended |
| none | in order | when the call has ended |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from streamkit.errors import RowError
from streamkit.limits import QUEUED_RECORDS_MAX
from streamkit.policies import Policy
from streamkit.runtime.circuit import Rate
from streamkit.runtime.pending_queue import Chances, Later, PendingQueue
from streamkit.state.pending import PendingRecord, PendingRecords


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How many calls of a stage may be in progress, and of how many records each is.

    ``writes``: it is a sink, so a call has written the records before one that a `RowError` names.
    ``finds_failed``: which record of a batch has failed is found also before the job stops there.
    """

    order: Literal["input", "key", "none"] = "key"
    concurrency: int = 1
    rate_per_s: float | None = None
    batch: int | None = None
    max_wait_s: float = 0.0
    writes: bool = False
    finds_failed: bool = False


class CallQueue(PendingQueue):
    """The records of one stage that wait for calls, are in calls, or have results.

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
        # One batch more than are in calls, so that the next one is full when a call ends.
        batches = (limits.batch or 1) * (limits.concurrency + 1)
        waiting_max = max(4 * limits.concurrency, batches, QUEUED_RECORDS_MAX)
        super().__init__(records, policy, chances, waiting_max)
        self.limits = limits
        self._rate = Rate(limits.rate_per_s)
        # Whether nothing but the concurrency limits when a call begins.
        self._is_plain = (
            limits.rate_per_s is None
            and limits.batch is None
            and (policy.retry is None or policy.retry.open_circuit_after is None)
        )
        # Whether batches begin that are not full, because no more records come.
        self.is_flushing = False
        # Whether the limit of the rate counts; in tests, no time passes.
        self.is_paced = True
        # What is not given yet, in order of the input. What is out of it is in its group.
        self._line: deque[PendingRecord] = deque()
        # Which records of a group are retried, and those that wait for them.
        self._retried: dict[Hashable, set[int]] = {}
        self._held: dict[Hashable, list[PendingRecord]] = {}
        # The first record at which the job stops, and those after it, which are not called.
        self._failed_number: int | None = None
        self._stopped: list[PendingRecord] = []
        self._begin(list(records.by_number.values()), now_s)

    # --- results ---------------------------------------------------------------------

    def take(self, most: int) -> list[PendingRecord]:
        taken = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        for record in taken:
            record.stage = "given"
        return taken

    def take_called(self) -> list[PendingRecord]:
        """Return all records whose call has succeeded, whatever their turn; at the end of a job."""
        self._ready.clear()
        return [
            record
            for record in self.records.by_number.values()
            if record.stage in ("done", "given") and record.error is None
        ]

    def pass_over(self, records: Sequence[PendingRecord]) -> None:
        failed = self._failed_number
        if failed is not None and any(each.number == failed for each in records):
            # The record was put aside in spite of its policy, or a test continues after its error.
            self._failed_number = None
            stopped, self._stopped = self._stopped, []
            self._requeue(stopped)

    def give_back(self, records: Sequence[PendingRecord]) -> None:
        for record in reversed(records):
            record.stage = "done"
            self._ready.appendleft(record)

    # --- calls -----------------------------------------------------------------------

    def next_call(self, now_s: float) -> list[PendingRecord]:
        """Begin the next call and return its records; nothing if none may begin now."""
        if self.is_held:
            return []
        if self._parked:
            self._wake(now_s)
        if not self._queue or self.running >= self.limits.concurrency:
            return []
        if self._is_plain and not self._retried and self._failed_number is None:
            record = self._queue.popleft()
            record.stage = "running"
            self.running += 1
            return [record]
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

    def next_s(self) -> float | None:
        times = [self._parked[0][0]] if self._parked else []
        is_free = self.running < self.limits.concurrency and not self.circuit.is_probing
        if self._queue and is_free:
            found = [self._rate.next_s(), self.circuit.next_s(), self._batch_due_s()]
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
            written = error.row if self.limits.writes and not error.is_before_call else 0
            for record in call[:written]:
                self._done(record)
            self._requeue([*call[written : error.row], *call[error.row + 1 :]])
            self._failed([call[error.row]], _cause_of(error), now_s, call[0])
        else:
            self._failed(call, error, now_s, call[0])
        self._advance()

    def park(self, record: PendingRecord, later: Later) -> None:
        if not record.is_retried:
            self._retried.setdefault(record.group, set()).add(record.number)
        super().park(record, later)

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
        elif len(call) > 1 and (self._policy.last != "fail" or self.limits.finds_failed):
            for record in call:  # which of them has failed is not known
                record.is_alone = True
            self._requeue(call)
        else:
            for record in call:
                record.error = error
                if self._policy.last == "fail":
                    record.attempts = 0  # the next run has all attempts
                    self.records.change(record)
                    self._stop_at(record.number)
                self._done(record)

    def _stop_at(self, number: int) -> None:
        """Let no call begin for records after one at which the job stops."""
        if self._failed_number is None or number < self._failed_number:
            self._failed_number = number
        waiting, self._queue = self._queue, deque()
        for record in waiting:
            is_later = record.number > self._failed_number
            (self._stopped if is_later else self._queue).append(record)

    def _taken_from_queue(self) -> list[PendingRecord]:
        size = self.limits.batch or 1
        queue = self._queue
        call: list[PendingRecord] = []
        while queue and len(call) < size:
            record = queue[0]
            if call and (record.is_alone or call[0].is_alone):
                break
            queue.popleft()
            if self._failed_number is not None and record.number > self._failed_number:
                self._stopped.append(record)
                continue
            if self._retried and self._must_be_held(record):
                record.stage = "held"
                self._held.setdefault(record.group, []).append(record)
                continue
            record.stage = "running"
            call.append(record)
        return call

    def _must_be_held(self, record: PendingRecord) -> bool:
        is_of_input = self.limits.order == "input"
        return is_of_input and not record.is_retried and self._is_after_retried(record)

    def _is_after_retried(self, record: PendingRecord) -> bool:
        retried = self._retried.get(record.group)
        return retried is not None and min(retried) < record.number

    def _has_batch(self, now_s: float) -> bool:
        due_s = self._batch_due_s()
        return due_s is None or now_s >= due_s

    def _batch_due_s(self) -> float | None:
        """Return when the next batch begins although it is not full; None if it does not wait."""
        size, first = self.limits.batch, self._queue[0]
        if size is None or len(self._queue) >= size or self.is_flushing or first.is_alone:
            return None
        if self.is_full:  # no record comes that the batch could wait for
            return None
        return first.since_s + self.limits.max_wait_s

    # --- order -----------------------------------------------------------------------

    def _enter(self, records: Sequence[PendingRecord]) -> None:
        if self.limits.order == "key":
            for record in records:
                self._join_group(record)
            return
        self._queue += records
        if self.limits.order == "input":
            self._line += records

    def _join_group(self, record: PendingRecord) -> None:
        group = self._groups.setdefault(record.group, deque())
        group.append(record)
        if len(group) == 1:
            self._queue.append(record)
        else:
            record.stage = "held"

    def _done(self, record: PendingRecord) -> None:
        """Note that a record has its result; it is given when its turn comes."""
        record.stage = "done"
        if record.is_retried:
            self._no_longer_retried(record)
        if self.limits.order == "none":
            self._ready.append(record)
        elif record.group in self._groups:
            self._advance_group(record.group)

    def _advance(self) -> None:
        """Give what is next in the order of the input."""
        line = self._line
        while line:
            record = line[0]
            if record.group in self._groups or (record.is_retried and record.stage != "done"):
                line.popleft()
                self._groups.setdefault(record.group, deque()).append(record)
                self._advance_group(record.group)
            elif record.stage == "done":
                line.popleft()
                self._ready.append(record)
            else:
                return

    def _advance_group(self, name: Hashable) -> None:
        """Give what is next in a group; by key, let the next call begin."""
        group = self._groups[name]
        while group and group[0].stage == "done":
            self._ready.append(group.popleft())
        if not group:
            del self._groups[name]
        elif self.limits.order == "key" and group[0].stage == "held":
            group[0].stage = "queued"
            self._queue.append(group[0])

    def _no_longer_retried(self, record: PendingRecord) -> None:
        """Let those records of its group be called that come before all that are retried."""
        group = record.group
        retried = self._retried[group]
        retried.remove(record.number)
        if not retried:
            del self._retried[group]
        held = self._held.pop(group, [])
        still = [each for each in held if self._is_after_retried(each)]
        if still:
            self._held[group] = still
        self._requeue([each for each in held if not self._is_after_retried(each)])


def _cause_of(error: RowError) -> BaseException:
    """Return the error that a function has named as the cause, or the error itself."""
    cause = error.__cause__
    is_traceback = hasattr(cause, "users_line")  # of a process; see `RemoteTraceback`
    return error if cause is None or is_traceback else cause
