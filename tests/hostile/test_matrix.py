"""Hostile user code: every callable, every behaviour, at every moment, judged by one oracle.

The oracle: what was accepted is handled, counted, named, or done by the next run; nothing comes
twice after an end in order; an error names stage, record and the user's line; the job ends by its
deadline with the right exit code.
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
from tests.hostile.graphs import CALLS, COUNT, SINKS, SOURCES, STAGES, Instead, Ledger, Slot
from tests.hostile.running import Outcome, Place

# Which number the hostile call is about.
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
        # Ctrl-C is about the whole job, so no policy leaves it out.
        return self.policy == "skip" and self.behaviour.name != "raises-interrupt"

    def __str__(self) -> str:
        return f"{self.slot.name}-{self.behaviour.name}-{self.moment}-{self.policy}"


def cases() -> Iterator[Case]:
    everything = [*RAISES, *HARMLESS, *RETURNS]
    for number, (slot, behaviour) in enumerate(itertools.product([*STAGES, *SINKS], everything)):
        for at, (moment, policy) in enumerate(itertools.product(MOMENTS, ("fail", "skip"))):
            case = Case(slot, behaviour, moment, policy)
            # The quick lane takes one of eight moments and policies for each pair, in turn.
            if is_meant(case) and (IS_DEEP or (number + at) % 8 == 0):
                yield case
    for slot, behaviour, moment in itertools.product(SOURCES, [*RAISES, *HARMLESS], MOMENTS):
        if IS_DEEP or moment == "middle":
            yield Case(slot, behaviour, moment, "fail")


def is_meant(case: Case) -> bool:
    """Leave out what is no fault there: a sink awaits a coroutine, a generator yields numbers."""
    slot, behaviour = case.slot.name, case.behaviour
    if not behaviour.is_result:
        return True
    if case.slot.is_sink:
        return slot != "async-each" and behaviour.name == "returns-generator"
    if slot in ("flat-map", "generator-stage"):
        return False
    if behaviour.name == "returns-unshowable":  # elsewhere it is a value like any other
        return slot in ("key", "partitioner", "shaping")
    # Only the first result of a column is looked at; a later one fails where it is used.
    first_only = behaviour.name in ("returns-coroutine", "returns-generator")
    return not (first_only and case.moment != "first") and slot != "filter"


class Job:
    """A job whose hostile call misbehaves in its first run, and no more afterwards."""

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
        return Instead(result) if self.case.behaviour.is_result else None

    def run(self) -> Outcome:
        run, heard = self.place.run(self.app())
        return self.place.finish(run, heard)

    def mended_run(self) -> Outcome:
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
        assert_left_out(first, job)
        return
    else:
        assert first.code == EXIT_FAILED
        assert_named(first, job)
        assert_done_up_to(job, case.bad)
    assert_counts_add_up(first)
    second = job.mended_run()
    assert second.code == EXIT_CLEAN, second.error
    assert_each_once(job)


def assert_named(outcome: Outcome, job: Job) -> None:
    """Assert that the error names stage, record, cause, and the user's file."""
    case = job.case
    assert case.behaviour.words is not None
    assert case.behaviour.words in outcome.error
    assert "hostile'" in outcome.error
    assert "\x1b" not in outcome.error
    assert len(outcome.error) < 5_000
    assert "tests/hostile/" in outcome.error
    if case.slot in SOURCES:
        assert f"behind value {case.bad}" in outcome.error
    elif case.slot.is_list:
        assert "numbers-0 offset " in outcome.error
    else:
        assert f"numbers-0 offset {case.bad}:" in outcome.error


def assert_done_up_to(job: Job, bad: int) -> None:
    """Assert that exactly what came before the failure is in the sinks."""
    exact = not job.case.slot.is_list
    recorded = job.ledger.recorded
    assert recorded == NUMBERS[: len(recorded)]
    assert len(recorded) == bad if exact else len(recorded) <= bad
    copies = job.place.values(f"out-{job.name}")
    assert copies == NUMBERS[: len(recorded)]


