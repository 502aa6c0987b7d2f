"""Parquet files of rows without a declared type: their columns have the types of the values."""

from __future__ import annotations

import datetime as dt
import enum
import re
import uuid
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from streamkit import App
from streamkit.connectors import RowFailed
from streamkit.connectors.files import Files, FileSink, Parquet
from streamkit.errors import DataError
from tests.file_sink.writing import Writing

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def written(folder: Path, *chunks: list[Any], kind: Any = None) -> pyarrow.Table:
    """Write chunks to one file and read it."""
    path = folder / "f.parquet"
    writing = await Writing(FileSink(path), folder / "data", kind).start({})
    try:
        for chunk in chunks:
            await writing.write(*chunk)
        await writing.commit({}, is_last=True)
    finally:
        await writing.writer.close()
    return parquet.read_table(path)


class Color(enum.Enum):
    RED = "red"


class Point(msgspec.Struct):
    x: int
    y: float | None = None


@dataclass
class Line:
    first: Point
    name: str = "a"


AT = dt.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=dt.UTC)
VALUES: dict[str, tuple[Any, Any]] = {
    "text": ("é", "é"),
    "number": (2**62, 2**62),
    "size": (0.1, 0.1),
    "nan": (float("inf"), float("inf")),
    "price": (Decimal("1.50"), Decimal("1.50")),
    "day": (dt.date(2024, 2, 29), dt.date(2024, 2, 29)),
    "time": (dt.time(1, 2, 3, 4), dt.time(1, 2, 3, 4)),
    "local": (AT.replace(tzinfo=None), AT.replace(tzinfo=None)),
    "at": (
        AT.astimezone(dt.timezone(dt.timedelta(hours=2))),
        AT,
    ),
    "pause": (dt.timedelta(days=1, microseconds=1), dt.timedelta(days=1, microseconds=1)),
    "data": (b"\xff", b"\xff"),
    "flag": (True, True),
    "empty": (None, None),
    "id": (uuid.UUID(int=1), str(uuid.UUID(int=1))),
    "color": (Color.RED, "red"),
    "items": ((1, 2), [1, 2]),
    "object": (Line(Point(1)), {"first": {"x": 1, "y": None}, "name": "a"}),
}


async def test_values_keep_their_types(tmp_path: Path) -> None:
    row = {name: value for name, (value, _) in VALUES.items()}
    table = await written(tmp_path, [row], [row, {"text": None}])
    expected = {name: found for name, (_, found) in VALUES.items()}
    assert table.to_pylist() == [expected, expected, dict.fromkeys(VALUES)]
    assert str(table.schema.field("at").type) == "timestamp[us, tz=UTC]"


@pytest.mark.parametrize(
    ("chunks", "kind", "expected"),
    [
        ([[None], [1]], "int64", [None, 1]),
        ([[1], [1.5], [None]], "double", [1.0, 1.5, None]),
        ([[Decimal("1.25")], [Decimal("100.5")]], "decimal128(5, 2)", [1.25, 100.5]),
        ([[1], [Decimal("1.5")]], "decimal128(19, 1)", [1, 1.5]),
        ([[[]], [["a"]]], "list<element: string>", [[], ["a"]]),
        (
            [[{"x": 1}], [{"y": [{"z": 1}]}]],
            "struct<x: int64, y: list<element: struct<z: int64>>>",
            [{"x": 1, "y": None}, {"x": None, "y": [{"z": 1}]}],
        ),
        ([[{}], [{"x": 1}]], "struct<x: int64>", [{"x": None}, {"x": 1}]),
        # Parquet has no objects without fields.
        ([[{}], [None]], "null", [None, None]),
        ([[[{}]], [[{"x": {}}]]], "list<element: struct<x: null>>", [[{"x": None}]] * 2),
        ([[[{}, None]]], "list<element: null>", [[None, None]]),
    ],
)
async def test_a_column_has_the_type_of_all_chunks(
    tmp_path: Path, chunks: list[list[Any]], kind: str, expected: list[Any]
) -> None:
    table = await written(tmp_path, *([{"a": each} for each in chunk] for chunk in chunks))
    assert str(table.schema.field("a").type) == kind
    assert table.column("a").to_pylist() == expected


SIZES: Any = st.none() | st.integers(0, 9) | st.floats(0, 1)
PARTS: Any = st.fixed_dictionaries({}, optional={"x": SIZES, "y": st.lists(SIZES, max_size=2)})
ROWS: Any = st.lists(
    st.fixed_dictionaries({"id": st.integers(0, 9)}, optional={"a": SIZES, "b": PARTS | st.none()}),
    min_size=1,
)


