"""Reads what a file sink has written, without the code of the project."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import fastavro
import lz4.frame
import msgspec
from pyarrow import parquet

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class Flight(msgspec.Struct, frozen=True):
    id: int
    origin: str
    delay: float | None


FLIGHTS = [
    Flight(number, ("JFK", "LGA", "EWR")[number % 3], None if number % 7 == 0 else number / 2)
    for number in range(200)
]


def shown(folder: Path) -> list[Path]:
    """Return the files that are visible, in the order of their names."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in found if not path.name.startswith("."))


def content(path: Path) -> bytes:
    data = path.read_bytes()
    unpack: Any = {
        ".gz": gzip.decompress,
        ".bz2": bz2.decompress,
        ".xz": lzma.decompress,
        ".zst": zstd.decompress,
        ".lz4": lz4.frame.decompress,
    }.get(path.suffix)
    return data if unpack is None else unpack(data)


def flights_of(path: Path) -> list[Flight]:
    """Return the rows of one file by the rules of its format."""
    data = content(path)
    rows: list[dict[str, Any]]
    if ".csv" in path.name:
        rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
        for row in rows:
            row["delay"] = float(row["delay"]) if row["delay"] else None
            row["id"] = int(row["id"])
    elif ".jsonl" in path.name:
        rows = [json.loads(line) for line in data.splitlines()]
    elif ".avro" in path.name:
        with path.open("rb") as file:
            rows = list(fastavro.reader(file))  # type: ignore[arg-type]
    elif ".parquet" in path.name:
        rows = parquet.read_table(path).to_pylist()
    else:
        rows = json.loads(data)
    return [Flight(**row) for row in rows]


def flights_in(folder: Path) -> list[Flight]:
    return sorted(
        (flight for path in shown(folder) for flight in flights_of(path)), key=lambda each: each.id
    )
