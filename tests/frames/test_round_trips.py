"""Rows become columns and rows again, without a change, in every kind of frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, NotRequired, TypedDict

import msgspec
import pandas
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamkit import Record
from streamkit.frames.functions import Frames
from streamkit.frames.kinds import FrameKind, frame_kind, frame_of
from streamkit.frames.schema import arrow_schema, arrow_to_rows, rows_to_arrow
from tests.frames.random_rows import FLOATS, FRAMES, INTS, TEXTS, rows

each_frame = pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: str(kind.name))


def through(values: Sequence[Any], of: Any, kind: FrameKind, output: Any = None) -> Any:
    """Return values as a function sees them that returns its frame unchanged."""
    frames = Frames(kind, of, of if output is None else output, is_row_by_row=True)
    frame = frames.given(values)
    assert frame_kind(type(frame)) is kind is frame_of(frame)
    assert frame.shape[0] == len(values)
    return frames.results(frame, len(values))


@each_frame
@given(drawn=rows())
def test_rows_of_any_type_come_back_unchanged(
    kind: FrameKind, drawn: tuple[type[msgspec.Struct], list[Any]]
) -> None:
    of, values = drawn
    back = through(values, of, kind)
    assert back == values
    assert list(map(type, back)) == [of] * len(values)


@given(drawn=rows(), cut=st.integers(0, 6))
def test_a_part_of_a_table_is_read_like_the_whole(
    drawn: tuple[type[msgspec.Struct], list[Any]], cut: int
) -> None:
    of, values = drawn
    batch = rows_to_arrow(values, of)
    assert batch.schema == arrow_schema(of)
    assert arrow_to_rows(batch.slice(cut), of) == values[cut:]
    batch.validate(full=True)


@given(drawn=rows())
def test_rows_without_a_declared_type_are_dicts_of_the_same_values(
    drawn: tuple[type[msgspec.Struct], list[Any]],
) -> None:
    of, values = drawn
    batch = rows_to_arrow(values, of)
    frames = Frames(FRAMES[0], of, None, is_row_by_row=True)
    dicts = frames.results(batch, len(values))
    assert [list(each) for each in dicts] == [list(of.__struct_fields__)] * len(values)
    for name, kind in of.__annotations__.items():
        for row, value in zip(dicts, values, strict=True):
            if kind in (int, float, bool, str, bytes):
                assert row[name] == getattr(value, name)


class Numbers(msgspec.Struct):
    plain: float
    count: int | None
    size: float | None = None


@each_frame
@example(values=[Numbers(math.nan, None), Numbers(0.5, 2)])
@given(values=st.lists(st.builds(Numbers, st.floats(), st.none() | INTS), min_size=1))
def test_nan_in_a_field_that_is_never_none_stays_nan(
    kind: FrameKind, values: list[Numbers]
) -> None:
    back = through(values, Numbers, kind)
    assert [each.count for each in back] == [each.count for each in values]
    assert list(map(str, back)) == list(map(str, values))


def test_in_pandas_a_missing_float_is_nan_and_comes_back_as_none() -> None:
    values = [Numbers(1.0, None, size) for size in (1.5, None, math.nan)]
    from streamkit.frames.kinds import PANDAS, POLARS

    assert [each.size for each in through(values, Numbers, PANDAS)] == [1.5, None, None]
    one, none, nan = (each.size for each in through(values, Numbers, POLARS))
    assert (one, none) == (1.5, None)
    assert math.isnan(nan)


# polars ends with a panic for a name with the character 0.
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5)


class Derived(pandas.DataFrame):
    """A class that derives from a frame, as that of geopandas does."""


def test_a_frame_of_a_derived_class_is_read_like_one() -> None:
    frames = Frames(FRAMES[0], Numbers, Numbers, is_row_by_row=True)
    assert frames.results(Derived({"plain": [1.5], "count": [3]}), 1) == [Numbers(1.5, 3)]
    assert frame_kind(Derived) is None


@dataclass
class Data:
    name: str
    tags: list[str] = field(default_factory=list)


class Keyword(msgspec.Struct, kw_only=True, rename="camel", tag=True):
    first_name: str
    number: int = 3
    more: int | msgspec.UnsetType = msgspec.UNSET
    rest: int | msgspec.UnsetType | None = msgspec.UNSET


class Dict(TypedDict):
    name: str
    size: NotRequired[int]


class Pair(NamedTuple):
    name: str
    size: int = 1


class Deep(msgspec.Struct):
    data: Data
    keyword: Keyword | None
    dicts: list[Dict]
    pair: Pair
    sets: set[str]
    frozen: frozenset[int]
    several: tuple[int, ...]
    either: int | float | None


DATA = st.builds(Data, TEXTS, st.lists(TEXTS, max_size=2))
KEYWORDS = st.builds(
    Keyword,
    first_name=TEXTS,
    number=INTS,
    more=st.just(msgspec.UNSET) | INTS,
    rest=st.none() | INTS,
)
DICTS: Any = st.fixed_dictionaries({"name": TEXTS}, optional={"size": INTS})
PAIRS = st.builds(Pair, TEXTS, INTS)
DEEP = st.builds(
    Deep,
    DATA,
    st.none() | KEYWORDS,
    st.lists(DICTS, max_size=2),
    PAIRS,
    st.sets(TEXTS, max_size=2),
    st.frozensets(INTS, max_size=2),
    st.lists(INTS, max_size=2).map(tuple),
    st.none() | FLOATS,
)


@each_frame
@pytest.mark.parametrize(
    ("of", "values"),
    [(Data, DATA), (Keyword, KEYWORDS), (Dict, DICTS), (Pair, PAIRS), (Deep, DEEP)],
    ids=["dataclass", "struct", "TypedDict", "NamedTuple", "nested"],
)
@given(draw=st.data())
def test_rows_may_be_of_every_class_with_fields(
    kind: FrameKind, of: Any, values: Any, draw: st.DataObject
) -> None:
    drawn = draw.draw(st.lists(values, min_size=1, max_size=4))
    assert through(drawn, of, kind) == drawn


@each_frame
def test_a_record_has_its_key_and_timestamp_as_columns(kind: FrameKind) -> None:
    records = [Record(Numbers(0.5, n), b"k%d" % n, 1_000 + n, n, 2, "t") for n in range(3)]
    assert through(records, Record[Numbers], kind) == records
    assert through([Record(b"1")], Record, kind) == [Record(b"1")]


@each_frame
def test_dicts_have_the_columns_of_the_whole_batch(kind: FrameKind) -> None:
    values = [{"a": 1}, {"b": "x", "a": None}, {"c": [1, 2], "d": {"e": 1}}]
    nothing = dict.fromkeys("abcd")
    assert through(values, None, kind, dict) == [
        nothing | {"a": 1},
        nothing | {"b": "x"},
        nothing | {"c": [1, 2], "d": {"e": 1}},
    ]


@each_frame
@given(values=st.lists(st.dictionaries(NAMES, st.none() | INTS, min_size=1), min_size=1))
def test_dicts_with_values_of_one_type_have_columns_of_it(
    kind: FrameKind, values: list[dict[str, int | None]]
) -> None:
    names = dict.fromkeys(name for each in values for name in each)
    expected = [dict.fromkeys(names) | each for each in values]
    assert through(values, dict[str, int | None], kind) == expected


@each_frame
def test_objects_of_a_stream_without_a_type_have_the_columns_of_their_class(
    kind: FrameKind,
) -> None:
    values = [Numbers(1.0, None), Numbers(2.0, 3)]
    assert through(values, None, kind, Numbers) == values


@each_frame
def test_times_of_dicts_keep_their_instant(kind: FrameKind) -> None:
    at = datetime(2024, 2, 29, 1, 2, 3, 4, UTC)
    values = [{"at": at, "day": at.date(), "took": timedelta(seconds=2)}]
    assert through(values, None, kind, dict) == values
