"""Avro files as a source: their rows, their codecs, damage, and resuming."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest

from streamkit import App
from streamkit.connectors.files import AvroFile, Files
from streamkit.errors import DataError, StageError
from streamkit.testing import check_source
from tests.connectors.reading import FLIGHTS, Flight, read
from tests.connectors.test_files_resume import reader_of, rest, rows_and_positions

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "record",
    "name": "Flight",
    "fields": [
        {"name": "carrier", "type": "string"},
        {"name": "number", "type": "long"},
        {"name": "delay", "type": ["null", "double"]},
    ],
}
ROWS: list[dict[str, Any]] = [msgspec.to_builtins(each) for each in FLIGHTS]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def write(path: Path, rows: list[dict[str, Any]] = ROWS, **options: Any) -> Path:
    schema = options.pop("schema", SCHEMA)
    with path.open("wb") as file:
        fastavro.writer(file, schema, rows, **options)
    return path


@pytest.mark.parametrize("codec", ["null", "deflate", "zstandard", "snappy", "bzip2"])
def test_files_of_each_codec_are_read(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "f.avro", codec=codec)
    assert read(Files(path, AvroFile()), Flight) == FLIGHTS
    assert read(Files(path, AvroFile(dict)), None) == ROWS


class Everything(msgspec.Struct):
    at: datetime
    day: date
    price: Decimal
    data: bytes
    parts: list[int]


def test_logical_types_are_read(tmp_path: Path) -> None:
    fields = {
        "at": {"type": "long", "logicalType": "timestamp-micros"},
        "day": {"type": "int", "logicalType": "date"},
        "price": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        "data": "bytes",
        "parts": {"type": "array", "items": "int"},
    }
    schema = {
        "type": "record",
        "name": "Everything",
        "fields": [{"name": name, "type": kind} for name, kind in fields.items()],
    }
    row = Everything(
        datetime(2024, 2, 3, 4, 5, 6, 7, UTC), date(2024, 2, 3), Decimal("12.30"), b"\xff", [1]
    )
    path = write(tmp_path / "f.avro", [msgspec.structs.asdict(row)], schema=schema)
    assert read(Files(path, AvroFile(Everything)), None) == [row]


def test_a_row_that_is_not_of_the_type_fails_alone(tmp_path: Path) -> None:
    rows = [ROWS[0], {**ROWS[1], "number": 2**40}, ROWS[2]]

    class Small(msgspec.Struct):
        carrier: str
        number: int

        def __post_init__(self) -> None:
            if self.number > 1000:
                raise ValueError("the number is too large")

    path = write(tmp_path / "f.avro", rows)
    with pytest.raises(StageError, match=r"f\.avro row 2.*too large"):
        read(Files(path, AvroFile()), Small)
    app = App("files")
    found = app.stream(Files(path, AvroFile()), Small, on_error="skip")
    with app.test() as job:
        job.read(found)
        assert [each.number for each in job.output(found)] == [1, 3]


@pytest.mark.parametrize("cut", [1, 3, 20, 40])
def test_a_file_that_ends_early_is_refused(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "f.avro", ROWS * 100, sync_interval=100)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"f\.avro: .* after row 2\d\d: it ends"):
        read(Files(path, AvroFile()), Flight)


@pytest.mark.parametrize("data", [b"", b"carrier,number\n", b"Obj\x01", b"Obj\x01" + b"\xff" * 50])
def test_a_file_that_is_not_avro_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "f.avro"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"f\.avro: "):
        read(Files(path, AvroFile()), Flight)


def test_damage_in_a_block_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "f.avro", ROWS * 100, sync_interval=100, codec="deflate")
    data = bytearray(path.read_bytes())
    data[-30:-16] = bytes(14)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"f\.avro: the file cannot be read after row 2\d\d"):
        read(Files(path, AvroFile()), Flight)


def test_avro_files_keep_the_contract_of_a_source(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / f"{number}.avro", sync_interval=1)
    write(tmp_path / "3.avro", [])
    check_source(
        lambda: Files(tmp_path / "*.avro", AvroFile[Any]()), [*FLIGHTS, *FLIGHTS], kind=Flight
    )


@pytest.mark.parametrize("name", ["f.avro", "f.avro.gz"])
@pytest.mark.parametrize("sync_interval", [1, 30, 100_000])
async def test_reading_resumes_after_every_row(
    tmp_path: Path, name: str, sync_interval: int
) -> None:
    rows = [{"carrier": f"c{n}", "number": n, "delay": None} for n in range(9)]
    for number in (1, 2):
        path = write(tmp_path / f"{number}-{name}", rows, sync_interval=sync_interval)
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))
    source = Files(tmp_path / f"*{name}", AvroFile(dict))
    found = await rows_and_positions(source)
    assert len(found) == 18
    for number, (_, positions) in enumerate(found, 1):
        assert await rest(source, positions) == [row for row, _ in found[number:]]


async def test_reading_resumes_within_a_block_of_many_chunks(tmp_path: Path) -> None:
    rows = [{"carrier": "x" * 500, "number": n, "delay": None} for n in range(6000)]
    path = write(tmp_path / "f.avro", rows, sync_interval=1 << 24)
    source = Files(path, AvroFile(dict))
    reader = reader_of(source)
    await reader.open({})
    done = chunks = 0
    while (chunk := await reader.next()) is not None:
        chunks += 1
        part = chunk.slice(0, len(chunk) - 7)
        for each in (part, chunk.slice(len(part), len(chunk))):
            done += len(each)
            positions = dict([reader.position_after(each)])
            again = await rest(source, positions)
            assert [row["number"] for row in again] == list(range(done, 6000))
    await reader.close()
    assert chunks > 2


async def test_blocks_that_are_appended_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "f.avro", ROWS[:2])
    source = Files(path, AvroFile(dict), follow=True, every=0.01)
    positions = (await rows_and_positions(Files(path, AvroFile(dict))))[-1][1]
    whole = path.read_bytes()
    with path.open("a+b") as file:
        fastavro.writer(file, SCHEMA, ROWS[2:])
    longer = path.read_bytes()
    assert longer.startswith(whole)
    path.write_bytes(longer[:-5])
    assert await rest(source, positions, until_end=True) == []
    path.write_bytes(longer)
    assert await rest(source, positions, until_end=True) == ROWS[2:]
