"""Hostile user code: every kind of callable with every behaviour at every moment.

In each case: every accepted record is handled, counted or processed by the next run; no record is
repeated after an orderly stop; an error names stage, record and the user's line; the job ends by
its deadline with the right exit code.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from streamkit import App
from streamkit.runtime.shutdown import EXIT_CLEAN, EXIT_FAILED
from tests.conftest import IS_DEEP
from tests.hostile.behaviours import CANCELS, HARMLESS, NO_TRUTH, RAISES, RETURNS, Behaviour
from tests.hostile.graphs import CALLS, COUNT, SINKS, SOURCES, STAGES, Ledger, Replacement, Slot
from tests.hostile.running import Outcome, Place

# The number for which the hostile call misbehaves.
MOMENTS = {"first": 0, "early": 3, "middle": COUNT // 2, "last": COUNT - 1}
NUMBERS = list(range(COUNT))
_names = itertools.count()


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    slot: Slot
    behaviour: Behaviour
    moment: str
    policy: str

    @property
    def bad(self) -> int:
        return MOMENTS[self.moment]

    @property
    def policies(self) -> dict[str, Any]:
        return {"on_error": "skip"} if self.policy == "skip" else {}

    @property
    def is_skipped(self) -> bool:
        # Ctrl-C stops the whole job, so no policy skips it.
        return self.policy == "skip" and self.behaviour.name != "raises-interrupt"

    def __str__(self) -> str:
        return f"{self.slot.name}-{self.behaviour.name}-{self.moment}-{self.policy}"


def cases() -> Iterator[Case]:
    everything = [*RAISES, *HARMLESS, *RETURNS]
    for number, (slot, behaviour) in enumerate(itertools.product([*STAGES, *SINKS], everything)):
        for at, (moment, policy) in enumerate(itertools.product(MOMENTS, ("fail", "skip"))):
            case = Case(slot, behaviour, moment, policy)
            # Without --deep, each pair is tested with one of eight moments and policies, in turn.
            if is_applicable(case) and (IS_DEEP or (number + at) % 8 == 0):
                yield case
    for slot, behaviour, moment in itertools.product(SOURCES, [*RAISES, *HARMLESS], MOMENTS):
        if IS_DEEP or moment == "middle":
            yield Case(slot, behaviour, moment, "fail")


def is_applicable(case: Case) -> bool:
    """Leave out behaviours that are valid there, such as a coroutine that a sink awaits."""
    slot, behaviour = case.slot.name, case.behaviour
    if not behaviour.is_result:
        return True
    if case.slot.is_sink:
        return slot != "async-each" and behaviour.name == "returns-generator"
    if slot in ("flat-map", "generator-stage"):
        return False
    if behaviour.name == "returns-without-repr":  # the other slots accept it as a value
        return slot in ("key", "partitioner", "shaping")
    # Only the first result of a column is checked; a later one fails where it is used.
    first_only = behaviour.name in ("returns-coroutine", "returns-generator")
    return not (first_only and case.moment != "first") and slot != "filter"


class Job:
    """A job whose hostile call misbehaves only in its first run."""

    def __init__(self, place: Place, case: Case) -> None:
        self.place = place
        self.case = case
        self.ledger = Ledger()
        self.is_hostile = True
        self.name = f"hostile-{next(_names)}"

    def app(self) -> App:
        app = App(self.name)
        self.case.slot.build(app, self.trick, self.ledger, self.case.policies)
        return app

    def trick(self, value: int) -> Any:
        if not self.is_hostile or value != self.case.bad:
            return None
        result = self.case.behaviour.act()
        return Replacement(result) if self.case.behaviour.is_result else None

    def run(self) -> Outcome:
        run, reports = self.place.run(self.app())
        return self.place.finish(run, reports)

    def fixed_run(self) -> Outcome:
        self.is_hostile = False
        return self.run()


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_hostile_code_loses_and_repeats_nothing(place: Place, case: Case) -> None:
    job = Job(place, case)
    first = job.run()
    if case.behaviour.words is None:
        assert first.code == EXIT_CLEAN, first.error
    elif case.is_skipped and case.slot.skips:
        assert first.code == EXIT_CLEAN, first.error
        assert_skipped(first, job)
        return
    else:
        assert first.code == EXIT_FAILED
        assert_error_is_complete(first, job)
        assert_done_up_to(job, case.bad)
    assert_counts_add_up(first)
    second = job.fixed_run()
    assert second.code == EXIT_CLEAN, second.error
    assert_each_once(job)


def assert_error_is_complete(outcome: Outcome, job: Job) -> None:
    """Assert that the error has stage, record, cause, and the user's file."""
    case = job.case
    assert case.behaviour.words is not None
    assert case.behaviour.words in outcome.error
    assert "hostile'" in outcome.error
    assert "\x1b" not in outcome.error
    assert len(outcome.error) < 5_000
    assert "tests/hostile/" in outcome.error
    if case.slot in SOURCES:
        assert f"failed after {case.bad} values" in outcome.error
    elif case.slot.is_list:
        assert "numbers-0 offset " in outcome.error
    else:
        assert f"numbers-0 offset {case.bad}:" in outcome.error


def assert_done_up_to(job: Job, bad: int) -> None:
    """Assert that the sinks have exactly the records before the failure."""
    exact = not job.case.slot.is_list
    recorded = job.ledger.recorded
    assert recorded == NUMBERS[: len(recorded)]
    assert len(recorded) == bad if exact else len(recorded) <= bad
    copies = job.place.values(f"out-{job.name}")
    assert copies == NUMBERS[: len(recorded)]


