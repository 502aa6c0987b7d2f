"""Whole jobs: databases as sources and sinks of an app, with the engine's own runs."""

from __future__ import annotations

import datetime as dt
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from streamkit import App, Record, Secret
from streamkit.connectors.files import JsonLines
from streamkit.connectors.sql import SqlQuery, SqlSink, SqlTable
from streamkit.errors import ConnectFailed, StateMismatch, TopologyError
from streamkit.policies import dead_letter
from tests.postgres.server import PASSWORD
from tests.sql.databases import TestDatabase
from tests.sql.kinds import Color, Total


class Order(msgspec.Struct):
    id: int
    item: str
    price: float
    at: dt.datetime
    color: Color | None = None


def fill(database: TestDatabase, *rows: str) -> None:
    at = "timestamptz" if database.is_postgres else "text"
    database.run(
        "CREATE TABLE orders (id bigint PRIMARY KEY, item text, price double precision NOT NULL, "
        f"at {at} NOT NULL, color text)"
    )
    for row in rows:
        database.run(f"INSERT INTO orders VALUES {row}")


def test_rows_go_from_one_table_to_another_once(database: TestDatabase, tmp_path: Path) -> None:
    fill(
        database,
        "(1, 'pen', 1.5, '2024-01-01 00:00:00+00:00', 'red')",
        "(2, 'ink', 2.5, '2024-01-01 00:00:00+00:00', NULL)",
    )
    app = App("sql-copy")
    orders = app.stream(SqlTable(database.url, "orders", incremental="at"), Order)

    @app.stage(orders)
    def total(order: Order) -> Total:
        return Total(order.id, order.item, order.price * 2)

    total.to(SqlSink(database.url, "totals", mode="upsert", key="id"))
    for expected in ([(1, 3.0), (2, 5.0)], [(1, 3.0), (2, 9.0), (3, 2.0)]):
        assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == 0
        assert sorted(database.run("SELECT id, total FROM totals")) == expected
        database.run("UPDATE orders SET price = 4.5, at = '2024-01-02 00:00:00+00:00' WHERE id = 2")
        database.run(
            "INSERT INTO orders VALUES (3, 'cap', 1, '2024-01-02 00:00:00+00:00', NULL) "
            "ON CONFLICT DO NOTHING"
        )


@pytest.mark.parametrize("mode", ["insert", "upsert"])
def test_a_job_whose_state_is_lost_doubles_no_rows(
    database: TestDatabase, tmp_path: Path, mode: Any
) -> None:
    """A container without a volume begins each run with an empty folder."""
    fill(database, "(1, 'pen', 1.5, '2024-01-01 00:00:00+00:00', 'red')")
    app = App("sql-lost")
    orders = app.stream(SqlTable(database.url, "orders"), Order)

    @app.stage(orders)
    def total(order: Order) -> Total:
        return Total(order.id, order.item, order.price)

    total.to(SqlSink(database.url, "totals", mode=mode, key="id" if mode == "upsert" else None))
    for folder in ("first", "first", "other"):
        if folder == "other" and mode == "insert":
            with pytest.raises(StateMismatch, match="the state of the job is new"):
                app.run(embedded=True, once=True, data_dir=tmp_path / folder)
        else:
            assert app.run(embedded=True, once=True, data_dir=tmp_path / folder) == 0
        assert database.run("SELECT id, total FROM totals") == [(1, 1.5)]
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "other", fresh_state=True) == 0
    assert len(database.run("SELECT * FROM totals")) == (2 if mode == "insert" else 1)


def test_a_row_that_is_not_valid_follows_on_error(database: TestDatabase, tmp_path: Path) -> None:
    fill(
        database,
        "(1, 'pen', 1.5, '2024-01-01 00:00:00+00:00', 'red')",
        "(2, NULL, 2.5, '2024-01-01 00:00:00+00:00', 'red')",
        "(3, 'ink', 2.5, '2024-01-01 00:00:00+00:00', 'green')",
        "(4, 'cap', 2.5, '2024-01-01 00:00:00+00:00', 'blue')",
    )
    app = App("sql-skip")
    letters = tmp_path / "letters.jsonl"
    orders = app.stream(
        SqlTable(database.url, "orders"), Order, on_error=dead_letter(JsonLines(letters))
    )

    @app.stage(orders)
    def total(order: Order) -> Total:
        return Total(order.id, order.item if order.id != 4 else "\ud800", order.price)

    total.to(SqlSink(database.url, "totals"), on_error="skip")
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == 0
    assert database.run("SELECT id FROM totals") == [(1,)]
    found = [msgspec.json.decode(line) for line in letters.read_bytes().splitlines()]
    assert [each["key"] for each in found] == ["2", "3"]
    assert "$.item" in str(found[0])
    assert "$.color" in str(found[1])


