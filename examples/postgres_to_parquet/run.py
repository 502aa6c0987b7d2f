"""Start PostgreSQL, copy a table to Parquet, change the table, copy again, and count.

    python run.py [FOLDER] [--url URL] [--commit-interval SECONDS]

Files and positions go to FOLDER, or to a new temporary folder, and stay there. If the script is
killed at any moment, run it again with the same FOLDER: the job resumes.
"""

import argparse
import csv
import glob
import gzip
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from archive import app
from pyarrow import dataset
from server import postgres

EXTRACT = Path(__file__).parents[1] / "csv_to_topic_to_sqlite" / "flights.csv.gz"
FLIGHTS = os.environ.get("FLIGHTS_CSV", str(EXTRACT))
LAST_DAY = "14"  # of January; its flights are added after the first copy

COLUMNS = "day, time_hour, sched_dep_time, carrier, flight, origin, dest, dep_delay, distance"
TABLE = """
    CREATE TABLE flights (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        day date NOT NULL,
        time_hour timestamptz NOT NULL,
        sched_dep_time integer NOT NULL,
        carrier text NOT NULL,
        flight integer NOT NULL,
        origin text NOT NULL,
        dest text NOT NULL,
        dep_delay integer,
        distance integer NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT now()
    )
"""
# Without this index, PostgreSQL sorts the whole table for each page.
INDEX = "CREATE UNIQUE INDEX ON flights (updated_at, id)"
# One airline reports that its cancelled flights have left, 60 minutes late.
CORRECTION = """
    UPDATE flights SET dep_delay = 60, updated_at = now()
    WHERE dep_delay IS NULL AND carrier = 'EV'
"""
HAS_LAST_DAY = f"SELECT count(*) > 0 FROM flights WHERE extract(day FROM day) = {LAST_DAY}"


def main() -> None:
    options = argparse.ArgumentParser(description="Copy a table of PostgreSQL to Parquet.")
    options.add_argument("folder", nargs="?", type=Path, help="where the data goes")
    options.add_argument("--url", help="use the empty database of a server that runs already")
    options.add_argument("--commit-interval", type=float, default=1.0, metavar="SECONDS")
    chosen = options.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="postgres-to-parquet-"))
    folder.mkdir(exist_ok=True)
    os.chdir(folder)  # the path of the files is relative
    with nullcontext(chosen.url) if chosen.url else postgres(Path.cwd()) as url:
        os.environ["FLIGHTS_URL"] = url  # the job reads it when it starts
        with psycopg.connect(url, autocommit=True) as database:
            load(database)
            copy(chosen.commit_interval)
            change(database)
            copy(chosen.commit_interval)
    print_counts()


def load(database: psycopg.Connection[Any]) -> None:
    """Create the table with the flights before the last day, unless it exists."""
    with database.transaction():
        if is_true(database, "SELECT to_regclass('flights') IS NOT NULL"):
            return
        database.execute(TABLE)
        database.execute(INDEX)
        count = insert(database, (row for row in flights() if row["day"] != LAST_DAY))
    print(f"loaded {count:,} flights into the table", flush=True)


def change(database: psycopg.Connection[Any]) -> None:
    """Correct some rows and add those of the last day, unless that has happened."""
    with database.transaction():
        if is_true(database, HAS_LAST_DAY):
            return
        corrected = database.execute(CORRECTION).rowcount
        added = insert(database, (row for row in flights() if row["day"] == LAST_DAY))
    print(f"corrected {corrected:,} flights and added {added:,}", flush=True)


def is_true(database: psycopg.Connection[Any], query: LiteralString) -> bool:
    return database.execute(query).fetchone() == (True,)


def insert(database: psycopg.Connection[Any], rows: Iterable[dict[str, str]]) -> int:
    with database.cursor() as cursor:
        with cursor.copy(f"COPY flights ({COLUMNS}) FROM STDIN") as copying:
            for row in rows:
                row["day"] = f"{row['year']}-{row['month']}-{row['day']}"
                texts = (row[name] for name in COLUMNS.split(", "))
                copying.write_row([None if text == "NA" else text for text in texts])
        return cursor.rowcount


def flights() -> Iterator[dict[str, str]]:
    for path in sorted(glob.glob(FLIGHTS)):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            yield from csv.DictReader(lines)


def copy(commit_interval_s: float) -> None:
    code = app.run(
        embedded=True, once=True, data_dir=".streamkit", commit_interval=commit_interval_s
    )
    if code:
        raise SystemExit(code)


def print_counts() -> None:
    """Count the flights in the files. Of a row that changed, the latest version counts."""
    rows = dataset.dataset("flights", format="parquet").to_table().sort_by("updated_at").to_pylist()
    latest = {row["id"]: row for row in rows}
    airports: dict[str, list[int]] = {}
    for row in latest.values():
        counts = airports.setdefault(row["origin"], [0, 0, 0, 0])
        counts[0] += 1
        counts[1] += row["delay_minutes"] is None
        counts[2] += row["delay_minutes"] or 0
        counts[3] += row["miles"]
    print("airport  flights  cancelled  minutes late       miles")
    for origin, (flights, cancelled, minutes, miles) in sorted(airports.items()):
        print(f"{origin:7} {flights:8,} {cancelled:10,} {minutes:13,} {miles:11,}")
    print(f"{len(rows):,} rows, {len(latest):,} flights in {Path.cwd() / 'flights'}")


if __name__ == "__main__":
    main()
