"""MariaDB through SQLAlchemy and PyMySQL: what it has, and other databases have not."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamkit.connectors.sql import SqlLookup, SqlSink, SqlTable
from streamkit.connectors.sql.columns import row_type
from streamkit.connectors.sql.decoding import row_decoder
from streamkit.dataflow.steps import RowFailed
from streamkit.errors import DataError, StreamKitError
from tests.mariadb.server import MariaDbServer
from tests.sql.databases import TestDatabase
from tests.sql.kinds import EDGES, USUAL, Everything, Total
from tests.sql.reading import read_all, reading
from tests.sql.test_copy import copy
from tests.sql.writing import End, Job

pytestmark = pytest.mark.anyio
# What columns of MariaDB hold: no infinity, and times from the year 1 on.
STORED = [
    msgspec.structs.replace(each, amount=1.5 if each.amount == float("inf") else each.amount)
    for each in EDGES
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("table", ["everything", '"odd `na.me %s"'])
async def test_values_of_every_type_survive(
    mariadb_only: TestDatabase, tmp_path: Path, table: str
) -> None:
    job = Job(tmp_path / "job", Everything)
    sink = SqlSink(mariadb_only.url, table, mode="upsert", key="Order")
    async with job.run(sink) as run:
        await run.write(STORED)
        await run.commit()
        await run.write([USUAL])
        await run.commit("stored")
    async with job.run(sink):
        pass
    decode = row_decoder(row_type(Everything)).one
    rows = await read_all(SqlTable(mariadb_only.url, table, batch_rows=2))
    found = [decode(row) for row in rows]
    assert len(found) == len(STORED)
    for given, read in zip(sorted(STORED, key=lambda each: each.order), found, strict=True):
        assert read.at == given.at.astimezone(dt.UTC).replace(tzinfo=None)
        assert msgspec.structs.replace(read, at=given.at) == given


async def test_rows_in_order_of_a_time_are_read_once(
    mariadb_only: TestDatabase,
) -> None:
    mariadb_only.run_all(
        "CREATE TABLE orders (id INT UNSIGNED PRIMARY KEY, at DATETIME(6) NOT NULL)",
        "INSERT INTO orders VALUES (3, '2024-01-01 10:00:00.5'), (1, '2024-01-01 10:00:00.5'), "
        "(2, '2024-01-01 09:00')",
    )
    source = SqlTable(mariadb_only.url, "orders", incremental="at", batch_rows=1)
    async with reading(source) as run:
        assert [row["id"] for row in await run.rows()] == [2, 1, 3]
        positions = run.positions
    mariadb_only.run("UPDATE orders SET at = '2024-01-02' WHERE id = 2")
    mariadb_only.run("INSERT INTO orders VALUES (4, '2024-01-01 10:00:00.5')")
    assert [row["id"] for row in await read_all(source, positions)] == [4, 2]


@pytest.mark.parametrize("until", ["nothing", "prepared", "waited", "stored", "published"])
@pytest.mark.parametrize("mode", ["insert", "upsert", "ignore"])
async def test_a_run_that_ends_at_any_step_writes_each_row_once(
    mariadb_only: TestDatabase, tmp_path: Path, mode: Any, until: End
) -> None:
    key = None if mode == "insert" else "id"
    sink = SqlSink(mariadb_only.url, "totals", mode=mode, key=key)
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
    rows = mariadb_only.run("SELECT name FROM totals ORDER BY id")
    assert rows == [("first",), ("second",), ("third",)]


async def test_a_row_replaces_another_and_none_deletes_it(
    mariadb_only: TestDatabase, tmp_path: Path
) -> None:
    url = mariadb_only.url
    async with Job(tmp_path / "job", Total).run(
        SqlSink(url, "totals", mode="upsert", key="id")
    ) as run:
        await run.write([Total(number, "old") for number in range(30)])
        await run.commit()
        await run.write([Total(3, "new"), None, Total(5, "new")], [None, b"4", None])
        await run.commit()
    async with SqlLookup(url, "totals", Total, "id") as lookup:
        assert await lookup.find(3) == Total(3, "new")
        assert await lookup.find(4) is None
    parts = await read_all(SqlTable(url, "totals", splits=3, batch_rows=4))
    assert sorted(row["id"] for row in parts) == [*range(4), *range(5, 30)]


class Counter(msgspec.Struct):
    id: int
    small: int
    tiny: int


async def test_unsigned_columns_hold_what_they_can(
    mariadb_only: TestDatabase, tmp_path: Path
) -> None:
    mariadb_only.run(
        "CREATE TABLE counters (id BIGINT UNSIGNED PRIMARY KEY, small INT(10) UNSIGNED ZEROFILL "
        "NOT NULL, tiny TINYINT UNSIGNED NOT NULL)"
    )
    highest = Counter(2**64 - 1, 2**32 - 1, 255)
    sink = SqlSink(mariadb_only.url, "counters", mode="upsert", key="id")
    async with Job(tmp_path / "job", Counter).run(sink) as run:
        await run.write([Counter(0, 0, 0), highest])
        await run.commit()
        for bad, problem in (
            (Counter(-1, 0, 0), "-1 is negative, but the column is unsigned"),
            (Counter(1, 2**32, 0), "is too large"),
            (Counter(1, 0, 256), "is too large"),
        ):
            with pytest.raises(RowFailed) as failed:
                run.writer.on_chunk(run.chunk([bad]))
            assert problem in str(failed.value.__cause__)
    decode = row_decoder(row_type(Counter)).one
    source = SqlTable(mariadb_only.url, "counters", batch_rows=1)
    assert [decode(row) for row in await read_all(source)] == [Counter(0, 0, 0), highest]


class Priced(msgspec.Struct):
    price: Decimal


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "1000"])
async def test_a_decimal_that_does_not_fit_refuses_only_its_record(
    mariadb_only: TestDatabase, tmp_path: Path, bad: str
) -> None:
    mariadb_only.run("CREATE TABLE prices (price DECIMAL(5, 2))")
    async with Job(tmp_path / "job", Priced).run(SqlSink(mariadb_only.url, "prices")) as run:
        with pytest.raises(RowFailed):
            run.writer.on_chunk(run.chunk([Priced(Decimal(bad))]))


class Named(msgspec.Struct):
    name: str
    number: int


async def test_the_last_of_keys_that_differ_in_their_case_stays(
    mariadb_only: TestDatabase, tmp_path: Path
) -> None:
    """embulk-output-jdbc #256: the usual collations ignore case and spaces at the end."""
    mariadb_only.run("CREATE TABLE named (name VARCHAR(9) PRIMARY KEY, number BIGINT NOT NULL)")
    sink = SqlSink(mariadb_only.url, "named", mode="upsert", key="name")
    async with Job(tmp_path / "job", Named).run(sink) as run:
        await run.write([Named("a", 1), Named("A", 2), Named("b", 3), Named("b ", 4)])
        await run.write([Named("a", 5)])
        await run.commit()
    assert mariadb_only.run("SELECT number FROM named ORDER BY name") == [(5,), (4,)]


class Event(msgspec.Struct):
    id: int
    at: dt.datetime


async def test_a_timestamp_is_in_utc_whatever_the_zone_of_the_server_is(
    mariadb_only: TestDatabase, tmp_path: Path
) -> None:
    mariadb_only.run("CREATE TABLE events (id INT PRIMARY KEY, at TIMESTAMP(6) NOT NULL)")
    at = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
    async with Job(tmp_path / "job", Event).run(SqlSink(mariadb_only.url, "events")) as run:
        await run.write([Event(1, at)])
        await run.commit()
    assert mariadb_only.run("SELECT UNIX_TIMESTAMP(at) FROM events") == [(at.timestamp(),)]
    (row,) = await read_all(SqlTable(mariadb_only.url, "events", incremental="at"))
    assert row["at"] == at.replace(tzinfo=None)


async def test_zero_is_written_to_a_column_that_the_database_numbers(
    mariadb_only: TestDatabase, tmp_path: Path
) -> None:
    """dolt #7600."""
    mariadb_only.run(
        "CREATE TABLE totals (id BIGINT AUTO_INCREMENT PRIMARY KEY, name TEXT, total DOUBLE)"
    )
    sink = SqlSink(mariadb_only.url, "totals", mode="upsert", key="id")
    async with Job(tmp_path / "job", Total).run(sink) as run:
        for name in ("a", "b"):
            await run.write([Total(0, name)])
            await run.commit()
    assert mariadb_only.run("SELECT id, name FROM totals") == [(0, "b")]


