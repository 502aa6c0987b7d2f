"""Options of sources and sinks are checked when they are made."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamkit.connectors.sql import SqlQuery, SqlSink, SqlTable
from streamkit.errors import UsageError
from tests.inner_pytest import ROOT

URL = "sqlite:///orders.db"
WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: SqlTable(URL, ""), "not a valid name of a table"),
    (lambda: SqlTable(URL, "a..b"), "not a valid name of a table"),
    (lambda: SqlTable(URL, "a.b.c.d"), "not a valid name of a table"),
    (lambda: SqlTable(URL, 'a"b'), "not a valid name of a table"),
    (lambda: SqlTable(URL, "orders", key=["id", "id"]), "named twice"),
    (lambda: SqlTable(URL, "orders", key=[""]), "not the name of a column"),
    (lambda: SqlTable(URL, "orders", incremental=""), "not the name of a column"),
    (lambda: SqlTable(URL, "orders", every=0), "more than 0 seconds"),
    (lambda: SqlTable(URL, "orders", every=-1), "every=-1"),
    (lambda: SqlTable(URL, "orders", every=math.nan), "every=nan"),
    (lambda: SqlTable(URL, "orders", every=True), "every=True"),
    (lambda: SqlTable(URL, "orders", settle="1"), "settle='1'"),  # type: ignore[arg-type]
    (lambda: SqlTable(URL, "orders", batch_rows=0), "batch_rows=0"),
    (lambda: SqlTable(URL, "orders", batch_rows=True), "batch_rows=True"),
    (lambda: SqlQuery(URL, " ; ", key="id"), "not a SELECT"),
    (lambda: SqlQuery(URL, "SELECT 1", key=()), "key= is empty"),
    (lambda: SqlSink(URL, "orders", mode="merge"), "not a valid mode"),  # type: ignore[arg-type]
    (lambda: SqlSink(URL, "orders", key="id"), 'mode="insert" has no key='),
    (lambda: SqlSink(URL, "orders", mode="upsert"), "needs key="),
]


@pytest.mark.parametrize(("make", "text"), WRONG)
def test_an_invalid_option_is_refused(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make()


def test_keys_and_durations_have_one_form() -> None:
    one, other = (
        SqlTable(URL, "orders", key="id", every=timedelta(seconds=5)),
        SqlTable(URL, "orders", key=["id"], every=5),
    )
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    ("table", "name"),
    [("orders", "orders"), ("sales.Open_Orders", "open-orders"), ('"a.b"."Ü"', "table")],
)
def test_a_source_is_named_after_its_table(table: str, name: str) -> None:
    assert SqlTable(URL, table).name == name
    assert SqlSink(URL, table).name == f"to-{name}"


def test_the_options_need_no_driver() -> None:
    program = (
        "import sys; sys.modules.update(psycopg=None, sqlalchemy=None, sqlite3=None)\n"
        "import streamkit.connectors.sql as options\n"
        "print(options.SqlTable('postgresql://host/db', 'orders'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "table orders of postgresql://host/db\n"
