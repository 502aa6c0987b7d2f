"""Runs a queue of calls step by step: calls end in any order, the job commits and crashes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from streamkit.errors import RowError
from streamkit.policies import Policy
from streamkit.runtime.call_queue import CallLimits, CallQueue
from streamkit.runtime.pending_queue import Chances
from streamkit.state.change_log import FIRST_SHARD, StateChange, StateRow
from streamkit.state.pending import PendingRecord, PendingRecords
from streamkit.state.types import format_of
from tests.conftest import IS_DEEP

# What happens, a number to choose with, and how many or how long.
Action = tuple[str, int, int]
GROUPS: Final = (b"a", b"b", b"c", None)
INT: Final = format_of(int, "numbers")
_STEPS_MAX: Final = 10_000
_DEEP_FACTOR: Final = 20


class Passing(Exception):
    """An error that is retried."""


class Stored:
    """Rows of a state as a store keeps them."""

    def __init__(self) -> None:
        self.rows: list[StateRow] = []

    def apply(self, change: StateChange | None) -> None:
        if change is None:
            return
        shards = {row.shard for row in change.rows if row.shard >= FIRST_SHARD}
        kept = [
            row
            for row in self.rows
            if row.shard not in shards and (row.shard >= FIRST_SHARD or row.seq > change.drop_to)
        ]
        self.rows = [*kept, *change.rows]


@dataclass(slots=True)
class _Commit:
    added: int = 0
    given: int = 0
    failures: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class QueueRun:
    """One queue over numbered records, whatever happens to its calls.

    ``given`` are the results in the order of delivery, ``failures`` the failed calls of each
    record that counted, ``began_s`` the times of calls since the last start.
    """

    limits: CallLimits
    policy: Policy
    groups: Sequence[bytes | None]
    is_paced: bool = True
    now_s: float = 100.0
    queue: CallQueue = field(init=False)
    added: int = 0
    given: list[int] = field(default_factory=list)
    taken: list[PendingRecord] = field(default_factory=list)
    calls: list[list[PendingRecord]] = field(default_factory=list)
    began_s: list[float] = field(default_factory=list)
    failures: Counter[int] = field(default_factory=Counter)
    probe: list[PendingRecord] | None = None
    retried: set[int] = field(default_factory=set)
    due_s: dict[int, float] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)
    stored: Stored = field(default_factory=Stored)
    last: _Commit = field(default_factory=_Commit)

    def __post_init__(self) -> None:
        self._open()

    # --- what happens ----------------------------------------------------------------

    def act(self, kind: str, number: int, size: int) -> None:
        if kind == "add":
            self.add(size)
        elif kind == "begin":
            self.begin()
        elif kind == "wait":
            self.now_s += (0.01, 0.2, 1.0, 5.0)[number % 4]
        elif kind == "take":
            self.take(size)
        elif kind == "remove":
            self.remove(size)
        elif kind == "give back":
            back = self.taken[size:]
            del self.taken[size:]
            self.queue.give_back(back)
        elif kind == "commit":
            self.commit()
        elif kind == "crash":
            self.crash()
        elif self.calls:
            self.end(number, kind, size)

    def add(self, count: int) -> None:
        stop = min(len(self.groups), self.added + count)
        records = [
            PendingRecord(each, self.groups[each], 0, each, "t", 0)
            for each in range(self.added, stop)
        ]
        if records:
            self.queue.add(records, self.now_s)
        self.added = stop

    def begin(self) -> None:
        """Begin every call that may begin."""
        while call := self.queue.next_call(self.now_s):
            self._check_call(call)
            self.calls.append(call)
            self.began_s.append(self.now_s)
        due_s = self.queue.next_s()
        assert due_s is None or due_s > self.now_s, "otherwise the job never waits"

    def end(self, number: int, kind: str, row: int) -> None:
        call = self.calls.pop(number % len(self.calls))
        if kind == "returns":
            self.queue.finish(call, [each.value * 10 for each in call], None, self.now_s)
            self.probe = None
            return
        error: Exception = Passing() if kind in ("fails", "row fails") else ValueError()
        failed = call
        if kind in ("row fails", "row fails for good"):
            failed = [call[row % len(call)]]
            error, cause = RowError(row % len(call)), error
            error.__cause__ = cause
        is_open = self.queue.circuit.is_open
        self.queue.finish(call, (), error, self.now_s)
        self.probe = self.probe if is_open else None
        for each in failed:
            if each.stage == "parked":
                assert kind in ("fails", "row fails")
                self.retried.add(each.value)
                self.failures[each.value] += not is_open
                self.due_s[each.value] = self._least_due_s(each)
            elif each.error is not None:
                self.errors[each.value] = each.error

    def take(self, most: int) -> None:
        self.taken += self.queue.take(most)

    def remove(self, count: int) -> None:
        done, self.taken = self.taken[:count], self.taken[count:]
        for each in done:
            if each.error is None:
                assert each.result == each.value * 10
        self.queue.remove(done)
        self.given += [each.value for each in done]

    def commit(self) -> None:
        assert self.queue.records.problem() is None
        self.stored.apply(self.queue.records.prepare())
        self.last = _Commit(self.added, len(self.given), Counter(self.failures))

    def crash(self) -> None:
        del self.given[self.last.given :]
        self.added = self.last.added
        self.failures = Counter(self.last.failures)
        self.taken, self.calls, self.began_s = [], [], []
        self.retried.clear()
        self.due_s.clear()
        self.errors = {each: error for each, error in self.errors.items() if each in self.given}
        self._open()

    def to_the_end(self) -> None:
        """Add what is left, and let every call return."""
        self.add(len(self.groups))
        self.queue.is_flushing = True
        for _ in range(_STEPS_MAX):
            self.begin()
            while self.calls:
                self.end(len(self.calls) // 2, "returns", 0)
                self.begin()
            self.take(3)
            if self.taken:
                self.remove(len(self.taken))
            elif not len(self.queue):
                break
            else:
                due_s = self.queue.next_s()
                assert due_s is not None, f"stuck: {self.stages()}"
                self.now_s = max(self.now_s, due_s)
        assert not len(self.queue), f"stuck: {self.stages()}"
        assert self.queue.parked == self.queue.running == 0
        assert self.queue.next_s() is None

    def stages(self) -> dict[int, str]:
        return {each.value: each.stage for each in self.queue.records.by_number.values()}

    # --- what must hold --------------------------------------------------------------

    def _check_call(self, call: list[PendingRecord]) -> None:
        assert self.queue.running == len(self.calls) + 1 <= self.limits.concurrency
        assert len(call) <= (self.limits.batch or 1)
        assert len({each.value for each in call}) == len(call)
        running = [each for other in self.calls for each in other]
        waiting = {each.value for each in self.queue.records.by_number.values()}
        unended = {
            each.value
            for each in self.queue.records.by_number.values()
            if each.stage not in ("done", "given")
        }
        for each in call:
            assert each.value in waiting
            assert each not in running
            assert self.now_s >= self.due_s.get(each.value, 0.0)
        if self.limits.order == "key":
            groups = Counter(each.group for each in (*running, *call))
            assert max(groups.values()) == 1
            for each in call:
                earlier = range(each.value)
                assert not any(self.groups[at] == each.key and at in unended for at in earlier)
        if self.queue.circuit.is_open:
            assert not any(other is self.probe for other in self.calls)
            self.probe = call

    def _least_due_s(self, record: PendingRecord) -> float:
        retry = self.policy.retry
        assert retry is not None
        doubled = retry.delay_s * 2 ** max(0, self.failures[record.value] - 1)
        return self.now_s + float(min(doubled, retry.max_delay_s)) / 2

    def check_results(self) -> None:
        """Check what was given once all is done: all of it, once, in the order of each key."""
        assert sorted(self.given) == list(range(len(self.groups)))
        if self.limits.order != "none":
            by_group = defaultdict(list)
            for each in self.given:
                by_group[self.groups[each]].append(each)
            assert all(numbers == sorted(numbers) for numbers in by_group.values())

    def _open(self) -> None:
        records = PendingRecords("calls", INT, self.stored.rows)
        share = iter(range(10**9))
        chances = Chances(lambda: next(share) % 11 / 10)
        self.queue = CallQueue(records, self.limits, self.policy, chances, self.now_s)
        self.queue.is_paced = self.is_paced
        waiting = [each.value for each in records.by_number.values()]
        assert sorted([*waiting, *self.given]) == list(range(self.added))
        for each in records.by_number.values():
            # The next run has all attempts for a record at which the job stops.
            is_forgotten = self.policy.last == "fail" and each.attempts == 0
            assert is_forgotten or each.attempts == self.failures[each.value]
            self.failures[each.value] = each.attempts


KINDS: Final = (
    *("add", "add", "begin", "begin", "wait", "returns", "returns", "fails", "fails"),
    *("row fails", "fails for good", "row fails for good", "take", "take"),
    *("remove", "remove", "give back", "commit", "crash"),
)


def actions_of(chance: Random, kinds: Sequence[str] = KINDS) -> list[Action]:
    """Return what happens in a run; some kinds are more frequent than others in each."""
    weights = [chance.random() for _ in kinds]
    count = chance.randint(0, 80)
    return [
        (kind, chance.randint(0, 3), chance.randint(0, 4))
        for kind in chance.choices(kinds, weights, k=count)
    ]


def groups_of(chance: Random) -> list[bytes | None]:
    """Return the keys of some records."""
    known = GROUPS[: chance.choice([1, 2, 4])]
    return [chance.choice(known) for _ in range(chance.randint(0, 14))]


def each_seed(count: int) -> Callable[[Callable[[Random], None]], Callable[[], None]]:
    """Call a test with random numbers of that many seeds; an error names its seed in a note."""

    def decorate(test: Callable[[Random], None]) -> Callable[[], None]:
        def run() -> None:
            for seed in range(_DEEP_FACTOR * count if IS_DEEP else count):
                try:
                    test(Random(seed))
                except BaseException as error:
                    error.add_note(f"with the seed {seed}")
                    raise

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate
