"""Columns of Parquet files reach functions of frames without a row in between."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pandas
import polars
import pyarrow
import pyarrow.compute as pc
import pytest
from pyarrow import parquet

from streamkit import App
from streamkit.connectors.files import Csv, Files, Parquet
from streamkit.dataflow.stream import Stream
from streamkit.frames.column_rows import ColumnRows, joined_values
from streamkit.frames.rows import Reading


class Counted(type):
    """A class that counts its objects."""

    made = 0

    def __call__(cls, *given: Any, **named: Any) -> Any:
        cls.made += 1
        return super().__call__(*given, **named)


@dataclass
class Row(metaclass=Counted):
    number: int
    text: str | None = None


class Doubled(msgspec.Struct):
    number: int


TIMESTAMP = pyarrow.timestamp("us")
NUMBERS = list(range(1, 101))
TEXTS = [None if number % 7 == 0 else f"text {number}" for number in NUMBERS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    table = pyarrow.table({"text": TEXTS, "number": NUMBERS})
    parquet.write_table(table, tmp_path / "f.parquet", row_group_size=30)
    return tmp_path / "f.parquet"


def made_by(path: Path, add: Callable[[App, Stream[Row]], list[Any]]) -> tuple[list[Any], int]:
    """Run a job; return what its function has got, and how many rows were made."""
    app = App("frames")
    rows = app.stream(Files(path, Parquet(Row)), Row)
    found = add(app, rows)
    Row.made = 0
    with app.test() as job:
        job.read(rows)
        count = Row.made  # `job.output` would make them
    return found, count


def plain_sink(app: App, rows: Stream[Row]) -> list[Any]:
    found: list[Any] = []

    @app.sink(rows, batch=25)
    def write(batch: pyarrow.RecordBatch) -> None:
        found.extend(batch.column("number").to_pylist())

    return found


def waiting_sink(app: App, rows: Stream[Row]) -> list[Any]:
    found: list[Any] = []

    @app.sink(rows, batch=50, max_wait=1)
    def write(table: pyarrow.Table) -> None:
        found.extend(table.column("number").to_pylist())

    return found


def async_sink(app: App, rows: Stream[Row]) -> list[Any]:
    found: list[Any] = []

    @app.sink(rows, batch=25)
    async def write(frame: polars.DataFrame) -> None:
        found.extend(frame["number"].to_list())

    return found


def blocking_sink(app: App, rows: Stream[Row]) -> list[Any]:
    found: list[Any] = []

    @app.sink(rows, batch=25, blocking=True)
    def write(frame: pandas.DataFrame) -> None:
        found.extend(frame["number"].tolist())

    return found


def generator(app: App, rows: Stream[Row]) -> list[Any]:
    found: list[Any] = []

    @app.stage(rows, batch=25)
    def sums(frame: polars.DataFrame) -> Iterator[int]:
        found.extend(frame["number"].to_list())
        yield len(frame)

    return found


def async_generator(app: App, rows: Stream[Row]) -> list[Any]:
    found: list[Any] = []

    @app.stage(rows, batch=25)
    async def sums(frame: polars.DataFrame) -> AsyncIterator[int]:
        found.extend(frame["number"].to_list())
        yield len(frame)

    return found


def stage_then_sink(app: App, rows: Stream[Row]) -> list[Any]:
    found: list[Any] = []

    @app.stage(rows, batch=25, output_type=Row)
    def same(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
        return batch

    @app.sink(same, batch=40)
    def write(batch: pyarrow.RecordBatch) -> None:
        found.extend(batch.column("number").to_pylist())

    return found


@pytest.mark.parametrize(
    "add",
    [
        *(plain_sink, waiting_sink, async_sink, blocking_sink),
        *(generator, async_generator, stage_then_sink),
    ],
)
def test_functions_of_frames_get_columns_without_rows_in_between(
    path: Path, add: Callable[[App, Stream[Row]], list[Any]]
) -> None:
    found, made = made_by(path, add)
    assert found == NUMBERS
    assert made == 0


def test_a_stage_before_it_makes_rows(path: Path) -> None:
    def filtered(app: App, rows: Stream[Row]) -> list[Any]:
        return plain_sink(app, rows.filter(lambda row: row.number % 2 == 0))

    found, made = made_by(path, filtered)
    assert found == NUMBERS[1::2]
    assert made == 100


def test_the_columns_are_those_of_the_type(path: Path) -> None:
    app = App("frames")
    rows = app.stream(Files(path, Parquet(Row)), Row)
    schemas = []

    @app.sink(rows, batch=1000)
    def write(batch: pyarrow.RecordBatch) -> None:
        schemas.append(batch.schema)

    with app.test() as job:
        job.read(rows)
        job.send(rows, Row(1, None))
    assert len({str(each) for each in schemas}) == 1
    assert schemas[0].field("text").nullable


@pytest.mark.parametrize("as_text", [False, True], ids=["parquet", "csv"])
def test_all_verbs_work_on_columns(path: Path, as_text: bool) -> None:
    source: Files[Any] = Files(path, Parquet(Row))
    if as_text:
        csv = path.with_suffix(".csv")
        polars.read_parquet(path).write_csv(csv)
        source = Files(csv, Csv(Row))
    app = App("verbs")
    rows = app.stream(source, Row, event_time=lambda row: row.number * 1000)
    kept = rows.filter(lambda row: row.number > 50, name="kept")
    mapped = kept.map(lambda row: row.text, name="mapped")
    copied = rows.flat_map(lambda row: [row.number] * (row.number % 3), name="copied")
    counted = rows.key_by(lambda row: row.number % 4).reduce(
        lambda a, b: Row(a.number + b.number), name="counted"
    )

    @app.stage(rows, batch=16, output_type=Doubled)
    def doubled(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
        numbers = pc.multiply(batch.column("number"), 2)
        return pyarrow.RecordBatch.from_arrays([numbers], names=["number"])

    halves = doubled.map(lambda each: each.number // 2, name="halves")
    merged = doubled.merge(doubled.filter(lambda each: each.number > 100), name="merged")
    with app.test() as job:
        job.read(rows, limit=70)
        job.read(rows)
        texts = [text for text in TEXTS[50:] if text is not None]
        assert [each for each in job.output(mapped) if each is not None] == texts
        assert job.output(copied) == [each for each in NUMBERS for _ in range(each % 3)]
        assert job.output(halves) == NUMBERS
        assert len(job.output(merged)) == 150
        assert [each.number for each in job.output(counted)[-4:]] == [
            sum(NUMBERS[start::4]) for start in range(4)
        ]
        times = [record.timestamp_ms for record in job.records(rows)]
        assert times == [number * 1000 for number in NUMBERS]


def test_rows_that_are_written_before_one_that_does_not_fit_stay_written(path: Path) -> None:
    app = App("frames")
    rows = app.stream(Files(path, Parquet(Row)), Row)
    found: list[int] = []

    @app.stage(rows, batch=10)
    def squares(batch: pyarrow.RecordBatch) -> list[Row]:
        numbers = batch.column("number").to_pylist()
        return [Row(2**63 if each == 3 else each) for each in numbers]

    @app.sink(squares, batch=10, on_error="skip")
    def write(batch: pyarrow.RecordBatch) -> None:
        found.extend(batch.column("number").to_pylist())

    with app.test() as job:
        job.send(rows, Row(1), Row(2), Row(3), Row(4))
    assert found == [1, 2, 4]


def test_a_frame_sink_that_fails_at_a_row_leaves_it_out(path: Path) -> None:
    from streamkit.errors import RowError

    app = App("frames")
    rows = app.stream(Files(path, Parquet(Row)), Row)
    found: list[int] = []

    @app.sink(rows, batch=50, on_error="skip")
    def write(batch: pyarrow.RecordBatch) -> None:
        numbers = batch.column("number").to_pylist()
        bad = numbers.index(42) if 42 in numbers else None
        found.extend(numbers[:bad])
        if bad is not None:
            raise RowError(bad)

    with app.test() as job:
        job.read(rows)
    assert found == [number for number in NUMBERS if number != 42]


def column_rows(count: int = 5) -> ColumnRows:
    batch = pyarrow.RecordBatch.from_pydict({"number": list(range(count)), "text": ["x"] * count})
    found = Reading(Row).columns(batch)
    assert found is not None
    return found


def test_rows_of_columns_are_a_sequence() -> None:
    rows = column_rows()
    expected = [Row(number, "x") for number in range(5)]
    assert len(rows) == 5
    assert rows[1] == rows[-4] == expected[1]
    assert rows[1:3] == expected[1:3]
    assert rows[::2] == expected[::2]
    assert rows[3:1] == []
    assert list(rows) == expected
    assert rows == expected
    assert rows != expected[:4]
    assert rows[1] is rows[1]
    assert rows[1:][0] is rows[1]
    with pytest.raises(IndexError):
        column_rows()[5]
    assert joined_values([rows, rows[:2]]) == [*expected, *expected[:2]]
    assert isinstance(joined_values([rows, rows[:2]]), ColumnRows)
    assert joined_values([rows, expected]) == expected * 2
    assert pickle.loads(pickle.dumps(column_rows())) == expected


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({"number": pyarrow.array([1, None]), "text": ["x", "y"]}, Row),
        ({"number": pyarrow.array([1.0, 2.0]), "text": ["x", "y"]}, Row),
        ({"number": pyarrow.array([1, 2], pyarrow.uint64()), "text": ["x", "y"]}, Row),
        ({"number": [1, 2]}, Row),
        ({"number": [1, 2], "more": [1, 2], "text": ["x", "y"]}, Row),
        ({"at": pyarrow.array([1, 2], pyarrow.timestamp("ns"))}, dict),
        ({"at": pyarrow.array([2**62], TIMESTAMP)}, dict),
        ({"at": pyarrow.array([[1]], pyarrow.list_(pyarrow.timestamp("ns")))}, dict),
        ({"at": pyarrow.array([{"x": 2**62}], pyarrow.struct([("x", TIMESTAMP)]))}, dict),
        ({"at": pyarrow.array([-1], pyarrow.int64()).view(pyarrow.time64("us"))}, dict),
        ({"a": pyarrow.array([[("b", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64()))}, dict),
        ({"a": [1]}, dict[str, float]),
    ],
)
def test_columns_that_may_not_fit_are_not_kept_as_columns(
    columns: dict[str, Any], kind: Any
) -> None:
    assert Reading(kind).columns(pyarrow.table(columns)) is None
