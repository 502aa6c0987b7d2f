"""Frames: a stage of frames has rows of ``output_type``, or dicts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import pandas
import polars

from streamkit import App
from streamkit.dataflow.stream import Stream

from ..rows import Flight, Late

app = App("frames")
flights = app.stream("flights", Flight)


@app.stage(flights, batch=100, output_type=Late)
def of_polars(frame: polars.DataFrame) -> polars.DataFrame:
    return frame.select("carrier", minutes="arr_delay")


@app.stage(flights, batch=100, output_type=Late)
def of_pandas(frame: pandas.DataFrame) -> pandas.DataFrame:
    return frame[["carrier"]].assign(minutes=0.0)


@app.stage(flights, batch=100, output_type=Late, blocking=True, timeout=5)
def any_number(frame: polars.DataFrame) -> Iterator[polars.DataFrame]:
    yield frame.select("carrier", minutes="arr_delay").drop_nulls()


@app.stage(flights, batch=100, output_type=Late)
async def later(frame: polars.DataFrame) -> polars.DataFrame:
    return frame


@app.stage(flights, batch=100, output_type=Late)
async def later_any_number(frame: polars.DataFrame) -> AsyncIterator[polars.DataFrame]:
    yield frame


@app.stage(flights, batch=100, output_type=float)
def column(frame: polars.DataFrame) -> polars.Series:
    return frame["arr_delay"]


@app.stage(flights, batch=100, output_type=Late | str)
def of_lists(rows: list[Flight]) -> list[Late | str]:
    return ["" for _ in rows]


@app.stage(flights, batch=100)
def as_dicts(frame: polars.DataFrame) -> polars.DataFrame:
    return frame


@app.stage(flights, batch=100)
def another_frame(frame: pandas.DataFrame) -> polars.DataFrame:
    return polars.from_pandas(frame)


@app.stage(flights, batch=100)
def many_as_dicts(frame: polars.DataFrame) -> Iterator[polars.DataFrame]:
    yield frame


@app.stage(flights, batch=100)
async def later_as_dicts(frame: polars.DataFrame) -> polars.DataFrame:
    return frame


@app.stage(flights, batch=100)
def texts(frame: polars.DataFrame) -> list[str | None]:
    return frame["carrier"].to_list()


@app.stage(flights, batch=100)
def some_texts(frame: polars.DataFrame) -> Iterator[str]:
    yield from frame["carrier"]


@app.stage(flights, batch=100)
async def later_texts(frame: polars.DataFrame) -> list[str]:
    return frame["carrier"].to_list()


@app.stage(of_polars, batch=100)
def again(frame: polars.DataFrame) -> polars.DataFrame:
    return frame


@app.stage(as_dicts)
def of_a_dict(row: dict[str, Any]) -> str:
    return str(row["carrier"])


@app.sink(flights, batch=100)
def write(frame: polars.DataFrame) -> None:
    frame.height  # noqa: B018  # stands for a write


@app.sink(flights, batch=100, blocking=True)
def write_pandas(frame: pandas.DataFrame) -> None:
    frame.size  # noqa: B018  # stands for a write


@app.sink(flights, batch=100, concurrency=4, ordered=False)
async def write_later(frame: polars.DataFrame) -> None:
    frame.height  # noqa: B018  # stands for a write


rows_of_polars: Stream[Late] = of_polars
rows_of_pandas: Stream[Late] = of_pandas
rows_of_any_number: Stream[Late] = any_number
rows_of_later: Stream[Late] = later
rows_of_later_any_number: Stream[Late] = later_any_number
floats: Stream[float] = column
unions: Stream[Late | str] = of_lists
dicts: Stream[dict[str, Any]] = as_dicts
dicts_of_another: Stream[dict[str, Any]] = another_frame
dicts_of_many: Stream[dict[str, Any]] = many_as_dicts
dicts_of_later: Stream[dict[str, Any]] = later_as_dicts
stream_of_texts: Stream[str] = texts
stream_of_some_texts: Stream[str] = some_texts
stream_of_later_texts: Stream[str] = later_texts


def use(frame: polars.DataFrame) -> None:
    assert_type(of_polars(frame=frame), polars.DataFrame)
    assert_type(texts(frame), list[str | None])
