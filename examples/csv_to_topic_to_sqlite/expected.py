"""Compute from the CSV file, without streamkit, what ``run.py`` must count in the database.

``python expected.py`` prints it as JSON: flights, cancelled flights, minutes late and miles of each
airport. It uses the columns as texts, and the standard library only.
"""

import csv
import glob
import gzip
import json
import os
import sys
from collections import defaultdict
from pathlib import Path

FLIGHTS = os.environ.get("FLIGHTS_CSV", str(Path(__file__).with_name("flights.csv.gz")))


def main() -> None:
    found: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for path in glob.glob(FLIGHTS):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                counts = found[row["origin"]]
                is_cancelled = row["dep_delay"] == "NA"
                counts[0] += 1
                counts[1] += is_cancelled
                counts[2] += 0 if is_cancelled else int(row["dep_delay"])
                counts[3] += int(row["distance"])
    json.dump(dict(sorted(found.items())), sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
