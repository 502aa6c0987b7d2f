"""Lookups: rows by their key, in shared queries, kept for a time."""

from __future__ import annotations

import datetime as dt
from typing import Any, cast
from uuid import UUID

import anyio
import msgspec
import pytest

from streamkit import App, Context
from streamkit.connectors.sql import SqlLookup, SqlSink
from streamkit.dataflow.lookup_tables import MISSING, RowCache
from streamkit.errors import ConfigError, TopologyError, UsageError
from tests.postgres.server import PostgresServer
from tests.sql.databases import TestDatabase
from tests.sql.kinds import Total


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def fill(database: TestDatabase, count: int = 1_500) -> None:
    database.run("CREATE TABLE totals (id bigint PRIMARY KEY, name text, total double precision)")
    rows = ", ".join(f"({number}, 'name {number}', {number}.5)" for number in range(count))
    database.run(f"INSERT INTO totals VALUES {rows}")


async def found_by(lookup: SqlLookup[Any], keys: list[Any]) -> list[Any]:
    """Find all keys at the same time."""
    found: list[Any] = [None] * len(keys)

    async def find(number: int) -> None:
        found[number] = await lookup.find(keys[number])

    async with anyio.create_task_group() as tasks:
        for number in range(len(keys)):
            tasks.start_soon(find, number)
    return found


async def test_many_calls_find_their_own_rows(database: TestDatabase) -> None:
    fill(database)
    async with SqlLookup(database.url, "totals", Total, "id") as lookup:
        keys = [*range(1_400, 1_600), *range(1_000), 5, 5, -1]
        found = await found_by(lookup, keys)
    expected = [Total(key, f"name {key}", key + 0.5) if 0 <= key < 1_500 else None for key in keys]
    assert found == expected


async def test_a_row_is_kept_for_a_time_also_if_there_is_none(database: TestDatabase) -> None:
    fill(database, 2)
    async with (
        SqlLookup(database.url, "totals", Total, "id") as kept,
        SqlLookup(database.url, "totals", Total, "id", cache_for=0) as fresh,
    ):
        for lookup in (kept, fresh):
            assert await found_by(lookup, [1, 2]) == [Total(1, "name 1", 1.5), None]
        database.run("INSERT INTO totals VALUES (2, 'new', NULL)")
        database.run("DELETE FROM totals WHERE id = 1")
        assert await found_by(kept, [1, 2]) == [Total(1, "name 1", 1.5), None]
        assert await found_by(fresh, [1, 2]) == [None, Total(2, "new")]


def test_the_least_recently_used_rows_are_dropped() -> None:
    cache = RowCache(2, 10.0)
    cache.put((1,), "a", 0.0)
    cache.put((2,), None, 1.0)
    assert cache.get((1,), 2.0) == "a"
    cache.put((3,), "c", 3.0)
    assert cache.get((2,), 3.0) is MISSING
    assert cache.get((1,), 9.9) == "a"
    assert cache.get((1,), 10.0) is MISSING
    assert cache.get((3,), 10.0) == "c"


async def test_a_key_of_several_columns_is_a_tuple(database: TestDatabase) -> None:
    Price = msgspec.defstruct("Price", [("day", dt.date), ("item", str), ("cents", int)])
    database.run("CREATE TABLE prices (day date, item text, cents int, PRIMARY KEY (day, item))")
    days = [dt.date(2024, 1, day) for day in range(1, 29)]
    rows = ", ".join(f"('{day}', '{item}', {day.day})" for day in days for item in ("a", "b"))
    database.run(f"INSERT INTO prices VALUES {rows}")
    async with SqlLookup(database.url, "prices", Price, ("item", "day")) as lookup:
        found = await found_by(lookup, [("b", day) for day in days] * 20)
        assert found == [Price(day, "b", day.day) for day in days] * 20
        for wrong in ("b", ("b",), ("b", "x"), None):
            with pytest.raises(ValueError, match=r"key|column"):
                await lookup.find(wrong)


async def test_keys_are_values_of_their_type(database: TestDatabase) -> None:
    kind = "uuid" if database.is_postgres else "text"
    database.run_all(
        f"CREATE TABLE users (id {kind} PRIMARY KEY)", f"INSERT INTO users VALUES ('{UUID(int=5)}')"
    )
    User = msgspec.defstruct("User", [("id", UUID)])
    async with SqlLookup(database.url, "users", User, "id") as lookup:
        assert await lookup.find(UUID(int=5)) == User(UUID(int=5))
        assert await lookup.find(UUID(int=6)) is None
        with pytest.raises(ValueError, match="is str, not a UUID"):
            await lookup.find(str(UUID(int=5)))


