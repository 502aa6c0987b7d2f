"""Parquet files as a source: their rows, their types, errors with their place, and resuming."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import pyarrow
import pytest
from pyarrow import parquet

from streamkit import App, Record
from streamkit.connectors.files import Files, Parquet
from streamkit.errors import DataError, StageError, TopologyError
from streamkit.testing import check_source
from tests.connectors.reading import FLIGHTS, Flight, read
from tests.connectors.test_files_resume import reader_of, rest, rows_and_positions

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def flights(path: Path, **options: Any) -> Path:
    columns = {
        "more": pyarrow.array([b"x", b"y", b"z"]),
        "delay": [3.5, None, -2.0],
        "number": [1, 2, 3],
        "carrier": ["UA", "AA", "B6"],
    }
    return write(path, columns, **options)


class Everything(msgspec.Struct):
    when: datetime
    day: date
    price: Decimal
    parts: list[int]
    inner: Flight
    note: str = "none"


class Numbers(TypedDict):
    number: int


def test_rows_become_objects(tmp_path: Path) -> None:
    path = flights(tmp_path / "f.parquet", row_group_size=2)
    assert read(Files(path, Parquet()), Flight) == FLIGHTS
    assert read(Files(path, Parquet(Flight)), Flight) == FLIGHTS
    assert read(Files(path, Parquet()), Numbers) == [{"number": each} for each in (1, 2, 3)]


def test_rows_become_dicts_of_all_columns(tmp_path: Path) -> None:
    path = flights(tmp_path / "f.parquet")
    found = read(Files(path, Parquet()), dict)
    assert found[1] == {"more": b"y", "delay": None, "number": 2, "carrier": "AA"}


def test_columns_of_many_types_are_read(tmp_path: Path) -> None:
    when, day = datetime(2024, 2, 3, 4, 5, 6, 7, UTC), date(2024, 2, 3)
    inner = {"carrier": "UA", "number": 1, "delay": 3.5}
    columns = {
        "when": pyarrow.array([when], pyarrow.timestamp("ns", "UTC")),
        "day": [day],
        "price": [Decimal("12.30")],
        "parts": [[1, 2]],
        "inner": [inner],
    }
    path = write(tmp_path / "f.parquet", columns)
    (found,) = read(Files(path, Parquet()), Everything)
    assert found == Everything(when, day, Decimal("12.3"), [1, 2], FLIGHTS[0])


def test_numbers_of_other_sizes_and_categories_are_read(tmp_path: Path) -> None:
    columns = {
        "carrier": pyarrow.array(["UA", "AA", "B6"]).dictionary_encode(),
        "number": pyarrow.array([1, 2, 3], pyarrow.uint8()),
        "delay": pyarrow.array([3.5, None, -2.0], pyarrow.float32()),
    }
    path = write(tmp_path / "f.parquet", columns)
    assert read(Files(path, Parquet()), Flight) == FLIGHTS


def test_columns_that_the_type_has_not_are_not_read(tmp_path: Path) -> None:
    path = flights(tmp_path / "f.parquet", compression="none", use_dictionary=False)
    facts = parquet.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    start = facts.data_page_offset
    data[start : start + facts.total_compressed_size] = bytes(facts.total_compressed_size)
    path.write_bytes(data)
    assert read(Files(path, Parquet()), Flight) == FLIGHTS
    with pytest.raises(DataError, match=r"f\.parquet: the file cannot be read after row 0"):
        read(Files(path, Parquet()), dict)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"carrier": ["UA"]}, r"f\.parquet: there is no column 'number', only carrier"),
        (
            {"carrier": ["UA"], "number": ["one"]},
            r"f\.parquet: the column 'number' has the type string, but int needs int64",
        ),
    ],
)
def test_a_file_with_other_columns_is_one_error(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "f.parquet", columns)
    app = App("files")
    rows = app.stream(Files(path, Parquet(Flight)), on_error="skip")
    with app.test() as job, pytest.raises(DataError, match=message):
        job.read(rows)


def not_text() -> pyarrow.Array:
    offsets = pyarrow.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 2, 4, 6)))
    return pyarrow.StringArray.from_buffers(3, offsets, pyarrow.py_buffer(b"UA\xff\xffB6"))


@pytest.mark.parametrize(
    "columns",
    [
        {"carrier": ["UA", None, "B6"], "number": [1, 2, 3]},
        {"carrier": ["UA", "AA", "B6"], "number": [1.0, 2.5, 3.0]},
        {"carrier": not_text(), "number": [1, 2, 3]},
    ],
    ids=["null", "a fraction", "not UTF-8"],
)
def test_a_row_that_does_not_fit_fails_alone(tmp_path: Path, columns: dict[str, Any]) -> None:
    columns = {**columns, "delay": [3.5, None, -2.0]}
    path = write(tmp_path / "f.parquet", columns, row_group_size=2)
    with pytest.raises(StageError, match=r"f\.parquet row 2: the column '(carrier|number)'"):
        read(Files(path, Parquet()), Flight)
    app = App("files")
    rows = app.stream(Files(path, Parquet(Flight)), on_error="skip")
    with app.test() as job:
        job.read(rows)
        assert job.output(rows) == [FLIGHTS[0], FLIGHTS[2]]


class Positive(msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number == 2:
            raise ValueError("2 is not allowed")


class Moment(msgspec.Struct):
    at: datetime


def test_a_check_of_the_class_is_an_error_of_its_row(tmp_path: Path) -> None:
    path = flights(tmp_path / "f.parquet")
    with pytest.raises(StageError, match=r"f\.parquet row 2.*2 is not allowed"):
        read(Files(path, Parquet()), Positive)


def test_a_time_that_python_does_not_have_is_an_error_of_its_row(tmp_path: Path) -> None:
    times = pyarrow.array([0, 2**62], pyarrow.timestamp("us", "UTC"))
    path = write(tmp_path / "f.parquet", {"at": times})
    with pytest.raises(StageError, match=r"f\.parquet row 2"):
        read(Files(path, Parquet()), Moment)
    with pytest.raises(StageError, match=r"f\.parquet row 2"):
        read(Files(path, Parquet()), dict)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"carrier,number\nUA,1\n"), "this is not a Parquet file"),
        (lambda path: path.write_bytes(b""), "this is not a Parquet file"),
        (lambda path: path.write_bytes(b"PAR1" * 8), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "not completely written"),
    ],
)
def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, make: Any, message: str) -> None:
    path = flights(tmp_path / "f.parquet")
    make(path)
    with pytest.raises(DataError, match=rf"f\.parquet: (?s:.)*{message}"):
        read(Files(path, Parquet()), Flight)


def test_a_file_that_is_compressed_as_a_whole_is_refused(tmp_path: Path) -> None:
    import gzip

    path = flights(tmp_path / "f.parquet")
    (tmp_path / "g.parquet.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match="compressed as a whole"):
        read(Files(tmp_path / "g.parquet.gz", Parquet()), Flight)


def test_types_without_columns_are_refused() -> None:
    app = App("files")
    with pytest.raises(TopologyError, match="rows of Parquet"):
        app.stream(Files("f.parquet", Parquet()), int)
    with pytest.raises(TopologyError, match="have no type"):
        app.stream(Files("f.parquet", Parquet()))


def test_a_decorated_source_gets_values_or_records(tmp_path: Path) -> None:
    path = flights(tmp_path / "f.parquet")
    app = App("files")

    @app.source(Files(path, Parquet(Flight)))
    def numbers(flight: Flight) -> int | None:
        return flight.number if flight.delay else None

    @app.source(Files(path, Parquet()))
    def rows(row: Record[Flight]) -> tuple[str, int, str]:
        return row.topic, row.offset, row.value.carrier

    with app.test() as job:
        job.read(numbers)
        job.read(rows)
        assert job.output(numbers) == [1, 3]
        assert job.output(rows)[2] == (str(path), 3, "B6")
        job.send(numbers, FLIGHTS[0])
        assert job.output(numbers)[-1] == 1


def test_parquet_keeps_the_contract_of_a_source(tmp_path: Path) -> None:
    for number in (1, 2):
        flights(tmp_path / f"{number}.parquet", row_group_size=2)
    empty = pyarrow.table({"carrier": [], "number": [], "delay": []})
    parquet.write_table(empty, tmp_path / "3.parquet")
    source = Files(tmp_path / "*.parquet", Parquet[Any]())
    check_source(lambda: source, [*FLIGHTS, *FLIGHTS], kind=Flight)
    check_source(
        lambda: Files(tmp_path / "[12].parquet", Parquet(dict)),
        [*read(Files(tmp_path / "1.parquet", Parquet()), dict)] * 2,
    )


def decoded(rows: Sequence[Any]) -> list[Any]:
    return [row.batch.to_pylist()[0] for row in rows]


@pytest.mark.parametrize("row_group_size", [1, 2, 3, 100])
async def test_reading_resumes_after_every_row(tmp_path: Path, row_group_size: int) -> None:
    for number in (1, 2):
        columns = {"n": list(range(7)), "text": [f"{number}-{n}" for n in range(7)]}
        write(tmp_path / f"{number}.parquet", columns, row_group_size=row_group_size)
    source = Files(tmp_path / "*.parquet", Parquet(dict))
    found = await rows_and_positions(source)
    assert len(found) == 14
    for number, (_, positions) in enumerate(found, 1):
        expected = decoded([row for row, _ in found[number:]])
        assert decoded(await rest(source, positions)) == expected


async def test_reading_resumes_within_a_row_group_of_many_chunks(tmp_path: Path) -> None:
    path = write(tmp_path / "f.parquet", {"n": list(range(150_000))})
    assert parquet.ParquetFile(path).num_row_groups == 1
    source = Files(path, Parquet(dict))
    reader = reader_of(source)
    await reader.open({})
    done = chunks = 0
    while (chunk := await reader.next()) is not None:
        chunks += 1
        for part in (chunk.slice(0, 7), chunk.slice(7, len(chunk))):
            done += len(part)
            again = await rest(source, dict([reader.position_after(part)]))
            assert len(again) == 150_000 - done
            assert not again or decoded(again[:1]) == [{"n": done}]
    await reader.close()
    assert chunks > 2


async def test_a_file_that_was_read_is_not_opened_again(tmp_path: Path) -> None:
    path = flights(tmp_path / "f.parquet")
    source = Files(path, Parquet(dict))
    positions = (await rows_and_positions(source))[-1][1]
    assert f'"byte":{path.stat().st_size}' in next(iter(positions.values()))
    assert await rest(source, positions) == []


async def test_a_file_that_changed_is_read_from_its_beginning(tmp_path: Path) -> None:
    columns = {"n": list(range(1000))}
    path = write(tmp_path / "f.parquet", columns, row_group_size=500)
    source = Files(path, Parquet(dict))
    positions = (await rows_and_positions(source))[700][1]
    before = path.read_bytes()
    write(path, {"n": list(range(1500))}, row_group_size=500)
    assert path.read_bytes()[:1000] == before[:1000]
    notes: list[str] = []
    reader = reader_of(source, notes)
    await reader.open(positions)
    chunk = await reader.next()
    assert chunk is not None
    assert decoded(chunk.values[:1]) == [{"n": 0}]
    assert "is another file now" in notes[0]
    await reader.close()


async def test_a_followed_file_is_read_when_it_is_complete(tmp_path: Path) -> None:
    whole = flights(tmp_path / "whole").read_bytes()
    path = tmp_path / "f.parquet"
    path.write_bytes(whole[:100])
    source = Files(tmp_path / "*.parquet", Parquet(dict), follow=True, every=0.01)
    assert await rest(source, {}, until_end=True) == []
    reader = reader_of(source)
    await reader.open({})
    path.write_bytes(whole)
    chunk = await reader.next()
    assert chunk is not None
    assert len(chunk) == 3
    await reader.close()


async def test_a_large_row_group_is_read_in_parts(tmp_path: Path) -> None:
    import random

    noise = random.Random(1).randbytes(1 << 16)
    texts = [noise[n : n + 2000] for n in range(60_000)]
    path = write(tmp_path / "f.parquet", {"text": texts}, use_dictionary=False, compression="none")
    assert path.stat().st_size > 100e6
    assert parquet.ParquetFile(path).num_row_groups == 1
    del texts
    reader = reader_of(Files(path, Parquet(dict)))
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    most = rows = 0
    await reader.open({})
    while (chunk := await reader.next()) is not None:
        rows += len(chunk)
        assert chunk.values.batch.nbytes <= 9 << 20  # type: ignore[attr-defined]
        most = max(most, pyarrow.total_allocated_bytes() - before)
    most += tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    await reader.close()
    assert rows == 60_000
    assert most < 80e6  # some parts are in work at a time
