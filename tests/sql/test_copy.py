"""`streamkit copy` with tables as ends, as a process; rows have no declared type."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.cli.processes import Ended, run
from tests.sql.databases import TestDatabase, sqlite_database

COLUMNS = "id, item, cents, price, day, at, is_paid, extra"
CSV = (
    "id,item,cents,price,day,at,is_paid,extra\n"
    "1,pen,150,1.50,2024-02-29,2024-02-29T10:00:00+01:00,true,\n"
    '2,"ink, blue",,,,,,\n'
)


def copy(folder: Path, source: str, target: str, *options: str) -> Ended:
    return run(folder, "copy", source, target, "--data-dir", str(folder / "data"), *options)


def create_orders(database: TestDatabase) -> None:
    types = (
        "id bigint PRIMARY KEY, item varchar(20) NOT NULL, cents integer, price numeric(10, 2), "
        "day date, at timestamptz, is_paid boolean, extra jsonb"
        if database.is_postgres
        else "id INTEGER PRIMARY KEY, item TEXT NOT NULL, cents INTEGER, price NUMERIC, "
        "day DATE, at TIMESTAMP, is_paid BOOLEAN, extra TEXT"
    )
    database.run(f"CREATE TABLE orders ({types})")


def test_rows_of_csv_get_the_types_of_the_columns(database: TestDatabase, tmp_path: Path) -> None:
    create_orders(database)
    (tmp_path / "in.csv").write_text(CSV)
    done = copy(tmp_path, "in.csv", f"{database.url}#orders")
    assert done.code == 0, done.err
    assert "2 records in, 2 out, 0 dropped, 0 skipped" in done.err
    first: tuple[Any, ...]
    if database.is_postgres:
        nine = dt.datetime(2024, 2, 29, 9, tzinfo=dt.UTC)
        first = (1, "pen", 150, Decimal("1.50"), dt.date(2024, 2, 29), nine, True, None)
    else:
        first = (1, "pen", 150, 1.5, "2024-02-29", "2024-02-29T10:00:00+01:00", 1, "")
    empty = None if database.is_postgres else ""
    found = database.run(f"SELECT {COLUMNS} FROM orders ORDER BY id")
    assert found[0] == first
    assert found[1] == (2, "ink, blue", None, None, None, None, None, empty)


def test_rows_of_a_topic_are_copied_once(database: TestDatabase, tmp_path: Path) -> None:
    create_orders(database)
    for row in (
        {"id": 1, "item": "pen", "cents": 150, "extra": {"tags": ["a"]}, "is_paid": True},
        {"id": 2, "item": "ink", "at": "2024-01-01T00:00:00Z"},
    ):
        done = run(
            tmp_path,
            *("produce", "orders", "--data-dir", str(tmp_path / "data")),
            given=json.dumps(row).encode(),
        )
        assert done.code == 0, done.err
        done = copy(tmp_path, "fluvio:orders", f"{database.url}#orders")
        assert done.code == 0, done.err
        assert "1 records in, 1 out" in done.err
    assert database.run("SELECT id, item, cents FROM orders ORDER BY id") == [
        (1, "pen", 150),
        (2, "ink", None),
    ]
    ((extra,),) = database.run("SELECT extra FROM orders WHERE id = 1")
    assert (extra if database.is_postgres else json.loads(extra)) == {"tags": ["a"]}


def test_a_table_becomes_json_lines_and_a_table_again(
    database: TestDatabase, tmp_path: Path
) -> None:
    create_orders(database)
    true = "true" if database.is_postgres else "1"
    database.run(
        f"INSERT INTO orders ({COLUMNS}) VALUES (1, 'pen', 150, 1.5, '2024-02-29', "
        f"'2024-02-29 10:00:00+00:00', {true}, '[1, null]'), "
        "(2, 'ink', NULL, NULL, NULL, NULL, NULL, NULL)"
    )
    assert copy(tmp_path, f"{database.url}#orders", "out.jsonl").code == 0
    before = database.run("SELECT * FROM orders ORDER BY id")
    database.run("DELETE FROM orders")
    done = copy(tmp_path, "out.jsonl", f"{database.url}#orders")
    assert done.code == 0, done.err
    assert database.run("SELECT * FROM orders ORDER BY id") == before


def test_a_table_of_postgresql_becomes_one_of_sqlite(
    postgres_only: TestDatabase, tmp_path: Path
) -> None:
    target = sqlite_database(tmp_path)
    columns = "id uuid PRIMARY KEY, at timestamptz, price numeric, took interval, extra jsonb"
    postgres_only.run_all(
        f"CREATE TABLE rides ({columns})",
        f"INSERT INTO rides VALUES ('{UUID(int=7)}', '2024-01-01 00:00+00', 1.10, '90 s', '{{}}')",
    )
    target.run("CREATE TABLE rides (id TEXT, at TEXT, price TEXT, took TEXT, extra TEXT)")
    done = copy(tmp_path, f"{postgres_only.url}#rides", f"{target.url}#rides")
    assert done.code == 0, done.err
    row = (str(UUID(int=7)), "2024-01-01 00:00:00.000000+00:00", "1.10", "PT90S", "{}")
    assert target.run("SELECT * FROM rides") == [row]


def test_a_missing_table_must_be_created_first(database: TestDatabase, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(CSV)
    done = copy(tmp_path, "in.csv", f"{database.url}#orders")
    assert done.code != 0
    assert "does not exist" in done.err
    assert "create it" in done.err


def test_columns_with_a_default_may_be_left_out(database: TestDatabase, tmp_path: Path) -> None:
    identity = (
        "bigint GENERATED BY DEFAULT AS IDENTITY" if database.is_postgres else "INTEGER PRIMARY KEY"
    )
    database.run(
        f"CREATE TABLE notes (id {identity}, note text, state varchar(9) NOT NULL DEFAULT 'new', "
        "size int GENERATED ALWAYS AS (length(note)) STORED)"
    )
    (tmp_path / "in.csv").write_text("note\none\nthree\n")
    done = copy(tmp_path, "in.csv", f"{database.url}#notes")
    assert done.code == 0, done.err
    assert database.run("SELECT id, note, state, size FROM notes ORDER BY id") == [
        (1, "one", "new", 3),
        (2, "three", "new", 5),
    ]
