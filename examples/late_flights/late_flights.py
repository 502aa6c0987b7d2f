"""Which flights out of New York arrived late? A first streamkit program.

It reads flights from the topic ``flights``, keeps those that arrived more than
15 minutes late, and adds the airline's name. It writes them to the topic
``late-flights``, with the carrier as the key, so that the flights of one carrier
stay in order. It also writes them as lines of JSON to a file in the current folder.

Run it in this folder; nothing else needs to be running:

    gunzip -k flights.jsonl.gz
    streamkit produce flights --file flights.jsonl
    streamkit run late_flights.py --once
    streamkit consume late-flights -B -d

To compare, ``python expected.py`` counts the same flights without streamkit.
"""

from datetime import datetime
from pathlib import Path

import msgspec

from streamkit import App, Topic
from streamkit.connectors.files import JsonLines

AIRLINES = msgspec.json.decode(
    Path(__file__).with_name("airlines.json").read_bytes(), type=dict[str, str]
)

app = App("late-flights")


class Flight(msgspec.Struct):
    carrier: str
    flight: int
    time_hour: datetime
    arr_delay: float | None


class Late(msgspec.Struct):
    carrier: str
    airline: str
    flight: int
    time_hour: datetime
    minutes: float


@app.source("flights", start="beginning")
def flights(flight: Flight) -> Flight:
    return flight


@app.stage(flights)
def late(flight: Flight) -> Late | None:
    delay = flight.arr_delay
    if delay is None or delay <= 15:
        return None
    return Late(flight.carrier, AIRLINES[flight.carrier], flight.flight, flight.time_hour, delay)


@app.sink(
    late,
    to=Topic("late-flights", Late, partitions=4),
    key=lambda late: late.carrier,
    compression="lz4",
)
def late_flights(late: Late) -> Late:
    return late


@app.sink(late, to=JsonLines("late-flights.jsonl"))
def late_flights_file(late: Late) -> Late:
    return late
