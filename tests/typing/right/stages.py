"""Stages: each kind of function keeps its signature; its stream has the results without None."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import assert_type

from streamkit import App, Context
from streamkit.dataflow.stream import Stream
from streamkit.testing import context

from ..rows import Early, Flight, Late

app = App("stages")
flights = app.stream("flights", Flight)
late = app.stream("late", Late)
early = app.stream("early", Early)
numbers = app.stream("numbers", int)


@app.stage(flights)
def delayed(flight: Flight) -> Late | None:
    return None if flight.arr_delay is None else Late(flight.carrier, flight.arr_delay)


@app.stage(flights)
def sure(flight: Flight, scale: float = 1.0) -> Late:
    return Late(flight.carrier, scale)


@app.stage(flights, name="letters-of", on_error="skip")
def letters(flight: Flight) -> Iterator[str]:
    yield from flight.carrier


@app.stage(flights)
def generated(flight: Flight) -> Generator[int, None, None]:
    yield flight.flight


@app.stage(flights)
def with_key(flight: Flight, context: Context[str]) -> Late | None:
    return Late(context.key, 0.0)


@app.stage(flights)
def with_offsets(flight: Flight, context: Context[bytes | None]) -> Iterator[int]:
    yield context.offset


@app.stage(flights)
def of_a_base_class(flight: object) -> str:
    return str(flight)


@app.stage(late, early)
def merged(row: Late | Early) -> str:
    return row.carrier


@app.stage(late, early, numbers)
def three(row: Late | Early | int) -> str:
    return str(row)


@app.stage(late, early, numbers, late)
def four(row: object) -> str | None:
    return str(row)


@app.stage(flights, output_type=Late | Early)
def either(flight: Flight) -> Late | Early | None:
    return Late("UA", 1.0) if flight.flight else Early("UA", 1.0)


@app.stage(late, early, output_type=Late | Early)
def either_again(row: Late | Early) -> Late | Early:
    return row


@app.stage(flights)
def both(flight: Flight) -> Iterator[Late | Early]:
    yield Late("UA", 1.0)
    yield Early("UA", 1.0)


values_delayed: Stream[Late] = delayed
values_letters: Stream[str] = letters
values_generated: Stream[int] = generated
values_with_key: Stream[Late] = with_key
values_merged: Stream[str] = merged
values_sure: Stream[Late] = sure
values_with_offsets: Stream[int] = with_offsets
wider: Stream[object] = delayed
of_either: Stream[Late | Early] = either
of_both: Stream[Late | Early] = both


@app.stage(either)
def read_either(row: Late | Early) -> str:
    return row.carrier


@app.stage(both)
def read_both(row: Late | Early) -> str:
    return row.carrier


unnamed = app.stage(flights, name="unnamed")(lambda flight: flight.carrier)
again = app.stage(flights, name="delayed-again")(delayed)


def use(flight: Flight) -> None:
    assert_type(delayed(flight=flight), Late | None)
    assert_type(sure(flight, scale=2.0).carrier, str)
    assert_type(sure(flight), Late)
    assert_type(letters(flight), Iterator[str])
    assert_type(generated(flight), Generator[int, None, None])
    assert_type(with_key(flight, context(key="UA")), Late | None)
    assert_type(list(with_offsets(flight, context())), list[int])
