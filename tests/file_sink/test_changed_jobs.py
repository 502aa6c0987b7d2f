"""A job is killed and started again with another type of rows, or another format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyarrow import parquet

from streamkit.connectors.files import Csv, FileSink
from streamkit.errors import StateMismatch
from tests.file_sink.reading import shown
from tests.file_sink.writing import Writing


class Old(msgspec.Struct):
    a: int
    b: str = ""


class New(msgspec.Struct):
    a: int
    c: float = 0.5
    b: str = ""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # connectors have threads that know only this loop


async def killed_and_changed(
    tmp_path: Path, old: FileSink, kind: Any, new: FileSink, new_kind: Any
) -> list[Path]:
    """Write a row of each type, with a kill between them; return the files."""
    committed: dict[str, str] = {}
    run = await Writing(old, tmp_path / "data", kind).start(committed)
    await run.write(Old(1, "x"))
    await run.commit(committed)
    await run.writer.close()
    run = await Writing(new, tmp_path / "data", new_kind).start(committed)
    await run.write(New(2, 7.5, "y") if new_kind is New else Old(2, "y"))
    await run.end(committed)
    return shown(tmp_path / "out")


async def test_rows_with_other_columns_go_to_the_next_csv_file(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out" / "f.csv")
    files = await killed_and_changed(tmp_path, sink, Old, sink, New)
    texts = {path.name: path.read_text() for path in files}
    assert texts == {"f.csv": "a,b\n1,x\n", "f-1.csv": "a,c,b\n2,7.5,y\n"}


async def test_rows_with_other_columns_go_to_the_next_parquet_file(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out" / "{n}.parquet")
    first, second = await killed_and_changed(tmp_path, sink, Old, sink, New)
    assert parquet.read_table(first).to_pylist() == [{"a": 1, "b": "x"}]
    assert parquet.read_table(second).to_pylist() == [{"a": 2, "c": 7.5, "b": "y"}]


async def test_another_delimiter_begins_another_file(tmp_path: Path) -> None:
    old = FileSink(tmp_path / "out" / "{n}.csv")
    new = FileSink(tmp_path / "out" / "{n}.csv", Csv(delimiter=";"))
    files = await killed_and_changed(tmp_path, old, Old, new, Old)
    assert [path.read_text() for path in files] == ["a,b\n1,x\n", "a;b\n2;y\n"]


async def test_lines_of_json_of_two_types_share_a_file(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out" / "f.jsonl")
    (file,) = await killed_and_changed(tmp_path, sink, Old, sink, New)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows == [{"a": 1, "b": "x"}, {"a": 2, "c": 7.5, "b": "y"}]


@pytest.mark.parametrize(("old", "new"), [("csv", "parquet"), ("parquet", "json")])
async def test_a_file_of_another_format_is_not_finished_wrongly(
    tmp_path: Path, old: str, new: str
) -> None:
    begun, other = FileSink(tmp_path / f"out/f.{old}"), FileSink(tmp_path / f"out/f.{new}")
    with pytest.raises(StateMismatch, match=f"f.{old} was begun in another format"):
        await killed_and_changed(tmp_path, begun, Old, other, Old)
    assert not shown(tmp_path / "out")
