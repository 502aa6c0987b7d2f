"""Databases that SQLAlchemy opens: DuckDB, and one of which only standard SQL is known."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamkit.connectors.sql import SqlLookup, SqlSink, SqlTable
from streamkit.connectors.sql.columns import row_type
from streamkit.connectors.sql.decoding import row_decoder
from streamkit.connectors.sql.other_dialects import dialect_for
from streamkit.connectors.sql.tables import Limits
from streamkit.connectors.sql.values import values_of
from streamkit.errors import ConfigError, DataError
from tests.sql.kinds import EDGES, USUAL, Everything, Total
from tests.sql.reading import read_all
from tests.sql.test_copy import copy
from tests.sql.writing import End, Job

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def duckdb(tmp_path: Path) -> str:
    pytest.importorskip("duckdb_engine", reason="needs an optional package: duckdb-engine")
    return f"duckdb:///{tmp_path / 'test.duckdb'}"


@pytest.fixture
def standard(tmp_path: Path) -> str:
    """The URL of a database whose name in SQLAlchemy is not one that we know."""
    pytest.importorskip("sqlalchemy", reason="needs an optional package: sqlalchemy")
    from sqlalchemy.dialects import registry
    from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

    global Unknown  # SQLAlchemy loads the class by the name of its module

    class Unknown(SQLiteDialect_pysqlite):
        name = "unknown"
        supports_statement_cache = True

    registry.register("unknown", __name__, "Unknown")
    return f"unknown:///{tmp_path / 'test.db'}"


async def test_values_of_every_type_survive_duckdb(duckdb: str, tmp_path: Path) -> None:
    job = Job(tmp_path / "job", Everything)
    sink = SqlSink(duckdb, "everything", mode="upsert", key="Order")
    async with job.run(sink) as run:
        await run.write(EDGES)
        await run.commit()
        await run.write([USUAL])
        await run.commit("stored")
    async with job.run(sink):
        pass
    decode = row_decoder(row_type(Everything)).one
    found = [decode(row) for row in await read_all(SqlTable(duckdb, "everything", batch_rows=2))]
    assert len(found) == len(EDGES)
    for given, read in zip(sorted(EDGES, key=lambda each: each.order), found, strict=True):
        assert read.at == given.at.astimezone(dt.UTC).replace(tzinfo=None)
        assert msgspec.structs.replace(read, at=given.at) == given


@pytest.mark.parametrize("until", ["nothing", "prepared", "waited", "stored", "published"])
@pytest.mark.parametrize("mode", ["insert", "upsert", "ignore"])
async def test_a_run_that_ends_at_any_step_writes_each_row_once(
    duckdb: str, tmp_path: Path, mode: Any, until: End
) -> None:
    key = None if mode == "insert" else "id"
    sink = SqlSink(duckdb, "totals", mode=mode, key=key)
    job = Job(tmp_path / "job", Total)
    async with job.run(sink) as run:
        await run.write([Total(0, "first")])
        await run.commit()
        await run.write([Total(1, "second")])
        await run.commit(until)
    async with job.run(sink) as run:
        if until not in ("stored", "published"):
            await run.write([Total(1, "second")])
        await run.write([Total(2, "third")])
        await run.commit()
    rows = await read_all(SqlTable(duckdb, "totals", key="id", batch_rows=1))
    assert [row["name"] for row in rows] == ["first", "second", "third"]


async def test_a_row_replaces_another_and_none_deletes_it(duckdb: str, tmp_path: Path) -> None:
    job = Job(tmp_path / "job", Total)
    async with job.run(SqlSink(duckdb, "totals", mode="upsert", key="id")) as run:
        await run.write([Total(number, "old") for number in range(30)])
        await run.commit()
        await run.write([Total(3, "new"), None, Total(5, "new")], [None, b"4", None])
        await run.commit()
    async with SqlLookup(duckdb, "totals", Total, "id") as lookup:
        assert await lookup.find(3) == Total(3, "new")
        assert await lookup.find(4) is None
    parts = await read_all(SqlTable(duckdb, "totals", splits=3, batch_rows=4))
    assert sorted(row["id"] for row in parts) == [*range(4), *range(5, 30)]
    times = await read_all(SqlTable(duckdb, "totals", incremental="name", batch_rows=7))
    assert [row["id"] for row in times[:2]] == [3, 5]


async def test_a_row_that_duckdb_refuses_is_an_error_of_the_data(
    duckdb: str, tmp_path: Path
) -> None:
    sink = SqlSink(duckdb, "totals", mode="upsert", key="id")
    async with Job(tmp_path / "one", Total, "one").run(sink) as run:
        await run.write([Total(1, "a")])
        await run.commit()
    async with Job(tmp_path / "two", Total, "two").run(SqlSink(duckdb, "totals")) as run:
        await run.write([Total(1, "b")])
        with pytest.raises(DataError, match="refused a statement"):
            await run.commit()


def test_a_csv_file_is_copied_to_duckdb_and_back(duckdb: str, tmp_path: Path) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(duckdb)
    with engine.begin() as connection:
        text = "CREATE TABLE orders (id INTEGER PRIMARY KEY, price DECIMAL(9, 2), day DATE)"
        connection.execute(sqlalchemy.text(text))
    engine.dispose()
    (tmp_path / "in.csv").write_text("id,price,day\n1,1.50,2024-02-29\n2,,\n")
    for ends in (("in.csv", f"{duckdb}#orders"), (f"{duckdb}#orders", "out.jsonl")):
        done = copy(tmp_path, *ends)
        assert done.code == 0, done.err
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert lines == [
        '{"id":1,"price":"1.50","day":"2024-02-29"}',
        '{"id":2,"price":null,"day":null}',
    ]


async def test_a_database_with_standard_sql_is_read_and_inserted_into(
    standard: str, tmp_path: Path
) -> None:
    job = Job(tmp_path / "job", Total)
    async with job.run(SqlSink(standard, "totals")) as run:
        await run.write([Total(number, f"n {number % 3}", 0.5) for number in range(20)])
        await run.commit()
        await run.write([Total(20, "n 0")])
        await run.commit("stored")
    async with job.run(SqlSink(standard, "totals")):
        pass
    source = SqlTable(standard, "totals", incremental="name", key="id", batch_rows=2)
    expected = sorted(range(21), key=lambda number: (number % 3 if number < 20 else 0, number))
    assert [row["id"] for row in await read_all(source)] == expected


async def test_a_database_without_upserts_refuses_them(standard: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mode='upsert' is not possible with unknown"):
        async with Job(tmp_path / "job", Total).run(
            SqlSink(standard, "totals", mode="upsert", key="id")
        ):
            pass


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_mysql_refuses_is_found(value: float) -> None:
    (column,) = (each for each in row_type(Everything).columns if each.name == "amount")
    values = values_of(column, dialect_for("mysql", "`"), Limits())
    assert values.converted([1.5]) == [1.5]
    with pytest.raises(ValueError, match="cannot be stored in MySQL"):
        values.converted([1.5, value])
