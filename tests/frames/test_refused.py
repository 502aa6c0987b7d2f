"""What cannot be a column, or a row, is refused with the place and the reason."""

from __future__ import annotations

from collections import deque
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pandas
import polars
import pyarrow
import pytest
from pydantic import BaseModel

from streamkit import Record
from streamkit.errors import DataError, RowError, TopologyError
from streamkit.frames.functions import Frames
from streamkit.frames.kinds import ARROW_TABLE, PANDAS, POLARS
from streamkit.frames.rows import batch_maker
from streamkit.frames.schema import arrow_schema, arrow_to_rows, rows_to_arrow


class Kind(Enum):
    ONE = "one"
    TWO = 2


class Tree(msgspec.Struct):
    left: Tree | None = None


class Empty(msgspec.Struct): ...


class Model(BaseModel):
    size: int


class A(msgspec.Struct, tag=True):
    x: int


class B(msgspec.Struct, tag=True):
    x: int


def row(kind: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct("Row", [("field", kind)])


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (int, "int cannot be rows of a frame"),
        (list[int], "cannot be rows of a frame"),
        (A | B, "cannot be rows of a frame"),
        (Model, "cannot be rows of a frame"),
        (Empty, "Empty has no fields"),
        (Tree, "Tree contains itself"),
        (row(Any), "the field 'field' of Row may be of any type"),
        (row(dict[str, Any]), "the field 'field' of Row may be of any type"),
        (row(int | str), "several types"),
        (row(A | B), "several types"),
        (row(Kind), "either all str or all int"),
        (row(Literal["a", 1]), "neither all str nor all int"),
        (row(tuple[int, str]), "which cannot be a column"),
        (row(deque), "cannot be a column"),
        (row(Model), "cannot be a column"),
        (row(msgspec.Raw), "cannot be a column"),
        (Record[Any], "the field 'value' of .*Record.* may be of any type"),
        (dict[int, str], "names of columns are text"),
        (dict[str, int | str], "several types"),
    ],
)
def test_a_type_without_columns_is_refused(kind: Any, problem: str) -> None:
    with pytest.raises(TopologyError, match=problem):
        batch_maker(kind)


def test_the_error_for_a_model_says_how_to_turn_it_into_dicts() -> None:
    with pytest.raises(TopologyError) as caught:
        arrow_schema(Model)
    assert caught.value.hint == "turn them into dicts first: stream.map(Model.model_dump)"


NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001  # it is the case that is tested
AWARE = NAIVE.replace(tzinfo=UTC)
LOCAL = Annotated[datetime, msgspec.Meta(tz=False)]


@pytest.mark.parametrize(
    ("kind", "good", "bad", "problem"),
    [
        (int, 1, None, "it is None, but its type is int"),
        (int, 1, 2.5, "it is of type float, not int"),
        (int, 1, True, "it is of type bool, not int"),
        (int, 1, "5", "it is of type str, not int"),
        (int, 1, 2**63, "it does not fit into 64 bits"),
        (float, 1.0, True, "it is of type bool, not float"),
        (float, 1.0, 2**53 + 1, "9007199254740993"),
        (bool, True, 1, "it is of type int, not bool"),
        (str, "", b"x", "it is of type bytes, not str"),
        (str, "", "\ud800", "surrogates not allowed"),
        (bytes, b"", "x", "it is of type str, not bytes"),
        (date, date(2024, 1, 1), AWARE, "it is of type datetime, not date"),
        (datetime, AWARE, NAIVE, "it has no time zone"),
        (datetime, AWARE, AWARE.date(), "it is of type date, not datetime"),
        (LOCAL, NAIVE, AWARE, "it has a time zone"),
        (time, time(1), time(1, tzinfo=UTC), "it has a time zone"),
        (Decimal, Decimal(1), Decimal("NaN"), "not a valid decimal"),
        (Decimal, Decimal(1), Decimal("1e-19"), "data loss"),
        (Decimal, Decimal(1), 1.5, "it is of type float, not Decimal"),
        (Literal["a", "b"], "a", "c", "not one of the values"),
        (list[int], [1], [1, None], "it is None, but its type is int"),
        (list[int], [1], "12", "it is of type str, not list"),
        (list[int], [1], [1, 2.5], "it is of type float, not int"),
        (dict[str, int], {}, {"a": "b"}, "it is of type str, not int"),
        (A, A(1), A("x"), "in its field 'x': it is of type str, not int"),  # type: ignore[arg-type]
        (A, A(1), B(1), "it is of type B, not A"),
    ],
)
def test_a_value_that_does_not_fit_is_named(kind: Any, good: Any, bad: Any, problem: str) -> None:
    of = row(kind)
    values = [of(good)] * 5 + [of(bad)] + [of(good), of(bad)]
    with pytest.raises(RowError, match=problem) as caught:
        rows_to_arrow(values, of)
    assert caught.value.row == 5
    assert str(caught.value).startswith("row 5: the field 'field' is ")


