"""Timers: set, replaced, cancelled, called in order, and kept over failures and restarts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from streamkit import App, Context, State
from streamkit.dataflow.decorated_function import Stage
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.timers import Timer
from streamkit.errors import StageError, TopologyError
from streamkit.testing.job import TestJob


class Tap(msgspec.Struct, frozen=True):
    """Something happened to a key; ``timers`` are set, in ms, and ``cancels`` are removed."""

    key: str
    at: int
    timers: dict[str, int] = {}
    cancels: list[str] = []
    fails: bool = False


class Failure(Exception):
    pass


Taps = Stream[Tap]
Tapped = Stage[Any, Any, str]


def taps_app(on_error: Any = "fail", *, out_of_order: float = 0) -> tuple[App, Taps, Tapped]:
    """An app whose stage counts taps, and sets the timers that they name."""
    app = App("taps")
    taps = app.stream("taps", Tap, event_time=lambda tap: tap.at, out_of_order=out_of_order)

    @app.stage(taps.key_by(lambda tap: tap.key), name="tapped", on_error=on_error)
    def tapped(tap: Tap, state: State[int], context: Context[str]) -> str | None:
        state.set(state.get(0) + 1)
        for name, at in tap.timers.items():
            context.timer(at, name)
        for name in tap.cancels:
            context.cancel_timer(name)
        if tap.fails:
            raise Failure
        return None

    tapped.to("fired")
    return app, taps, tapped


def with_timers(on_error: Any = "fail", *, out_of_order: float = 0) -> tuple[App, Taps, Tapped]:
    """The same app, which emits each timer with the count of its key."""
    app, taps, tapped = taps_app(on_error, out_of_order=out_of_order)

    @tapped.on_timer
    def fired(timer: Timer[str], state: State[int]) -> str:
        return f"{timer.key} {timer.name} {ms(timer.time)} {state.get(0)}"

    return app, taps, tapped


def ms(time: datetime) -> int:
    return round(time.timestamp() * 1_000)


def fired_by(*taps: Tap) -> list[str]:
    """Return the results of timers of taps that come one after another."""
    app, source, tapped = with_timers()
    with app.test() as job:
        for tap in taps:
            job.send(source, tap)
        return job.output(tapped)


END = Tap("end", 1_000)


# --- Set, replaced, cancelled ----------------------------------------------------------


def test_a_timer_is_called_when_the_watermark_reaches_its_time() -> None:
    app, taps, tapped = with_timers()
    with app.test() as job:
        job.send(taps, Tap("a", 0, {"t": 50}))
        job.send(taps, Tap("b", 49))
        assert job.output(tapped) == []
        job.send(taps, Tap("b", 50))
        assert job.output(tapped) == ["a t 50 1"]
        job.send(taps, END)
        assert job.output(tapped) == ["a t 50 1"]


def test_the_result_of_a_timer_has_its_time_and_its_key() -> None:
    app, taps, tapped = with_timers()
    with app.test() as job:
        job.send(taps, Tap("a", 0, {"t": 50}))
        job.send(taps, END)
        (record,) = job.records(tapped)
        assert (record.key, record.timestamp_ms) == (b"a", 50)


def test_a_timer_has_its_key_its_time_and_its_name() -> None:
    app = App("a")
    taps = app.stream("taps", Tap, event_time=lambda tap: tap.at)
    found: list[Timer[bytes]] = []

    @app.stage(taps.key_by(lambda tap: tap.key))
    def kept(tap: Tap, state: State[int], context: Context[bytes]) -> None:
        if tap.key == "a":
            context.timer(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))

    kept.on_timer(lambda timer, state: found.append(timer))
    with app.test() as job:
        job.send(taps, Tap("a", 0))
        job.send(taps, Tap("b", 1_000))
    assert found == [Timer(b"a", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), "timer")]


def test_a_timer_of_the_same_name_is_replaced() -> None:
    assert fired_by(Tap("a", 0, {"t": 50}), Tap("a", 1, {"t": 80}), END) == ["a t 80 2"]
    assert fired_by(Tap("a", 0, {"t": 50}), Tap("a", 1, {"t": 20}), END) == ["a t 20 2"]


def test_timers_of_other_names_and_keys_stay() -> None:
    found = fired_by(Tap("a", 0, {"t": 50, "u": 60}), Tap("b", 1, {"t": 55}), END)
    assert found == ["a t 50 1", "b t 55 1", "a u 60 1"]


def test_a_cancelled_timer_is_not_called() -> None:
    found = fired_by(
        Tap("a", 0, {"t": 50, "u": 60}), Tap("a", 1, cancels=["t", "unknown"]), Tap("b", 2), END
    )
    assert found == ["a u 60 2"]


def test_a_cancelled_timer_can_be_set_again() -> None:
    found = fired_by(
        Tap("a", 0, {"t": 50}), Tap("a", 1, cancels=["t"]), Tap("a", 2, {"t": 70}), END
    )
    assert found == ["a t 70 3"]


def test_the_last_request_of_a_call_counts() -> None:
    found = fired_by(Tap("a", 0, {"t": 50}), Tap("a", 1, {"t": 60}, cancels=["t"]), END)
    assert found == []


# --- Order -----------------------------------------------------------------------------


def test_timers_of_one_slice_are_called_in_order_of_time() -> None:
    taps = [Tap("a", 0, {"x": 90, "y": 10}), Tap("b", 1, {"x": 50}), Tap("c", 2, {"x": 30})]
    found = fired_by(*taps, END)
    assert found == ["a y 10 1", "c x 30 1", "b x 50 1", "a x 90 1"]


def test_timers_come_after_the_records_of_their_slice() -> None:
    app, taps, tapped = with_timers()
    with app.test() as job:
        job.send(taps, Tap("a", 0, {"t": 50}))
        job.send(taps, Tap("a", 60), Tap("a", 70))
        assert job.output(tapped) == ["a t 50 3"]


def test_a_timer_in_the_past_comes_at_the_watermark() -> None:
    app, taps, tapped = with_timers()
    with app.test() as job:
        job.send(taps, Tap("b", 100))
        job.send(taps, Tap("a", 100, {"t": 20}))
        assert job.output(tapped) == ["a t 100 1"]


def test_the_time_of_a_timer_does_not_depend_on_the_records_after_it() -> None:
    app, taps, tapped = with_timers()
    with app.test() as job:
        job.send(taps, Tap("a", 0, {"t": 10}), Tap("b", 100), Tap("a", 101))
        assert [each.split()[2] for each in job.output(tapped)] == ["10"]


def test_the_slowest_partition_decides_when_a_timer_is_called() -> None:
    app, taps, tapped = with_timers()
    with app.test() as job:
        job.send(taps, Tap("b", 0), partition=1)
        job.send(taps, Tap("a", 0, {"t": 50}), Tap("a", 100))
        assert job.output(tapped) == []
        job.send(taps, Tap("b", 50), partition=1)
        assert job.output(tapped) == ["a t 50 2"]


def test_out_of_order_holds_timers_back() -> None:
    app, taps, tapped = with_timers(out_of_order=0.03)
    with app.test() as job:
        job.send(taps, Tap("a", 0, {"t": 50}), Tap("a", 79))
        assert job.output(tapped) == []
        job.send(taps, Tap("a", 80))
        assert job.output(tapped) == ["a t 50 3"]


# --- State and drain -------------------------------------------------------------------


def test_a_timer_can_change_the_state_of_its_key() -> None:
    app, taps, tapped = refusing("fail")
    with app.test() as job:
        job.send(taps, Tap("a", 0, {"x": 10, "y": 20}))
        job.send(taps, END)
        assert job.output(tapped) == ["a x 101", "a y 201"]
        assert job.state(tapped, "a") == 201


def test_a_drained_job_calls_all_timers() -> None:
    app, taps, tapped = with_timers()
    with app.test() as job:
        job.send(taps, Tap("a", 0, {"t": 50, "u": 10**12}))
        job.drain()
        assert job.output(tapped) == ["a t 50 1", "a u 1000000000000 1"]


# --- Failures --------------------------------------------------------------------------


def refusing(on_error: Any) -> tuple[App, Taps, Tapped]:
    """An app whose timers change the state, and fail if their name is ``bad``."""
    app, taps, tapped = taps_app(on_error)

    @tapped.on_timer
    def fired(timer: Timer[str], state: State[int]) -> str:
        state.set(state.get(0) + 100)
        if timer.name == "bad":
            raise Failure
        return f"{timer.key} {timer.name} {state.get()}"

    return app, taps, tapped


def test_a_call_that_fails_sets_no_timer() -> None:
    app, taps, tapped = with_timers("skip")
    with app.test() as job:
        job.send(
            taps,
            Tap("a", 0, {"t": 30}),
            Tap("a", 1, {"t": 50, "u": 60}, cancels=["t"], fails=True),
            Tap("a", 2, {"v": 70}),
        )
        job.send(taps, END)
        assert job.output(tapped) == ["a t 30 2", "a v 70 2"]


def test_a_timer_that_fails_with_skip_leaves_nothing() -> None:
    app, taps, tapped = refusing("skip")
    with app.test() as job:
        job.send(
            taps, Tap("a", 0, {"x": 10, "bad": 20, "z": 30}), Tap("b", 0, {"bad": 15, "y": 25})
        )
        job.send(taps, END)
        assert job.output(tapped) == ["a x 101", "b y 101", "a z 201"]
        assert (job.state(tapped, "a"), job.state(tapped, "b")) == (201, 101)
        job.drain()
        assert len(job.output(tapped)) == 3


def test_a_timer_that_fails_with_fail_leaves_everything_as_it_was() -> None:
    app, taps, tapped = refusing("fail")
    with app.test() as job:
        job.send(taps, Tap("a", 0, {"x": 10, "bad": 20}))
        for _ in range(2):  # it is still there, and fails again
            with pytest.raises(StageError, match="tapped"):
                job.send(taps, END)
            assert job.output(tapped) == []
            assert (job.state(tapped, "a"), job.state(tapped, "end")) == (1, None)


def test_a_timer_that_fails_at_a_tick_leaves_everything_as_it_was() -> None:
    app, taps, tapped = refusing("fail")
    with app.test() as job:
        job.send(taps, Tap("a", 0, {"x": 10, "bad": 20}))
        with pytest.raises(StageError):
            job.watermark(taps, 1_000)
        assert (job.output(tapped), job.state(tapped, "a")) == ([], 1)
        with pytest.raises(StageError):
            job.drain()
        assert (job.output(tapped), job.state(tapped, "a")) == ([], 1)


# --- Restarts --------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [TestJob.restart, TestJob.commit])
def test_timers_survive_a_restart(restart: Callable[[TestJob], None]) -> None:
    app, taps, tapped = with_timers()
    with app.test() as job:
        job.send(taps, Tap("a", 0, {"t": 50, "u": 70, "v": 60}), Tap("b", 0, {"t": 55}))
        restart(job)
        job.send(taps, Tap("a", 1, {"u": 90}, cancels=["v"]))
        restart(job)
        job.send(taps, Tap("b", 56))
        restart(job)
        job.send(taps, END)
        assert job.output(tapped) == ["a t 50 2", "b t 55 2", "a u 90 2"]


# --- Apps that are refused -------------------------------------------------------------


def test_timers_need_a_state() -> None:
    app = App("a")
    taps = app.stream("taps", Tap)

    @app.stage(taps)
    def plain(tap: Tap, context: Context[str]) -> Tap:
        return tap

    with pytest.raises(TopologyError, match="'plain' cannot have timers"):
        plain.on_timer(lambda timer, state: None)


def test_timers_need_a_context() -> None:
    app = App("a")
    taps = app.stream("taps", Tap)

    @app.stage(taps.key_by(lambda tap: tap.key))
    def counted(tap: Tap, state: State[int]) -> Tap:
        return tap

    with pytest.raises(TopologyError, match="'counted' cannot have timers"):
        counted.on_timer(lambda timer, state: None)


def test_a_stage_has_one_function_for_timers() -> None:
    _, _, tapped = with_timers()
    with pytest.raises(TopologyError, match="has a function for timers already"):
        tapped.on_timer(lambda timer, state: None)


def test_a_function_for_timers_gets_a_timer_and_a_state() -> None:
    _, _, tapped = taps_app()
    with pytest.raises(TopologyError, match="cannot be called"):
        tapped.on_timer(lambda timer: None)  # type: ignore[arg-type, misc]


def test_a_timer_without_a_function_for_timers_fails_its_record() -> None:
    app, taps, _ = taps_app()
    with app.test() as job, pytest.raises(StageError, match="on_timer"):
        job.send(taps, Tap("a", 0, {"t": 50}))


@pytest.mark.parametrize(
    ("at", "words"),
    [(datetime(2024, 1, 1), "no time zone"), (1.5, "float"), (-1, "1970")],  # noqa: DTZ001
)
def test_an_invalid_time_of_a_timer_fails_its_record(at: Any, words: str) -> None:
    app = App("a")
    taps = app.stream("taps", Tap)

    @app.stage(taps.key_by(lambda tap: tap.key))
    def kept(tap: Tap, state: State[int], context: Context[str]) -> None:
        context.timer(at)

    kept.on_timer(lambda timer, state: None)
    with app.test() as job, pytest.raises(StageError, match=words):
        job.send(taps, Tap("a", 0))