@given(rows=ROWS, cuts=st.lists(st.integers(0, 20)))
async def test_the_division_into_chunks_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    places = sorted({0, len(rows), *(each for each in cuts if each < len(rows))})
    chunks = [rows[start:end] for start, end in pairwise(places)]
    whole = await written(folder / "whole", rows)
    parts = await written(folder / "parts", *chunks)
    assert parts.schema.equals(whole.schema)
    assert parts.to_pylist() == whole.to_pylist()
    names = [name for name in ("id", "a") if any(name in row for row in rows)]
    assert parts.select(names).to_pylist() == [{n: row.get(n) for n in names} for row in rows]


async def test_bytes_are_json_and_objects_have_their_fields(tmp_path: Path) -> None:
    rows = [b'{"x": 1}', Point(2), {"x": 3, "y": 0.5}]
    table = await written(tmp_path, rows)
    assert table.to_pylist() == [{"x": 1, "y": None}, {"x": 2, "y": None}, {"x": 3, "y": 0.5}]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"a": "b"}, "the field 'a' is 'b': .* with type str"),
        ({"a": 2**63}, "9223372036854775808"),
        ({"a": True}, "other rows have another type there"),
        ({"a": object()}, "values of type 'object' cannot be written"),
        ({}, "no fields"),
        (3, "a row is int"),
        ("text", "a row is str"),
        (b"{", "the value is not JSON: "),
        (b"[]", "a row is list"),
    ],
)
async def test_a_row_that_does_not_fit_is_named(tmp_path: Path, row: Any, problem: str) -> None:
    writing = await Writing(FileSink(tmp_path / "f.parquet"), tmp_path / "data").start({})
    try:
        with pytest.raises(RowFailed) as failed:
            await writing.write({"a": 1}, {"a": 2}, row, {"a": 3})
    finally:
        await writing.writer.close()
    assert failed.value.row == 2
    assert re.search(problem, str(failed.value.__cause__))


async def test_chunks_that_do_not_fit_together_fail_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"do not fit into one table.*int64 vs string"):
        await written(tmp_path, [{"a": 1}], [{"a": "b"}])


def copied(folder: Path, table: pyarrow.Table, **options: Any) -> pyarrow.Table:
    parquet.write_table(table, folder / "in.parquet", row_group_size=3)
    app = App("copy")
    rows = app.stream(Files(folder / "in.parquet", Parquet(dict)), name="rows")
    rows.to(FileSink(folder / "out.parquet", **options), name="out")
    assert app.run(once=True, data_dir=folder / "data") == 0
    return parquet.read_table(folder / "out.parquet")


def test_columns_of_another_file_are_copied_as_they_are(tmp_path: Path) -> None:
    now = AT.replace(tzinfo=None, microsecond=7_000)
    table = pyarrow.table(
        {
            "tiny": pyarrow.array([1, None, 3, 4], pyarrow.int8()),
            "large": pyarrow.array([2**64 - 1, 0, 1, 2], pyarrow.uint64()),
            "half": pyarrow.array([0.5, float("nan"), None, 1], pyarrow.float32()),
            "kind": pyarrow.array(["a", "b", "a", None]).dictionary_encode(),
            "money": pyarrow.array([Decimal("1.10")] * 4, pyarrow.decimal128(30, 4)),
            "at": pyarrow.array([now] * 4, pyarrow.timestamp("ms", "Europe/Berlin")),
            "panda": pyarrow.array([now, None, now, now], pyarrow.timestamp("ns")),
            "day": pyarrow.array([now.date()] * 4),
            "time": pyarrow.array([now.time()] * 4, pyarrow.time32("ms")),
            "pause": pyarrow.array([dt.timedelta(1)] * 4, pyarrow.duration("s")),
            "data": pyarrow.array([b"\xff", b"", None, b"x"]),
            "tags": pyarrow.array([["a"], [], None, ["b", None]]),
            "place": pyarrow.array([{"x": 1, "y": None}, None, {"x": 2, "y": "z"}, {}]),
        }
    )
    found = copied(tmp_path, table)
    assert found.schema.equals(table.schema)
    assert found.select(["half"]).to_pydict()["half"][0] == 0.5
    assert found.drop_columns(["half"]).equals(table.drop_columns(["half"]))