def test_a_row_of_another_class_is_named() -> None:
    with pytest.raises(RowError, match="row 1: the value is B") as caught:
        rows_to_arrow([A(1), B(1)], A)
    assert caught.value.row == 1


@pytest.mark.parametrize(
    ("values", "row", "problem"),
    [
        ([{"a": 1}, {"a": 2}, {"a": "x"}], 2, "the field 'a' is 'x'"),
        ([{"a": 1}, {"a": True}], 1, "the field 'a' is True"),
        ([{"a": 1.5}, {"a": 2}, {"a": True}], 2, "the field 'a' is True"),
        ([{"a": 1}, {}], 1, "row 1 has no fields"),
        ([{"a": 1}, {2: 1}], 1, "row 1 has the key 2"),
        ([{"a": 1}, 5], 1, "row 1 is of type int"),
        ([5, 6], 0, "int cannot be rows of a frame"),
        ([A(1), B(1)], 0, "row 0 is of type A"),
        ([{"a": AWARE}, {"a": NAIVE}], 1, "it has no time zone"),
        ([{"a": 2**63}], 0, "OverflowError"),
        ([{"a": object()}], 0, "the field 'a' is <object"),
    ],
)
def test_a_dict_that_does_not_fit_is_named(values: list[Any], row: int, problem: str) -> None:
    with pytest.raises(RowError, match=problem) as caught:
        batch_maker(None)(values)
    assert caught.value.row == row


class Point(msgspec.Struct):
    x: int
    y: float | None = None
    name: str = ""


def results(frame: Any, output: Any = Point, count: int | None = None) -> Any:
    frames = Frames(POLARS, Point, output, is_row_by_row=True)
    return frames.results(frame, frame.shape[0] if count is None else count)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"y": [1.0]}, "lacks the column 'x'"),
        ({"x": [1], "nam": [""]}, "has the column 'nam'.*did you mean 'name'"),
        ({"x": [1], "a": [1], "b": [1]}, "has the columns 'a', 'b', for which there is no field"),
        ({"x": ["1"]}, "column 'x'.* has the type .*string, but int needs int64"),
        ({"x": [True]}, "column 'x'.* has the type bool"),
        ({"x": [1], "y": ["a"]}, "column 'y'.* has the type .*string, but float needs double"),
        ({"x": [1], "name": [b"a"]}, "column 'name'.* has the type .*binary"),
        ({"x": [[1]]}, "column 'x'.* has the type .*list"),
    ],
)
@pytest.mark.parametrize("make", [polars.DataFrame, pandas.DataFrame, pyarrow.table])
def test_wrong_columns_of_a_returned_frame_are_named(
    make: Any, columns: dict[str, list[Any]], problem: str
) -> None:
    frame = make(columns)
    with pytest.raises(DataError, match=problem) as caught:
        results(frame)
    assert not isinstance(caught.value, RowError)


@pytest.mark.parametrize("make", [polars.DataFrame, pandas.DataFrame, pyarrow.table])
@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"x": [1, None, 3]}, "row 1: the column 'x' is .*: it is null, but its type is int"),
        ({"x": [1.0, 2.5, 3.0]}, "row 1: the column 'x' is 2.5"),
    ],
)
def test_a_wrong_value_of_a_returned_frame_is_named(
    make: Any, columns: dict[str, list[Any]], problem: str
) -> None:
    with pytest.raises(RowError, match=problem) as caught:
        results(make(columns))
    assert caught.value.row == 1


