"""Sources: each row once, in order, from any position, whatever happens in the database."""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest

from streamkit.connectors.sql import SqlQuery, SqlTable
from streamkit.connectors.sql.queries import Statement
from streamkit.errors import ConfigError, DataError, StateMismatch, StreamKitError
from tests.postgres.server import PostgresServer
from tests.proxy import Cut, Flow, Proxy, Stall
from tests.sql.databases import TestDatabase
from tests.sql.reading import read_all, reading


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def ids(rows: list[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in rows]


def orders(database: TestDatabase, count: int, times: int = 7) -> None:
    """Create a table whose rows share a few times, in an order that is not that of the ids."""
    database.run("CREATE TABLE orders (id bigint PRIMARY KEY, updated_at bigint NOT NULL)")
    if count:
        rows = ", ".join(f"({number}, {number * 3 % times})" for number in range(count))
        database.run(f"INSERT INTO orders VALUES {rows}")


def in_order(count: int, times: int = 7) -> list[int]:
    return sorted(range(count), key=lambda number: (number * 3 % times, number))


async def test_rows_with_the_same_time_are_read_once(database: TestDatabase) -> None:
    orders(database, 100)
    for batch_rows in (1, 2, 3, 7, 1000):
        source = SqlTable(database.url, "orders", incremental="updated_at", batch_rows=batch_rows)
        assert ids(await read_all(source)) == in_order(100)


async def test_a_table_without_an_incremental_column_is_read_by_its_key(
    database: TestDatabase,
) -> None:
    orders(database, 50)
    source = SqlTable(database.url, "orders", batch_rows=7)
    async with reading(source) as run:
        assert ids(await run.rows()) == list(range(50))
    database.run("INSERT INTO orders VALUES (50, 0)")
    assert ids(await read_all(source, run.positions)) == [50]


async def test_reading_resumes_exactly_after_every_row(database: TestDatabase) -> None:
    orders(database, 40)
    source = SqlTable(database.url, "orders", incremental="updated_at", batch_rows=11)
    expected = in_order(40)
    for count in range(41):
        found: list[int] = []
        async with reading(source) as run:
            while len(found) < count:
                chunk = await run.next()
                assert chunk is not None
                part = chunk.slice(0, count - len(found))
                found += ids(run.take(part))
        assert found == expected[:count]
        async with reading(source, run.positions) as rest:
            first = await rest.next()
            assert (first is None) == (count == 40)
            if first is not None:
                assert first.offsets[0] == count
                found += ids(rest.take(first)) + ids(await rest.rows())
        assert found == expected


async def test_new_rows_are_found_every_few_seconds(database: TestDatabase) -> None:
    orders(database, 3, times=100)
    source = SqlTable(database.url, "orders", incremental="updated_at", every=5.0)
    async with reading(source, until_end=False) as run:
        assert ids(await run.rows(3)) == in_order(3, 100)

        def add(seconds: float) -> None:
            number = 100 + len(run.clock.slept)
            if number == 102:
                database.run("INSERT INTO orders VALUES (102, 500), (103, 500)")
            if number == 104:
                database.run("UPDATE orders SET updated_at = 501 WHERE id = 1")

        run.clock.on_sleep = add
        assert ids(await run.rows(2)) == [102, 103]
        assert ids(await run.rows(1)) == [1]
        assert run.clock.slept == [5.0] * 5


async def test_a_run_until_the_end_reads_only_rows_that_were_there_at_its_start(
    database: TestDatabase,
) -> None:
    orders(database, 30, times=100)
    source = SqlTable(database.url, "orders", incremental="updated_at", batch_rows=5, every=5.0)
    async with reading(source) as run:
        found = ids(await run.rows(5))
        database.run("INSERT INTO orders VALUES (1000, 1000)")
        found += ids(await run.rows())
    assert found == in_order(30, 100)
    assert ids(await read_all(source, run.positions)) == [1000]


async def test_an_empty_table_ends_and_later_rows_are_found(database: TestDatabase) -> None:
    orders(database, 0)
    source = SqlTable(database.url, "orders", incremental="updated_at")
    async with reading(source) as run:
        assert await run.rows() == []
    database.run("INSERT INTO orders VALUES (1, 1)")
    assert ids(await read_all(source, run.positions)) == [1]


async def test_a_query_is_read_like_a_table(database: TestDatabase) -> None:
    orders(database, 20)
    query = "SELECT id AS number, updated_at AS at FROM orders WHERE id % 2 = 0"
    source = SqlQuery(database.url, query, key="number", incremental="at", batch_rows=3)
    rows = await read_all(source)
    assert [row["number"] for row in rows] == [each for each in in_order(20) if each % 2 == 0]


async def test_times_and_keys_of_rows_become_those_of_records(database: TestDatabase) -> None:
    at = "timestamptz" if database.is_postgres else "text"
    database.run_all(
        f"CREATE TABLE orders (a int, b text, at {at}, PRIMARY KEY (a, b))",
        "INSERT INTO orders VALUES (1, 'x', '1969-12-31 23:59:00+00'), "
        "(2, 'y', '2024-01-01 00:00:00.5+00')",
    )
    async with reading(SqlTable(database.url, "orders", incremental="at")) as run:
        chunk = await run.next()
        assert chunk is not None
        assert list(chunk.timestamps_ms) == [-1, 1_704_067_200_500]
        assert list(chunk.keys) == [b'[1,"x"]', b'[2,"y"]']
        assert chunk.topic == "orders"
    async with reading(SqlQuery(database.url, "SELECT a FROM orders", key="a")) as run:
        chunk = await run.next()
        assert chunk is not None
        assert list(chunk.keys) == [b"1", b"2"]
        assert min(chunk.timestamps_ms) > 1_704_067_200_500


async def test_a_key_that_looks_like_a_date_is_not_a_time(database: TestDatabase) -> None:
    database.run_all(
        "CREATE TABLE parts (number varchar(8) PRIMARY KEY)",
        "INSERT INTO parts VALUES ('20010203')",
    )
    async with reading(SqlTable(database.url, "parts")) as run:
        chunk = await run.next()
        assert chunk is not None
        assert min(chunk.timestamps_ms) > 1_704_067_200_500


@pytest.mark.parametrize("splits", [2, 3, 8])
async def test_ranges_of_a_table_are_read_at_the_same_time(
    database: TestDatabase, splits: int
) -> None:
    orders(database, 100)
    source = SqlTable(database.url, "orders", splits=splits, batch_rows=9)
    async with reading(source) as run:
        assert len(run.positions) == splits
        found = ids(await run.rows(40))
    database.run("INSERT INTO orders VALUES (1000, 0)")
    # A later run keeps the ranges of the first, even if it is asked for another number.
    other = SqlTable(database.url, "orders", splits=splits + 1)
    async with reading(other, run.positions) as rest:
        found += ids(await rest.rows())
        assert len(rest.positions) == splits
    assert sorted(found) == [*range(100), 1000]
    assert ids(await read_all(source, rest.positions)) == []


async def test_a_key_of_text_is_one_range(database: TestDatabase) -> None:
    database.run_all(
        "CREATE TABLE names (id varchar(9) PRIMARY KEY)",
        "INSERT INTO names VALUES ('B'), ('a'), ('Ä')",
    )
    assert len(await read_all(SqlTable(database.url, "names", splits=4, batch_rows=1))) == 3


async def test_a_row_without_a_time_is_refused_and_not_lost(database: TestDatabase) -> None:
    database.run_all(
        "CREATE TABLE orders (id bigint PRIMARY KEY, updated_at bigint)",
        "INSERT INTO orders VALUES (1, 1)",
    )
    source = SqlTable(database.url, "orders", incremental="updated_at", every=1.0)
    async with reading(source, until_end=False) as run:
        assert ids(await run.rows(1)) == [1]
        database.run("INSERT INTO orders VALUES (2, NULL)")
        with pytest.raises(DataError, match="column 'updated_at' is NULL"):
            await run.rows(1)


async def test_rows_that_the_key_does_not_tell_apart_are_refused(database: TestDatabase) -> None:
    database.run_all(
        "CREATE TABLE logs (id int NOT NULL, at int NOT NULL)",
        "INSERT INTO logs VALUES (1, 1), (2, 2), (2, 2), (3, 3)",
    )
    for batch_rows in (1, 2, 3, 100):
        source = SqlTable(database.url, "logs", incremental="at", key="id", batch_rows=batch_rows)
        with pytest.raises(DataError, match=r"the same \(at, id\) = \(2, 2\)"):
            await read_all(source)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"table": "nothing"}, "table nothing of .* does not exist"),
        ({"table": "loose"}, "has no primary key"),
        ({"incremental": "none"}, "has no column 'none'"),
        ({"key": ["id", "none"]}, "has no column 'none'"),
        ({"columns": ["none"]}, "has no column 'none'"),
        ({"key": ["id", "updated_at"], "splits": 2}, "needs a key of one column"),
    ],
)
async def test_a_source_that_cannot_be_read_is_refused_at_the_start(
    database: TestDatabase, options: dict[str, Any], text: str
) -> None:
    orders(database, 1)
    database.run("CREATE TABLE loose (id int)")
    source = SqlTable(**{"url": database.url, "table": "orders", **options})
    with pytest.raises(ConfigError, match=text):
        await read_all(source)


