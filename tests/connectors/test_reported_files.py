"""Problems that users of other tools have reported about file sources."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import msgspec
import pyarrow
import pytest
from pyarrow import parquet

from streamkit.connectors.files import Csv, Files, Parquet, Text
from streamkit.errors import DataError
from tests.connectors.reading import read
from tests.connectors.test_files_resume import reader_of, rest, rows_and_positions

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


COMPRESSIONS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gz", gzip.compress),
    ("bz2", bz2.compress),
    ("xz", lzma.compress),
    ("zst", zstd.compress),
    ("lz4", lz4.frame.compress),
]


@pytest.mark.parametrize(("name", "compress"), COMPRESSIONS, ids=[e[0] for e in COMPRESSIONS])
def test_compressed_parts_one_after_another_are_read(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes]
) -> None:
    """fluent-bit #8585: log files that are compressed part by part."""
    path = tmp_path / f"f.txt.{name}"
    path.write_bytes(compress(b"1\n2\n") + compress(b"3\n4"))
    assert read(Files(path, Text()), str) == ["1", "2", "3", "4"]


@pytest.mark.parametrize(("name", "compress"), COMPRESSIONS, ids=[e[0] for e in COMPRESSIONS])
async def test_a_compressed_file_that_was_read_is_not_read_again(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes]
) -> None:
    """logstash-input-file #286 and #311, vector #7990."""
    path = tmp_path / f"f.txt.{name}"
    path.write_bytes(compress(b"1\n2\n"))
    source = Files(path, Text())
    positions = (await rows_and_positions(source))[-1][1]
    assert '"done":true' in next(iter(positions.values()))
    assert await rest(source, positions) == []
    path.write_bytes(compress(b"1\n2\n") + compress(b"3\n" * 100))
    assert await rest(source, positions) in ([b"3"] * 100, [b"1", b"2", *[b"3"] * 100])


async def test_many_empty_files_are_read_when_they_have_lines(tmp_path: Path) -> None:
    """vector #643: empty files looked like one file."""
    for number in range(400):
        (tmp_path / f"{number:03}.log").touch()
    notes: list[str] = []
    reader = reader_of(Files(tmp_path / "*.log", Text(), follow=True, every=0.01), notes)
    await reader.open({})
    (tmp_path / "007.log").write_text("7\n")
    chunk = await reader.next()
    assert chunk is not None
    assert list(chunk.values) == [b"7"]
    assert notes == []
    await reader.close()


async def test_a_new_file_with_the_same_inode_is_read_from_its_beginning(tmp_path: Path) -> None:
    """logstash-input-file #109 and #251."""
    path = tmp_path / "f.log"
    path.write_text("old 1\nold 2\n")
    source = Files(path, Text())
    positions = (await rows_and_positions(source))[-1][1]
    with path.open("r+") as file:
        file.write("new 1\nnew 2\nnew 3\n")
    assert await rest(source, positions) == [b"new 1", b"new 2", b"new 3"]


async def test_empty_row_groups_and_files_do_not_move_positions(tmp_path: Path) -> None:
    """iceberg #10567: an empty part shifted the position of a restored reader."""
    schema = pyarrow.schema([("n", pyarrow.int64())])
    for number in (1, 2, 3):
        with parquet.ParquetWriter(tmp_path / f"{number}.parquet", schema) as writer:
            for size in (0, 2, 0, 1, 0) if number != 2 else (0, 0):
                writer.write_table(pyarrow.table({"n": list(range(size))}, schema=schema))
    source = Files(tmp_path / "*.parquet", Parquet(dict))
    found = await rows_and_positions(source)
    assert len(found) == 6
    for number, (_, positions) in enumerate(found, 1):
        assert len(await rest(source, positions)) == 6 - number


class Trip(msgspec.Struct):
    passenger_count: int | None
    airport_fee: float | None = None


