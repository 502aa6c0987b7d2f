"""Stages and sinks of frames whose types do not match."""

from __future__ import annotations

from collections.abc import Iterator

import polars

from streamkit import App
from streamkit.dataflow.stream import Stream

from ..rows import Flight, Late

app = App("frames")
flights = app.stream("flights", Flight)


@app.stage(flights)  # error: Flight
def without_batch(frame: polars.DataFrame) -> polars.DataFrame:
    return frame


@app.stage(flights, batch="100")  # error: stage
def batch_that_is_not_a_number(frame: polars.DataFrame) -> polars.DataFrame:
    return frame


@app.stage(flights, batch=100)  # error: Flight
def returns_a_number(frame: polars.DataFrame) -> int:
    return frame.height


@app.stage(flights, batch=100, output_type=Late)  # error: Late
def returns_other_values(frame: polars.DataFrame) -> list[Flight]:
    return []


@app.stage(flights, batch=100, output_type=Late)  # error: Late
def yields_other_values(frame: polars.DataFrame) -> Iterator[Flight]:
    yield Flight("UA", 1, None)


@app.stage(flights, batch=100)  # error: Flight
def gets_one_row(row: Flight) -> list[Flight]:
    return [row]


@app.stage(flights, batch=100)  # error: Flight
def gets_other_rows(rows: list[Late]) -> list[Late]:
    return rows


@app.stage(flights, batch=100, output_type=Late)
def late(frame: polars.DataFrame) -> polars.DataFrame:
    return frame


@app.stage(flights, batch=100)
def dicts(frame: polars.DataFrame) -> polars.DataFrame:
    return frame


@app.stage(late)  # error: Late
def reads_other_rows(row: Flight) -> Flight:
    return row


@app.stage(dicts)  # error: dict
def reads_rows_of_no_type(row: Late) -> Late:
    return row


@app.sink(flights)  # error: Flight
def writes_without_batch(frame: polars.DataFrame) -> None: ...


@app.sink(flights, batch=100)  # error: Flight
def returns_the_frame(frame: polars.DataFrame) -> polars.DataFrame:
    return frame


@app.sink(late, batch=100)  # error: Late
def writes_other_rows(rows: list[Flight]) -> None: ...


other_rows: Stream[Flight] = late  # error: Late
