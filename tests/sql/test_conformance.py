"""Sources and sinks of databases keep the contract of connectors, as the public checks test it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamkit import Record
from streamkit.connectors.sql import SqlQuery, SqlSink, SqlTable, writer
from streamkit.connectors.sql.sources import Rows
from streamkit.testing import check_sink, check_source
from tests.sql.databases import TestDatabase
from tests.sql.kinds import Total

VALUES = [Total(number, f"name {number}", number / 2) for number in range(1, 201)]
SOURCES: list[Callable[[str, str], Rows]] = [
    lambda url, table: SqlTable(url, table, batch_rows=50),
    lambda url, table: SqlTable(url, table, incremental="number", batch_rows=7),
    lambda url, table: SqlTable(url, table, splits=3, batch_rows=50),
    lambda url, table: SqlQuery(url, f"SELECT id, name, total FROM {table}", key="id"),
]


def fill(database: TestDatabase) -> None:
    for table in ("totals", "none", "bad"):
        database.run(
            f"CREATE TABLE {table} (id bigint PRIMARY KEY, name text, total double precision, "
            "number bigint NOT NULL DEFAULT 5)"
        )
    rows = [f"({each.id}, '{each.name}', {each.total})" for each in VALUES]
    for table in ("totals", "bad"):
        database.run(f"INSERT INTO {table} (id, name, total) VALUES {', '.join(rows)}")
    database.run("INSERT INTO bad (id, name, total) VALUES (1000, NULL, 1), (0, NULL, 2)")


@pytest.mark.parametrize("number", range(len(SOURCES)))
def test_a_source_keeps_the_contract(database: TestDatabase, number: int) -> None:
    fill(database)
    make = SOURCES[number]
    check_source(
        lambda: make(database.url, "totals"),
        VALUES,
        kind=Total,
        empty=lambda: make(database.url, "none"),
        unopenable=lambda: make(database.url, "missing"),
        poison=(lambda: make(database.url, "bad"), 2),
    )


def written(database: TestDatabase, table: str) -> list[Any]:
    exists = (
        f"SELECT to_regclass('{table}') IS NOT NULL"
        if database.is_postgres
        else f"SELECT count(*) FROM sqlite_master WHERE name = '{table}'"
    )
    if database.run(exists)[0][0] in (0, False):
        return []
    return [Total(*row) for row in database.run(f"SELECT id, name, total FROM {table}")]


def clear(database: TestDatabase, table: str) -> None:
    if written(database, table):
        database.run(f"DELETE FROM {table}")
    database.run("DROP TABLE IF EXISTS streamkit_positions")


@pytest.mark.parametrize("mode", ["insert", "upsert", "ignore"])
def test_a_sink_keeps_the_contract(
    database: TestDatabase, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A crash only abandons a writer here, so its transaction keeps its locks.
    monkeypatch.setattr(writer, "_LOCKED_S_MAX", 0.1)
    check_sink(
        lambda: SqlSink(database.url, "totals", mode=mode, key=None if mode == "insert" else "id"),
        lambda: written(database, "totals"),
        VALUES[:20],
        exactly_once=True,
        clear=lambda: clear(database, "totals"),
        poison=[Total(1, "lone \ud800"), Total(2**63, "a"), Record(5)],
        unopenable=lambda: SqlSink(database.url, "missing", create=False),
    )
