"""Problems that users of other tools have reported about CSV files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamkit import App
from streamkit.connectors.files import Csv, Files, FileSink, Jsonl
from streamkit.errors import DataError, StageError
from tests.connectors.reading import read, read_text
from tests.file_sink.writing import Writing


class Pair(msgspec.Struct):
    a: str
    b: str


def test_a_field_may_be_longer_than_the_limit_of_the_standard_library(tmp_path: Path) -> None:
    """airbyte #4543 and dask #7139: documents in a field, "field larger than field limit"."""
    long = "x" * 1_000_000
    found = read_text(tmp_path / "f.csv", f"a,b\n{long},1\n2,3\n", Csv(), Pair)
    assert found == [Pair(long, "1"), Pair("2", "3")]


def test_a_delimiter_at_the_end_of_each_line_is_a_column_without_a_name(tmp_path: Path) -> None:
    """pandas #2886: the files of on-time flights end each line with a comma."""
    data = "a,b,\n1,2,\n"
    assert read_text(tmp_path / "f.csv", data, Csv(), Pair) == [Pair("1", "2")]
    assert read_text(tmp_path / "f.csv", data, Csv(), dict) == [{"a": "1", "b": "2", "": ""}]


def test_columns_with_the_same_name_are_refused_only_if_they_are_read(tmp_path: Path) -> None:
    """pandas #3468: the values of one column were those of another."""
    path = tmp_path / "f.csv"
    assert read_text(path, "a,b,c,c\n1,2,3,4\n", Csv(), Pair) == [Pair("1", "2")]
    assert read_text(path, "a,a\n1,2\n", Csv(), list) == [["1", "2"]]
    for kind in (Pair, dict, dict[str, int]):
        with pytest.raises(StageError, match=r"line 2: the file has several columns 'b'"):
            read_text(path, "a,b,b\n1,2,3\n", Csv(), kind)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter_is_proposed(tmp_path: Path, delimiter: str) -> None:
    data = f"a{delimiter}b\n1{delimiter}2\n"
    with pytest.raises(StageError, match="no column 'a'") as found:
        read_text(tmp_path / "f.csv", data, Csv(), Pair)
    assert f"use delimiter={delimiter!r}" in found.value.hint
    assert read_text(tmp_path / "f.csv", data, Csv(delimiter=delimiter), Pair) == [Pair("1", "2")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("form", [Csv(), Jsonl()])
def test_a_file_in_utf_16_is_refused(tmp_path: Path, encoding: str, form: Any) -> None:
    """airbyte #7916: columns had names with NUL characters."""
    data = '\ufeff{"a":1}\r\n'.encode(encoding)
    with pytest.raises(DataError, match="the file is in UTF-16"):
        read_text(tmp_path / "f", data, form, dict)


# A row that is not valid is between two that are; the third one has a carriage return in quotes.
TORN = 'a,b\r\n1,2\r\n3\r,4\r\n5,"6\r7\n8"\r\n9,10\r\n'


def test_a_row_with_a_carriage_return_fails_alone(tmp_path: Path) -> None:
    """abusehelper #83: one row with a line end in a field stopped the import."""
    with pytest.raises(StageError, match="line 3: a carriage return is in a field without quotes"):
        read_text(tmp_path / "f.csv", TORN, Csv(), Pair)

    app = App("torn")
    pairs = app.stream(Files(tmp_path / "f.csv", Csv(Pair)), on_error="skip")
    with app.test() as job:
        job.read(pairs)
        assert job.output(pairs) == [Pair("1", "2"), Pair("5", "6\r7\n8"), Pair("9", "10")]


def test_rows_with_carriage_returns_are_found_in_each_block(tmp_path: Path) -> None:
    rows = "".join(f'{row}\rx,{row}\n{row},"{row}\r"\n' for row in range(20_000))
    (tmp_path / "f.csv").write_text(f"a,b\n{rows}", newline="")
    app = App("torn")
    pairs = app.stream(Files(tmp_path / "f.csv", Csv(Pair)), on_error="skip")
    with app.test() as job:
        job.read(pairs)
        assert job.output(pairs) == [Pair(str(row), f"{row}\r") for row in range(20_000)]


def test_lines_that_end_only_with_a_carriage_return_are_refused(tmp_path: Path) -> None:
    """quality-time #777: "new-line character seen in unquoted field"."""
    with pytest.raises(DataError, match="a carriage return is in the first line") as found:
        read_text(tmp_path / "f.csv", "a,b\r1,2\r3,4\r", Csv(), Pair)
    assert "tr " in found.value.hint


class Tagged(msgspec.Struct):
    id: int
    tags: list[str]
    extra: dict[str, float] | None
    inner: Pair | None = None


class Strict(msgspec.Struct, kw_only=True):
    id: int
    tags: list[str]


async def write_rows(path: Path, rows: list[Tagged]) -> None:
    run = await Writing(FileSink(path), path.parent / "jobs", Tagged).start({})
    await run.write(*rows)
    await run.end({})


def test_lists_and_objects_are_read_as_a_file_sink_writes_them(tmp_path: Path) -> None:
    rows = [Tagged(1, [], None), Tagged(2, ["a,b", 'c"'], {"x": 1.5}, Pair("1", "2"))]
    asyncio.run(write_rows(tmp_path / "f.csv", rows))
    assert read(Files(tmp_path / "f.csv", Csv()), Tagged) == rows
    assert read_text(tmp_path / "h.csv", 'id,tags\n1,"[""x""]"\n', Csv(), Strict)[0].tags == ["x"]


@pytest.mark.parametrize("kind", [Tagged, Strict])
def test_a_list_that_is_not_valid_fails_alone(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "f.csv"
    data = 'id,tags,extra\n1,"[""a""]",\n2,a;b,\n3,[4],\n4,[],\n'
    with pytest.raises(StageError, match=r"line 3: the column 'tags' is not JSON"):
        read_text(path, data, Csv(), kind)
    app = App("lists")
    found = app.stream(Files(path, Csv(kind)), on_error="skip")
    with app.test() as job:
        job.read(found)
        assert [row.id for row in job.output(found)] == [1, 4]