class Short(msgspec.Struct):
    id: int
    data: bytes


async def test_a_server_that_is_not_strict_does_not_shorten_values(
    mariadb: MariaDbServer, mariadb_only: TestDatabase, tmp_path: Path
) -> None:
    mariadb_only.run("CREATE TABLE shorts (id INT PRIMARY KEY, data VARBINARY(2))")
    mariadb_only.run("SET GLOBAL sql_mode = ''")
    try:
        async with Job(tmp_path / "job", Short).run(SqlSink(mariadb_only.url, "shorts")) as run:
            await run.write([Short(1, b"abc")])
            with pytest.raises(DataError, match="Data too long"):
                await run.commit()
    finally:
        mariadb_only.run("SET GLOBAL sql_mode = 'STRICT_TRANS_TABLES'")


class Odd(msgspec.Struct):
    id: int
    day: dt.date | None
    took: dt.time | None


async def test_dates_and_times_that_python_does_not_have_refuse_only_their_rows(
    mariadb_only: TestDatabase,
) -> None:
    """airbyte #65082, #3931, debezium #105."""
    mariadb_only.run(
        "CREATE TABLE odd (id INT PRIMARY KEY, day DATE NOT NULL, took TIME NOT NULL, "
        "at DATETIME NOT NULL)"
    )
    mariadb_only.run("SET GLOBAL sql_mode = ''")
    try:
        mariadb_only.run(
            "INSERT INTO odd VALUES (1, '0000-00-00', '10:00', '0000-00-00'), "
            "(2, '2021-00-00', '-838:59:59', '2021-01-01'), "
            "(3, '2021-01-02', '10:00', '2021-01-02')"
        )
    finally:
        mariadb_only.run("SET GLOBAL sql_mode = 'STRICT_TRANS_TABLES'")
    source = SqlTable(mariadb_only.url, "odd", incremental="at", batch_rows=1)
    rows = await read_all(source)
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert rows[0]["day"] == "0000-00-00"
    decode = row_decoder(row_type(Odd)).one
    assert decode(rows[2]) == Odd(3, dt.date(2021, 1, 2), dt.time(10))
    for row in rows[:2]:
        with pytest.raises(ValueError, match=r"\$\.(day|took)"):
            decode(row)


