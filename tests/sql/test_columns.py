"""The columns of a type of rows."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import msgspec
import pytest

from streamkit.connectors.sql.columns import ColumnType, row_type
from streamkit.connectors.sql.dialects import POSTGRES, SQLITE
from streamkit.connectors.sql.rows import row_encoder
from streamkit.connectors.sql.tables import check_names, create_table, key_columns
from streamkit.errors import TopologyError, UsageError
from tests.sql.kinds import Everything, Total, TotalData, TotalDict

UserId = NewType("UserId", int)


class Cents(msgspec.Struct):
    user: UserId
    cents: Annotated[int, msgspec.Meta(ge=0)]
    kind: Literal["a", "b"]
    ratio: int | float
    either: int | str
    nothing: None
    anything: Any
    pair: tuple[int, str]


def test_every_type_has_a_column() -> None:
    found = {each.name: each.holds.name for each in row_type(Everything).columns}
    assert found == {
        "Order": "INT",
        "amount": "FLOAT",
        "is_open": "BOOL",
        "odd 'name' %s `?": "TEXT",
        "data": "BYTES",
        "at": "TIMESTAMP",
        "local_at": "LOCAL_TIMESTAMP",
        "day": "DATE",
        "time": "TIME",
        "took": "INTERVAL",
        "price": "DECIMAL",
        "id": "UUID",
        "color": "TEXT",
        "level": "INT",
        "place": "JSON",
        "tags": "JSON",
        "more": "JSON",
        "note": "TEXT",
    }


def test_other_annotations_have_the_column_of_what_they_mean() -> None:
    found = {each.name: (each.holds.name, each.is_nullable) for each in row_type(Cents).columns}
    assert found == {
        "user": ("INT", False),
        "cents": ("INT", False),
        "kind": ("TEXT", False),
        "ratio": ("FLOAT", False),
        "either": ("JSON", False),
        "nothing": ("JSON", True),
        "anything": ("JSON", True),
        "pair": ("JSON", False),
    }


@pytest.mark.parametrize("kind", [Total, TotalData, TotalDict])
def test_structs_dataclasses_and_typed_dicts_have_the_same_columns(kind: Any) -> None:
    assert create_table(POSTGRES, "sales.totals", row_type(kind), ["id"]) == (
        'CREATE TABLE IF NOT EXISTS "sales"."totals" ("id" bigint NOT NULL, "name" text NOT NULL, '
        '"total" double precision, PRIMARY KEY ("id"))'
    )


@pytest.mark.parametrize("kind", [Total, TotalData, TotalDict])
def test_values_of_each_kind_become_the_same_rows(kind: Any) -> None:
    values = [kind(id=1, name="a", total=2.5), kind(id=2, name="b")]
    rows = row_encoder(row_type(kind), POSTGRES).encode(values)
    assert list(map(tuple, rows)) == [(1, "a", 2.5), (2, "b", None)]


def test_a_type_with_one_field_has_rows_of_one_value() -> None:
    One = msgspec.defstruct("One", [("a", int)])
    assert row_encoder(row_type(One), SQLITE).encode([One(1)]) == [(1,)]
    assert row_encoder(row_type(OneDict), SQLITE).encode([{"a": 1}]) == [(1,)]


class Pair(NamedTuple):
    a: int


@dataclass
class Odd:
    number: complex


class OneDict(TypedDict):
    a: int


class Mixed(msgspec.Struct):
    what: Literal["a", 1]


@pytest.mark.parametrize("kind", [int, dict, dict[str, int], None, Any, Total | Pair, Pair, "?"])
def test_a_type_without_fields_is_refused(kind: Any) -> None:
    with pytest.raises(TopologyError, match="has no columns"):
        row_type(kind)


@pytest.mark.parametrize(("kind", "field"), [(Odd, "number"), (Mixed, "what")])
def test_a_field_that_no_column_can_hold_is_refused(kind: Any, field: str) -> None:
    with pytest.raises(TopologyError, match=f"the field '{field}' of {kind.__name__}"):
        row_type(kind)


def test_a_type_with_no_fields_is_refused() -> None:
    with pytest.raises(TopologyError, match="has no fields"):
        row_type(msgspec.defstruct("Empty", []))


@pytest.mark.parametrize(
    ("key", "text"),
    [("none", "has no column 'none'"), ("total", "may be None"), (["id", "id"], "twice")],
)
def test_a_wrong_key_is_refused(key: Any, text: str) -> None:
    with pytest.raises(TopologyError, match=text):
        key_columns(row_type(Total), key)


def test_json_cannot_be_a_key() -> None:
    with pytest.raises(TopologyError, match="is JSON"):
        key_columns(row_type(Everything), "tags")


def test_names_that_a_database_cannot_tell_apart_are_refused() -> None:
    rows = row_type(msgspec.defstruct("Twice", [("id", int), ("ID", int)]))
    check_names(rows, POSTGRES)
    with pytest.raises(TopologyError, match="does not distinguish"):
        check_names(rows, SQLITE)


def test_a_name_that_postgresql_would_shorten_is_refused() -> None:
    name = "é" * 32
    rows = row_type(msgspec.defstruct("Long", [(name, int)]))
    check_names(rows, SQLITE)
    with pytest.raises(UsageError, match="too long"):
        check_names(rows, POSTGRES)


def test_a_time_with_a_required_zone_is_a_timestamp_with_zone() -> None:
    Kind = msgspec.defstruct(
        "Kind", [("at", Annotated[dt.datetime, msgspec.Meta(tz=True)]), ("b", dt.datetime)]
    )
    assert {each.holds for each in row_type(Kind).columns} == {ColumnType.TIMESTAMP}
