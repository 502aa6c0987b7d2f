"""Wrong calls of decorated functions, which keep their signatures."""

from __future__ import annotations

from collections.abc import Iterator

from streamkit import App, Context
from streamkit.testing import context

from ..rows import Flight, Late

app = App("calls")
flights = app.stream("flights", Flight)


@app.stage(flights)
def delayed(flight: Flight) -> Late | None:
    return None


@app.stage(flights)
def letters(flight: Flight) -> Iterator[str]:
    yield from flight.carrier


@app.stage(flights)
def keyed(flight: Flight, context: Context[str]) -> str:
    return context.key


@app.sink(delayed, to="late")
def shaped(row: Late) -> Late:
    return row


@app.sink(flights)
async def call(flight: Flight) -> None: ...


def use(flight: Flight) -> None:
    delayed()  # error: flight
    delayed(flight.carrier)  # error: str
    delayed(plane=flight)  # error: plane
    _minutes = delayed(flight).minutes  # error: minutes
    letters(flight).upper()  # error: upper
    keyed(flight)  # error: context
    keyed(flight, context(key=3))  # error: int
    keyed(flight, context(key="UA")) + 1  # error: "int" / "str"
    shaped(flight)  # error: Flight
    shaped.map(str)  # error: map


async def use_async(flight: Flight) -> None:
    call(flight)  # error: coroutine / async
    await delayed(flight)  # error: await
    with app.test() as job:
        _sign = job.output(delayed)[0].callsign  # error: callsign
