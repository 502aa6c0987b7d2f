"""Sources: topics, with and without a function, and generators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, assert_type

from streamkit import App, Context, Offset, Record, Topic
from streamkit.dataflow.stream import Stream
from streamkit.formats import Avro, Json

from ..rows import Early, Flight, Late

app = App("sources")


@app.source("flights", start=Offset.end(5), partitions=[0, 1], isolation="read_committed")
def flights(flight: Flight) -> Flight:
    return flight


@app.source("flights", name="carriers", on_error="skip")
def carriers(flight: Flight, context: Context[str]) -> str | None:
    return flight.carrier if context.key else None


@app.source("flights", name="records")
def records(record: Record[Flight]) -> Flight:
    return record.value


@app.source("flights", name="numbers-by-key", value=Avro(), key_format=Json())
def by_number(flight: Flight, context: Context[int]) -> int:
    return context.key + 1


@app.source(Topic("late", Late), start="end")
def late(row: Late) -> Iterator[float]:
    yield row.minutes


@app.source
def numbers() -> Iterator[int]:
    yield from range(3)


@app.source
async def ticks() -> AsyncIterator[float]:
    yield 1.0


@app.source
def lines(resume: int | None) -> Iterator[tuple[int, str]]:
    yield (resume or 0) + 1, "text"


@app.source
async def pages(*, resume: str | None = None) -> AsyncIterator[tuple[str, Late]]:
    yield resume or "first", Late("UA", 1.0)


values_flights: Stream[Flight] = flights
values_late: Stream[float] = late
values_carriers: Stream[str] = carriers
values_numbers: Stream[int] = numbers
values_ticks: Stream[float] = ticks
values_lines: Stream[str] = lines
values_pages: Stream[Late] = pages

assert_type(app.stream("a", Flight), Stream[Flight])
assert_type(app.stream("b", bytes, start="end"), Stream[bytes])
assert_type(app.stream("c", str, name="c-text"), Stream[str])
assert_type(app.stream("d", Flight | None), Stream[Flight | None])
assert_type(app.stream("e", Late | Early), Stream[Late | Early])
assert_type(app.stream("f", list[int]), Stream[list[int]])
assert_type(app.stream("g", dict[str, Any]), Stream[dict[str, Any]])
assert_type(app.stream("h", Record[Flight]), Stream[Record[Flight]])
assert_type(app.stream("i", Annotated[int, "a count"]), Stream[int])
assert_type(app.stream(Topic("j", Late)), Stream[Late])
assert_type(app.stream(Topic("k", Late | None)), Stream[Late | None])
assert_type(app.stream(Topic("l", list[Late], partitions=3)), Stream[list[Late]])
assert_type(app.stream(Topic("m")), Stream[bytes])


def use() -> None:
    assert_type(flights(flight=Flight("UA", 1, None)).carrier, str)
    assert_type(carriers(Flight("UA", 1, None), Context("t", 0, 0, "UA", 0)), str | None)
    assert_type(list(numbers()), list[int])
    assert_type(next(lines(resume=None)), tuple[int, str])