async def test_a_connection_that_the_server_closes_is_opened_again(
    mariadb_only: TestDatabase, tmp_path: Path
) -> None:
    """FLINK-16681, streampark #919: after ``wait_timeout``."""
    job = Job(tmp_path / "job", Total)
    async with job.run(SqlSink(mariadb_only.url, "totals")) as run:
        for number in range(2):
            await run.write([Total(number, "a")])
            await run.commit()
            for (process,) in mariadb_only.run(
                "SELECT id FROM information_schema.processlist "
                "WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            ):
                mariadb_only.run(f"KILL {process}")
        await run.write([Total(2, "a")])
        await run.commit()
    assert mariadb_only.run("SELECT id FROM totals ORDER BY id") == [(0,), (1,), (2,)]


async def test_the_first_second_of_1970_and_bytes_order_rows(mariadb_only: TestDatabase) -> None:
    """kafka-connect-jdbc #541, #1317."""
    mariadb_only.run_all(
        "CREATE TABLE events (id INT PRIMARY KEY, at DATETIME NOT NULL, "
        "version BINARY(8) NOT NULL)",
        "INSERT INTO events VALUES (1, '1970-01-01', x'00000000005B0F1C'), "
        "(2, '1969-12-31', x'00000000005B0FFF'), (3, '1970-01-01 00:00:01', x'00000000005C0000')",
    )
    for column, expected in (("at", [2, 1, 3]), ("version", [1, 2, 3])):
        source = SqlTable(mariadb_only.url, "events", incremental=column, batch_rows=1)
        async with reading(source) as run:
            assert [row["id"] for row in await run.rows()] == expected
            assert await read_all(source, run.positions) == []


class Blob(msgspec.Struct):
    id: bytes
    name: str


async def test_bytes_may_be_a_key(mariadb_only: TestDatabase, tmp_path: Path) -> None:
    sink = SqlSink(mariadb_only.url, "blobs", mode="upsert", key="id")
    async with Job(tmp_path / "job", Blob).run(sink) as run:
        await run.write([Blob(b"\0\xff", "a"), Blob(b"\0\xfe", "b"), Blob(b"\0\xff", "c")])
        await run.commit()
    assert mariadb_only.run("SELECT name FROM blobs ORDER BY id") == [("b",), ("c",)]


async def test_a_row_that_a_constraint_refuses_is_an_error_of_the_data(
    mariadb_only: TestDatabase, tmp_path: Path
) -> None:
    mariadb_only.run("CREATE TABLE totals (id BIGINT, name TEXT CHECK (name <> 'x'), total DOUBLE)")
    async with Job(tmp_path / "job", Total).run(SqlSink(mariadb_only.url, "totals")) as run:
        await run.write([Total(1, "x")])
        with pytest.raises(DataError, match="refused a statement"):
            await run.commit()


def test_a_statement_that_runs_is_interrupted(mariadb_only: TestDatabase) -> None:
    import threading

    from streamkit.connectors.sql.queries import Statement

    with mariadb_only.session() as session:
        failed: list[Exception] = []

        def run() -> None:
            try:
                session.query(Statement("SELECT SLEEP(100) FROM (SELECT 1 UNION SELECT 2) AS t"))
            except StreamKitError as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        is_running = (
            "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SL%'"
        )
        while mariadb_only.run(is_running) != [(1,)]:
            assert thread.is_alive()
        while thread.is_alive():  # the statement may have begun a row that ends early
            session.interrupt()
            thread.join(0.05)


@pytest.mark.parametrize("publishes_first", [0, 1])
async def test_sinks_of_one_job_do_not_wait_long_for_each_other(
    mariadb_only: TestDatabase, tmp_path: Path, publishes_first: int
) -> None:
    shared: dict[object, Any] = {}
    jobs = [Job(tmp_path / name, Total, app=name, shared=shared) for name in ("one", "other")]
    sink = SqlSink(mariadb_only.url, "totals", mode="upsert", key="id")
    async with jobs[0].run(sink) as one, jobs[1].run(sink) as other:
        prepared = []
        for run, name in ((one, "one"), (other, "other")):
            await run.write([Total(each, name) for each in range(5)])
            prepared.append(run.writer.prepare_commit(is_last=False))
        for part in prepared:  # the engine publishes only after all of them
            await part.wait()
        for part in prepared[publishes_first:] + prepared[:publishes_first]:
            assert part.publish is not None
            await part.publish()
    assert mariadb_only.run("SELECT number FROM streamkit_positions") == [(1,), (1,)]


def test_a_csv_file_is_copied_and_back(mariadb_only: TestDatabase, tmp_path: Path) -> None:
    mariadb_only.run(
        "CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, price DECIMAL(9, 2), day DATE, "
        "is_paid BOOLEAN, kind ENUM('a', 'b') NOT NULL DEFAULT 'b')"
    )
    (tmp_path / "in.csv").write_text("id,price,day,is_paid\n1,1.50,2024-02-29,true\n2,,,\n")
    for ends in (
        ("in.csv", f"{mariadb_only.url}#orders"),
        (f"{mariadb_only.url}#orders", "o.jsonl"),
    ):
        done = copy(tmp_path, *ends)
        assert done.code == 0, done.err
    assert (tmp_path / "o.jsonl").read_text().splitlines() == [
        '{"id":1,"price":"1.50","day":"2024-02-29","is_paid":1,"kind":"b"}',
        '{"id":2,"price":null,"day":null,"is_paid":null,"kind":"b"}',
    ]


async def test_a_server_that_restarts_is_connected_again(
    mariadb: MariaDbServer, mariadb_only: TestDatabase, tmp_path: Path
) -> None:
    job = Job(tmp_path / "job", Total)
    async with job.run(SqlSink(mariadb_only.url, "totals", mode="upsert", key="id")) as run:
        await run.write([Total(1, "before")])
        await run.commit()
        mariadb.kill()
        mariadb.start()
        await run.write([Total(2, "after")])
        await run.commit()
    rows = mariadb_only.run("SELECT name FROM totals ORDER BY id")
    assert rows == [("before",), ("after",)]
