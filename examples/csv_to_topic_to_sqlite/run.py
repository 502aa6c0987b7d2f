"""Run both jobs, one after the other, and count what is in the database.

    python run.py [FOLDER] [--commit-interval SECONDS]

Topic, positions and database go to FOLDER, or to a new temporary folder, and stay there. If the
script is killed at any moment, run it again with the same FOLDER: both jobs resume.
"""

import argparse
import os
import sqlite3
import tempfile
from pathlib import Path

from flights import to_sqlite, to_topic

BY_AIRPORT = """
    SELECT origin, count(*), sum(delay_minutes IS NULL), sum(delay_minutes), sum(miles)
    FROM departures GROUP BY origin ORDER BY origin
"""


def main() -> None:
    options = argparse.ArgumentParser(description="Copy flights from a file to SQLite.")
    options.add_argument("folder", nargs="?", type=Path, help="where the data goes")
    options.add_argument("--commit-interval", type=float, default=1.0, metavar="SECONDS")
    chosen = options.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="csv-to-sqlite-"))
    folder.mkdir(exist_ok=True)
    os.chdir(folder)  # the URL of the database is relative
    for app in (to_topic, to_sqlite):
        code = app.run(
            embedded=True,
            once=True,
            data_dir=".streamkit",
            commit_interval=chosen.commit_interval,
        )
        if code:
            raise SystemExit(code)
    print_counts()


def print_counts() -> None:
    database = sqlite3.connect("flights.db")
    rows = database.execute(BY_AIRPORT).fetchall()
    database.close()
    print("airport  flights  cancelled  minutes late       miles")
    for origin, flights, cancelled, minutes, miles in rows:
        print(f"{origin:7} {flights:8,} {cancelled:10,} {minutes:13,} {miles:11,}")
    print(f"{sum(row[1] for row in rows):,} rows in {Path.cwd() / 'flights.db'}")


if __name__ == "__main__":
    main()