async def test_a_query_without_its_key_is_refused(database: TestDatabase) -> None:
    orders(database, 1)
    source = SqlQuery(database.url, "SELECT 1 AS a, 2 AS b", key="a", incremental="b")
    assert await read_all(source) == [{"a": 1, "b": 2}]
    without = SqlQuery(database.url, "SELECT id FROM orders", key="none")
    with pytest.raises(StreamKitError, match="none"):
        await read_all(without)


async def test_a_position_in_another_order_is_refused(database: TestDatabase) -> None:
    orders(database, 3)
    async with reading(SqlTable(database.url, "orders", incremental="updated_at")) as run:
        await run.rows()
    for other in (SqlTable(database.url, "orders"),):
        with pytest.raises(StateMismatch, match="the order of updated_at, id"):
            await read_all(other, run.positions)
    for name, text in (("garbage", "[0]"), (next(iter(run.positions)), "[1,2]")):
        with pytest.raises(StateMismatch):
            await read_all(SqlTable(database.url, "orders", incremental="updated_at"), {name: text})


async def test_large_rows_are_read_in_smaller_chunks(database: TestDatabase) -> None:
    database.run("CREATE TABLE files (id int PRIMARY KEY, data text)")
    for number in range(30):
        database.run(f"INSERT INTO files VALUES ({number}, '{'x' * 300_000}')")
    async with reading(SqlTable(database.url, "files", batch_rows=15)) as run:
        sizes = []
        while (chunk := await run.next()) is not None:
            sizes.append(len(run.take(chunk)))
    assert sum(sizes) == 30
    assert max(sizes) <= 4


