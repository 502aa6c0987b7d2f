"""Sources and sinks of databases keep the contract of connectors, as the public checks test it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamkit import Record
from streamkit.connectors.sql import SqlQuery, SqlSink, SqlTable, alchemy, postgres, writer
from streamkit.connectors.sql.sources import Rows
from streamkit.testing import check_lookup_table, check_sink, check_source
from tests.conftest import IS_DEEP
from tests.sql.databases import TestDatabase
from tests.sql.kinds import Total

VALUES = [
    Total(number, f"name {number}", number / 2) for number in range(1, 121 if IS_DEEP else 41)
]
SOURCES: list[Callable[[str, str], Rows]] = [
    lambda url, table: SqlTable(url, table, batch_rows=17),
    lambda url, table: SqlTable(url, table, incremental="number", batch_rows=7),
    lambda url, table: SqlTable(url, table, splits=3, batch_rows=17),
    lambda url, table: SqlQuery(url, f"SELECT id, name, total FROM {table}", key="id"),
]


def fill(database: TestDatabase, values: list[Total]) -> None:
    for table in ("totals", "none", "bad"):
        database.run(
            f"CREATE TABLE {table} (id bigint PRIMARY KEY, name text, total double precision, "
            "number bigint NOT NULL DEFAULT 5)"
        )
    rows = [f"({each.id}, '{each.name}', {each.total})" for each in values]
    for table in ("totals", "bad"):
        database.run(f"INSERT INTO {table} (id, name, total) VALUES {', '.join(rows)}")
    database.run("INSERT INTO bad (id, name, total) VALUES (1000, NULL, 1), (0, NULL, 2)")


@pytest.mark.parametrize("number", range(len(SOURCES)))
def test_a_source_keeps_the_contract(database: TestDatabase, number: int) -> None:
    check_source_of(database, SOURCES[number], VALUES)


def check_source_of(
    database: TestDatabase, make: Callable[[str, str], Rows], values: list[Total]
) -> None:
    fill(database, values)
    check_source(
        lambda: make(database.url, "totals"),
        values,
        kind=Total,
        empty=lambda: make(database.url, "none"),
        unopenable=lambda: make(database.url, "missing"),
        poison=(lambda: make(database.url, "bad"), 2),
    )


def test_a_table_for_lookups_keeps_the_contract(database: TestDatabase) -> None:
    check_table_of(database)


def test_a_table_of_mariadb_keeps_the_contract(mariadb_only: TestDatabase) -> None:
    check_table_of(mariadb_only)


def check_table_of(database: TestDatabase) -> None:
    fill(database, VALUES)
    check_lookup_table(
        lambda: SqlTable(database.url, "bad", key="id"),
        {each.id: each for each in VALUES[:30]},
        absent=[-1, 2**40],
        refused=["1", 2**64, b"1", [1]],
        poison=[0, 1000],
        unopenable=lambda: SqlTable(database.url, "missing", key="id"),
    )


def written(database: TestDatabase, table: str) -> list[Any]:
    catalog = "sqlite_master WHERE name"
    if not database.url.startswith("sqlite"):
        schema = "current_schema()" if database.is_postgres else "DATABASE()"
        catalog = f"information_schema.tables WHERE table_schema = {schema} AND table_name"
    if database.run(f"SELECT count(*) FROM {catalog} = '{table}'") == [(0,)]:
        return []
    return [Total(*row) for row in database.run(f"SELECT id, name, total FROM {table}")]


def clear(database: TestDatabase, table: str) -> None:
    if written(database, table):
        database.run(f"DELETE FROM {table}")
    database.run("DROP TABLE IF EXISTS streamkit_positions")


def test_a_source_of_mariadb_keeps_the_contract(mariadb_only: TestDatabase) -> None:
    check_source_of(mariadb_only, SOURCES[0], VALUES[:30])


def test_a_sink_of_mariadb_keeps_the_contract(
    mariadb_only: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alchemy, "_LOCK_S_MAX", 0)  # which MySQL does not have
    check_sink_of(mariadb_only, "upsert", monkeypatch)


@pytest.mark.parametrize("mode", ["insert", "upsert", "ignore"])
def test_a_sink_keeps_the_contract(
    database: TestDatabase, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_sink_of(database, mode, monkeypatch)


def check_sink_of(database: TestDatabase, mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # A crash only abandons a writer here, so its transaction keeps its locks.
    monkeypatch.setattr(writer, "_LOCKED_S_MAX", 0.1)
    monkeypatch.setattr(postgres, "_LOCK_MS_MAX", 50)
    check_sink(
        lambda: SqlSink(database.url, "totals", mode=mode, key=None if mode == "insert" else "id"),
        lambda: written(database, "totals"),
        VALUES[:20],
        exactly_once=True,
        clear=lambda: clear(database, "totals"),
        poison=[Total(1, "lone \ud800"), Total(2**63, "a"), Record(5)],
        unopenable=lambda: SqlSink(database.url, "missing", create=False),
    )
