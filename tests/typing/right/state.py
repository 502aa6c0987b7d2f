"""Stages with a state: the function keeps its signature, and the stream has its results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

import msgspec

from streamkit import App, Context, State
from streamkit.dataflow.keyed_stream import KeyedStream
from streamkit.dataflow.stream import Stream

from ..rows import Flight

app = App("state")
flights = app.stream("flights", Flight)
by_carrier = flights.key_by(lambda flight: flight.carrier)
assert_type(by_carrier, KeyedStream[str, Flight])


class Seen(msgspec.Struct):
    flights: int = 0


@app.stage(by_carrier, name="counted")
def counted(flight: Flight, state: State[Seen]) -> int | None:
    seen = assert_type(state.get(), Seen | None) or Seen()
    seen.flights += 1
    state.set(seen)
    return seen.flights if seen.flights > 1 else None


@app.stage(by_carrier)
def listed(flight: Flight, state: State[int], context: Context[str]) -> Iterator[str]:
    count = state.get(0)
    assert_type(count, int)
    yield f"{context.key}{count}"


counted.map(lambda count: count + 1).to("counts")
listed.map(str.upper).to("lists")


def numbered(flight: Flight, state: State[int]) -> str | None:
    state.set(state.get(0) + 1)
    return flight.carrier


assert_type(by_carrier.stateful(int, numbered), Stream[str])
assert_type(by_carrier.reduce(lambda before, flight: flight), Stream[Flight])
assert_type(by_carrier.deduplicate(), Stream[Flight])
