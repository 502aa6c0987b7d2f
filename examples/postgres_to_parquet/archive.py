"""A job that copies the rows of a PostgreSQL table to Parquet files, and later those that changed.

    FLIGHTS_URL=postgresql://user:password@host/database streamkit run archive.py --once

The table is the one that ``run.py`` creates. The files are in the folder ``flights`` of the current
folder. Each run reads the rows that were added or changed since the run before it.
"""

import os
from datetime import date, datetime, timedelta

import msgspec

from streamkit import App, Secret
from streamkit.connectors.files import FileSink
from streamkit.connectors.sql import SqlTable

app = App("flights-to-parquet")


class Flight(msgspec.Struct):
    """A row of the table. ``day`` is the local date; without a delay, the flight was cancelled."""

    id: int
    day: date
    time_hour: datetime
    sched_dep_time: int
    carrier: str
    flight: int
    origin: str
    dest: str
    dep_delay: int | None
    distance: int
    updated_at: datetime


class Departure(msgspec.Struct):
    """A row of the files: one version of a flight."""

    id: int
    updated_at: datetime
    origin: str
    date: date
    scheduled: datetime
    carrier: str
    flight: int
    dest: str
    delay_minutes: int | None
    miles: int


def database() -> Secret:
    """Return the URL, when the job starts. It contains a password, so no report shows it."""
    return Secret(os.environ["FLIGHTS_URL"])


# The rows come in the order of `updated_at`, and rows with the same time in the order of `id`.
flights = app.stream(SqlTable(database, "flights", incremental="updated_at", key="id"), Flight)


@app.stage(flights)
def departure(flight: Flight) -> Departure:
    # A local time of 517 is 17 minutes after the full hour, which `time_hour` has in UTC.
    scheduled = flight.time_hour + timedelta(minutes=flight.sched_dep_time % 100)
    return Departure(
        flight.id,
        flight.updated_at,
        flight.origin,
        flight.day,
        scheduled,
        flight.carrier,
        flight.flight,
        flight.dest,
        flight.dep_delay,
        flight.distance,
    )


departure.to(FileSink("flights/{origin}/{date:%Y-%m-%d}/part-{n}.parquet", roll_rows=200))
