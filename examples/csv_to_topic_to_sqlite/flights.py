"""Two jobs: from a CSV file to a topic, and from the topic to a table of SQLite.

Run them in this folder; nothing else needs to be running:

    streamkit run flights.py:to_topic --once
    streamkit run flights.py:to_sqlite --once

The topic is on the embedded broker, and the database is the file ``flights.db`` in the current
folder. ``python run.py`` does both and counts the rows.
"""

import os
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from streamkit import App, Topic
from streamkit.connectors.files import Csv, Files
from streamkit.connectors.sql import SqlSink

FLIGHTS = os.environ.get("FLIGHTS_CSV", str(Path(__file__).with_name("flights.csv.gz")))


class Flight(msgspec.Struct):
    """A row of the file; ``NA`` is None. Columns without a field here are left out."""

    time_hour: datetime
    sched_dep_time: int
    carrier: str
    flight: int
    origin: str
    dest: str
    dep_delay: int | None
    distance: int


# --- from the file to the topic

to_topic = App("flights-to-topic")

rows = to_topic.stream(Files(FLIGHTS, Csv(Flight)))
# Flights of one airport stay in order: its name is their key, and a key has one partition.
rows.key_by(lambda flight: flight.origin).to(Topic("flights", Flight, partitions=3))


# --- from the topic to the database

to_sqlite = App("flights-to-sqlite")


class Departure(msgspec.Struct):
    """A row of the table ``departures``; without a delay, the flight was cancelled."""

    scheduled: datetime
    carrier: str
    flight: int
    origin: str
    dest: str
    delay_minutes: int | None
    miles: int


@to_sqlite.source("flights", start="beginning")
def flights(flight: Flight) -> Flight:
    return flight


@to_sqlite.stage(flights)
def departure(flight: Flight) -> Departure:
    # A local time of 517 is 17 minutes after the full hour, which `time_hour` has in UTC.
    scheduled = flight.time_hour + timedelta(minutes=flight.sched_dep_time % 100)
    return Departure(
        scheduled,
        flight.carrier,
        flight.flight,
        flight.origin,
        flight.dest,
        flight.dep_delay,
        flight.distance,
    )


# After a crash, a topic may get a flight twice. The key makes the second one replace the first.
departure.to(
    SqlSink(
        "sqlite:///flights.db",
        "departures",
        mode="upsert",
        key=("scheduled", "carrier", "flight", "origin"),
    )
)