def test_types_that_change_from_file_to_file_are_read(tmp_path: Path) -> None:
    """airbyte #27169: monthly files of taxi trips, with nulls, doubles and integers."""
    files: list[dict[str, Any]] = [
        {"passenger_count": [1.0, None], "airport_fee": pyarrow.nulls(2)},
        {"passenger_count": pyarrow.array([2, None]), "airport_fee": [1.25, None]},
        {"passenger_count": pyarrow.array([3], pyarrow.int8())},
    ]
    for number, columns in enumerate(files):
        parquet.write_table(pyarrow.table(columns), tmp_path / f"{number}.parquet")
    assert read(Files(tmp_path / "*.parquet", Parquet()), Trip) == [
        *(Trip(1), Trip(None), Trip(2, 1.25), Trip(None), Trip(3)),
    ]


async def test_a_small_file_with_long_texts_is_read_in_parts(tmp_path: Path) -> None:
    """airbyte #23341: a file of 10 MB with repeated values filled the memory."""
    path = tmp_path / "f.parquet"
    text = pyarrow.array(["x" * 100_000]).dictionary_encode()
    rows = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 20_000, pyarrow.int32()), text.dictionary
    )
    table = pyarrow.table({"text": rows})
    parquet.write_table(table, path, store_schema=False)
    assert path.stat().st_size < 200_000
    reader = reader_of(Files(path, Parquet(dict)))
    await reader.open({})
    before = pyarrow.total_allocated_bytes()
    chunks = most = count = 0
    while (chunk := await reader.next()) is not None:
        chunks += 1
        count += len(chunk)
        most = max(most, pyarrow.total_allocated_bytes() - before)
    await reader.close()
    assert count == 20_000
    assert chunks > 100
    assert most < 100e6


def test_a_folder_with_the_name_of_a_file_is_not_read(tmp_path: Path) -> None:
    """dask #2308: folders of partitions are named like files."""
    folder = tmp_path / "2016.parquet" / "month=1"
    folder.mkdir(parents=True)
    parquet.write_table(pyarrow.table({"n": [1, 2]}), folder / "part-0.parquet")
    found = read(Files(tmp_path / "**" / "*.parquet", Parquet()), dict)
    assert found == [{"n": 1}, {"n": 2}]


def test_a_last_line_of_a_compressed_file_needs_no_line_end(tmp_path: Path) -> None:
    """opentelemetry-collector-contrib #45572, file.d #912."""
    path = tmp_path / "f.csv.gz"
    path.write_bytes(gzip.compress(b"a\n1\n2"))
    assert read(Files(path, Csv()), dict) == [{"a": "1"}, {"a": "2"}]


NOT_LIKE_TEXT = [each for each in COMPRESSIONS if each[0] != "bz2"]  # it begins with letters


@pytest.mark.parametrize(("name", "compress"), NOT_LIKE_TEXT, ids=[e[0] for e in NOT_LIKE_TEXT])
def test_a_compressed_file_without_its_suffix_is_refused(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes]
) -> None:
    """beats #18764: compressed files whose name does not say so gave garbage."""
    path = tmp_path / "f.log"
    path.write_bytes(compress(b"1\n2\n"))
    with pytest.raises(DataError, match=rf"f\.log is compressed.*\.{name}"):
        read(Files(path, Text()), str)


async def test_a_new_file_with_an_old_time_is_read(tmp_path: Path) -> None:
    """flink #6613 (FLINK-9940) and #4997 (FLINK-8046): files were found by their time only."""
    (tmp_path / "b.log").write_text("1\n")
    source = Files(tmp_path / "*.log", Text())
    positions = (await rows_and_positions(source))[-1][1]
    for name, data in (("a.log", "2\n"), ("c.log", "3\n")):
        (tmp_path / name).write_text(data)
        os.utime(tmp_path / name, (1, 1))
    assert await rest(source, positions) == [b"2", b"3"]


def test_a_byte_order_mark_before_a_quoted_header_is_left_out(tmp_path: Path) -> None:
    """miller #161, charred #19, nextflow #2297."""
    path = tmp_path / "f.csv"
    path.write_bytes(b'\xef\xbb\xbf"last,first","age"\r\n"Smith,John",42\r\n')
    assert read(Files(path, Csv()), dict) == [{"last,first": "Smith,John", "age": "42"}]
