"""Each row is found by the values that were read of it, or the job says that it is not."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from streamkit.connectors.sql import SqlLookup, SqlQuery, SqlSink, SqlTable
from streamkit.connectors.sql.pages import Place
from streamkit.errors import ConfigError, DataError
from tests.sql.databases import TestDatabase, sqlite_database
from tests.sql.reading import Source, read_all, reading
from tests.sql.test_other_databases import duckdb
from tests.sql.writing import Job

__all__ = ["duckdb"]
pytestmark = pytest.mark.anyio

# The nearest numbers of 32 bits are equal, below and above.
SINGLES = (0.5, 1.3, 1.7)


class Size(msgspec.Struct):
    size: float
    name: str


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def run_in_duckdb(url: str, *statements: str) -> list[tuple[Any, ...]]:
    import duckdb as driver

    with driver.connect(url.removeprefix("duckdb:///")) as connection:
        for each in statements:
            connection.execute(each)
        return connection.fetchall()


async def read_one_by_one(source: Source) -> list[dict[str, Any]]:
    """Read with a new run after each row."""
    found: list[dict[str, Any]] = []
    positions: dict[str, str] = {}
    while True:
        async with reading(source, positions) as run:
            rows = await run.rows(1)
            positions = run.positions
        if not rows:
            return found
        found += rows


@pytest.mark.parametrize("incremental", [None, "size"])
@pytest.mark.parametrize("read", [read_all, read_one_by_one])
async def test_numbers_of_32_bits_order_rows(
    postgres_only: TestDatabase, incremental: str | None, read: Any
) -> None:
    postgres_only.run("CREATE TABLE sizes (size real, id int)")
    rows = [(size, number) for size in SINGLES for number in range(2)]
    postgres_only.run(f"INSERT INTO sizes VALUES {', '.join(map(str, rows))}")
    key = ["id"] if incremental else ["size", "id"]
    for source in (
        SqlTable(postgres_only.url, "sizes", key=key, incremental=incremental, batch_rows=1),
        SqlQuery(
            postgres_only.url,
            "SELECT * FROM sizes",
            key=key,
            incremental=incremental,
            batch_rows=1,
        ),
    ):
        assert [(each["size"], each["id"]) for each in await read(source)] == rows


async def test_rows_are_found_and_deleted_by_numbers_of_32_bits(
    postgres_only: TestDatabase, tmp_path: Path
) -> None:
    postgres_only.run_all(
        "CREATE TABLE sizes (size real PRIMARY KEY, name text NOT NULL)",
        *(f"INSERT INTO sizes VALUES ({each}, 'old')" for each in SINGLES),
    )
    async with SqlLookup(postgres_only.url, "sizes", Size, "size") as lookup:
        found = [await lookup.find(each) for each in (*SINGLES, 1.2)]
    assert found == [*(Size(each, "old") for each in SINGLES), None]
    sink = SqlSink(postgres_only.url, "sizes", mode="upsert", key="size")
    async with Job(tmp_path / "job", Size).run(sink) as run:
        await run.write([None, None, Size(0.5, "new")], [b"1.3", b"1.7", b"0.5"])
        await run.commit()
    assert postgres_only.run("SELECT * FROM sizes") == [(0.5, "new")]


async def test_rows_are_found_and_deleted_by_numbers_of_32_bits_of_other_databases(
    duckdb: str, tmp_path: Path
) -> None:
    values = ", ".join(f"({each}, 'old')" for each in SINGLES)
    run_in_duckdb(
        duckdb,
        "CREATE TABLE sizes (size float PRIMARY KEY, name text NOT NULL)",
        f"INSERT INTO sizes VALUES {values}",
    )
    async with SqlLookup(duckdb, "sizes", Size, "size") as lookup:
        found = [await lookup.find(each) for each in (*SINGLES, 1.2)]
    assert [each and each.name for each in found] == ["old", "old", "old", None]
    sink = SqlSink(duckdb, "sizes", mode="upsert", key="size")
    async with Job(tmp_path / "job", Size).run(sink) as run:
        await run.write([None, None, Size(0.5, "new")], [b"1.3", b"1.7", b"0.5"])
        await run.commit()
    assert run_in_duckdb(duckdb, "SELECT * FROM sizes") == [(0.5, "new")]


async def test_numbers_of_32_bits_of_mariadb(mariadb_only: TestDatabase, tmp_path: Path) -> None:
    mariadb_only.run("CREATE TABLE sizes (size FLOAT PRIMARY KEY, name VARCHAR(9) NOT NULL)")
    values = ", ".join(f"({each}, 'old')" for each in SINGLES)
    mariadb_only.run(f"INSERT INTO sizes VALUES {values}")
    async with SqlLookup(mariadb_only.url, "sizes", Size, "size") as lookup:
        found = [await lookup.find(each) for each in (*SINGLES, 1.2)]
    assert [each and each.name for each in found] == ["old", "old", "old", None]
    with pytest.raises(DataError, match="does not find by these values"):
        await read_all(SqlTable(mariadb_only.url, "sizes"))
    sink = SqlSink(mariadb_only.url, "sizes", mode="upsert", key="size")
    async with Job(tmp_path / "job", Size).run(sink) as run:
        await run.write([None, None, Size(0.5, "new")], [b"1.3", b"1.7", b"0.5"])
        await run.commit()
    assert mariadb_only.run("SELECT name FROM sizes") == [("new",)]


@pytest.mark.parametrize("read", [read_all, read_one_by_one])
async def test_enumerations_order_rows(duckdb: str, read: Any) -> None:
    run_in_duckdb(
        duckdb,
        "CREATE TYPE size AS ENUM ('small', 'medium', 'large')",
        "CREATE TABLE shirts (size size, id int, PRIMARY KEY (size, id))",
        "INSERT INTO shirts VALUES ('small', 1), ('medium', 1), ('medium', 2), ('large', 1)",
    )
    found = await read(SqlTable(duckdb, "shirts", batch_rows=1))
    assert [(each["size"], each["id"]) for each in found] == [
        ("large", 1),
        ("medium", 1),
        ("medium", 2),
        ("small", 1),
    ]


@pytest.mark.parametrize("read", [read_all, read_one_by_one])
async def test_enumerations_of_mariadb_order_rows(mariadb_only: TestDatabase, read: Any) -> None:
    mariadb_only.run_all(
        "CREATE TABLE shirts (size ENUM('small', 'medium', 'large') PRIMARY KEY)",
        "INSERT INTO shirts VALUES ('small'), ('medium'), ('large')",
    )
    found = await read(SqlTable(mariadb_only.url, "shirts", batch_rows=1))
    assert [each["size"] for each in found] == ["large", "medium", "small"]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("timestamp_ns", "'2024-01-01 00:00:00.123456789'"),
        ("timestamp", "'2024-01-01'), ('infinity'"),
        ("date", "'2024-01-01'), ('infinity'"),
    ],
)
@pytest.mark.parametrize("incremental", [None, "k"])
async def test_values_that_python_does_not_have_are_refused(
    duckdb: str, kind: str, values: str, incremental: str | None
) -> None:
    run_in_duckdb(
        duckdb, f"CREATE TABLE t (k {kind} PRIMARY KEY)", f"INSERT INTO t VALUES ({values})"
    )
    with pytest.raises(DataError, match="does not find by these values"):
        await read_all(SqlTable(duckdb, "t", key="k", incremental=incremental))


@pytest.mark.parametrize("read", [read_all, read_one_by_one])
async def test_texts_that_the_database_takes_for_equal_ones_are_refused(
    database: TestDatabase, read: Any
) -> None:
    if database.is_postgres:
        database.run_all(
            "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', "
            "deterministic = false)",
        )
    database.run_all(
        "CREATE TABLE users (email text COLLATE nocase, n int)",
        "INSERT INTO users VALUES ('a@x', 1), ('B@x', 2), ('b@x', 3), ('c@x', 4)",
    )
    source = SqlTable(database.url, "users", key="email", batch_rows=2)
    if database.is_postgres and read is read_all:  # its cursor reads all rows
        assert len(await read(source)) == 4
        return
    with pytest.raises(DataError, match="two rows have the same"):
        await read(source)


async def test_a_last_row_that_changes_meanwhile_is_looked_for_again(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.run("CREATE TABLE orders (changed double precision, id int)")
    database.run("INSERT INTO orders VALUES (1.5, 1), (2.5, 2), (3.5, 3)")
    source = SqlTable(database.url, "orders", incremental="changed", key="id")
    async with reading(source) as run:
        reader: Any = run.reader
        look, changes = reader._last, ["2.25 WHERE id = 3", "2.75 WHERE id = 2"]

        async def change_after() -> Place | None:
            place: Place | None = await look()
            if changes:
                database.run(f"UPDATE orders SET changed = {changes.pop(0)}")
            return place

        monkeypatch.setattr(reader, "_last", change_after)
        found = await run.rows()
    assert [(each["changed"], each["id"]) for each in found] == [(1.5, 1), (2.25, 3), (2.75, 2)]


async def test_a_query_with_other_values_each_time_is_refused(
    postgres_only: TestDatabase,
) -> None:
    postgres_only.run_all("CREATE TABLE t (id bigint PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    query = "SELECT id, now() AS seen FROM t"
    source = SqlQuery(postgres_only.url, query, key="id", incremental="seen")
    with pytest.raises(DataError, match="the same values in each query"):
        await read_all(source)


async def test_a_column_that_cannot_be_a_position_is_refused(postgres_only: TestDatabase) -> None:
    for kind, value in (("jsonb", '{"a": 1}'), ("int[]", "{1}")):
        postgres_only.run_all(
            "DROP TABLE IF EXISTS t",
            f"CREATE TABLE t (k {kind} PRIMARY KEY)",
            f"INSERT INTO t VALUES ('{value}')",
        )
        with pytest.raises(DataError, match="order by a column of numbers, text"):
            await read_all(SqlTable(postgres_only.url, "t"))


@pytest.mark.parametrize(
    ("kind", "stored", "other"),
    [
        (dt.datetime, "2024-01-01 10:00:00.000000+00:00", "2024-01-01T10:00:00Z"),
        (dt.datetime, "2024-01-01 10:00:00.000000+00:00", 1_704_103_200),
        (dt.date, "2024-01-01", None),
        (dt.time, "10:00:00.000000", "10:00:00"),
        (UUID, str(UUID(int=7)), UUID(int=7).hex),
    ],
)
async def test_keys_that_sqlite_has_in_another_form_are_refused(
    tmp_path: Path, kind: Any, stored: str, other: Any
) -> None:
    database = sqlite_database(tmp_path)
    database.run_all(
        "CREATE TABLE named (key, name)", f"INSERT INTO named VALUES ('{stored}', 'a')"
    )
    Named = msgspec.defstruct("Named", [("key", kind), ("name", str)])
    async with SqlLookup(database.url, "named", Named, "key") as lookup:
        row: Any = await lookup.find(msgspec.convert(stored, kind))
        assert row.name == "a"
    if other is not None:
        database.run(f"UPDATE named SET key = {other!r}")
        with pytest.raises(ConfigError, match="looks for '"):
            async with SqlLookup(database.url, "named", Named, "key"):
                pass


async def test_keys_that_a_driver_reads_as_another_type_are_found(duckdb: str) -> None:
    Named = msgspec.defstruct("Named", [("uuid", UUID), ("time", dt.datetime), ("name", str)])
    uuid, at = UUID(int=7), dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)
    run_in_duckdb(
        duckdb,
        "CREATE TABLE named (uuid uuid PRIMARY KEY, time timestamptz UNIQUE, name text)",
        f"INSERT INTO named VALUES ('{uuid}', '2024-01-01 12:00:00+00', 'a')",
    )
    for key, value, other in (
        ("uuid", uuid, UUID(int=8)),
        ("time", at, at + dt.timedelta(seconds=1)),
    ):
        async with SqlLookup(duckdb, "named", Named, key) as lookup:
            row: Any = await lookup.find(value)
            assert row.name == "a"
            assert await lookup.find(other) is None
