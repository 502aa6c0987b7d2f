"""Stages whose parameters do not match their input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from streamkit import App, Context
from streamkit.dataflow.stream import Stream

from ..rows import Early, Flight, Late

app = App("edges")
flights = app.stream("flights", Flight)
late = app.stream("late", Late)
early = app.stream("early", Early)


@app.stage(flights)  # error: Flight
def wrong_value(row: Late) -> float:
    return row.minutes


@app.stage(flights)  # error: Flight
def wrong_value_with_context(row: Late, context: Context[str]) -> float:
    return row.minutes


@app.stage(flights)  # error: Flight
def wrong_value_of_a_generator(row: Late) -> Iterator[float]:
    yield row.minutes


@app.stage(flights)  # error: Flight
def wrong_value_of_a_generator_with_context(row: Late, context: Context[str]) -> Iterator[int]:
    yield context.offset


@app.stage(late, early)  # error: Early
def one_side_is_missing(row: Late) -> str:
    return row.carrier


@app.stage(late, early, flights)  # error: Flight
def the_third_is_missing(row: Late | Early) -> str:
    return row.carrier


@app.stage(flights)  # error: Flight
def the_second_parameter_is_not_a_context(flight: Flight, scale: float) -> float:
    return scale


@app.stage(flights)  # error: Flight
def no_parameter() -> int:
    return 1


@app.stage(flights)  # error: Flight
def the_parameter_is_keyword_only(*, flight: Flight) -> int:
    return flight.flight


@app.stage(flights)  # error: Flight
def a_list_without_batch(flights: list[Flight]) -> int:
    return len(flights)


def plain(flight: Flight) -> Flight:
    return flight


@app.stage(plain)  # error: stage
def reads_a_function(flight: Flight) -> Flight:
    return flight


@app.stage("flights")  # error: stage
def reads_a_name(flight: Flight) -> Flight:
    return flight


@app.sink(flights)
def show(flight: Flight) -> None: ...


@app.stage(show)  # error: stage
def reads_a_sink(flight: Flight) -> Flight:
    return flight


@app.stage  # error: stage
def bare(flight: Flight) -> Flight:
    return flight


@app.stage(flights, colour="red")  # error: stage
def unknown_option(flight: Flight) -> Flight:
    return flight


@app.stage(flights, on_error="ignore")  # error: stage
def unknown_policy(flight: Flight) -> Flight:
    return flight


@app.stage(flights)
def generator_annotated_iterable(flight: Flight) -> Iterable[str]:
    yield flight.carrier


@app.stage(generator_annotated_iterable)  # error: str
def reads_an_iterable(carrier: str) -> str:
    return carrier


@app.stage(flights, output_type=Late)  # error: Late
def returns_another_type(flight: Flight) -> Flight:
    return flight


@app.stage(flights)
def delayed(flight: Flight) -> Late | None:
    return None


wrong_annotation: Stream[Flight] = delayed  # error: Flight


def reads_late(stream: Stream[Late]) -> None: ...


reads_late(flights)  # error: Flight
