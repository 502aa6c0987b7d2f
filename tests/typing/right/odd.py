"""Rare kinds of callables and types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, NewType, assert_type

import msgspec

from streamkit import App, Topic
from streamkit.dataflow.stream import Stream

from ..rows import Flight

app = App("odd")
flights = app.stream("flights", Flight)

Minutes = NewType("Minutes", float)


@app.stage(flights)
def anything(flight: Flight) -> Any:
    return flight.carrier


@app.stage(flights)
def something(flight: Flight) -> object:
    return flight.carrier


@app.stage(flights)
def some_values(flight: Flight) -> Iterator[object]:
    yield flight.carrier


@app.stage(anything)
def after_anything(flight: Flight) -> dict[str, Any]:
    return {}


@app.stage(flights)
def minutes(flight: Flight) -> Minutes | None:
    return None if flight.arr_delay is None else Minutes(flight.arr_delay)


@app.stage(flights)
def counted(flight: Flight) -> Annotated[int, msgspec.Meta(ge=0)]:
    return flight.flight


class Scale:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def apply(self, flight: Flight) -> float | None:
        return None if flight.arr_delay is None else flight.arr_delay * self.factor

    def __call__(self, flight: Flight) -> Iterator[float]:
        yield self.factor


def scaled(flight: Flight, factor: float = 1.0, *, offset: float = 0.0) -> float:
    return flight.flight * factor + offset


values_anything: Stream[int] = anything
values_something: Stream[object] = something
values_minutes: Stream[Minutes] = minutes
values_counted: Stream[int] = counted
values_method: Stream[float] = app.stage(flights, name="method")(Scale(2.0).apply)
values_object: Stream[float] = app.stage(flights, name="object")(Scale(2.0))
values_partial: Stream[float] = app.stage(flights, name="partial")(partial(scaled, factor=2.0))
values_default: Stream[float] = app.stage(flights, name="default")(scaled)
values_again: Stream[Minutes] = app.stage(flights, name="again")(minutes)
values_lambda: Stream[str] = app.stage(flights, name="lambda")(lambda flight: flight.carrier)


def with_callables(
    read: Callable[[Flight], Flight | None],
    split: Callable[[Flight], Iterator[str]],
    write: Callable[[Flight], None],
) -> None:
    assert_type(app.stage(flights)(read)(Flight("UA", 1, None)), Flight | None)
    values_read: Stream[Flight] = app.stage(flights)(read)
    values_split: Stream[str] = app.stage(flights)(split)
    app.stage(values_read)(read)
    app.stage(values_split)(str.upper)
    app.stage(flights, output_type=Flight)(read)
    app.sink(flights, to=Topic("out", Flight))(read)
    app.sink(flights, to="out")(read)
    app.sink(flights)(write)


def use(flight: Flight) -> None:
    assert_type(something(flight), object)
    assert_type(minutes(flight), Minutes | None)
