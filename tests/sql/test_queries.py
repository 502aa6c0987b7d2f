"""Pages of rows in order: every row once, also with ties and from any place."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.connectors.sql.dialects import POSTGRES, SQLITE, Dialect
from streamkit.connectors.sql.positions import decode_position, encode_position
from streamkit.connectors.sql.queries import (
    Selection,
    Statement,
    query_relation,
    split_range,
)
from streamkit.errors import DataError, StateMismatch, StreamKitError, UsageError
from tests.sql.databases import TestDatabase

EXPANDED = replace(SQLITE, compares_rows=False)


def pages(
    run: Callable[[Statement], list[Any]], selection: Selection, limit: int, until: Any = None
) -> list[Any]:
    """Read all pages; between two, the place goes through its text."""
    found: list[Any] = []
    place = None
    while page := run(selection.page(limit, after=place, until=until)):
        assert len(page) <= limit
        found += page
        place = decode_position(encode_position(page[-1][-len(selection.order) :]))
    return found


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from("aAbBä"), st.integers(0, 50)),
        max_size=30,
        unique=True,
    ),
    limit=st.integers(1, 8),
    dialect=st.sampled_from([SQLITE, EXPANDED]),
    cut=st.integers(0, 30),
)
def test_pages_have_every_row_once_in_order(
    rows: list[Any], limit: int, dialect: Dialect, cut: int
) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a, b, c)")
    connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    selection = Selection(dialect, dialect.table("t"), ("a", "b", "c"))

    def run(statement: Statement) -> list[Any]:
        return connection.execute(statement.text, statement.parameters).fetchall()

    expected = sorted(rows)
    assert pages(run, selection, limit) == expected
    last = run(selection.last())
    assert last == expected[-1:]
    if expected:
        until = expected[cut % len(expected)]
        assert pages(run, selection, limit, until) == expected[: expected.index(until) + 1]
        prefix = [each for each in expected if each[0] <= until[0]]
        assert pages(run, selection, limit, until[:1]) == prefix
    connection.close()


PLACES: list[tuple[str, list[Any]]] = [
    ("bigint", [-(2**63), -1, 0, 2**63 - 1]),
    ("double precision", [-1e308, -0.1, 0.1, 1 / 3, float("inf")]),
    ("numeric", [Decimal("0.1"), Decimal("0.10000000000000000000000000001"), Decimal(10) ** 40]),
    ("text", ["", "%s", "?", "a'b\"\\", "Ä", "€"]),
    ("uuid", [UUID(int=1), UUID(int=2**128 - 1)]),
    ("date", [dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    ("time", [dt.time(0, 0, 0, 1), dt.time(23, 59, 59, 999_999)]),
    ("interval", [dt.timedelta(days=-1, microseconds=1), dt.timedelta(days=1)]),
    ("bytea", [b"", b"\x00\xff"]),
    ("timestamp", [dt.datetime(1, 1, 1), dt.datetime(2024, 1, 1, 0, 0, 0, 1)]),  # noqa: DTZ001
    (
        "timestamptz",
        [
            dt.datetime(2024, 1, 1, 5, 44, 59, 999_999, dt.timezone(dt.timedelta(hours=5))),
            dt.datetime(2024, 10, 27, 1, 0, 0, 0, dt.UTC),
        ],
    ),
]


@pytest.mark.parametrize(("kind", "values"), PLACES, ids=[kind for kind, _ in PLACES])
def test_a_place_of_every_type_is_found_again_exactly(
    postgres_only: TestDatabase, kind: str, values: list[Any]
) -> None:
    postgres_only.run(f'CREATE TABLE t ("At %s" {kind}, id int)')
    selection = Selection(POSTGRES, POSTGRES.table("t"), ("At %s", "id"))
    with postgres_only.session() as session:
        for value in values:
            for number in (1, 2):
                session.execute(Statement("INSERT INTO t VALUES (%s, %s)", (value, number)))
        found = pages(lambda statement: list(session.query(statement).rows), selection, 1)
        assert found == [(value, number) for value in sorted(values) for number in (1, 2)]


def test_a_query_of_the_user_is_read_in_pages(database: TestDatabase) -> None:
    database.run_all(
        "CREATE TABLE t (id int, name text)",
        "INSERT INTO t VALUES (1, '100%'), (2, '5%s'), (3, '?'), (4, 'skipped')",
    )
    query = (
        "SELECT id, name AS \"user\" FROM t WHERE name LIKE '%%' AND name <> 'skipped' -- ; end;\n;"
    )
    with database.session() as session:
        selection = Selection(session.dialect, query_relation(session.dialect, query), ("id",))
        found = session.query(selection.page(2))
        assert found.names == ("id", "user")
        assert list(found.rows) == [(1, "100%"), (2, "5%s")]
        assert list(session.query(selection.page(2, after=(2,))).rows) == [(3, "?")]


def test_chosen_columns_are_read_with_those_that_order_the_rows(database: TestDatabase) -> None:
    database.run_all("CREATE TABLE t (id int, a int, b int)", "INSERT INTO t VALUES (1, 2, 3)")
    selection = Selection(database.dialect, database.dialect.table("t"), ("b", "id"), ("a", "id"))
    with database.session() as session:
        assert session.query(selection.page(5)).names == ("a", "id", "b")


def test_a_row_without_a_place_is_found(database: TestDatabase) -> None:
    database.run_all("CREATE TABLE t (at int, id int)", "INSERT INTO t VALUES (1, 1)")
    selection = Selection(database.dialect, database.dialect.table("t"), ("at", "id"))
    with database.session() as session:
        assert list(session.query(selection.null_in("at")).rows) == []
        session.execute(Statement("INSERT INTO t VALUES (NULL, 2)"))
        assert list(session.query(selection.null_in("at")).rows) == [(1,)]
        assert list(session.query(selection.last()).rows) == [(1, 1)]


@pytest.mark.parametrize("query", ["", " ;; "])
def test_an_empty_query_is_refused(query: str) -> None:
    with pytest.raises(UsageError, match="query= is empty"):
        query_relation(SQLITE, query)


@given(st.integers(), st.integers(0, 10_000), st.integers(1, 20))
def test_ranges_divide_all_keys(low: int, size: int, count: int) -> None:
    high = low + size
    ends = [*split_range(low, high, count), high]
    assert len(ends) == min(count, size + 1)
    starts = [low - 1, *ends[:-1]]
    sizes = [end - start for start, end in zip(starts, ends, strict=True)]
    assert sum(sizes) == size + 1
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("bounds", [(None, None), ("a", "b"), (1.0, 2.0), (True, False)])
def test_keys_that_are_not_numbers_are_one_range(bounds: tuple[Any, Any]) -> None:
    assert split_range(*bounds, 4) == []


VALUES = st.one_of(
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.booleans(),
    st.binary(),
    st.datetimes(timezones=st.none() | st.just(dt.UTC)),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
)


@given(st.lists(VALUES, max_size=4))
def test_a_position_is_read_as_it_was_written(values: list[Any]) -> None:
    found = decode_position(encode_position(values))
    assert found == tuple(values)
    assert list(map(type, found)) == list(map(type, values))
    assert list(map(str, found)) == list(map(str, values))


@pytest.mark.parametrize("value", [None, [1], object()])
def test_a_value_that_cannot_be_a_position_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match="cannot be a position"):
        encode_position([value])


@given(
    st.text()
    | st.builds("[{}]".format, st.text())
    | st.builds('[{{"date":"{}"}}]'.format, st.text())
)
def test_garbage_is_not_a_position(text: str) -> None:
    try:
        decode_position(text)
    except StateMismatch:
        return
    except StreamKitError as error:
        pytest.fail(f"another error: {error!r}")


@pytest.mark.parametrize(
    "text",
    ['{"a": 1}', "[null]", "[[1]]", '[{"decimal": "x"}]', '[{"none": "x"}]', "[{}]", "1", "["],
)
def test_a_text_that_is_not_a_position_is_refused(text: str) -> None:
    with pytest.raises(StateMismatch, match="is not a position"):
        decode_position(text)
