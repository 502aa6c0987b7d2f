"""`delay=`: rows that are too young are left for a later look."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from streamkit.connectors.sql import SqlQuery, SqlTable
from streamkit.connectors.sql.delays import newest
from streamkit.connectors.sql.session import Result
from streamkit.errors import ConfigError, UsageError
from tests.sql.databases import TestDatabase, sqlite_database
from tests.sql.reading import read_all, reading

pytestmark = pytest.mark.anyio
# The type of a column, and the time that the database sets a number of seconds ago.
COLUMNS = {
    "postgres timestamptz": "now() - interval '{} seconds'",
    # As other sessions set it: the server's zone is not UTC, that of ours is.
    "postgres timestamp": "localtimestamp - interval '{} seconds'",
    "mariadb datetime(6)": "localtimestamp(6) - interval {} second",
    "mariadb timestamp": "localtimestamp - interval {} second",
    "sqlite TEXT": "datetime('now', '-{} seconds')",
    "sqlite text": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-{} seconds')",
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=COLUMNS)
def column(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[TestDatabase, str, str]:
    kind, _, declared = request.param.partition(" ")
    if kind == "sqlite":
        return sqlite_database(tmp_path), declared, COLUMNS[request.param]
    return request.getfixturevalue(f"{kind}_only"), declared, COLUMNS[request.param]


async def test_young_rows_are_left_for_a_later_look(column: tuple[TestDatabase, str, str]) -> None:
    database, declared, ago = column
    database.run(f"CREATE TABLE orders (id int PRIMARY KEY, at {declared} NOT NULL)")
    for number, seconds in ((1, 7_200), (2, 3_700), (3, 60), (4, 0)):
        database.run(f"INSERT INTO orders VALUES ({number}, {ago.format(seconds)})")
    hour = dt.timedelta(hours=1)
    source = SqlTable(database.url, "orders", incremental="at", delay=hour, every=1)
    async with reading(source) as run:
        assert [row["id"] for row in await run.rows()] == [1, 2]
        positions = run.positions
    # Committed late: its time comes before those of rows that were young at the last look.
    database.run(f"INSERT INTO orders VALUES (5, {ago.format(1_800)})")
    later = SqlTable(database.url, "orders", incremental="at", delay=30)
    assert [row["id"] for row in await read_all(later, positions)] == [5, 3]
    everything = SqlTable(database.url, "orders", incremental="at")
    assert [row["id"] for row in await read_all(everything, positions)] == [5, 3, 4]


async def test_rows_that_are_all_young_are_read_when_they_are_old(
    postgres_only: TestDatabase,
) -> None:
    postgres_only.run("CREATE TABLE orders (id int PRIMARY KEY, at timestamptz NOT NULL)")
    postgres_only.run("INSERT INTO orders VALUES (1, now())")
    query = "SELECT id, at FROM orders"
    source = SqlQuery(postgres_only.url, query, "id", "at", every=5, delay=600)
    async with reading(source, until_end=False) as run:

        def becomes_old(seconds: float) -> None:
            assert seconds <= 5
            postgres_only.run("UPDATE orders SET at = now() - interval '11 minutes'")

        run.clock.on_sleep = becomes_old
        assert [row["id"] for row in await run.rows(1)] == [1]


NOW = Result(("utc", "local"), [(dt.datetime(2024, 1, 2, 3, 0, 0, 5), "2024-01-02 08:45:00")])  # noqa: DTZ001


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 2, 2, 59, 0, 5, dt.UTC)),
        (dt.datetime(2020, 1, 1), dt.datetime(2024, 1, 2, 8, 44)),  # noqa: DTZ001
        (dt.date(2020, 1, 1), dt.date(2024, 1, 2)),
        ("2020-01-01 00:00:00", "2024-01-02 02:59:00"),
        ("2020-01-01T00:00:00.5Z", "2024-01-02T02:59:00"),
        ("2020-01-01T00:00:00+02:00", "2024-01-02T04:59:00"),
        ("2020-01-01", "2024-01-02"),
    ],
)
def test_the_bound_has_the_form_of_the_column(value: Any, bound: Any) -> None:
    assert newest(value, NOW, 60.0) == bound


async def test_a_date_is_read_when_its_whole_day_is_the_delay_ago() -> None:
    assert newest(dt.date(2020, 1, 1), NOW, 86_400.0) == dt.date(2024, 1, 1)


@pytest.mark.parametrize("values", ["(1, 5)", "(1, 'x')"])
async def test_a_column_without_times_is_refused(tmp_path: Path, values: str) -> None:
    database = sqlite_database(tmp_path)
    database.run("CREATE TABLE orders (id INTEGER PRIMARY KEY, at NOT NULL)")
    database.run(f"INSERT INTO orders VALUES {values}")
    with pytest.raises(ConfigError, match="delay= needs an incremental column with times"):
        await read_all(SqlTable(database.url, "orders", incremental="at", delay=1))


def test_a_delay_without_a_column_is_refused() -> None:
    with pytest.raises(UsageError, match="delay= needs incremental="):
        SqlTable("sqlite:///x.db", "orders", delay=1)
    with pytest.raises(UsageError, match="delay="):
        SqlTable("sqlite:///x.db", "orders", incremental="at", delay=-1)
