"""Cases that users of other tools have reported about frames; each has its place."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
import numpy
import pandas
import polars
import pyarrow
import pytest

from streamkit import App
from streamkit.errors import DataError, RowError, StageError
from streamkit.frames.functions import Frames
from streamkit.frames.kinds import PANDAS, POLARS, FrameKind
from tests.frames.random_rows import FRAMES

each_frame = pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: str(kind.name))


def frames_of(kind: FrameKind, of: Any, output: Any = None) -> Frames:
    return Frames(kind, of, of if output is None else output, is_row_by_row=True)


def through(kind: FrameKind, of: Any, values: list[Any]) -> Any:
    frames = frames_of(kind, of)
    return frames.results(frames.given(values), len(values))


class Number(msgspec.Struct):
    number: int | None
    size: float | None = None


# apache/spark#53730, apache/streampipes#4197: with a None, integers became floats and lost digits.
@each_frame
def test_a_large_integer_beside_none_keeps_its_digits(kind: FrameKind) -> None:
    values = [Number(9_223_372_036_854_775_707, 1.5), Number(None), Number(1_771_582_396_159)]
    assert through(kind, Number, values) == values


# dlt-hub/dlt#1666, apache/spark#34401: the type of a column depended on its first values.
def test_the_type_of_a_column_does_not_depend_on_its_values() -> None:
    for values in ([Number(None)], [Number(1, 2.0)], [Number(None), Number(1)]):
        polar = frames_of(POLARS, Number).given(values)
        assert polar.schema == {"number": polars.Int64, "size": polars.Float64}
        panda = frames_of(PANDAS, Number).given(values)
        assert panda.dtypes.astype(str).to_dict() == {"number": "Int64", "size": "float64"}


class Two(msgspec.Struct):
    first: int
    second: int


# apache/spark#39952 and #50531, pola-rs/polars#11718: columns were taken by their order.
@pytest.mark.parametrize("make", [polars.DataFrame, pandas.DataFrame, pyarrow.table])
def test_columns_are_found_by_name(make: Any) -> None:
    frames = frames_of(POLARS, Two)
    assert frames.results(make({"second": [2], "first": [1]}), 1) == [Two(1, 2)]
    with pytest.raises(DataError, match="lacks the column 'second' and has the column 'third'"):
        frames.results(make({"first": [1], "third": [2]}), 1)
    with pytest.raises(RowError, match="'second' is None: it is null"):
        frames.results(make({"first": [1], "second": [None]}), 1)


# apache/spark#39952: what was returned instead of frames gave an error about something else.
def test_what_is_returned_instead_of_frames_is_named() -> None:
    app = App("reported")
    numbers = app.stream("numbers", Number)
    decorate: Any = app.stage(numbers, batch=10, output_type=Number)

    def number(frame: polars.DataFrame) -> polars.DataFrame:
        return 1  # type: ignore[return-value]

    def nothing(frame: polars.DataFrame) -> polars.DataFrame:
        return None  # type: ignore[return-value]

    def groups(frame: polars.DataFrame) -> Iterator[polars.DataFrame]:
        yield from frame.group_by("number")

    def unfinished(frame: polars.DataFrame) -> Iterator[polars.DataFrame]:
        yield frame.lazy()  # type: ignore[misc]

    def whole(frame: polars.DataFrame) -> Iterator[polars.DataFrame]:
        return 1  # type: ignore[return-value]

    for function, problem in [
        (number, "give frames, but this is a int"),
        (nothing, "give frames, but this is a NoneType"),
        (groups, "give frames, but this is a tuple"),
        (unfinished, "LazyFrame has no rows yet"),
        (whole, "'int' object is not iterable"),
    ]:
        decorate(function)
        with app.test() as job, pytest.raises(StageError, match=problem):
            job.send(numbers, Number(1))
        app = App("reported")
        numbers = app.stream("numbers", Number)
        decorate = app.stage(numbers, batch=10, output_type=Number)


# xorq-labs/xorq#1156: the index of pandas became a column __index_level_0__.
def test_an_index_without_a_name_is_no_column() -> None:
    frames = Frames(PANDAS, Two, Two)
    frame = pandas.DataFrame({"first": [1, 2, 3], "second": [4, 5, 6]})
    assert frames.results([frame[frame["first"] > 1]], 3) == [Two(2, 5), Two(3, 6)]
    assert frames.results([frame.sort_values("second", ascending=False)], 3)[0] == Two(3, 6)
    assert frames.results([frame.set_index(pandas.Index(["a", "b", "c"]))], 3)[0] == Two(1, 4)


def test_a_named_index_is_a_column_as_after_groupby() -> None:
    frames = Frames(PANDAS, Two, Two)
    frame = pandas.DataFrame({"first": [1, 1, 2], "second": [4, 5, 6]})
    assert frames.results([frame.groupby("first").sum()], 3) == [Two(1, 9), Two(2, 6)]
    both = frame.groupby(["first", "second"]).size().to_frame("count")
    dicts = Frames(PANDAS, Two).results([both], 3)
    assert dicts == [
        {"first": first, "second": second, "count": 1} for first, second in ((1, 4), (1, 5), (2, 6))
    ]


class At(msgspec.Struct):
    at: datetime | None


class Local(msgspec.Struct):
    at: Annotated[datetime, msgspec.Meta(tz=False)]


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


# dlt-hub/dlt#4015, apache/flink#28934, pola-rs/polars#10315: zones were added, lost or changed.
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/New_York"])
def test_a_time_in_another_zone_is_the_same_instant(zone: str) -> None:
    here = NOON.astimezone(ZoneInfo(zone))
    makers: list[Any] = [polars.DataFrame, pandas.DataFrame, pyarrow.table]
    for make in makers:
        assert frames_of(POLARS, At).results(make({"at": [here]}), 1) == [At(NOON)]
        (row,) = Frames(POLARS, At, is_row_by_row=True).results(make({"at": [here]}), 1)
        assert row == {"at": NOON}


@each_frame
def test_a_time_that_is_declared_without_a_zone_gets_none(kind: FrameKind) -> None:
    values = [Local(NOON.replace(tzinfo=None))]
    assert through(kind, Local, values) == values
    frames = Frames(kind, Local, is_row_by_row=True)
    assert frames.results(frames.given(values), 1) == [{"at": values[0].at}]


# quixio/quix-streams#54, rapidsai/cudf#1033: a missing time broke, or became the year 1.
@each_frame
def test_a_missing_time_is_none(kind: FrameKind) -> None:
    assert through(kind, At, [At(NOON), At(None)]) == [At(NOON), At(None)]
    times = pandas.Series([pandas.Timestamp(NOON), pandas.NaT], dtype=object)
    frame = pandas.DataFrame({"at": times})
    assert frames_of(PANDAS, At).results(frame, 2) == [At(NOON), At(None)]


def test_nat_is_no_value_of_a_record() -> None:
    wrong: Any = pandas.NaT
    with pytest.raises(RowError, match="row 1: the field 'at' is NaT"):
        frames_of(POLARS, At).given([At(NOON), At(wrong)])


# pola-rs/polars#5697: a list without items has no type.
@each_frame
def test_lists_without_items_come_back(kind: FrameKind) -> None:
    of = msgspec.defstruct("Listed", [("items", list[int])])
    assert through(kind, of, [of([]), of([])]) == [of([]), of([])]
    frames = Frames(kind, dict, is_row_by_row=True)
    values: list[dict[str, Any]] = [{"items": [], "none": None}]
    assert frames.results(frames.given(values), 1) == values


# exasol/script-languages-release#795: float16 was read as something else.
@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "uint64", "float16", "float32"])
def test_numbers_of_other_sizes_are_converted(dtype: str) -> None:
    of = msgspec.defstruct("Numbers", [("number", float), ("count", int)])
    column = numpy.array([1, 2], dtype=dtype)
    frame = pandas.DataFrame({"number": column, "count": column})
    assert frames_of(PANDAS, of).results(frame, 2) == [of(1.0, 1), of(2.0, 2)]
    if dtype != "float16":  # polars has none
        assert frames_of(PANDAS, of).results(polars.from_pandas(frame), 2)[1] == of(2.0, 2)


def test_an_integer_that_is_too_large_is_refused() -> None:
    of = msgspec.defstruct("Numbers", [("count", int)])
    frame = polars.DataFrame({"count": [1, 2**64 - 1]}, schema={"count": polars.UInt64})
    with pytest.raises(RowError, match="row 1: the column 'count' is 18446744073709551615"):
        frames_of(POLARS, of).results(frame, 2)


def test_categories_are_read_as_their_values() -> None:
    of = msgspec.defstruct("Named", [("name", str), ("level", int)])
    frame = pandas.DataFrame({"name": ["a", "b"], "level": [1, 2]}).astype("category")
    assert frames_of(PANDAS, of).results(frame, 2) == [of("a", 1), of("b", 2)]
    polar = polars.DataFrame({"name": ["a", "b"], "level": [1, 2]}).with_columns(
        polars.col("name").cast(polars.Enum(["b", "a"]))
    )
    assert frames_of(POLARS, of).results(polar, 2) == [of("a", 1), of("b", 2)]


# Spark has had "assignment destination is read-only" in functions that change their argument.
def test_a_frame_of_pandas_may_be_changed_in_place() -> None:
    of = msgspec.defstruct("All", [("a", int), ("b", float), ("c", str), ("d", int | None)])
    values = [of(1, 1.5, "x", None), of(2, 2.5, "y", 5)]
    frame = frames_of(PANDAS, of).given(values)
    frame.loc[frame["a"] > 1, "b"] = 0.0
    frame["a"] += 1
    frame["c"] = frame["c"].str.upper()
    frame["d"] = frame["d"].fillna(7)
    frame.iloc[0, 0] = 9
    assert frames_of(PANDAS, of).results(frame, 2) == [of(9, 1.5, "X", 7), of(3, 0.0, "Y", 5)]
    assert values == [of(1, 1.5, "x", None), of(2, 2.5, "y", 5)]


def test_durations_and_days_come_back_from_arithmetic() -> None:
    class Trip(msgspec.Struct):
        began: datetime
        ended: datetime
        took: timedelta | None = None

    trip = Trip(NOON, NOON + timedelta(minutes=90))
    panda = frames_of(PANDAS, Trip).given([trip])
    panda["took"] = panda["ended"] - panda["began"]
    polar = frames_of(POLARS, Trip).given([trip])
    polar = polar.with_columns(took=polars.col("ended") - polars.col("began"))
    for frame in (panda, polar):
        (found,) = frames_of(PANDAS, Trip).results(frame, 1)
        assert found.took == timedelta(minutes=90)
