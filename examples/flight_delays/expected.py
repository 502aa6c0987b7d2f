"""Compute with SQL, without streamkit, what ``flight_delays.py`` must find.

``python expected.py [FOLDER]`` prints the records of the three topics as JSON, in the order of
key and time. Times come from the local columns ``year``, ``month``, ``day`` and ``sched_dep_time``,
which the job does not use.
"""

import csv
import gzip
import json
import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

Row = dict[str, Any]

NEW_YORK = ZoneInfo("America/New_York")
TABLES = """
    CREATE TABLE flights (origin, tailnum, day, scheduled INTEGER, dep_delay INTEGER);
    CREATE TABLE weather (origin, hour INTEGER, row);
    CREATE INDEX weather_of_hour ON weather (origin, hour);
    CREATE TABLE planes (tailnum PRIMARY KEY, manufacturer, seats INTEGER);
"""
HOURLY_DELAYS = """
    SELECT origin,
           utc(hour)        AS window_start,
           count(*)         AS flights,
           count(dep_delay) AS departed,
           avg(dep_delay)   AS mean_delay,
           max(dep_delay)   AS max_delay,
           (SELECT row FROM weather
             WHERE weather.origin = hours.origin AND weather.hour <= hours.hour
             ORDER BY weather.hour DESC LIMIT 1) AS weather
    FROM (SELECT *, scheduled / 3600 * 3600 AS hour FROM flights) AS hours
    GROUP BY origin, hours.hour ORDER BY origin, hours.hour
"""
CONGESTION = """
    WITH late AS (
        SELECT origin, scheduled, dep_delay,
               scheduled - lag(scheduled) OVER by_time < 20 * 60 AS follows
        FROM flights WHERE dep_delay >= 30
        WINDOW by_time AS (PARTITION BY origin ORDER BY scheduled)
    ), numbered AS (
        SELECT *, count(*) FILTER (WHERE follows IS NOT 1) OVER (
            PARTITION BY origin ORDER BY scheduled) AS session
        FROM late
    )
    SELECT origin,
           utc(min(scheduled))           AS window_start,
           utc(max(scheduled) + 20 * 60) AS window_end,
           count(*)                      AS flights,
           avg(dep_delay)                AS mean_delay
    FROM numbered GROUP BY origin, session ORDER BY origin, min(scheduled)
"""
MANUFACTURER_DAYS = """
    SELECT coalesce(manufacturer, 'unknown') AS manufacturer,
           midnight(day, 0)                  AS window_start,
           midnight(day, 1)                  AS window_end,
           count(*)                          AS flights,
           coalesce(sum(seats), 0)           AS seats
    FROM flights LEFT JOIN planes USING (tailnum)
    GROUP BY 1, day ORDER BY 1, day
"""
QUERIES = {
    "hourly-delays": HOURLY_DELAYS,
    "congestion": CONGESTION,
    "manufacturer-days": MANUFACTURER_DAYS,
}


def main(folder: Path) -> None:
    database = loaded(folder)
    topics = {topic: rows(database, query) for topic, query in QUERIES.items()}
    topics["hourly-delays"] = [
        {"weather": json.loads(row.pop("weather") or "null"), "delays": row}
        for row in topics["hourly-delays"]
    ]
    json.dump(topics, sys.stdout)
    sys.stdout.write("\n")


def rows(database: sqlite3.Connection, query: str) -> list[Row]:
    found = database.execute(query)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found]


def loaded(folder: Path) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.create_function("utc", 1, utc)
    database.create_function("midnight", 2, midnight)
    database.executescript(TABLES)
    database.executemany(
        "INSERT INTO flights VALUES (:origin, :tailnum, :local_day, :scheduled, :dep_delay)",
        (flight | local(flight) for flight in lines(folder / "flights.jsonl.gz")),
    )
    database.executemany(
        "INSERT INTO weather VALUES (?, ?, ?)",
        (
            (row.pop("origin"), seconds(datetime.fromisoformat(row["time_hour"])), json.dumps(row))
            for row in lines(folder / "weather.jsonl.gz")
        ),
    )
    with (folder / "planes.csv").open(encoding="utf-8", newline="") as planes:
        database.executemany(
            "INSERT INTO planes VALUES (:tailnum, :manufacturer, :seats)", csv.DictReader(planes)
        )
    return database


def lines(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as rows:
        yield from map(json.loads, rows)


def local(flight: Row) -> Row:
    """Return the day and the scheduled departure of a flight from its local columns."""
    day = date(flight["year"], flight["month"], flight["day"])
    hour, minute = divmod(flight["sched_dep_time"], 100)
    moment = datetime.combine(day, time(hour, minute), NEW_YORK)
    return {"local_day": day.isoformat(), "scheduled": seconds(moment)}


def midnight(day: str, days: int) -> str:
    """Return when a local day begins, or the day that is so many days later."""
    later = date.fromisoformat(day) + timedelta(days=days)
    return utc(seconds(datetime.combine(later, time(), NEW_YORK)))


def seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def utc(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