def test_a_failing_row_is_named_by_its_table_and_key(
    database: TestDatabase, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(database, "(7, NULL, 1, '2024-01-01 00:00:00+00:00', NULL)")
    app = App("sql-fail")
    app.stream(SqlTable(database.url, "orders"), Order).to(SqlSink(database.url, "copies"))
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == 1
    text = capfd.readouterr()
    shown = text.out + text.err
    assert "orders, row 0" in shown
    assert "'7'" in shown or "b'7'" in shown or "key: 7" in shown
    assert PASSWORD not in shown


def test_a_test_of_an_app_sends_and_reads_rows(database: TestDatabase) -> None:
    fill(database, "(1, 'pen', 1.5, '2024-01-01 00:00:00+00:00', 'red')")
    app = App("sql-test")
    orders = app.stream(SqlTable(database.url, "orders"), Order)

    @app.stage(orders)
    def total(order: Order) -> Total:
        return Total(order.id, order.item, order.price)

    total.to(SqlSink(database.url, "totals"), name="totals")
    at = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    with app.test() as job:
        job.send(orders, Order(5, "ink", 2.0, at, Color.BLUE))
        assert job.output(total) == [Total(5, "ink", 2.0)]
        assert job.read(orders) == 1
        assert job.output(total) == [Total(5, "ink", 2.0), Total(1, "pen", 1.5)]


def test_without_a_type_rows_are_dicts(database: TestDatabase) -> None:
    fill(database, "(1, 'pen', 1.5, '2024-01-01 00:00:00+00:00', 'red')")
    if database.is_postgres:
        database.run("CREATE VIEW wide AS SELECT id, '{\"a\": [1]}'::jsonb AS more FROM orders")
    else:
        database.run("CREATE VIEW wide AS SELECT id, 'text' AS more FROM orders")
    app = App("sql-dicts")
    found: list[dict[str, Any]] = []

    @app.source(SqlTable(database.url, "wide", key="id"))
    def rows(row: dict[str, Any]) -> dict[str, Any]:
        return row

    @app.sink(rows)
    def show(row: dict[str, Any]) -> None:
        found.append(row)

    with app.test() as job:
        assert job.read(rows) == 1
    assert found == [{"id": 1, "more": {"a": [1]} if database.is_postgres else "text"}]


def test_records_have_the_key_and_time_of_their_row(database: TestDatabase) -> None:
    fill(database, "(1, 'pen', 1.5, '2024-01-01 00:00:00+00:00', 'red')")
    app = App("sql-records")
    source = SqlTable(database.url, "orders", incremental="at")

    @app.source(source)
    def rows(row: Record[Order]) -> Record[Order]:
        return row

    with app.test() as job:
        job.read(rows)
        (record,) = job.output(rows)
    assert record.key == b"1"
    assert record.timestamp == dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    assert record.value.item == "pen"


class Settings(msgspec.Struct):
    database: Secret


def test_the_url_comes_from_the_settings_of_the_job(
    database: TestDatabase, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(database, "(1, 'pen', 1.5, '2024-01-01 00:00:00+00:00', 'red')")
    app = App("sql-settings")
    settings = app.settings(Settings)

    def url() -> Secret:
        return settings.get().database

    source = SqlQuery(url, "SELECT id, item AS name, price AS total FROM orders", key="id")
    app.stream(source, Total).to(SqlSink(url, "totals"))
    code = app.run(
        embedded=True,
        once=True,
        data_dir=tmp_path / "data",
        settings={"settings.database": database.url},
    )
    assert code == 0
    assert database.run("SELECT id, name, total FROM totals") == [(1, "pen", 1.5)]
    text = capfd.readouterr()
    assert PASSWORD not in text.out + text.err


def test_a_wrong_password_is_shown_nowhere(
    postgres_only: TestDatabase, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = postgres_only.url.replace(PASSWORD, "geheim-4712")
    app = App("sql-password")
    app.stream(SqlTable(url, "orders"), Order).to(SqlSink(url, "copies"))
    with pytest.raises(ConnectFailed) as failed:
        app.run(embedded=True, once=True, data_dir=tmp_path / "data")
    text = capfd.readouterr()
    shown = "".join([text.out, text.err, *traceback.format_exception(failed.value)])
    assert "password authentication failed" in shown
    assert "geheim" not in shown


@dataclass
class Point:
    x: int


class Pair(NamedTuple):
    a: int


def untyped(value: Any):  # type: ignore[no-untyped-def]
    return value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (int, "has no columns"),
        (None, "the type of the rows is not known"),
        (Total | Point, "of several types, Total, Point"),
        (Pair, "has no columns"),
        (Point, "has no column 'id', which key= names"),
        (Record[Point], "has no column 'id', which key= names"),
    ],
)
def test_values_that_a_table_cannot_hold_are_refused_when_the_graph_is_built(
    kind: Any, text: str
) -> None:
    app = App("sql-wrong")
    stream: Any = app.stage(app.stream("numbers", Total), output_type=kind)(untyped)
    with pytest.raises(TopologyError, match=text):
        stream.to(SqlSink("sqlite:///x.db", "t", mode="upsert", key="id"))


def test_a_value_format_is_refused(tmp_path: Path) -> None:
    app = App("sql-format")

    class Format:
        def loads(self, data: bytes) -> Any:
            return data

        def dumps(self, value: Any) -> bytes:
            return b""

    source = SqlTable("sqlite:///x.db", "t")
    with pytest.raises(TopologyError, match="value="):
        app.stream(source, Total, value=Format())
    with pytest.raises(TopologyError, match="value="):
        app.stream(source, Total).to(SqlSink("sqlite:///x.db", "t"), value=Format())


def test_a_value_that_is_none_deletes_its_row(database: TestDatabase, tmp_path: Path) -> None:
    app = App("sql-delete")

    @app.source(SqlTable(database.url, "orders", incremental="at"))
    def orders(order: Order) -> Order:
        return order

    def current(order: Order) -> Total | None:
        return None if order.price == 0 else Total(order.id, order.item, order.price)

    orders.map(current).to(SqlSink(database.url, "totals", mode="upsert", key="id"))
    fill(
        database,
        "(1, 'pen', 1.5, '2024-01-01 00:00:00+00:00', 'red')",
        "(2, 'ink', 2.5, '2024-01-01 00:00:00+00:00', 'red')",
    )
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == 0
    database.run("UPDATE orders SET price = 0, at = '2024-01-02 00:00:00+00:00' WHERE id = 1")
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == 0
    assert database.run("SELECT id FROM totals") == [(2,)]
