"""`Stream.lookup` in a table of a database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamkit import App
from streamkit.connectors.sql import SqlLookup, SqlSink, SqlTable
from streamkit.dataflow.stream import Stream
from streamkit.errors import ConfigError, DataError, TopologyError, UsageError
from tests.postgres.server import PostgresServer
from tests.sql.databases import TestDatabase
from tests.sql.test_lookup import fill


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Order(msgspec.Struct):
    number: int
    customer: int | None


class Customer(msgspec.Struct):
    id: int
    name: str


class Named(msgspec.Struct):
    number: int
    name: str | None


def named(order: Order, customer: Customer) -> Named:
    return Named(order.number, customer.name)


def maybe_named(order: Order, customer: Customer | None) -> Named:
    return Named(order.number, customer.name if customer else None)


def customer_of(order: Order) -> int | None:
    return order.customer


def fill_orders(database: TestDatabase, count: int) -> None:
    database.run("CREATE TABLE orders (number bigint PRIMARY KEY, customer bigint)")
    rows = ", ".join(f"({number}, {number % 120})" for number in range(count))
    database.run(f"INSERT INTO orders VALUES {rows}")


def orders_of(app: App, database: TestDatabase) -> Stream[Order]:
    return app.stream(SqlTable(database.url, "orders"), Order)


def test_orders_get_the_names_of_their_customers(database: TestDatabase, tmp_path: Path) -> None:
    fill(database, 100)
    fill_orders(database, 2_000)
    app = App("named-orders")
    orders = orders_of(app, database)
    customers = SqlTable(database.url, "totals", key="id")
    inner = orders.lookup(customers, on=customer_of, combine=named)
    inner.to(SqlSink(database.url, "inner_rows"))
    left = orders.lookup(
        SqlTable(database.url, "totals"), on=customer_of, combine=maybe_named, how="left"
    )
    left.to(SqlSink(database.url, "left_rows"))
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == 0
    assert database.run("SELECT count(*), count(DISTINCT name) FROM inner_rows") == [(1_680, 100)]
    wrong = "SELECT count(*) FROM left_rows WHERE name <> 'name ' || CAST(number % 120 AS text)"
    assert database.run(wrong) == [(0,)]
    assert database.run("SELECT count(*), count(name) FROM left_rows") == [(2_000, 1_680)]


def test_a_row_that_is_not_valid_follows_on_error(database: TestDatabase, tmp_path: Path) -> None:
    fill(database, 5)
    database.run("UPDATE totals SET name = NULL WHERE id = 3")
    fill_orders(database, 5)
    app = App("named-orders")
    found = orders_of(app, database).lookup(
        SqlTable(database.url, "totals"), on=customer_of, combine=named, on_error="skip"
    )
    found.to(SqlSink(database.url, "named"))
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == 0
    assert sorted(database.run("SELECT number FROM named")) == [(0,), (1,), (2,), (4,)]


def test_a_job_goes_on_when_the_database_is_back(
    postgres: PostgresServer, postgres_only: TestDatabase, tmp_path: Path
) -> None:
    fill(postgres_only, 100)
    app = App("named-orders")
    restarts = threading.Event()

    @app.source
    def orders(resume: int | None) -> Iterator[tuple[int, Order]]:
        for number in range(resume or 0, 4_000):
            if number == 2_000 and not restarts.is_set():
                restarts.set()
                postgres.restart()
            yield number + 1, Order(number, number % 100)

    found = orders.lookup(
        SqlTable(postgres_only.url, "totals"), on=customer_of, combine=named, cache_rows=0
    )
    found.to(SqlSink(postgres_only.url, "named"))
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == 0
    assert restarts.is_set()
    assert postgres_only.run("SELECT count(*), count(DISTINCT number) FROM named") == [
        (4_000, 4_000)
    ]


def test_a_table_without_what_a_lookup_needs_stops_the_start(
    database: TestDatabase, tmp_path: Path
) -> None:
    database.run_all(
        "CREATE TABLE keyless (id bigint, name text)", "CREATE TABLE small (id bigint)"
    )
    fill_orders(database, 1)
    for table, key, text in (
        ("none", None, "does not exist"),
        ("keyless", None, "has no primary key"),
        ("small", "id", "has no column 'name'"),
    ):
        app = App("named-orders")
        customers = SqlTable(database.url, table, key=key)
        found = orders_of(app, database).lookup(customers, on=customer_of, combine=named)
        found.to(SqlSink(database.url, "named"))
        with pytest.raises(ConfigError, match=text):
            app.run(embedded=True, once=True, data_dir=tmp_path / "data")


@pytest.mark.parametrize("option", ["incremental", "columns", "every", "splits"])
def test_options_for_reading_all_rows_are_refused(option: str) -> None:
    values: dict[str, Any] = {"incremental": "id", "columns": ["id"], "every": 1, "splits": 2}
    table = SqlTable("sqlite:///x.db", "totals", **{option: values[option]})
    orders = App("named-orders").stream("orders", Order)
    with pytest.raises(UsageError, match=f"{option}= of table totals"):
        orders.lookup(table, on=customer_of, combine=named)


def test_a_type_that_is_no_row_or_lacks_the_key_is_refused() -> None:
    orders = App("named-orders").stream("orders", Order)
    table = SqlTable("sqlite:///x.db", "totals", key="number")
    with pytest.raises(TopologyError, match="has no column 'number'"):
        orders.lookup(table, on=customer_of, combine=named)
    with pytest.raises(TopologyError, match="int has no columns"):
        orders.lookup(table, on=customer_of, combine=lambda order, row: row, row_type=int)


@pytest.mark.anyio
async def test_a_key_that_identifies_no_single_row_is_an_error(database: TestDatabase) -> None:
    database.run("CREATE TABLE people (name text, city text)")
    database.run("INSERT INTO people VALUES ('Ada', 'Rome'), ('Ada', 'Oslo'), ('Bo', 'Bonn')")
    Person = msgspec.defstruct("Person", [("name", str), ("city", str)])
    async with SqlLookup(database.url, "people", Person, "name") as lookup:
        assert await lookup.find("Bo") == Person("Bo", "Bonn")
        with pytest.raises(DataError, match="2 rows of people have the key name='Ada'"):
            await lookup.find("Ada")


@pytest.mark.anyio
async def test_a_row_that_only_the_database_finds_equal_is_an_error(
    database: TestDatabase,
) -> None:
    kind = "char(5)" if database.is_postgres else "text COLLATE NOCASE"
    database.run(f"CREATE TABLE items (name {kind} PRIMARY KEY)")
    database.run("INSERT INTO items VALUES ('Ink'), ('fives')")
    Item = msgspec.defstruct("Item", [("name", str)])
    async with SqlLookup(database.url, "items", Item, "name") as lookup:
        assert await lookup.find("fives") == Item("fives")
        assert await lookup.find("none") is None
        with pytest.raises(DataError, match="takes for an equal one"):
            await lookup.find("Ink" if database.is_postgres else "INK")
