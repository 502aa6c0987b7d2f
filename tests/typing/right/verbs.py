"""Methods of streams, and fragments."""

from __future__ import annotations

from typing import assert_type

from streamkit import App
from streamkit.dataflow.stream import Stream

from ..rows import Early, Flight, Late

app = App("verbs")
flights = app.stream("flights", Flight)
late = app.stream("late", Late)
early = app.stream("early", Early)
numbers = app.stream("numbers", int)


def carrier(flight: Flight) -> str:
    return flight.carrier


def is_late(flight: Flight) -> bool:
    return (flight.arr_delay or 0) > 15


def clean(stream: Stream[Flight]) -> Stream[str]:
    return stream.filter(is_late).map(carrier)


def above(stream: Stream[int], bound: int, *, name: str = "above") -> Stream[int]:
    return stream.filter(lambda number: number > bound, name=name)


assert_type(flights.map(lambda flight: flight.carrier), Stream[str])
assert_type(flights.map(carrier), Stream[str])
assert_type(flights.map(lambda flight: flight.arr_delay), Stream[float | None])
assert_type(flights.filter(lambda flight: flight.arr_delay is not None), Stream[Flight])
assert_type(flights.filter(is_late, name="only-late", on_error="skip"), Stream[Flight])
assert_type(flights.flat_map(lambda flight: [flight.flight, 1]), Stream[int])
assert_type(flights.flat_map(lambda flight: flight.carrier), Stream[str])
assert_type(late.merge(early), Stream[Late | Early])
assert_type(late.merge(late), Stream[Late])
assert_type(late.merge(early, name="both"), Stream[Late | Early])
assert_type(flights.pipe(clean), Stream[str])
assert_type(numbers.pipe(above, 3, name="above-3"), Stream[int])


@app.stage(late.merge(early), name="carriers")
def carriers(row: Late | Early) -> str:
    return row.carrier


# A stage is a stream, and the value type of its methods does not include None.
@app.stage(flights)
def delayed(flight: Flight) -> Late | None:
    return Late(flight.carrier, 1.0) if is_late(flight) else None


assert_type(delayed.map(lambda row: row.minutes), Stream[float])
delayed.filter(lambda row: row.minutes > 3).map(lambda row: row.carrier).to("carriers")