async def test_columns_are_chosen(database: TestDatabase) -> None:
    database.run_all(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int)", "INSERT INTO t VALUES (1, 2, 3)"
    )
    assert await read_all(SqlTable(database.url, "t", columns=["b"])) == [{"b": 3, "id": 1}]


async def test_a_transaction_that_commits_late_is_waited_for(postgres_only: TestDatabase) -> None:
    postgres_only.run(
        "CREATE TABLE orders (id bigserial PRIMARY KEY, updated_at timestamptz DEFAULT now())"
    )
    source = SqlTable(postgres_only.url, "orders", incremental="updated_at")
    insert = "INSERT INTO orders DEFAULT VALUES"
    with postgres_only.session() as late:
        late.begin()
        late.execute(Statement(insert))
        postgres_only.run(insert)
        async with reading(source) as run:

            def commit(seconds: float) -> None:
                if len(run.clock.slept) == 3:
                    late.commit()

            run.clock.on_sleep = commit
            assert ids(await run.rows()) == [1, 2]
            assert run.notes == []


async def test_a_transaction_that_never_ends_is_waited_for_once(
    postgres_only: TestDatabase,
) -> None:
    orders(postgres_only, 2, times=100)
    source = SqlTable(postgres_only.url, "orders", incremental="updated_at", every=5.0, settle=60.0)
    with postgres_only.session() as late:
        late.begin()
        async with reading(source, until_end=False) as run:
            assert ids(await run.rows(2)) == in_order(2, 100)
            assert 60 <= run.clock.passed_s < 61
            (note,) = run.notes
            assert "open for more than 60 s" in note
            postgres_only.run("INSERT INTO orders VALUES (5, 500)")
            assert ids(await run.rows(1)) == [5]
            assert run.clock.passed_s < 70
            assert len(run.notes) == 1
        late.rollback()


