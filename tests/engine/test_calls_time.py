"""Single rules of time and order in graphs with calls and retries."""

from __future__ import annotations

import msgspec
import pytest

from streamkit import App
from streamkit.aggregates import CollectList
from streamkit.dataflow.stream import Stream
from streamkit.policies import retry
from streamkit.windows import Tumbling


class Row(msgspec.Struct, frozen=True):
    id: int
    at: int
    key: str = "a"


class Listed(msgspec.Struct, frozen=True):
    window_start: int
    ids: list[int]


class Passing(Exception):
    pass


def rows_of(app: App) -> Stream[Row]:
    return app.stream("rows", Row, event_time=lambda row: row.at)


def test_a_slice_with_a_jump_in_time_makes_none_of_its_records_late() -> None:
    app = App("job")
    rows = rows_of(app)

    @app.stage(rows)
    async def same(row: Row) -> Row:
        return row

    windows = (
        same.key_by(lambda row: row.key)
        .window(Tumbling(seconds=0.01))
        .aggregate(Listed, ids=CollectList(lambda row: row.id))
    )
    windows.to("windows")
    windows.late.to("late")
    with app.test() as job:
        job.send(rows, Row(0, 5), Row(1, 100), Row(2, 3))
        job.drain()
        assert [each.ids for each in job.output(windows)] == [[0], [1]]
        assert len(job.output("late")) == 1


def test_drained_results_that_go_through_calls_are_not_late_for_the_next_window() -> None:
    app = App("job")
    rows = rows_of(app)
    first = (
        rows.key_by(lambda row: row.key)
        .window(Tumbling(seconds=0.01))
        .aggregate(Listed, ids=CollectList(lambda row: row.id), name="first")
    )

    @app.stage(first)
    async def same(listed: Listed) -> Listed:
        return listed

    second = (
        same.key_by(lambda listed: "all")
        .window(Tumbling(seconds=1))
        .aggregate(Listed, ids=CollectList(lambda listed: listed.window_start), name="second")
    )
    second.to("second")
    with app.test() as job:
        job.send(rows, Row(0, 5), partition=1)  # it holds the first windows open until the drain
        job.send(rows, Row(1, 1_500))
        job.drain()
        assert [each.ids for each in job.output(second)] == [[0], [1_500]]


def test_records_of_a_key_in_several_partitions_keep_their_order() -> None:
    app = App("job")
    rows = rows_of(app)
    is_down = True

    def call(row: Row) -> Row:
        if is_down:
            raise Passing
        return row

    passed = rows.key_by(lambda row: row.key).map(
        call, name="call", on_error=retry(9, delay=1, on=Passing)
    )
    passed.to("passed")
    with app.test() as job:
        for number, partition in enumerate((1, 0, 1, 0)):
            job.send(rows, Row(number, 0), partition=partition)
        is_down = False
        job.advance(seconds=60)
        assert [row.id for row in job.output(passed)] == [0, 1, 2, 3]


@pytest.mark.parametrize("is_dropped", [True, False])
def test_a_circuit_closes_when_its_probe_is_processed(is_dropped: bool) -> None:
    app = App("job")
    rows = rows_of(app)
    is_down = True

    def call(row: Row) -> bool:
        if is_down:
            raise Passing
        return row.id > 0 or not is_dropped

    policy = retry(9, delay=1, max_delay=4, on=Passing, open_circuit_after=1)
    passed = rows.key_by(lambda row: row.key).filter(call, name="call", on_error=policy)
    passed.to("passed")
    with app.test() as job:
        # The circuit opens at the first row, so those of other keys wait too.
        job.send(rows, Row(0, 0, "a"), Row(1, 0, "b"), Row(2, 0, "c"))
        is_down = False
        for _ in range(10):
            job.advance(seconds=1)
        found = [row.id for row in job.output(passed)]
        assert sorted(found) == ([1, 2] if is_dropped else [0, 1, 2])


def test_a_circuit_stays_open_although_rows_before_the_failed_one_succeeded() -> None:
    app = App("job")
    rows = rows_of(app)
    calls: list[int] = []

    def call(row: Row) -> Row:
        calls.append(row.id)
        if row.id:
            raise Passing
        return row

    policy = retry(9, delay=1, max_delay=4, on=Passing, open_circuit_after=1)
    rows.key_by(lambda row: row.key).map(call, name="call", on_error=policy).to("passed")
    with app.test() as job:
        job.send(rows, Row(0, 0, "a"), Row(1, 0, "b"))
        job.send(rows, Row(2, 0, "c"))
        assert calls == [0, 1]
        job.advance(seconds=1)
        assert len(calls) == 3
