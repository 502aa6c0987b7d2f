"""Methods of streams with functions of the wrong type."""

from __future__ import annotations

from streamkit import App
from streamkit.dataflow.stream import Stream

from ..rows import Flight, Late

app = App("verbs")
flights = app.stream("flights", Flight)
late = app.stream("late", Late)


def minutes(row: Late) -> float:
    return row.minutes


async def is_late(flight: Flight) -> bool:
    return bool(flight.arr_delay)


def clean(stream: Stream[Late]) -> Stream[float]:
    return stream.map(minutes)


flights.map(minutes)  # error: Late
flights.map(lambda flight: flight.callsign)  # error: callsign
flights.map(lambda: 1)  # error: Callable[[], int] / too few positional
flights.filter(is_late)  # error: bool
flights.filter(lambda flight: flight.arr_delay > 15)  # error: None
flights.filter(lambda flight: flight.callsign)  # error: callsign
flights.flat_map(lambda flight: flight.flight)  # error: int
flights.flat_map(minutes)  # error: Late
flights.merge("late")  # error: Stream
flights.pipe(clean)  # error: Late
late.pipe(clean, 3)  # error: Too many arguments / 0 positional
flights.map(lambda flight: flight, on_error="ignore")  # error: on_error
flights.reverse()  # error: reverse
late.filter(lambda row: row.minutes > 3).map(lambda row: row.callsign)  # error: callsign