def assert_skipped(outcome: Outcome, job: Job) -> None:
    """Assert that one record is counted as skipped and every sink has all others."""
    bad = job.case.bad
    others = [number for number in NUMBERS if number != bad]
    counts = outcome.counts("hostile")
    assert counts.skipped == 1
    assert any(
        "skipped: stage 'hostile' failed on numbers-0" in each for each in outcome.reports.notes
    )
    assert_counts_add_up(outcome)
    copies = job.place.values(f"out-{job.name}")
    if job.case.slot.is_sink:
        assert set(job.ledger.written) >= set(others)
        assert copies == job.ledger.recorded == NUMBERS
    elif job.case.slot.name in ("key", "partitioner", "shaping"):
        assert copies == others
        assert job.ledger.recorded == NUMBERS
    else:
        assert copies == job.ledger.recorded == others


def assert_counts_add_up(outcome: Outcome) -> None:
    assert outcome.reports.end is not None
    for stage in outcome.reports.end.stages:
        assert stage.taken == stage.handled + stage.dropped + stage.skipped, stage
        assert min(stage.taken, stage.handled, stage.dropped, stage.skipped, stage.given) >= 0


def assert_each_once(job: Job) -> None:
    """Assert that after all runs every sink has every number once, in order."""
    assert job.ledger.recorded == NUMBERS
    assert job.place.values(f"out-{job.name}") == NUMBERS
    if job.case.slot.is_sink:
        seen = Counter(job.ledger.written)
        assert sorted(seen) == NUMBERS
        # A failed list is repeated as a whole. A single row is repeated only if the sink
        # recorded it before it returned an invalid result.
        repeated = {number for number, times in seen.items() if times > 1}
        allowed = {job.case.bad} if job.case.behaviour.is_result else set()
        assert job.case.slot.is_list or repeated <= allowed
    assert job.ledger.overlaps == 0


@pytest.mark.parametrize("behaviour", [*RAISES, *HARMLESS], ids=lambda each: each.name)
@pytest.mark.parametrize("slot", CALLS, ids=lambda each: each.name)
def test_a_job_with_a_hostile_open_flush_or_close_stops_in_order(
    place: Place, slot: Slot, behaviour: Behaviour
) -> None:
    job = Job(place, Case(slot, behaviour, "first", "fail"))
    first = job.run()
    if behaviour.words is None:
        assert first.code == EXIT_CLEAN, first.error
    else:
        assert first.code == EXIT_FAILED
        assert behaviour.words in first.error
        assert "Table" in first.error or "hostile" in first.error
        assert "\x1b" not in first.error
    assert job.fixed_run().code == EXIT_CLEAN
    assert sorted(set(job.ledger.flushed)) == NUMBERS
    assert sorted(set(place.values(f"out-{job.name}"))) == NUMBERS
    if slot.name == "class-close":  # everything is committed before
        assert sorted(job.ledger.flushed) == NUMBERS
    assert job.ledger.overlaps == 0


@pytest.mark.parametrize("slot", [*STAGES, *SINKS], ids=lambda each: each.name)
def test_code_that_cancels_its_own_task_does_not_end_the_job_silently(
    place: Place, slot: Slot
) -> None:
    job = Job(place, Case(slot, CANCELS, "middle", "fail"))
    first = job.run()
    assert first.code in (EXIT_CLEAN, EXIT_FAILED)
    if first.code == EXIT_CLEAN:
        assert first.counts("numbers" if slot.name != "decode" else "hostile").taken == COUNT
    assert job.fixed_run().code == EXIT_CLEAN
    assert sorted(set(job.ledger.recorded)) == NUMBERS
    assert sorted(set(place.values(f"out-{job.name}"))) == NUMBERS


def test_a_predicate_result_without_a_truth_value_is_an_error_of_its_record(place: Place) -> None:
    slot = next(each for each in STAGES if each.name == "filter")
    job = Job(place, Case(slot, NO_TRUTH, "middle", "fail"))
    first = job.run()
    assert first.code == EXIT_FAILED
    assert f"numbers-0 offset {job.case.bad}:" in first.error
    assert_done_up_to(job, job.case.bad)
    assert job.fixed_run().code == EXIT_CLEAN
    assert_each_once(job)


@pytest.mark.parametrize("behaviour", [RAISES[0], RAISES[1], HARMLESS[0]], ids=lambda e: e.name)
@pytest.mark.parametrize("slot", [*STAGES, *SINKS, *SOURCES], ids=lambda each: each.name)
def test_a_stop_during_hostile_code_loses_and_repeats_nothing(
    place: Place, slot: Slot, behaviour: Behaviour
) -> None:
    job = Job(place, Case(slot, behaviour, "middle", "fail"))
    run, reports = place.run(job.app())
    act = behaviour.act

    signals = iter([15])

    def stop_then_act() -> Any:
        for number in signals:  # only once, because a second signal would force the stop
            run.signal_from_anywhere(number)
        return act()

    object.__setattr__(job.case, "behaviour", Behaviour("stops", stop_then_act, behaviour.words))
    first = place.finish(run, reports)
    # The stop may be handled before or after the failure; both are orderly stops.
    assert first.code in (EXIT_CLEAN, EXIT_FAILED)
    assert reports.phases[:4] == ["stopping sources", "draining", "flushing", "committing"]
    assert_counts_add_up(first)
    assert job.fixed_run().code == EXIT_CLEAN
    assert_each_once(job)