def test_a_value_outside_of_a_declared_range_is_named() -> None:
    of = row(Annotated[int, msgspec.Meta(ge=0)] | None)
    frame = polars.DataFrame({"field": [1, None, -3]})
    with pytest.raises(RowError, match=r"row 2: the column 'field' is -3.*Expected `int` >= 0"):
        results(frame, of)


def test_a_row_that_is_of_no_type_of_a_union_is_named() -> None:
    frame = polars.DataFrame({"type": ["A", "B", "C"], "x": [1, 2, 3]})
    assert results(frame.head(2), A | B) == [A(1), B(2)]
    with pytest.raises(RowError, match=r"row 2 at .type is {'type': 'C', 'x': 3}") as caught:
        results(frame, A | B)
    assert caught.value.row == 2
    with pytest.raises(RowError, match="row 0 is 'x': Expected `int") as caught:
        results(polars.Series(["x", "y"]), int)
    assert caught.value.row == 0


def test_a_frame_with_too_few_rows_says_how_to_return_any_number() -> None:
    with pytest.raises(
        DataError, match="a batch of 3 records returned a frame of 1 rows"
    ) as caught:
        results(polars.DataFrame({"x": [1]}), count=3)
    assert "annotate -> Iterator[polars.DataFrame]" in caught.value.hint


def test_a_frame_of_pandas_in_another_order_is_refused() -> None:
    frame = pandas.DataFrame({"x": [3, 1, 2]})
    assert results(frame) == [Point(3), Point(1), Point(2)]
    with pytest.raises(DataError, match="another order"):
        results(frame.sort_values("x"))
    assert results(frame.sort_values("x", ignore_index=True)) == [Point(1), Point(2), Point(3)]


def test_what_is_no_table_of_values_is_refused() -> None:
    with pytest.raises(DataError, match="has Python objects"):
        results(polars.DataFrame({"x": [object()]}, schema={"x": polars.Object}))
    with pytest.raises(DataError, match=r"LazyFrame has no rows yet") as caught:
        Frames(POLARS, Point, Point, is_row_by_row=True).results(polars.LazyFrame({"x": [1]}), 1)
    assert caught.value.hint == "return query.collect()"
    with pytest.raises(DataError, match="a column 0, but names of columns are text"):
        results(pandas.DataFrame([[1]]))
    with pytest.raises(DataError, match=r"[Dd]uplicate"):
        results(pandas.DataFrame([[1, 2]], columns=["x", "x"]))
    with pytest.raises(DataError, match="several columns of the same name"):
        results(pyarrow.Table.from_arrays([[1], [2]], names=["x", "x"]))
    with pytest.raises(DataError, match=r"cannot be read: .*column x"):
        results(pandas.DataFrame({"x": [1, "a"]}))


def test_nanoseconds_are_refused_and_not_cut() -> None:
    frame = pyarrow.table({"field": pyarrow.array([1_000, 1_001], pyarrow.timestamp("ns", "UTC"))})
    with pytest.raises(RowError, match="row 1: the column 'field'"):
        results(frame, row(datetime))
    with pytest.raises(DataError, match="the column 'field' of a frame cannot be read"):
        results(frame, None)


def test_a_time_without_a_zone_says_how_to_give_it_one() -> None:
    frame = polars.DataFrame({"field": [NAIVE]})
    with pytest.raises(DataError, match="replace_time_zone"):
        results(frame, row(datetime))
    assert results(frame, row(LOCAL))[0].field == NAIVE


def test_a_table_with_other_columns_is_refused_by_the_function_too() -> None:
    with pytest.raises(DataError, match="lacks the column 'x'"):
        arrow_to_rows(pyarrow.table({"y": [1.0]}), Point)
    assert arrow_to_rows(pyarrow.table({"x": pyarrow.array([], pyarrow.int64())}), Point) == []


@pytest.mark.parametrize("kind", [ARROW_TABLE, POLARS, PANDAS], ids=lambda kind: str(kind.name))
def test_frames_without_rows_have_no_results(kind: Any) -> None:
    frames = Frames(kind, Point, Point)
    assert frames.results([frames.given([Point(1)])[:0]], 1) == []
    assert frames.results([polars.DataFrame(), pandas.DataFrame()], 1) == []
