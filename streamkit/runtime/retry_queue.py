"""Decides when the task tries records of a plain function again. No I/O, no clock.

Only records that failed are here, and later ones of their keys, which wait behind them. The first
of a key is tried in a slice of its own, with those behind it.

| state of a record | event | next |
|---|---|---|
| held | it is the first of its key | queued |
| queued | the circuit allows it | done: the task may try |
| parked | its time has come | queued |
| done, or held behind such a record | its turn | given to the task |
| given | the task has delivered its result | removed |
| | it has failed again | parked |
| | an earlier one of its key has failed again | held |
| any | the job stops | stored with the last commit; the next run begins with it |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

from streamkit.policies import Policy
from streamkit.runtime.pending_queue import Chances, Later, PendingQueue
from streamkit.state.pending import PendingRecord, PendingRecords


class RetryQueue(PendingQueue):
    """The records of a plain function that are tried again.

    Args:
        records: Where they are stored; those of the last run are in it.
        policy: What happens to a record that fails.
        chances: What a delay depends on.
        now_s: The monotonic time.
    """

    def __init__(
        self, records: PendingRecords, policy: Policy, chances: Chances, now_s: float
    ) -> None:
        super().__init__(records, policy, chances)
        self._begin(list(records.by_number.values()), now_s)

    @property
    def has_blocked(self) -> bool:
        """Whether new records may have to wait here."""
        return bool(self._groups) or self.is_paused

    def is_blocked(self, group: Hashable) -> bool:
        """Return whether a new record of a group must wait here."""
        return group in self._groups or self.is_paused

    def poll(self, now_s: float) -> None:
        """Find out which records the task may try again."""
        if self.is_held:
            return
        self._wake(now_s)
        if self.is_paused:
            probe = self._probe if self.circuit.is_probing else None
            self._requeue([each for each in self._ready if each is not probe])
            self._ready = deque(each for each in self._ready if each is probe)
        while self._queue and self.circuit.allows(now_s):
            record = self._queue.popleft()
            record.stage = "done"
            self._ready.append(record)
            self._note_begin(record)

    def next_s(self) -> float | None:
        times = [self._parked[0][0]] if self._parked else []
        probe_s = self.circuit.next_s()
        if self._queue and probe_s is not None:
            times.append(probe_s)
        return min(times, default=None)

    def take(self, most: int) -> list[PendingRecord]:
        taken: list[PendingRecord] = []
        while self._ready and len(taken) < most:
            first = self._ready.popleft()
            group = self._groups[first.group]
            for record in (first,) if self.is_paused else group:
                record.stage = "given"
                taken.append(record)
        return taken

    def pass_over(self, records: Sequence[PendingRecord]) -> None:
        for record in records:
            group = self._groups[record.group]
            if group[0] is not record:
                # One step has dropped it, and a later one has failed for a record before it.
                group.remove(record)
                continue
            group.popleft()
            if not group:
                del self._groups[record.group]
            elif group[0].stage == "held":
                self._requeue_last(group[0])

    def give_back(self, records: Sequence[PendingRecord]) -> None:
        for record in reversed(records):
            if self._groups[record.group][0] is record:
                record.stage = "done"
                self._ready.appendleft(record)
            else:
                record.stage = "held"

    def may_call(self, taken: Sequence[PendingRecord]) -> bool:
        """Return whether the task may try records that it took before."""
        is_probe = self.circuit.is_probing and len(taken) == 1 and taken[0] is self._probe
        return not self.is_paused or is_probe

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

    def _enter(self, records: Sequence[PendingRecord]) -> None:
        for record in records:
            group = self._groups.setdefault(record.group, deque())
            group.append(record)
            if record.stage == "queued":
                record.stage = "held"
                if len(group) == 1:
                    self._requeue_last(record)

    def _requeue_last(self, record: PendingRecord) -> None:
        record.stage = "queued"
        self._queue.append(record)
