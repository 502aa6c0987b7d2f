"""The first program of the documentation."""

from typing import assert_type

import msgspec

from streamkit import App

app = App("late-flights")


class Flight(msgspec.Struct):
    carrier: str
    flight: int
    origin: str
    arr_delay: float | None


class Late(msgspec.Struct):
    carrier: str
    flight: int
    minutes: float


@app.source("flights", start="beginning")
def flights(flight: Flight) -> Flight:
    return flight


@app.stage(flights)
def late(flight: Flight) -> Late | None:
    delay = flight.arr_delay
    if delay is None or delay <= 15:
        return None
    return Late(flight.carrier, flight.flight, delay)


@app.sink(late, to="late-flights", key=lambda late: late.carrier, compression="lz4")
def late_flights(late: Late) -> Late:
    return late


def test_only_late_flights_pass() -> None:
    on_time, delayed = Flight("UA", 1, "EWR", 3.0), Flight("UA", 2, "EWR", 40.0)
    assert late(on_time) is None
    with app.test() as job:
        job.send(flights, on_time, delayed)
        assert_type(job.output(late), list[Late])
        assert job.output(late) == [Late("UA", 2, 40.0)]
