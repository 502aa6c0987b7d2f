"""Windows as users see them: when they close, late records, restarts, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from streamkit import App
from streamkit.aggregates import Count, Sum
from streamkit.errors import StateMismatch, UsageError
from streamkit.record import Chunk
from streamkit.runtime.task import Task
from streamkit.state.states import States
from streamkit.state.store import Store
from streamkit.windows import AnyWindow, CountWindow, Session, Sliding, Tumbling, Window
from tests.engine.readings import Reading, Readings, readings

MINUTE: Final = 60_000
MINUTES: Final = Tumbling(minutes=1)


class Counted(msgspec.Struct, frozen=True):
    window_start: int
    window_end: int
    count: int


def at(*minutes: float) -> list[Reading]:
    return [Reading(round(each * MINUTE)) for each in minutes]


def counted(window: AnyWindow = MINUTES, *, late: float = 0) -> Readings:
    return readings(window, Counted, late=late, count=Count())


# --- When windows close ----------------------------------------------------------------


def test_a_window_closes_when_a_record_comes_after_its_end() -> None:
    app, source, results = counted()
    with app.test() as job:
        job.send(source, *at(0.2, 0.7))
        assert job.output(results) == []
        job.send(source, *at(1))
        assert job.output(results) == [Counted(0, MINUTE, 2)]


def test_a_window_waits_for_late_records() -> None:
    app, source, results = counted(late=30)
    with app.test() as job:
        job.send(source, *at(0.5, 1.4, 0.1))
        assert job.output(results) == []
        job.send(source, *at(1.5))
        assert job.output(results) == [Counted(0, MINUTE, 2)]


def test_windows_close_in_order_of_their_ends() -> None:
    app, source, results = counted(late=120)
    with app.test() as job:
        job.send(source, *at(2.5, 0.5, 1.5, 9))
        assert [each.window_start for each in job.output(results)] == [0, MINUTE, 2 * MINUTE]


def test_windows_close_when_the_stream_has_been_quiet_for_some_time() -> None:
    app, source, results = counted()
    with app.test() as job:
        job.send(source, *at(0.5))
        job.advance(seconds=29)
        assert job.output(results) == []
        job.advance(seconds=32)
        assert job.output(results) == [Counted(0, MINUTE, 1)]


def test_a_partition_that_lags_holds_windows_open_until_it_is_quiet() -> None:
    app, source, results = counted()
    with app.test() as job:
        job.send(source, *at(0.5), partition=1)
        job.send(source, *at(0.6, 9), partition=0)
        job.advance(seconds=30)
        job.send(source, *at(9.5), partition=0)
        assert job.output(results) == []
        job.advance(seconds=30)
        assert job.output(results) == [Counted(0, MINUTE, 2)]


def test_a_source_that_lags_holds_windows_of_merged_streams_open() -> None:
    app = App("a")
    one, two = (app.stream(name, Reading, event_time=lambda each: each.at) for name in "ab")
    results = one.merge(two).key_by(lambda each: each.key).window(MINUTES).aggregate(n=Count())
    with app.test() as job:
        job.send(two, *at(0.5))
        job.send(one, *at(0.6, 9))
        assert job.output(results) == []
        job.send(two, *at(1))
        assert [each["n"] for each in job.output(results)] == [2]


def test_a_sliding_window_closes_though_an_earlier_pane_is_for_later_windows() -> None:
    app, source, results = counted(Sliding(seconds=20, every=2))
    with app.test() as job:
        job.send(source, Reading(23_000), partition=1)
        job.send(source, Reading(27_000), Reading(9_000), partition=0)
        job.watermark(source, 24_000, partition=1)
        assert job.output(results) == [Counted(4_000, 24_000, 1)]


def test_a_stop_closes_no_window_and_drain_closes_all() -> None:
    app, source, results = counted()
    with app.test() as job:
        job.send(source, *at(0.5))
        job.restart()
        assert job.output(results) == []
        job.drain()
        assert job.output(results) == [Counted(0, MINUTE, 1)]
        job.send(source, *at(1.5))
        job.drain()
        assert job.output(results)[1:] == [Counted(MINUTE, 2 * MINUTE, 1)]


def test_a_restart_keeps_windows_and_watermarks() -> None:
    app, source, results = counted()
    late = results.late
    with app.test() as job:
        job.send(source, *at(0.5, 1.1))
        job.restart()
        job.send(source, *at(0.7, 1.2, 2))
        assert job.output(results) == [Counted(0, MINUTE, 1), Counted(MINUTE, 2 * MINUTE, 2)]
        assert job.output(late) == at(0.7)


# --- Which records count ---------------------------------------------------------------


def test_a_late_record_comes_once_in_the_stream_of_late_records_and_is_counted() -> None:
    app, source, results = counted(Sliding(minutes=2, every=60))
    late = results.late
    assert late.node is results.late.node
    task = Task(app.topology, states=States())
    times = [0.5, 5, 0.5, 4.5, 2.9]
    values = [msgspec.json.encode(each) for each in at(*times)]
    part = Chunk(values, [None] * 5, [0] * 5, range(5), "readings", 0)
    work = task.process(source.node, part)
    task.account(work, work.end)
    task.settle(work, work.end)
    assert (task.counts[results.node].late, task.counts[late.node].taken) == (2, 2)


def test_a_sliding_record_counts_in_the_windows_it_is_not_late_for() -> None:
    app, source, results = counted(Sliding(minutes=3, every=60))
    with app.test() as job:
        job.send(source, *at(2.5, 1.5))
        job.drain()
        found = {each.window_end // MINUTE: each.count for each in job.output(results)}
        assert found == {3: 2, 4: 2, 5: 1}


def test_records_of_a_session_may_have_the_same_time() -> None:
    app, source, results = counted(Session(gap=60))
    with app.test() as job:
        job.send(source, *at(1, 1, 1.5, 1.5))
        job.drain()
        assert job.output(results) == [Counted(MINUTE, 150_000, 4)]


def test_a_session_that_is_too_long_is_divided() -> None:
    app, source, results = counted(Session(gap=60, max_length=120))
    with app.test() as job:
        job.send(source, *at(0, 0.5, 1.2, 1.9, 2.1))
        job.drain()
        assert job.output(results) == [Counted(0, 2 * MINUTE, 4), Counted(126_000, 186_000, 1)]


def test_a_window_of_records_is_complete_with_the_last_of_them() -> None:
    app, source, results = counted(CountWindow(2))
    with app.test() as job:
        job.send(source, *at(2, 1, 3))
        assert job.output(results) == [Counted(MINUTE, 2 * MINUTE + 1, 2)]


def test_incomplete_windows_of_records_count_in_later_windows_when_the_job_drains() -> None:
    app, source, first = counted(CountWindow(3))
    second = first.window(MINUTES).aggregate(n=Sum(lambda each: each.count))
    with app.test() as job:
        job.send(source, Reading(1, key="a"), Reading(5 * MINUTE, key="b"))
        job.drain()
        assert [each["n"] for each in job.output(second)] == [1, 1]


@pytest.mark.parametrize("window", [MINUTES, Sliding(minutes=1, every=60), Session(gap=60)])
def test_each_change_of_a_window_is_an_update(window: AnyWindow) -> None:
    app = App("a")
    source = app.stream("readings", Reading, event_time=lambda each: each.at)
    windows = source.key_by(lambda each: each.key).window(window, emit="updates")
    results = windows.aggregate(n=Count())
    with app.test() as job:
        job.send(source, Reading(1), Reading(2), Reading(3, key="b"), Reading(4))
        job.drain()
        assert [each["n"] for each in job.output(results)] == [1, 2, 1, 3]


def early() -> tuple[App, Any, Any]:
    app = App("a")
    source = app.stream("readings", Reading, event_time=lambda each: each.at)
    windows = source.key_by(lambda each: each.key).window(MINUTES, every=20)
    results = windows.aggregate(n=Count())
    results.to("results")
    return app, source, results


def test_early_results_come_each_time_the_watermark_has_moved_on_so_far() -> None:
    app, source, results = early()
    with app.test() as job:
        for second in (1, 5, 25, 30, 45, 70):
            job.send(source, Reading(second * 1_000))
        assert [each["n"] for each in job.output(results)] == [1, 3, 5, 1, 5]


def test_early_results_of_an_undone_slice_come_again() -> None:
    app, source, _ = early()
    task = Task(app.topology, states=States())
    values = [msgspec.json.encode(Reading(second * 1_000)) for second in (1, 25)]
    part = Chunk(values, [None] * 2, [0] * 2, range(2), "readings", 0)
    work = task.process(source.node, part)
    assert sum(len(each.chunk) for each in work.outputs) == 1
    task.settle(work, 1)
    again = task.process(source.node, part.slice(1, 2))
    assert sum(len(each.chunk) for each in again.outputs) == 1


def test_apply_gets_the_window_and_its_values_in_order_of_time() -> None:
    app = App("a")
    source = app.stream("readings", Reading, event_time=lambda each: each.at)

    def shown(window: Window[str], values: list[Reading]) -> str | None:
        times = [each.at for each in values]
        seconds = (window.end - window.start).total_seconds()
        return f"{window.key} {seconds} {times}" if window.key == "a" else None

    windows = source.key_by(lambda each: each.key).window(MINUTES, late=60)
    applied = windows.apply(shown)
    with app.test() as job:
        job.send(source, Reading(9), Reading(3), Reading(5, key="b"))
        job.drain()
        assert job.output(applied) == ["a 60.0 [3, 9]"]


# --- Refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (MINUTES, Tumbling(minutes=2)),
        (MINUTES, Tumbling(minutes=1, offset=5)),
        (Tumbling(days=1), Tumbling(days=1, time_zone="Europe/Berlin")),
        (Sliding(minutes=1, every=30), Sliding(minutes=1, every=20)),
        (Session(gap=5), Session(gap=6)),
        (Session(gap=5), Session(gap=5, max_length=9)),
        (CountWindow(5), CountWindow(6)),
        (MINUTES, Session(gap=60)),
    ],
)
def test_another_window_cannot_continue_a_stored_state(
    before: AnyWindow, after: AnyWindow, tmp_path: Path
) -> None:
    store = Store(tmp_path / "main.sqlite")
    store.open(app="a", cluster="c")
    app, source, _ = counted(before)
    task = Task(app.topology, states=States())
    value = msgspec.json.encode(Reading(1))
    work = task.process(source.node, Chunk([value], [None], [0], [0], "readings", 0))
    task.settle(work, work.end)
    store.commit({}, {}, task.states.prepare())
    with pytest.raises(StateMismatch, match="'aggregate' cannot be read"):
        Task(counted(after)[0].topology, states=States(store.state_rows, store.state_types()))
    Task(counted(before)[0].topology, states=States(store.state_rows, store.state_types()))
    store.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Tumbling(), "must be at least 1 ms"),
        (lambda: Tumbling(hours=1, time_zone="Europe/Berlin"), "a length of whole days"),
        (lambda: Tumbling(days=1, time_zone="Mars/Base"), "is not known"),
        (lambda: Sliding(minutes=1, every=61), "every= is longer than the window"),
        (lambda: Session(gap=0), "gap must be at least 1 ms"),
        (lambda: CountWindow(0), "must be at least 1"),
        (lambda: counted(late=-1), "late must be at least 0 ms"),
        (lambda: counted(CountWindow(5), late=1), "have no late records"),
        (lambda: counted("minute"), "'minute' is not a window"),  # type: ignore[arg-type]
    ],
)
def test_an_invalid_window_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


@pytest.mark.parametrize(
    ("window", "options", "words"),
    [
        (MINUTES, {"emit": "all"}, "emit='all' is not valid"),
        (Session(gap=5), {"every": 5}, "every= is for tumbling and sliding windows"),
        (MINUTES, {"every": 5, "emit": "updates"}, "every= is for tumbling and sliding windows"),
        (Session(gap=5, max_length=9), {"emit": "updates"}, "cannot have emit"),
    ],
)
def test_options_that_do_not_fit_the_window_are_refused(
    window: AnyWindow, options: dict[str, Any], words: str
) -> None:
    keyed = App("a").stream("readings", Reading).key_by(lambda each: each.key)
    with pytest.raises(UsageError, match=words):
        keyed.window(window, **options)
