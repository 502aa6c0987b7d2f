"""The rules of event time by examples: when results come, what is late, and what stays stored."""

from __future__ import annotations

import msgspec
import pytest

from streamkit import App
from streamkit.aggregates import CollectList
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.window_stream import WindowResults
from streamkit.errors import StageError
from streamkit.record import Chunk
from streamkit.runtime.task import Task
from streamkit.runtime.work import Work
from streamkit.windows import AnyWindow, Session, Sliding, Tumbling


class Tick(msgspec.Struct, frozen=True):
    at: int
    key: str = "a"


class Found(msgspec.Struct, frozen=True):
    window_end: int
    times: list[int]


Results = WindowResults[str, Found, Tick]
TEN = Tumbling(seconds=0.01)


def windows_app(window: AnyWindow, *, late: float = 0) -> tuple[App, Stream[Tick], Results]:
    app = App("times")
    ticks = app.stream("ticks", Tick, event_time=lambda tick: tick.at)
    results = (
        ticks.key_by(lambda tick: tick.key)
        .window(window, late=late)
        .aggregate(Found, name="found", times=CollectList(lambda tick: tick.at))
    )
    return app, ticks, results


def processed(task: Task, source: Stream[Tick], *ticks: Tick, first: int = 0) -> Work:
    values = list(map(msgspec.json.encode, ticks))
    count = len(ticks)
    part = Chunk(values, [None] * count, [0] * count, range(first, first + count), "ticks", 0)
    return task.process(source.node, part)


def test_a_session_closes_when_the_watermark_reaches_its_end() -> None:
    app, ticks, results = windows_app(Session(gap=0.01))
    with app.test() as job:
        job.send(ticks, Tick(5), Tick(14, "b"))
        assert job.output(results) == []
        job.send(ticks, Tick(15, "b"))
        assert job.output(results) == [Found(15, [5])]


def test_a_record_counts_only_in_the_windows_that_it_is_not_late_for() -> None:
    """The slow partition keeps the window from 10 to 20 open, but the record is late for it."""
    app, ticks, results = windows_app(Sliding(seconds=0.01, every=0.005))
    with app.test() as job:
        job.send(ticks, Tick(0, "slow"), partition=1)
        job.send(ticks, Tick(20, "fast"), Tick(16))
        job.drain()
        assert [each for each in job.output(results) if 16 in each.times] == [Found(25, [16])]


def test_late_records_are_counted() -> None:
    app, ticks, results = windows_app(TEN)
    results.to("found")
    task = Task(app.topology)
    work = processed(task, ticks, Tick(5), Tick(10), Tick(9), Tick(11), Tick(3))
    task.account(work, work.end)
    counts = task.counts[results.node]
    assert (counts.taken, counts.late, counts.dropped) == (5, 2, 2)


def test_a_closed_window_does_not_come_back_after_a_restart() -> None:
    app, ticks, results = windows_app(TEN)
    with app.test() as job:
        job.send(ticks, Tick(5))
        job.restart()
        job.send(ticks, Tick(12))
        job.restart()
        job.drain()
        assert job.output(results) == [Found(10, [5]), Found(20, [12])]


def test_an_open_window_survives_any_number_of_commits() -> None:
    app, ticks, results = windows_app(Tumbling(seconds=1))
    times = list(range(8))
    with app.test() as job:
        job.send(ticks, Tick(0, "first"))
        for time in times:
            job.send(ticks, Tick(time))
            job.restart()
        job.drain()
        assert job.output(results) == [Found(1_000, [0]), Found(1_000, times)]


def test_a_slice_that_fails_leaves_nothing_in_a_join_of_windows() -> None:
    app = App("times")
    ticks = app.stream("ticks", Tick, event_time=lambda tick: tick.at)
    keyed = ticks.key_by(lambda tick: tick.key)

    @app.stage(ticks)
    def checked(tick: Tick) -> Tick:
        if tick.at == 9:
            raise ValueError(tick)
        return tick

    pairs = keyed.join(keyed, window=TEN, combine=lambda a, b: (a.at, b.at))
    with app.test() as job:
        job.send(ticks, Tick(1))
        with pytest.raises(StageError):
            job.send(ticks, Tick(2), Tick(3), Tick(9))
        job.drain()
        assert job.output(pairs) == [(1, 1)]
        assert job.output(checked) == [Tick(1)]


def test_a_drained_job_continues_with_the_watermark_of_its_records() -> None:
    app, ticks, results = windows_app(TEN)
    late = results.late
    with app.test() as job:
        job.send(ticks, Tick(5))
        job.drain()
        job.restart()
        job.send(ticks, Tick(7), Tick(25))
        assert job.output(late) == []
        assert job.output(results) == [Found(10, [5]), Found(10, [7])]


def test_the_results_of_a_drained_window_reach_the_next_window() -> None:
    app, ticks, results = windows_app(TEN, late=0.02)
    again = results.window(Tumbling(seconds=0.1)).aggregate(
        Found, name="again", times=CollectList(lambda found: found.window_end)
    )
    with app.test() as job:
        job.send(ticks, Tick(5), Tick(12), Tick(25))
        job.drain()
        assert job.output(again) == [Found(100, [10, 20, 30])]


def test_results_that_waited_for_late_records_are_in_time_for_the_next_window() -> None:
    app, ticks, results = windows_app(TEN, late=0.05)
    again = results.window(TEN).aggregate(
        Found, name="again", times=CollectList(lambda found: found.window_end)
    )
    late = again.late
    with app.test() as job:
        for time in (5, 30, 59, 60, 61, 150):
            job.send(ticks, Tick(time))
        job.drain()
        assert (job.output(late), len(job.output(again))) == ([], len(job.output(results)))
