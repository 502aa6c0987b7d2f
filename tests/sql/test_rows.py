"""Values become rows; one that a database would refuse is found before any row is written."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.connectors.sql.columns import row_type
from streamkit.connectors.sql.dialects import POSTGRES, SQLITE, Dialect
from streamkit.connectors.sql.rows import BadRow, row_encoder
from streamkit.connectors.sql.tables import Limits
from tests.sql.kinds import EDGES, USUAL, Color, Everything, Place, Total

NAIVE = dt.datetime(2024, 1, 1)  # noqa: DTZ001
AWARE = NAIVE.replace(tzinfo=dt.UTC)
BAD_ANYWHERE: list[tuple[str, Any, str]] = [
    ("order", 2**63, "is too large"),
    ("order", -(2**63) - 1, "is too large"),
    ("order", True, "is bool, not a whole number"),
    ("order", "1", "is str, not a whole number"),
    ("order", 1.0, "is float, not a whole number"),
    ("order", None, "the column is NOT NULL"),
    ("amount", "1", "is str, not a number"),
    ("amount", 10**400, "too large"),
    ("is_open", 1, "is int, not a boolean"),
    ("text", b"bytes", "is bytes, not text"),
    ("text", "lone \ud800 surrogate", "surrogates not allowed"),
    ("data", "text", "is str, not bytes"),
    ("at", NAIVE, "has no time zone"),
    ("at", AWARE.date(), "is date, not a datetime"),
    ("local_at", AWARE, "has a time zone"),
    ("day", AWARE, "is datetime, not a date"),
    ("time", dt.time(tzinfo=dt.UTC), "has a time zone"),
    ("took", 5, "is int, not a timedelta"),
    ("price", 1.5, "is float, not a Decimal"),
    ("id", "00000000-0000-0000-0000-000000000000", "is str, not a UUID"),
    ("color", "red", "is str, not a Color"),
    ("level", Color.RED, "is Color, not a Level"),
    ("tags", [float("nan")], "NaN or infinity at [0] is not valid JSON"),
    ("place", Place("a\0b", []), "contains the character NUL"),
    ("more", {"a": object()}, "cannot be written as JSON"),
]
BAD_IN_POSTGRES: list[tuple[str, Any, str]] = [
    ("text", "nul \0", "cannot contain the character NUL"),
    ("note", "\0", "cannot contain the character NUL"),
    ("price", Decimal("Infinity"), "not a number that the column can hold"),
    ("price", Decimal("sNaN"), "not a number that the column can hold"),
]
BAD_IN_SQLITE: list[tuple[str, Any, str]] = [
    ("amount", float("nan"), "stores NaN as NULL"),
    ("at", dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))), "out of range"),
]
BAD = [
    *((POSTGRES, *each) for each in BAD_ANYWHERE + BAD_IN_POSTGRES),
    *((SQLITE, *each) for each in BAD_ANYWHERE + BAD_IN_SQLITE),
]


@pytest.mark.parametrize(("dialect", "field", "value", "text"), BAD)
def test_a_value_that_a_database_would_refuse_is_found(
    dialect: Dialect, field: str, value: Any, text: str
) -> None:
    bad = msgspec.structs.replace(USUAL, **{field: value})
    with pytest.raises(BadRow) as found:
        row_encoder(row_type(Everything), dialect).encode([USUAL, USUAL, bad, USUAL, bad])
    assert found.value.row == 2
    assert text in str(found.value)
    column = {"order": "Order", "text": "odd 'name'"}.get(field, field)
    assert f'column "{column}' in str(found.value) or f"column '{column}" in str(found.value)


def test_the_first_bad_row_is_found_among_several_columns() -> None:
    values = [Total(1, "a"), Total(2, "b", 1.0), Total(3, "c\0"), Total(None, "d")]  # type: ignore[arg-type]
    encoder = row_encoder(row_type(Total), POSTGRES)
    with pytest.raises(BadRow) as found:
        encoder.encode(values)
    assert found.value.row == 2
    with pytest.raises(BadRow) as found:
        encoder.encode([Total("x", "a"), Total(None, "d")])  # type: ignore[arg-type]
    assert found.value.row == 0
    assert len(encoder.encode(values[:2])) == 2


@pytest.mark.parametrize("value", [None, 5, "text", {"id": 1}, object()])
def test_a_value_of_another_type_is_found(value: Any) -> None:
    with pytest.raises(BadRow, match="which has not all columns of Total") as found:
        row_encoder(row_type(Total), SQLITE).encode([Total(1, "a"), value])
    assert found.value.row == 1


@pytest.mark.parametrize(
    ("limits", "value"),
    [
        (Limits(int_bits=16), Total(2**15, "a")),
        (Limits(int_bits=32), Total(-(2**31) - 1, "a")),
        (Limits(digits_max=2), Total(100, "a")),
    ],
)
def test_a_number_that_an_existing_column_cannot_hold_is_found(limits: Limits, value: Any) -> None:
    encoder = row_encoder(row_type(Total), POSTGRES, [limits, Limits(), Limits()])
    with pytest.raises(BadRow, match="is too large"):
        encoder.encode([value])
    encoder.encode([msgspec.structs.replace(value, id=99 if value.id > 0 else -(2**31))])


def test_a_text_that_an_existing_column_cannot_hold_is_found() -> None:
    encoder = row_encoder(row_type(Total), POSTGRES, [Limits(), Limits(length_max=3), Limits()])
    assert len(encoder.encode([Total(1, "äöü"), Total(1, "")])) == 2
    with pytest.raises(BadRow, match="has 4 characters, but the column allows 3"):
        encoder.encode([Total(1, "äöü"), Total(1, "äöüß")])


def test_a_decimal_that_an_existing_column_cannot_hold_is_found() -> None:
    Price = msgspec.defstruct("Price", [("price", Decimal)])
    encoder = row_encoder(row_type(Price), POSTGRES, [Limits(digits_max=2)])
    assert encoder.encode([Price(Decimal("99.999"))]) == [(Decimal("99.999"),)]
    assert encoder.encode([Price(Decimal("NaN"))])  # which numeric(5, 3) of PostgreSQL holds
    for bad in ("100", "-100", "Infinity"):
        with pytest.raises(BadRow):
            encoder.encode([Price(Decimal("1")), Price(Decimal(bad))])


def test_times_in_sqlite_are_texts_whose_order_is_that_of_the_times() -> None:
    At = msgspec.defstruct("At", [("at", dt.datetime)])
    zones = [dt.timezone(dt.timedelta(hours=hours)) for hours in (-12, 0, 14)]
    times = [
        AWARE.replace(microsecond=part).astimezone(zone)
        for part in (0, 1, 500_000)
        for zone in zones
    ]
    rows = row_encoder(row_type(At), SQLITE).encode([At(each) for each in times])
    texts = [text for (text,) in rows]
    assert texts == sorted(texts)
    assert texts[0] == "2024-01-01 00:00:00.000000+00:00"


def test_subclasses_and_numbers_of_numpy_become_plain_values() -> None:
    class Id(int):
        pass

    class Name(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "wrong"

    class Amount(float):
        def __repr__(self) -> str:
            return "np.float64(1.5)"

    rows = row_encoder(row_type(Total), POSTGRES).encode([Total(Id(1), Name("a"), Amount(1.5))])
    assert rows == [(1, "a", 1.5)]
    assert [type(each) for each in rows[0]] == [int, str, float]


@given(cuts=st.lists(st.integers(0, len(EDGES) * 3), max_size=4), bad=st.integers(0, 20))
def test_cutting_the_values_anywhere_changes_nothing(cuts: list[int], bad: int) -> None:
    values = EDGES * 3
    if bad < len(values):
        values[bad] = msgspec.structs.replace(USUAL, order="bad")
    encoder = row_encoder(row_type(Everything), POSTGRES)
    done: list[Any] = []
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(values)], strict=True):
        try:
            done += encoder.encode(values[start:stop])
        except BadRow as error:
            done += encoder.encode(values[start : start + error.row])
            break
    assert done == encoder.encode(values[: min(bad, len(values))])