async def test_without_settle_nothing_is_waited_for(postgres_only: TestDatabase) -> None:
    orders(postgres_only, 2)
    with postgres_only.session() as late:
        late.begin()
        async with reading(SqlTable(postgres_only.url, "orders", settle=0)) as run:
            await run.rows()
            assert run.clock.slept == []
        late.rollback()


async def test_a_connection_that_is_cut_anywhere_loses_and_repeats_nothing(
    postgres: PostgresServer, postgres_only: TestDatabase
) -> None:
    orders(postgres_only, 500)
    name = postgres_only.url.rpartition("/")[2]
    fired = 0
    with Proxy(postgres.port, postgres.port, is_framed=False) as proxy:
        source = SqlTable(
            postgres.url(name, port=proxy.port),
            "orders",
            incremental="updated_at",
            batch_rows=100,
        )
        assert ids(await read_all(source)) == in_order(500)
        whole = dict(proxy.carried)
        places = random.Random(4711)
        for flow in ("sc up", "sc down") * 10:
            cut = Cut(flow, places.randrange(whole[flow]))
            proxy.restart(cut)
            assert ids(await read_all(source)) == in_order(500)
            fired += cut.fired
    assert fired == 20


async def test_a_server_that_restarts_is_waited_for(
    postgres: PostgresServer, postgres_only: TestDatabase
) -> None:
    orders(postgres_only, 30)
    source = SqlTable(postgres_only.url, "orders", batch_rows=5, every=5.0)
    async with reading(source, until_end=False) as run:
        found = ids(await run.rows(5))
        postgres.kill()

        def start(seconds: float) -> None:
            if len(run.notes) == 1 and run.clock.passed_s > 20:
                run.clock.on_sleep = lambda seconds: None
                postgres.start()

        run.clock.on_sleep = start
        found += ids(await run.rows(25))
        assert found == list(range(30))
        assert "retrying until the database is back" in run.notes[0]
        assert "connected again after" in run.notes[-1]
        assert not any("wide-open" in each for each in run.notes)


async def test_an_idle_connection_that_the_server_closes_is_replaced_silently(
    postgres_only: TestDatabase,
) -> None:
    orders(postgres_only, 1)
    source = SqlTable(postgres_only.url, "orders", every=5.0)
    async with reading(source, until_end=False) as run:
        assert ids(await run.rows(1)) == [0]

        def close_connections(seconds: float) -> None:
            postgres_only.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'streamkit' AND datname = current_database()"
            )
            postgres_only.run("INSERT INTO orders VALUES (1, 1)")
            run.clock.on_sleep = lambda seconds: None

        run.clock.on_sleep = close_connections
        assert ids(await run.rows(1)) == [1]
        assert run.notes == []


@pytest.mark.parametrize("flow", ["sc up", "sc down"])
async def test_a_network_that_is_dead_does_not_keep_the_job_from_stopping(
    postgres: PostgresServer, postgres_only: TestDatabase, flow: Flow
) -> None:
    orders(postgres_only, 20)
    name = postgres_only.url.rpartition("/")[2]
    with Proxy(postgres.port, postgres.port, is_framed=False) as proxy:
        source = SqlTable(postgres.url(name, port=proxy.port), "orders", batch_rows=5)
        async with reading(source) as run:
            assert ids(await run.rows(5)) == [0, 1, 2, 3, 4]
            stall = Stall(flow)
            proxy._faults = (stall,)
            with anyio.fail_after(20):
                with anyio.move_on_after(0.5):
                    await run.rows()
                await run.reader.close()
            assert stall.fired
            stall.release()


async def test_a_query_that_runs_is_stopped_with_the_job(postgres_only: TestDatabase) -> None:
    endless = "SELECT 1 AS id FROM (SELECT pg_sleep(1000)) AS s"
    async with reading(SqlQuery(postgres_only.url, endless, key="id")) as run:
        with anyio.move_on_after(0.5) as scope:
            await run.next()
        assert scope.cancelled_caught
    active = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND state = 'active' AND pid <> pg_backend_pid()"
    )
    assert postgres_only.run(active) == [(0,)]