def assert_left_out(outcome: Outcome, job: Job) -> None:
    """Assert that one record is counted as skipped and all others went everywhere."""
    bad = job.case.bad
    others = [number for number in NUMBERS if number != bad]
    counts = outcome.counts("hostile")
    assert counts.skipped == 1
    assert any(
        "skipped: stage 'hostile' failed on numbers-0" in each for each in outcome.heard.notes
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
    assert outcome.heard.end is not None
    for stage in outcome.heard.end.stages:
        assert stage.taken == stage.handled + stage.dropped + stage.skipped, stage
        assert min(stage.taken, stage.handled, stage.dropped, stage.skipped, stage.given) >= 0


def assert_each_once(job: Job) -> None:
    """Assert that after all runs every sink has every number once, in order."""
    assert job.ledger.recorded == NUMBERS
    assert job.place.values(f"out-{job.name}") == NUMBERS
    if job.case.slot.is_sink:
        seen = Counter(job.ledger.written)
        assert sorted(seen) == NUMBERS
        # A list that failed is given again as a whole; of single rows none is, but for the one
        # that the sink had noted before it returned what is no result.
        again = {number for number, times in seen.items() if times > 1}
        allowed = {job.case.bad} if job.case.behaviour.is_result else set()
        assert job.case.slot.is_list or again <= allowed
    assert job.ledger.overlaps == 0


@pytest.mark.parametrize("behaviour", [*RAISES, *HARMLESS], ids=lambda each: each.name)
@pytest.mark.parametrize("slot", CALLS, ids=lambda each: each.name)
def test_a_hostile_open_flush_or_close_ends_the_job_in_order(
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
    assert job.mended_run().code == EXIT_CLEAN
    assert sorted(set(job.ledger.flushed)) == NUMBERS
    assert sorted(set(place.values(f"out-{job.name}"))) == NUMBERS
    if slot.name == "class-close":  # everything was committed before
        assert sorted(job.ledger.flushed) == NUMBERS
    assert job.ledger.overlaps == 0


@pytest.mark.parametrize("slot", [*STAGES, *SINKS], ids=lambda each: each.name)
def test_code_that_cancels_the_task_it_runs_in_does_not_end_the_job_in_silence(
    place: Place, slot: Slot
) -> None:
    job = Job(place, Case(slot, CANCELS, "middle", "fail"))
    first = job.run()
    assert first.code in (EXIT_CLEAN, EXIT_FAILED)
    if first.code == EXIT_CLEAN:
        assert first.counts("numbers" if slot.name != "decode" else "hostile").taken == COUNT
    assert job.mended_run().code == EXIT_CLEAN
    assert sorted(set(job.ledger.recorded)) == NUMBERS
    assert sorted(set(place.values(f"out-{job.name}"))) == NUMBERS


def test_a_truth_that_cannot_be_told_belongs_to_its_row(place: Place) -> None:
    slot = next(each for each in STAGES if each.name == "filter")
    job = Job(place, Case(slot, NO_TRUTH, "middle", "fail"))
    first = job.run()
    assert first.code == EXIT_FAILED
    assert f"numbers-0 offset {job.case.bad}:" in first.error
    assert_done_up_to(job, job.case.bad)
    assert job.mended_run().code == EXIT_CLEAN
    assert_each_once(job)


@pytest.mark.parametrize("behaviour", [RAISES[0], RAISES[1], HARMLESS[0]], ids=lambda e: e.name)
@pytest.mark.parametrize("slot", [*STAGES, *SINKS, *SOURCES], ids=lambda each: each.name)
def test_a_stop_in_the_middle_of_hostile_code_loses_and_repeats_nothing(
    place: Place, slot: Slot, behaviour: Behaviour
) -> None:
    job = Job(place, Case(slot, behaviour, "middle", "fail"))
    run, heard = place.run(job.app())
    act = behaviour.act

    signals = iter([15])

    def stop_then_act() -> Any:
        for number in signals:  # a second one would be force
            run.signal_from_anywhere(number)
        return act()

    object.__setattr__(job.case, "behaviour", Behaviour("stops", stop_then_act, behaviour.words))
    first = place.finish(run, heard)
    # The stop may be heard before or after the failure; either is an end in order.
    assert first.code in (EXIT_CLEAN, EXIT_FAILED)
    assert heard.phases[:4] == ["stopping sources", "draining", "flushing", "committing"]
    assert_counts_add_up(first)
    assert job.mended_run().code == EXIT_CLEAN
    assert_each_once(job)
