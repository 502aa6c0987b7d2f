"""Stages whose function gets frames: what it gets and returns, and where it runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import msgspec
import pandas
import polars
import pyarrow
import pytest

from streamkit import App, Record
from streamkit.policies import dead_letter
from tests.engine.frame_cases import (
    FLIGHTS,
    LATE,
    ROWS,
    TOO_LARGE,
    Flight,
    Late,
    app_of,
    errors_in,
    late,
    refusing,
    results,
    same_frame,
)

# --- what a function gets and returns ---------------------------------------------------


def test_a_frame_becomes_rows_of_the_declared_type() -> None:
    app, flights = app_of()
    found = app.stage(flights, batch=10, output_type=Late)(late)
    assert found.node.value_type is Late
    assert results(app, flights, found, FLIGHTS) == LATE


def test_without_a_declared_type_rows_are_dicts() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=10)
    def same(frame: pandas.DataFrame) -> pandas.DataFrame:
        return frame

    assert same.node.value_type == dict[str, Any]
    assert results(app, flights, same, FLIGHTS) == ROWS


@pytest.mark.parametrize("kind", [polars.DataFrame, pandas.DataFrame])
def test_every_frame_may_be_returned_as_another_one(kind: Any) -> None:
    app, flights = app_of()
    makers: dict[str, Any] = {
        "polars": polars.DataFrame,
        "pandas": pandas.DataFrame,
        "table": pyarrow.Table.from_pylist,
        "batch": pyarrow.RecordBatch.from_pylist,
    }
    found = {}
    for name, make in makers.items():

        def other(frame: Any, make: Any = make) -> Any:
            return make([{"carrier": each, "number": 7} for each in frame["carrier"]])

        other.__annotations__["frame"] = kind
        found[name] = app.stage(flights, batch=10, name=name)(other)
    with app.test() as job:
        job.send(flights, *FLIGHTS)
        expected = [{"carrier": each.carrier, "number": 7} for each in FLIGHTS]
        assert {name: job.output(stage) for name, stage in found.items()} == dict.fromkeys(
            makers, expected
        )


async def late_async(frame: polars.DataFrame) -> polars.DataFrame:
    await asyncio.sleep(0)
    return late(frame)


def late_list(frame: polars.DataFrame) -> list[Late]:
    return [Late(*row) for row in late(frame).iter_rows()]


@pytest.mark.parametrize(
    ("function", "options"),
    [(late, {}), (late, {"blocking": True}), (late_async, {}), (late_list, {})],
    ids=["slices", "threads", "async", "list"],
)
def test_one_row_for_each_record_keeps_keys_and_timestamps(
    function: Any, options: dict[str, Any]
) -> None:
    app, flights = app_of()
    stage: Any = app.stage(flights, batch=10, output_type=Late, **options)(function)
    with app.test() as job:
        given = [Record(each, each.carrier.encode(), 1_000 + each.number) for each in FLIGHTS]
        job.send(flights, *given)
        found = [(each.value, each.key, each.timestamp_ms) for each in job.records(stage)]
    expected = [(each.key, each.timestamp_ms) for each in given]
    assert found == [(row, *place) for row, place in zip(LATE, expected, strict=True)]


def test_any_number_of_rows_has_the_key_and_timestamp_of_the_last_record() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=10)
    def filtered(frame: polars.DataFrame) -> Iterator[polars.DataFrame]:
        yield frame.filter(polars.col("number") > 1)
        yield frame.head(0)

    with app.test() as job:
        job.send(flights, *(Record(each, each.carrier.encode(), each.number) for each in FLIGHTS))
        found = [(each.value, each.key, each.timestamp_ms) for each in job.records(filtered)]
        counts = job._task.counts[filtered.node]
    assert found == [(row, b"AA", 3) for row in ROWS[1:]]
    assert (counts.taken, counts.handled, counts.dropped, counts.given) == (3, 3, 0, 2)


def test_records_with_columns_for_keys_and_timestamps_keep_their_own() -> None:
    app = App("frames")
    flights = app.stream("flights", Record[Flight])

    @app.stage(flights, batch=10, output_type=Record[Flight])
    def filtered(frame: polars.DataFrame) -> Iterator[polars.DataFrame]:
        yield frame.filter(polars.col("value").struct.field("number") != 2)

    filtered.to("filtered")
    with app.test() as job:
        job.send(flights, *(Record(each, each.carrier.encode(), each.number) for each in FLIGHTS))
        found = [(each.key, each.timestamp_ms) for each in job.records("filtered")]
    assert found == [(b"UA", 1), (b"AA", 3)]


def test_a_batch_without_rows_drops_its_records() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=2)
    def nothing(frame: pandas.DataFrame) -> Iterator[pandas.DataFrame]:
        yield frame[frame["number"] > 5]

    with app.test() as job:
        job.send(flights, *FLIGHTS)
        assert job.output(nothing) == []
        counts = job._task.counts[nothing.node]
        assert (counts.taken, counts.handled, counts.dropped, counts.given) == (3, 1, 2, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_frames_have_at_most_the_rows_of_a_batch(size: int) -> None:
    app, flights = app_of()
    heights: list[int] = []

    @app.stage(flights, batch=size)
    def measured(frame: pyarrow.RecordBatch) -> list[str]:
        heights.append(frame.num_rows)
        return frame["carrier"].to_pylist()  # type: ignore[no-any-return]

    assert results(app, flights, measured, FLIGHTS) == ["UA", "B6", "AA"]
    assert max(heights) == min(size, 3)
    assert sum(heights) == 3


def test_values_of_other_kinds_may_be_returned() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=10)
    def listed(frame: polars.DataFrame) -> list[float | None]:
        return frame["delay"].to_list()

    @app.stage(flights, batch=10)
    def counted(frame: polars.DataFrame) -> Iterator[int]:
        yield frame.height

    @app.stage(flights, batch=10, output_type=float)
    def column(frame: polars.DataFrame) -> polars.Series:
        return frame["delay"]

    @app.stage(flights, batch=10, output_type=int)
    def numbers(frame: pandas.DataFrame) -> Any:
        return frame["number"].to_numpy() + 1

    @app.stage(flights, batch=10, output_type=str)
    def array(frame: pyarrow.Table) -> Any:
        return frame["carrier"]

    with app.test() as job:
        job.send(flights, *FLIGHTS)
        assert job.output(listed) == job.output(column) == [3.0, 20.0]
        assert job.output(counted) == [3]
        assert job.output(numbers) == [2, 3, 4]
        assert set(map(type, job.output(numbers))) == {int}
        assert job.output(array) == ["UA", "B6", "AA"]


def test_a_stage_without_annotations_of_its_result_returns_one_row_for_each_record() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=10, output_type=Late)
    def unannotated(frame: polars.DataFrame):  # type: ignore[no-untyped-def]
        return late(frame)

    assert results(app, flights, unannotated, FLIGHTS) == LATE


def test_several_streams_of_one_type_share_frames() -> None:
    app, flights = app_of()
    others = app.stream("others", Flight)
    both: Any = app.stage(flights, others, batch=10)  # type: ignore[call-overload]
    same = both(same_frame)
    with app.test() as job:
        job.send(flights, FLIGHTS[0])
        job.send(others, FLIGHTS[1])
        assert job.output(same) == ROWS[:2]


# --- where the function runs ------------------------------------------------------------


def test_an_async_function_of_frames() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=2, concurrency=3, timeout=5, output_type=Late)
    async def mapped(frame: polars.DataFrame) -> polars.DataFrame:
        await asyncio.sleep(0.001 * frame.height)
        return late(frame)

    @app.stage(flights, batch=10)
    async def several(frame: polars.DataFrame) -> AsyncIterator[polars.DataFrame]:
        yield frame.head(1)
        await asyncio.sleep(0)
        yield frame.tail(1)

    @app.stage(flights, batch=10)
    async def listed(frame: polars.DataFrame) -> Iterable[polars.DataFrame]:
        await asyncio.sleep(0)
        return [frame.head(1), frame.head(0)]

    with app.test() as job:
        job.send(flights, *FLIGHTS)
        assert job.output(mapped) == LATE
        assert job.output(several) == [ROWS[0], ROWS[2]]
        assert job.output(listed) == [ROWS[0]]


def test_in_threads_frames_are_made_and_read_in_the_thread() -> None:
    app, flights = app_of()
    threads: set[str] = set()

    class Noted(msgspec.Struct):
        carrier: str

        def __post_init__(self) -> None:
            threads.add(threading.current_thread().name)

    @app.stage(flights, batch=10, blocking=True, timeout=5, output_type=Noted)
    def mapped(frame: polars.DataFrame) -> polars.DataFrame:
        return frame.select("carrier")

    assert len(results(app, flights, mapped, FLIGHTS)) == 3
    assert {name.startswith("streamkit-call-mapped") for name in threads} == {True}


def test_a_call_with_a_frame_that_takes_too_long_fails() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=10, blocking=True, timeout=0.5, on_error="skip")
    def slow(frame: polars.DataFrame) -> polars.DataFrame:
        if "B6" in frame["carrier"]:
            time.sleep(1.5)
        return frame

    assert results(app, flights, slow, FLIGHTS) == [ROWS[0], ROWS[2]]


def of_pandas(frame: pandas.DataFrame) -> Iterator[pandas.DataFrame]:
    yield frame[["carrier"]].assign(is_late=frame["delay"] > 15)


def test_frames_in_processes() -> None:
    app, flights = app_of()
    mapped = app.stage(flights, batch=2, process=True, output_type=Late)(late)
    several = app.stage(flights, batch=10, process=True, concurrency=1, output_type=Late)(of_pandas)
    with app.test() as job:
        job.send(flights, *FLIGHTS)
        assert job.output(mapped) == LATE
        assert job.output(several) == LATE


def test_errors_of_frames_in_processes_are_those_of_their_record() -> None:
    app, flights = app_of()
    big = Flight("XX", None, 2**63)
    stage = app.stage(flights, batch=10, process=True, on_error=dead_letter("letters"))(refusing)
    with app.test() as job:
        job.send(flights, *FLIGHTS)
        assert job.output(stage) == [ROWS[0], ROWS[2]]
        assert errors_in(job.output("letters")) == [("RowError", "no B6 here")]
    with app.test() as job:
        job.send(flights, *FLIGHTS[::2], big)
        assert job.output(stage) == [ROWS[0], ROWS[2]]
        assert errors_in(job.output("letters")) == [("RowError", f"row 2: {TOO_LARGE}")]
