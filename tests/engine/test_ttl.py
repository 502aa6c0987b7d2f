"""Values that are gone some time after they were set, in event time."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import msgspec
import pytest

from streamkit import App, Context, State
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.timers import Timer
from streamkit.errors import UsageError
from streamkit.testing.job import TestJob


class Tap(msgspec.Struct, frozen=True):
    key: str
    at: int
    fails: bool = False


class Seen(msgspec.Struct):
    """Can be changed in place."""

    times: list[int] = []


class Failure(Exception):
    pass


Taps = Stream[Tap]


def counting(*, ttl: float | None = 0.1, out_of_order: float = 0) -> tuple[App, Taps, Stream[int]]:
    """An app that counts the taps of a key, with a number for 100 ms."""
    app = App("counting")
    taps = app.stream("taps", Tap, event_time=lambda tap: tap.at, out_of_order=out_of_order)

    def counted(tap: Tap, state: State[int]) -> int:
        state.set(state.get(0) + 1)
        if tap.fails:
            raise Failure
        return state.get(0)

    found = taps.key_by(lambda tap: tap.key).stateful(int, counted, ttl=ttl, on_error="skip")
    return app, taps, found


def listing(*, out_of_order: float = 0) -> tuple[App, Taps, Stream[str]]:
    """An app that lists the times of the taps of a key, in a value that is changed in place."""
    app = App("listing")
    taps = app.stream("taps", Tap, event_time=lambda tap: tap.at, out_of_order=out_of_order)

    def listed(tap: Tap, state: State[Seen]) -> str:
        seen = state.get() or Seen()
        seen.times.append(tap.at)
        state.set(seen)
        if tap.fails:
            raise Failure
        return f"{tap.key}{seen.times}"

    found = taps.key_by(lambda tap: tap.key).stateful(Seen, listed, ttl=0.1, on_error="skip")
    return app, taps, found


# --- When values are gone --------------------------------------------------------------


@pytest.mark.parametrize(("at", "wanted"), [(99, 2), (100, 1), (101, 1)])
def test_a_value_is_gone_when_its_time_is_over(at: int, wanted: int) -> None:
    app, taps, counted = counting()
    with app.test() as job:
        job.send(taps, Tap("a", 0))
        job.send(taps, Tap("a", at))
        assert job.output(counted) == [1, wanted]


@pytest.mark.parametrize("sends", [1, 2, 4])
def test_results_do_not_depend_on_how_records_are_sent(sends: int) -> None:
    app, taps, counted = counting()
    rows = [Tap("a", 0), Tap("b", 50), Tap("a", 99), Tap("b", 149), Tap("a", 199), Tap("b", 248)]
    with app.test() as job:
        for first in range(0, len(rows), sends):
            job.send(taps, *rows[first : first + sends])
        assert job.output(counted) == [1, 1, 2, 2, 1, 3]


def test_setting_a_value_keeps_it_for_longer() -> None:
    app, taps, counted = counting()
    with app.test() as job:
        job.send(taps, *(Tap("a", at) for at in (0, 80, 160, 240)))
        assert job.output(counted) == [1, 2, 3, 4]


def test_a_value_that_is_gone_takes_no_memory() -> None:
    app, taps, counted = counting()
    with app.test() as job:
        job.send(taps, Tap("a", 0), Tap("b", 50))
        job.send(taps, Tap("c", 100))
        assert [job.state(counted, key) for key in "abc"] == [None, (50, 1), (100, 1)]
        job.watermark(taps, 150)
        assert [job.state(counted, key) for key in "abc"] == [None, None, (100, 1)]


def test_a_slow_partition_does_not_make_values_of_others_live_longer() -> None:
    app, taps, counted = counting()
    with app.test() as job:
        job.send(taps, Tap("slow", 0), partition=1)
        job.send(taps, Tap("a", 0), Tap("a", 200))
        assert job.output(counted) == [1, 1, 1]


def test_a_fast_partition_does_not_remove_values_of_a_slow_one() -> None:
    app, taps, counted = counting()
    with app.test() as job:
        job.send(taps, Tap("a", 0), partition=1)
        job.send(taps, Tap("fast", 1_000))
        job.send(taps, Tap("a", 50), partition=1)
        assert job.output(counted) == [1, 1, 2]


def test_a_record_behind_the_watermark_counts_as_one_at_the_watermark() -> None:
    app, taps, counted = counting()
    with app.test() as job:
        job.send(taps, Tap("a", 0), Tap("b", 150), Tap("a", 20))
        assert job.output(counted) == [1, 1, 1]
        assert job.state(counted, "a") == (150, 1)


def test_a_record_out_of_order_does_not_make_a_value_live_shorter() -> None:
    """The value was set at 60, so it is there until 160."""
    app, taps, counted = counting(out_of_order=1)
    with app.test() as job:
        job.send(taps, Tap("a", 0), Tap("a", 60), Tap("a", 10), Tap("a", 130))
        assert job.output(counted) == [1, 2, 3, 4]


def test_values_survive_a_restart_with_their_time() -> None:
    app, taps, counted = counting()
    with app.test() as job:
        job.send(taps, Tap("a", 0), Tap("b", 50))
        job.restart()
        job.send(taps, Tap("a", 90), Tap("b", 90))
        job.restart()
        job.send(taps, Tap("c", 189))
        job.restart()
        assert job.state(counted, "a") == (90, 2)
        job.send(taps, Tap("b", 190))
        assert job.state(counted, "a") is None
        assert job.output(counted) == [1, 1, 2, 2, 1, 1]


def test_a_drained_job_remembers_values_whose_time_is_not_over() -> None:
    app, taps, counted = counting()
    with app.test() as job:
        job.send(taps, Tap("a", 0))
        job.drain()
        job.restart()
        job.send(taps, Tap("a", 50))
        assert job.output(counted) == [1, 2]


# --- Calls that fail -------------------------------------------------------------------


@pytest.mark.parametrize("make", [counting, listing])
def test_a_failed_call_leaves_a_value_and_its_time(make: Callable[[], Any]) -> None:
    app, taps, found = make()
    with app.test() as job:
        job.send(taps, Tap("a", 0))
        before = deepcopy(job.state(found, "a"))
        job.send(taps, Tap("a", 50, fails=True))
        assert job.state(found, "a") == before
        job.send(taps, Tap("a", 100))
        assert len(job.output(found)) == 2
        job.watermark(taps, 200)
        assert job.state(found, "a") is None


def test_a_value_changed_in_place_is_as_before_a_failed_call() -> None:
    app, taps, listed = listing()
    with app.test() as job:
        job.send(taps, Tap("a", 0), Tap("b", 1), Tap("a", 2), Tap("a", 3, fails=True), Tap("a", 4))
        assert job.output(listed) == ["a[0]", "b[1]", "a[0, 2]", "a[0, 2, 4]"]
        assert job.state(listed, "a") == (4, Seen([0, 2, 4]))


def test_a_failed_call_does_not_change_when_earlier_calls_have_set_a_value() -> None:
    """The value was set by a record behind the watermark of its partition, so at 150."""
    app, taps, listed = listing()
    with app.test() as job:
        job.send(taps, Tap("b", 150), Tap("a", 20), Tap("a", 160, fails=True), Tap("a", 160))
        assert job.output(listed) == ["b[150]", "a[20]", "a[20, 160]"]


def test_a_timer_gets_the_value_of_its_time() -> None:
    """At 50 the value is there, no matter how far the watermark has advanced."""
    for steps in ([], [60]):
        app = App("a")
        taps = app.stream("taps", Tap, event_time=lambda tap: tap.at)

        @app.stage(taps.key_by(lambda tap: tap.key), ttl=0.1)
        def kept(tap: Tap, state: State[int], context: Context[str]) -> int | None:
            if tap.key == "a":
                state.set(7)
                context.timer(50)
            return None

        kept.on_timer(lambda timer, state: state.get(-1))
        with app.test() as job:
            job.send(taps, Tap("a", 0))
            for at in steps:
                job.send(taps, Tap("b", at))
            job.send(taps, Tap("b", 1_000))
            assert job.output(kept) == [7], f"with steps at {steps}"


def test_a_timer_sets_a_value_at_its_time() -> None:
    app = App("a")
    taps = app.stream("taps", Tap, event_time=lambda tap: tap.at)

    @app.stage(taps.key_by(lambda tap: tap.key), ttl=0.1)
    def kept(tap: Tap, state: State[int], context: Context[str]) -> None:
        if tap.key == "a":
            context.timer(50)

    @kept.on_timer
    def fired(timer: Timer[str], state: State[int]) -> None:
        state.set(1)

    with app.test() as job:
        job.send(taps, Tap("a", 0))
        job.send(taps, Tap("b", 60))
        assert job.state(kept, "a") == (50, 1)
        job.send(taps, Tap("b", 150))
        assert job.state(kept, "a") is None


# --- Duplicates ------------------------------------------------------------------------


def test_duplicates_are_dropped_within_a_time() -> None:
    app = App("a")
    taps = app.stream("taps", Tap, event_time=lambda tap: tap.at)
    first = taps.key_by(lambda tap: tap.key).deduplicate(within=0.1)
    with app.test() as job:
        job.send(taps, *(Tap("a", at) for at in (0, 50, 99)))
        job.restart()
        job.send(taps, *(Tap("a", at) for at in (99, 100, 150, 200)))
        assert [tap.at for tap in job.output(first)] == [0, 100, 200]


def test_duplicates_are_dropped_for_ever_without_a_time() -> None:
    app = App("a")
    taps = app.stream("taps", Tap, event_time=lambda tap: tap.at)
    first = taps.key_by(lambda tap: tap.key).deduplicate()
    with app.test() as job:
        job.send(taps, Tap("a", 0), Tap("a", 10**9))
        assert [tap.at for tap in job.output(first)] == [0]


@pytest.mark.parametrize("within", [0, -1, "1h", True])
def test_a_time_for_duplicates_is_a_duration(within: Any) -> None:
    app = App("a")
    taps = app.stream("taps", Tap)
    with pytest.raises(UsageError, match=r"ttl|within"):
        taps.key_by(lambda tap: tap.key).deduplicate(within=within)


# --- Options that are refused ----------------------------------------------------------


@pytest.mark.parametrize("option", ["ttl", "migrate"])
def test_options_of_a_state_need_a_state(option: str) -> None:
    app = App("a")
    taps = app.stream("taps", Tap)
    stage: Any = app.stage
    with pytest.raises(UsageError, match=f"{option}= is for a stage that keeps a state"):
        stage(taps, **{option: 1})(lambda tap: tap)


@pytest.mark.parametrize("ttl", [0, -1, "1h", float("nan")])
def test_an_invalid_ttl_is_refused(ttl: Any) -> None:
    with pytest.raises(UsageError, match="ttl"):
        counting(ttl=ttl)


@pytest.mark.parametrize("restart", [TestJob.commit, TestJob.restart])
def test_values_are_removed_also_from_the_store(restart: Callable[[TestJob], None]) -> None:
    app, taps, counted = counting()
    with app.test() as job:
        job.send(taps, Tap("a", 0))
        restart(job)
        job.send(taps, Tap("b", 500))
        job.restart()
        assert (job.state(counted, "a"), job.state(counted, "b")) == (None, (500, 1))
