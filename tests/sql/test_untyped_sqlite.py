"""Rows without a declared type in SQLite, whose columns can hold any value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamkit.connectors.sql import SqlSink
from streamkit.dataflow.steps import RowFailed
from tests.sql.databases import TestDatabase, sqlite_database
from tests.sql.writing import Job


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", "sqlite+pysqlite"])
def things(tmp_path: Path, request: pytest.FixtureRequest) -> TestDatabase:
    if request.param != "sqlite":
        pytest.importorskip("sqlalchemy", reason="needs an optional package: sqlalchemy")
    database = sqlite_database(tmp_path, request.param)
    database.run(
        "CREATE TABLE things (id INTEGER PRIMARY KEY, paid BOOLEAN, day DATE, amount NUMERIC, "
        "raw BLOB, name VARCHAR(9), anything)"
    )
    return database


@pytest.mark.anyio
async def test_texts_become_what_their_columns_are_declared_as(
    things: TestDatabase, tmp_path: Path
) -> None:
    rows = [
        ("1", "true", "2024-01-31", "1.5", "AP8=", "ink", ""),
        ("2", "false", "", "", "", "", "x"),
        (3, True, None, 2, b"\0", "true", "true"),
        (4, 1, "2024-02-01", 2.5, "", "pen", None),
    ]
    names = ("id", "paid", "day", "amount", "raw", "name", "anything")
    job = Job(tmp_path / "job", Any)
    async with job.run(SqlSink(things.url, "things")) as run:
        await run.write([dict(zip(names, row, strict=True)) for row in rows])
        await run.commit()
    assert things.run("SELECT * FROM things") == [
        (1, 1, "2024-01-31", 1.5, b"\0\xff", "ink", ""),
        (2, 0, None, None, None, "", "x"),
        (3, 1, None, 2, b"\0", "true", "true"),
        (4, 1, "2024-02-01", 2.5, None, "pen", None),
    ]


@pytest.mark.anyio
async def test_a_text_that_is_not_base64_is_no_value_of_a_blob(
    things: TestDatabase, tmp_path: Path
) -> None:
    job = Job(tmp_path / "job", Any)
    async with job.run(SqlSink(things.url, "things")) as run:
        with pytest.raises(RowFailed) as failed:
            run.writer.on_chunk(run.chunk([{"id": 1}, {"id": 2, "raw": "hello"}]))
        assert failed.value.row == 1
        assert "'hello' is not one of bytes" in str(failed.value.__cause__)