async def test_a_row_that_is_not_valid_fails_only_its_own_calls(database: TestDatabase) -> None:
    fill(database, 5)
    database.run("UPDATE totals SET name = NULL WHERE id = 3")
    async with SqlLookup(database.url, "totals", Total, "id") as lookup:
        results: dict[int, Any] = {}

        async def find(key: int) -> None:
            try:
                results[key] = await lookup.find(key)
            except ValueError as error:
                results[key] = str(error)

        async with anyio.create_task_group() as tasks:
            for key in range(5):
                tasks.start_soon(find, key)
    assert "$.name" in results[3]
    assert [results[key].id for key in (0, 1, 2, 4)] == [0, 1, 2, 4]


async def test_a_cancelled_call_leaves_the_others_their_rows(database: TestDatabase) -> None:
    fill(database)
    async with SqlLookup(database.url, "totals", Total, "id") as lookup:
        found: list[Any] = []

        async def find(key: int, scope: anyio.CancelScope) -> None:
            with scope:
                found.append(await lookup.find(key))

        scopes = [anyio.CancelScope() for _ in range(50)]
        async with anyio.create_task_group() as tasks:
            for key, scope in enumerate(scopes):
                tasks.start_soon(find, key, scope)
            await anyio.lowlevel.checkpoint()
            for scope in scopes[:10]:
                scope.cancel()
        assert sorted(each.id for each in found if each.id >= 10) == list(range(10, 50))


async def test_a_lost_connection_is_replaced(
    postgres: PostgresServer, postgres_only: TestDatabase
) -> None:
    fill(postgres_only, 5)
    async with SqlLookup(postgres_only.url, "totals", Total, "id", cache_rows=0) as lookup:
        assert (await found_by(lookup, [1]))[0].id == 1
        postgres.restart()
        assert (await found_by(lookup, [2]))[0].id == 2


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SqlLookup("sqlite:///x.db", "t", Total, ()), "key= is empty"),
        (lambda: SqlLookup("sqlite:///x.db", "", Total, "id"), "not a valid name"),
        (lambda: SqlLookup("sqlite:///x.db", "t", Total, "id", cache_rows=-1), "cache_rows=-1"),
        (lambda: SqlLookup("sqlite:///x.db", "t", Total, "id", cache_for=-1), "cache_for=-1"),
    ],
)
def test_an_invalid_option_is_refused(make: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make()


def test_a_type_without_the_key_is_refused() -> None:
    with pytest.raises(TopologyError, match="has no column 'none'"):
        SqlLookup("sqlite:///x.db", "t", Total, "none")


async def test_a_table_without_the_columns_is_refused(database: TestDatabase) -> None:
    database.run("CREATE TABLE totals (id bigint)")
    for table, text in (("none", "does not exist"), ("totals", "has no column 'name'")):
        with pytest.raises(ConfigError, match=text):
            async with SqlLookup(database.url, table, Total, "id"):
                pass


class Order(msgspec.Struct):
    number: int
    customer: int


class Named(msgspec.Struct):
    number: int
    name: str | None


def test_a_stage_finds_rows_through_the_lifespan(database: TestDatabase, tmp_path: Any) -> None:
    fill(database, 100)
    database.run("CREATE TABLE orders (number bigint PRIMARY KEY, customer bigint)")
    rows = ", ".join(f"({number}, {number % 120})" for number in range(2_000))
    database.run(f"INSERT INTO orders VALUES {rows}")
    app = App("sql-lookup")

    @app.lifespan
    def lifespan() -> SqlLookup[Total]:
        return SqlLookup(database.url, "totals", Total, "id")

    from streamkit.connectors.sql import SqlTable

    orders = app.stream(SqlTable(database.url, "orders"), Order)

    @app.stage(orders, concurrency=500)
    async def named(order: Order, context: Context[str]) -> Named:
        customers = cast("SqlLookup[Total]", context.lifespan)
        found = await customers.find(order.customer)
        return Named(order.number, None if found is None else found.name)

    named.to(SqlSink(database.url, "named"))
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == 0
    found = database.run("SELECT count(*), count(name), min(name) FROM named")
    assert found == [(2_000, 1_680, "name 0")]
