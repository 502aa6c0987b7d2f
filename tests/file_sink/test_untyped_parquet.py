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
from streamkit.connectors.files import Files, FileSink, Jsonl, Parquet
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


DAY = dt.date(2024, 2, 29)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1, "b"], ["1", "b"]),
        ([True, 1], ["true", "1"]),
        ([2**64, 1], [str(2**64), "1"]),
        ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
        ([Decimal("1.50"), 0.5], ["1.50", "0.5"]),
        ([Decimal(1), Decimal("Infinity")], ["1", "Infinity"]),
        ([DAY, AT], ["2024-02-29", AT.isoformat()]),
        ([AT, AT.replace(tzinfo=None)], [AT.isoformat(), AT.replace(tzinfo=None).isoformat()]),
        ([b"\xff", "b"], ["/w==", "b"]),
        ([{"x": 1}, [1]], ['{"x":1}', "[1]"]),
        ([{"x": float("nan")}, [1]], ['{"x": NaN}', "[1]"]),
        ([{"x": 1}, {"x": "b"}], ['{"x":1}', '{"x":"b"}']),
        ([[DAY], [AT.time()]], ['["2024-02-29"]', f'["{AT.time().isoformat()}"]']),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_values_without_a_common_type_become_text(
    tmp_path: Path, together: bool, values: list[Any], texts: list[str]
) -> None:
    rows = [{"a": each} for each in [*values, None]]
    chunks = [rows] if together else [[row] for row in rows]
    writing = await Writing(FileSink(tmp_path / "f.parquet"), tmp_path / "data").start({})
    for chunk in chunks:
        await writing.write(*chunk)
    await writing.end({})
    assert parquet.read_table(tmp_path / "f.parquet").to_pydict() == {"a": [*texts, None]}
    assert writing.notes == [
        "the values of the column 'a' have no common type, so they become text"
    ]


async def test_a_file_that_the_next_run_completes_has_its_note(tmp_path: Path) -> None:
    sink, committed = FileSink(tmp_path / "f.parquet"), dict[str, str]()
    killed = await Writing(sink, tmp_path / "data").start(committed)
    await killed.write({"a": 1})
    await killed.write({"a": "b"})
    await killed.prepare(committed, is_last=True)
    await killed.writer.close()
    run = await Writing(sink, tmp_path / "data").start(committed)
    await run.writer.close()
    assert parquet.read_table(tmp_path / "f.parquet").to_pydict() == {"a": ["1", "b"]}
    assert len(run.notes) == 1


async def test_large_numbers_stay_numbers(tmp_path: Path) -> None:
    table = await written(tmp_path, [{"a": 2**64 - 1}, {"a": 0}])
    assert table.to_pydict() == {"a": [2**64 - 1, 0]}


async def test_a_time_with_a_zone_is_text(tmp_path: Path) -> None:
    table = await written(tmp_path, [{"a": dt.time(1, 2, tzinfo=dt.UTC)}])
    assert table.to_pydict() == {"a": ["01:02:00+00:00"]}


def test_neighbours_that_differ_do_not_stop_a_job_that_skips(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"x":1}\n{"x":"t"}\n{}\n5\n{"x":"u"}\n{"x":4}\n')
    app = App("skips")
    app.stream(Files(tmp_path / "in.jsonl", Jsonl(Any))).to(
        FileSink(tmp_path / "out.parquet"), on_error="skip"
    )
    assert app.run(once=True, data_dir=tmp_path / "data") == 0
    assert parquet.read_table(tmp_path / "out.parquet").to_pydict() == {"x": ["1", "t", "u", "4"]}


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


def copied_files(folder: Path, *columns: Any) -> pyarrow.Table:
    for number, each in enumerate(columns):
        parquet.write_table(pyarrow.table({"a": each}), folder / f"in-{number}.parquet")
    app = App("copy")
    rows = app.stream(Files(folder / "in-*.parquet", Parquet(dict)), name="rows")
    rows.to(FileSink(folder / "out.parquet"), name="out")
    assert app.run(once=True, data_dir=folder / "data") == 0
    return parquet.read_table(folder / "out.parquet")


def category(values: list[str], index: pyarrow.DataType) -> pyarrow.Array:
    return pyarrow.array(values).dictionary_encode().cast(pyarrow.dictionary(index, TEXT))


TEXT = pyarrow.string()
NAMES = [f"name {number}" for number in range(200)]


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ([category(["a"], pyarrow.int8()), pyarrow.array(["b"])], "string"),
        ([category(NAMES[:100], pyarrow.int8()), category(NAMES[100:], pyarrow.int8())], None),
        ([category(["a", "b"], pyarrow.int32()), category(["b", "c"], pyarrow.int32())], None),
        (
            [
                pyarrow.array([AT], pyarrow.timestamp("ms", "Europe/Berlin")),
                pyarrow.array([AT], pyarrow.timestamp("us", "America/New_York")),
            ],
            "timestamp[us, tz=UTC]",
        ),
        ([pyarrow.array([2**64 - 1], pyarrow.uint64()), pyarrow.array([-1])], "string"),
        ([pyarrow.array([1], pyarrow.int8()), pyarrow.array([2**40])], "int64"),
        ([pyarrow.array(["a"]), pyarrow.array(["b"], pyarrow.large_string())], "large_string"),
        ([pyarrow.array([1]), pyarrow.array([None])], "int64"),
    ],
)
def test_columns_of_several_files_are_united(
    tmp_path: Path, columns: list[pyarrow.Array], kind: str | None
) -> None:
    found = copied_files(tmp_path, *columns)
    if kind is not None:
        assert str(found.schema.field("a").type) == kind
    expected = [each for column in columns for each in column.to_pylist()]
    if kind == "string":
        expected = [str(each) for each in expected]
    assert found.column("a").to_pylist() == expected


def test_a_column_that_another_file_does_not_have_has_nulls(tmp_path: Path) -> None:
    first = pyarrow.schema([pyarrow.field("a", pyarrow.int64(), nullable=False)])
    parquet.write_table(pyarrow.table({"a": [1]}, schema=first), tmp_path / "in-0.parquet")
    parquet.write_table(pyarrow.table({"b": [2]}), tmp_path / "in-1.parquet")
    app = App("copy")
    rows = app.stream(Files(tmp_path / "in-*.parquet", Parquet(dict)), name="rows")
    rows.to(FileSink(tmp_path / "out.parquet"), name="out")
    assert app.run(once=True, data_dir=tmp_path / "data") == 0
    found = parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert found == {"a": [1, None], "b": [None, 2]}
