"""Count in SQL, without streamkit, the flights that ``late_flights.py`` must find.

``python expected.py`` prints the counts as JSON. Compare them with the topic
``late-flights``, key by key, and with the lines of ``late-flights.jsonl``.
"""

import gzip
import json
import sqlite3
import sys
from pathlib import Path

FLIGHTS = Path(__file__).with_name("flights.jsonl.gz")

TOTALS = """
    SELECT count(*)                                     AS flights,
           count(*) FILTER (WHERE dep_time IS NULL)     AS never_departed,
           count(*) FILTER (WHERE arr_delay IS NULL)    AS without_arr_delay,
           count(*) FILTER (WHERE arr_delay <= 15)      AS on_time,
           count(*) FILTER (WHERE arr_delay > 15)       AS late,
           sum(arr_delay) FILTER (WHERE arr_delay > 15) AS late_minutes
    FROM flights
"""
LATE_BY_CARRIER = """
    SELECT carrier, count(*) FROM flights WHERE arr_delay > 15 GROUP BY carrier ORDER BY carrier
"""


def main() -> None:
    database = flights()
    totals = database.execute(TOTALS)
    names = [column[0] for column in totals.description]
    counts = dict(zip(names, totals.fetchone(), strict=True))
    counts["late_by_carrier"] = dict(database.execute(LATE_BY_CARRIER).fetchall())
    json.dump(counts, sys.stdout, indent=2)
    sys.stdout.write("\n")


def flights() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE flights (carrier TEXT, dep_time INTEGER, arr_delay INTEGER)")
    with gzip.open(FLIGHTS, "rt", encoding="utf-8") as lines:
        database.executemany(
            "INSERT INTO flights VALUES (:carrier, :dep_time, :arr_delay)", map(json.loads, lines)
        )
    return database


if __name__ == "__main__":
    main()
