"""Hostile code that is called outside of slices, or again: every callable, behaviour and policy.

The rules are those of the matrix of plain callables: every accepted record is handled, counted, put
aside or processed by the next run; no record is repeated after an orderly stop; an error names
stage, record and the user's line.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from streamkit import App
from streamkit.dataflow.dead_letters import decode_letter
from streamkit.policies import dead_letter, retry
from streamkit.runtime.shutdown import EXIT_CLEAN, EXIT_FAILED
from streamkit.sync import Client
from tests.conftest import IS_DEEP
from tests.hostile.behaviours import CANCELS, HARMLESS, RAISES, RETURNS, Behaviour
from tests.hostile.call_graphs import (
    BY_KEY,
    CALLED_SINKS,
    IN_ORDER,
    KEYS,
    RETRIED,
    RETRIED_SINKS,
    awaiting,
)
from tests.hostile.graphs import Ledger, Replacement, Slot
from tests.hostile.running import Outcome, Place
from tests.hostile.test_matrix import MOMENTS, NUMBERS

POLICIES = ("fail", "skip", "dead letter", "retry", "retry then skip", "passes")
RETRYING = ("retry", "retry then skip", "passes")
# The quick test run tries each pair of callable and behaviour with one or two of these.
_MOMENTS_AND_POLICIES = list(itertools.product(MOMENTS, POLICIES))
_QUICK_SHARE = 80
# Errors that are no `Exception` are not retried.
_FINAL = ("raises-cancelled", "raises-exit", "raises-interrupt", "raises-generator-exit")
_names = itertools.count()


class Awaited:
    """A result of `Behaviour.act` that an async callable awaits."""

    def __init__(self, begin: Callable[[], Awaitable[Any]]) -> None:
        self.begin = begin


@dataclass(frozen=True)
class Case:
    slot: Slot
    behaviour: Behaviour
    moment: str
    policy: str

    @property
    def bad(self) -> int:
        return MOMENTS[self.moment]

    @property
    def is_final(self) -> bool:
        return self.behaviour.name in _FINAL

    @property
    def is_interrupt(self) -> bool:
        return self.behaviour.name == "raises-interrupt"

    @property
    def end(self) -> str:
        """What becomes of the bad record: handled, fails, skipped or put aside."""
        if self.behaviour.words is None:
            return "handled"
        if self.is_interrupt:
            return "fails"
        if self.policy == "passes":
            return "fails" if self.is_final else "handled"
        return {"fail": "fails", "retry": "fails", "dead letter": "put aside"}.get(
            self.policy, "skipped"
        )

    def policies(self, app: str) -> dict[str, Any]:
        retries = retry(3, delay=0.002)
        chosen: dict[str, Any] = {
            "fail": "fail",
            "skip": "skip",
            "dead letter": dead_letter(f"dead-{app}"),
            "retry": retries,
            "retry then skip": retries.then("skip"),
            "passes": retries,
        }
        return {"on_error": chosen[self.policy]}

    def __str__(self) -> str:
        return f"{self.slot.name}-{self.behaviour.name}-{self.moment}-{self.policy}"


def cases() -> Iterator[Case]:
    slots = [*IN_ORDER, *BY_KEY, *RETRIED, *CALLED_SINKS, *RETRIED_SINKS]
    pairs = itertools.product(slots, [*RAISES, *HARMLESS, *RETURNS])
    for number, (slot, behaviour) in enumerate(pairs):
        for at, (moment, policy) in enumerate(_MOMENTS_AND_POLICIES):
            case = Case(slot, behaviour, moment, policy)
            is_chosen = (number * 7 + at) % _QUICK_SHARE == 0
            if is_applicable(case) and (IS_DEEP or is_chosen):
                yield case


def is_applicable(case: Case) -> bool:
    """Leave out what the matrix of plain callables has, and results that are valid."""
    slot, behaviour = case.slot, case.behaviour
    if slot in (*RETRIED, *RETRIED_SINKS) and case.policy not in RETRYING:
        return False
    if not behaviour.is_result:
        return True
    if slot.name in ("async-generator", "thread-generator", "iterated-batches"):
        return False
    if behaviour.name == "returns-without-repr":  # a value like any other, except for a topic
        # The call succeeds, so it is not made again when its result cannot be written.
        return slot.name == "async-shaping" and case.policy not in RETRYING
    if slot in RETRIED:  # only the first result of a column is checked
        return False
    if slot.is_list and not slot.is_sink:  # a value of a list may be of any type
        return False
    is_plain_sink = slot in RETRIED_SINKS or slot.name == "frame-sink"
    return not (is_plain_sink and behaviour.name == "returns-coroutine")  # it is awaited


class Job:
    """A job whose hostile call misbehaves only in its first run, and with "passes" only twice."""

    def __init__(self, place: Place, case: Case) -> None:
        self.place = place
        self.case = case
        self.ledger = Ledger()
        self.is_hostile = True
        self.times = 0
        self.name = f"hostile-calls-{next(_names)}"

    def run(self) -> Outcome:
        app = App(self.name)
        self.case.slot.build(app, self.trick, self.ledger, self.case.policies(self.name))
        run, reports = self.place.run(app)
        return self.place.finish(run, reports)

    def fixed_run(self) -> Outcome:
        self.is_hostile = False
        return self.run()

    def trick(self, value: int) -> Any:
        if not self.is_hostile or value != self.case.bad:
            return None
        self.times += 1
        if self.case.policy == "passes" and self.times > 2:
            return None
        result = self.case.behaviour.act()
        is_result = self.case.behaviour.is_result or isinstance(result, Awaited)
        return Replacement(result) if is_result else None

    def letters(self) -> list[bytes]:
        with Client.connect(self.place.address) as client:
            consumer = client.consumer(f"dead-{self.name}", start="beginning", until_end=True)
            return [bytes(value) for chunk in consumer.chunks() for value in chunk.values]


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_hostile_calls_lose_and_repeat_nothing(place: Place, case: Case) -> None:
    job = Job(place, case)
    first = job.run()
    assert_counts_add_up(first)
    if case.end == "fails":
        assert first.code == EXIT_FAILED, first.error
        assert_error_is_complete(first, job)
        if case.slot in IN_ORDER and (case.is_final or case.policy == "fail"):
            assert_done_up_to(job, case.bad)
        if not case.is_final:
            # A function of frames that is called in slices fails again with fewer records.
            times = range(1, 5) if case.slot.name == "frames" else [1]
            assert job.times in ([3] if case.policy in RETRYING else times)
        assert job.fixed_run().code == EXIT_CLEAN
        assert_each_once(job)
        return
    assert first.code == EXIT_CLEAN, first.error
    assert first.counts("hostile").pending == 0
    if case.end == "handled":
        assert_each_once(job)
    else:
        assert_left_out(first, job)
    again = job.fixed_run()
    assert again.code == EXIT_CLEAN
    assert again.counts("numbers").taken == 0


def assert_counts_add_up(outcome: Outcome) -> None:
    assert outcome.reports.end is not None
    for stage in outcome.reports.end.stages:
        ends = (stage.handled, stage.dropped, stage.skipped, stage.dead_lettered, stage.pending)
        assert stage.taken == sum(ends), stage
        assert min(ends) >= 0, stage


def assert_error_is_complete(outcome: Outcome, job: Job) -> None:
    case = job.case
    assert case.behaviour.words is not None
    assert case.behaviour.words in outcome.error
    assert "stage 'hostile' failed on numbers-0 offset " in outcome.error
    assert "\x1b" not in outcome.error
    assert len(outcome.error) < 5_000
    assert "tests/hostile/" in outcome.error
    if not case.slot.is_list:
        assert f"numbers-0 offset {case.bad}:" in outcome.error


def assert_done_up_to(job: Job, bad: int) -> None:
    recorded = job.ledger.recorded
    assert recorded == NUMBERS[: len(recorded)]
    assert len(recorded) <= bad if job.case.slot.is_list else len(recorded) == bad
    assert job.place.values(f"out-{job.name}") == recorded


def assert_left_out(outcome: Outcome, job: Job) -> None:
    """Assert that the bad record is counted, or put aside, and every other one is handled."""
    case = job.case
    others = [number for number in NUMBERS if number != case.bad]
    counts = outcome.counts("hostile")
    is_letter = case.end == "put aside"
    assert (counts.skipped, counts.dead_lettered) == ((0, 1) if is_letter else (1, 0))
    copies = sorted(job.place.values(f"out-{job.name}"))
    if case.slot.is_sink:
        assert set(job.ledger.written) >= set(others)
        assert copies == sorted(job.ledger.recorded) == NUMBERS
    elif case.slot.name == "async-shaping":
        assert copies == others
        assert job.ledger.recorded == NUMBERS
    else:
        assert copies == sorted(job.ledger.recorded) == others
    if is_letter:
        (letter,) = map(decode_letter, job.letters())
        assert (letter.stage, letter.topic, letter.partition) == ("hostile", "numbers", 0)
        assert (letter.offset, letter.value_bytes) == (case.bad, b"%d" % case.bad)
        assert letter.is_replayable
        assert letter.attempts >= 1


def assert_each_once(job: Job) -> None:
    """Assert that after all runs every sink has every number once, in order for each key."""
    case, ledger = job.case, job.ledger
    copies = job.place.values(f"out-{job.name}")
    assert sorted(ledger.recorded) == sorted(copies) == NUMBERS
    # A record that is retried comes later, and then only the order of its key is kept.
    if case.slot in IN_ORDER and case.policy not in RETRYING:
        assert ledger.recorded == copies == NUMBERS
    if case.slot.name != "async-as-they-come":
        for values in (ledger.recorded, copies):
            assert_in_order_by_key(values)
    if case.slot.is_sink:
        seen = Counter(ledger.written)
        assert sorted(seen) == NUMBERS
        repeated = {number for number, times in seen.items() if times > 1}
        # It was recorded before its call returned something that is no result.
        allowed = {case.bad} if case.behaviour.is_result else set()
        assert case.slot.is_list or repeated <= allowed
    assert ledger.overlaps == 0


def assert_in_order_by_key(values: list[int]) -> None:
    for key in range(KEYS):
        found = [value for value in values if value % KEYS == key]
        assert found == sorted(found)


# --- misuse of the event loop -----------------------------------------------------------


def awaiting_act(begin: Callable[[], Awaitable[Any]]) -> Callable[[], Any]:
    return lambda: Awaited(begin)


async def run_inside() -> None:
    work = asyncio.sleep(0)
    try:
        asyncio.run(work)
    finally:
        work.close()


async def leave_task() -> None:
    _left.add(asyncio.create_task(asyncio.sleep(60)))


async def hang() -> None:
    await asyncio.Event().wait()


async def return_late() -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        pass


async def never_end() -> None:
    for _ in range(3):
        await return_late()


async def cancel_and_wait() -> None:
    CANCELS.act()
    await asyncio.sleep(0)


async def cancel_and_return() -> None:
    CANCELS.act()


async def fail_in_group() -> None:
    async def fail() -> None:
        raise ValueError("in a task")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())
        tasks.create_task(asyncio.sleep(60))


async def own_timeout() -> None:
    async with asyncio.timeout(0.001):
        await asyncio.sleep(60)


async def own_scope() -> None:
    with anyio.move_on_after(0.001):
        await anyio.sleep(60)


async def await_cancelled_task() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


async def return_task() -> Any:
    async def nothing() -> None: ...

    task = asyncio.create_task(nothing())
    await task
    return task


_left = set[asyncio.Task[Any]]()
MISUSES = [
    Behaviour("runs-a-loop", awaiting_act(run_inside), "asyncio.run() cannot be called"),
    Behaviour("leaves-a-task", awaiting_act(leave_task), None),
    Behaviour("hangs", awaiting_act(hang), "TimeoutError: the call took longer than 1 s"),
    Behaviour("returns-late", awaiting_act(return_late), None),
    Behaviour("never-ends", awaiting_act(never_end), "did not end when it was cancelled"),
    Behaviour("cancels-and-waits", awaiting_act(cancel_and_wait), "CancelledError"),
    Behaviour("cancels-and-returns", awaiting_act(cancel_and_return), None),
    Behaviour("fails-in-a-group", awaiting_act(fail_in_group), "ExceptionGroup"),
    Behaviour("has-a-timeout", awaiting_act(own_timeout), "TimeoutError"),
    Behaviour("has-a-scope", awaiting_act(own_scope), None),
    Behaviour("awaits-a-cancelled-task", awaiting_act(await_cancelled_task), "CancelledError"),
    Behaviour("returns-a-task", awaiting_act(return_task), "TypeError"),
]
_FINAL_MISUSES = ("cancels-and-waits", "awaits-a-cancelled-task")
LOOP_SLOTS = {
    order: Slot(f"async-{order}", awaiting(ordered=order, timeout=1.0), "hostile")
    for order in (True, "key", False)
}


def misuse_cases() -> Iterator[Case]:
    everything = itertools.product(MISUSES, LOOP_SLOTS.values(), MOMENTS, POLICIES)
    for number, (behaviour, slot, moment, policy) in enumerate(everything):
        if IS_DEEP or number % 37 == 0:
            yield Case(slot, behaviour, moment, policy)


@pytest.mark.parametrize("case", list(misuse_cases()), ids=str)
def test_misuse_of_the_event_loop_affects_only_its_record(place: Place, case: Case) -> None:
    job = Job(place, case)
    end = case.end
    if case.behaviour.name in _FINAL_MISUSES and case.policy == "passes":
        end = "fails"
    first = job.run()
    assert_counts_add_up(first)
    if end == "fails":
        assert first.code == EXIT_FAILED
        assert case.behaviour.words is not None
        assert case.behaviour.words in first.error
        assert f"numbers-0 offset {case.bad}:" in first.error
        assert "tests/hostile/" in first.error
        assert job.fixed_run().code == EXIT_CLEAN
        assert sorted(job.ledger.recorded) == NUMBERS
    else:
        assert first.code == EXIT_CLEAN, first.error
        is_out = end != "handled"
        expected = [number for number in NUMBERS if not is_out or number != case.bad]
        assert sorted(job.ledger.recorded) == expected
    assert sorted(place.values(f"out-{job.name}")) == sorted(job.ledger.recorded)


# --- stops ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["fail", "retry"])
@pytest.mark.parametrize(
    "slot", [*IN_ORDER, *BY_KEY, *CALLED_SINKS, *RETRIED_SINKS], ids=lambda each: each.name
)
def test_a_stop_during_hostile_calls_loses_and_repeats_nothing(
    place: Place, slot: Slot, policy: str
) -> None:
    if slot in RETRIED_SINKS and policy == "fail":
        policy = "retry then skip"
    case = Case(slot, RAISES[0], "middle", policy)
    job = Job(place, case)
    app = App(job.name)
    stops = iter([15])

    def trick(value: int) -> Any:
        if value == case.bad:
            for number in stops:  # only once, because a second signal would force the stop
                run.signal_from_anywhere(number)
        return job.trick(value)

    slot.build(app, trick, job.ledger, case.policies(job.name))
    run, reports = place.run(app)
    first = place.finish(run, reports)
    assert first.code in (EXIT_CLEAN, EXIT_FAILED)
    assert reports.phases[:4] == ["stopping sources", "draining", "flushing", "committing"]
    assert_counts_add_up(first)
    assert job.fixed_run().code == EXIT_CLEAN
    if not (policy == "retry then skip" and first.counts("hostile").skipped):
        assert_each_once(job)
