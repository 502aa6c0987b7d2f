"""Rows without a declared type: each goes into the columns of its table, or fails alone."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from streamkit.connectors.sql import SqlSink
from streamkit.dataflow.steps import RowFailed
from tests.sql.databases import TestDatabase
from tests.sql.writing import Job


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"id": "x", "item": "ink"}, "'x' is not one of whole numbers"),
        ({"id": "", "item": "ink"}, "'' is not one of whole numbers"),
        ({"id": 2, "item": "ink", "other": 1}, "it has 'other', but the table has no such column"),
        ({"id": 2}, "it has no column 'item'"),
        ({"id": 2, "item": None}, "the column is NOT NULL"),
        ({"id": 2, "item": "ink", "state": "b"}, "which the first row does not have"),
        ({"id": 2, "item": 5}, "5 is int, not text"),
        ({"id": 2**70, "item": "ink"}, "is too large"),
        ([2, "ink"], "the value is list, not an object with columns"),
        (None, "this sink deletes no rows"),
    ],
)
async def test_a_row_that_does_not_fit_fails_alone(
    database: TestDatabase, tmp_path: Path, row: Any, text: str
) -> None:
    database.run(
        "CREATE TABLE orders (id bigint NOT NULL, item varchar(9) NOT NULL, state varchar(9) "
        "DEFAULT 'a')"
    )
    job = Job(tmp_path / "job", Any)
    async with job.run(SqlSink(database.url, "orders")) as run:
        rows = [{"id": 1, "item": "pen"}, row, {"id": 3, "item": "pad"}]
        with pytest.raises(RowFailed) as caught:
            run.writer.on_chunk(run.chunk(rows))
        assert caught.value.row == 1
        assert text in str(caught.value.__cause__)
        await run.write([rows[0], rows[2]])
        await run.commit()
    expected = [(1, "pen", "a"), (3, "pad", "a")]
    assert database.run("SELECT id, item, state FROM orders") == expected


@pytest.mark.anyio
async def test_a_bad_value_before_a_bad_row_is_found_first(
    database: TestDatabase, tmp_path: Path
) -> None:
    database.run("CREATE TABLE orders (id bigint)")
    async with Job(tmp_path / "job", Any).run(SqlSink(database.url, "orders")) as run:
        with pytest.raises(RowFailed) as caught:
            run.writer.on_chunk(run.chunk([{"id": 1}, {"id": "x"}, {"other": 1}]))
        assert caught.value.row == 1


@pytest.mark.anyio
async def test_rows_survive_a_crash_in_the_file(database: TestDatabase, tmp_path: Path) -> None:
    types = "inet" if database.is_postgres else "anything"
    database.run(f"CREATE TABLE orders (id bigint PRIMARY KEY, host {types}, data jsonb)")
    job = Job(tmp_path / "job", dict[str, Any])
    sink = SqlSink(database.url, "orders", mode="upsert", key="id")
    async with job.run(sink) as run:
        await run.write([{"id": 1, "host": "10.0.0.1", "data": [1]}, {"id": 2}])
        await run.commit("stored")
    async with job.run(sink) as run:
        await run.write([{"id": 2, "host": "10.0.0.2", "data": None}])
        await run.commit()
    host = "host(host)" if database.is_postgres else "host"
    expected = [(1, "10.0.0.1"), (2, "10.0.0.2")]
    assert database.run(f"SELECT id, {host} FROM orders ORDER BY id") == expected


@pytest.mark.anyio
async def test_values_are_written_to_types_that_python_does_not_have(
    postgres_only: TestDatabase, tmp_path: Path
) -> None:
    postgres_only.run("CREATE TABLE other (number oid, time timetz, share money, name text)")
    rows = [{"number": 5, "time": dt.time(12, tzinfo=dt.UTC), "share": 1.5, "name": "a"}]
    async with Job(tmp_path / "job", Any).run(SqlSink(postgres_only.url, "other")) as run:
        await run.write(rows)
        await run.commit()
        with pytest.raises(RowFailed):
            run.writer.on_chunk(run.chunk([{**rows[0], "name": 5}]))
    found = postgres_only.run("SELECT number, time::text, share::numeric::float8, name FROM other")
    assert found == [(5, "12:00:00+00", 1.5, "a")]


@pytest.mark.anyio
async def test_times_are_in_utc_whether_the_column_has_a_zone_or_not(
    postgres_only: TestDatabase, tmp_path: Path
) -> None:
    postgres_only.run("CREATE TABLE times (id int, at timestamptz, local_at timestamp)")
    texts = ["2024-01-01T10:00:00", "2024-01-01T12:00:00+02:00", "2024-01-01 10:00:00Z"]
    given = [*texts, *map(dt.datetime.fromisoformat, texts)]
    async with Job(tmp_path / "job", Any).run(SqlSink(postgres_only.url, "times")) as run:
        await run.write([{"id": 1, "at": each, "local_at": each} for each in given])
        await run.commit()
    found = postgres_only.run("SELECT DISTINCT at, local_at FROM times")
    ten = dt.datetime(2024, 1, 1, 10, tzinfo=dt.UTC)
    assert found == [(ten, ten.replace(tzinfo=None))]
