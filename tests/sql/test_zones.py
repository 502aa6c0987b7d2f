"""Times of tables whose database has another time zone."""

from __future__ import annotations

import pytest

from streamkit.connectors.sql import SqlTable
from tests.sql.databases import TestDatabase
from tests.sql.reading import read_all, reading


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("kind", ["timestamp", "timestamptz"])
async def test_the_time_zone_of_a_database_skips_and_repeats_no_rows(
    postgres_only: TestDatabase, kind: str
) -> None:
    """airbyte #83778 and olake #867: a cursor without a time zone moved by the offset of the zone.

    The rows are around the hour that comes twice in this zone, one per minute.
    """
    name = postgres_only.run("SELECT current_database()")[0][0]
    postgres_only.run_all(
        f"ALTER DATABASE {name} SET timezone = 'America/Los_Angeles'",
        f"CREATE TABLE events (id int PRIMARY KEY, at {kind} NOT NULL)",
        "INSERT INTO events SELECT n, '2024-11-03 07:30:00+00'::timestamptz "
        "+ n * '1 min'::interval FROM generate_series(0, 239) AS n",
    )
    ordered = postgres_only.run("SELECT id FROM events ORDER BY at, id")
    expected = [number for (number,) in ordered]
    source = SqlTable(postgres_only.url, "events", incremental="at", batch_rows=7)
    found: list[int] = []
    positions: dict[str, str] = {}
    while True:
        async with reading(source, positions) as run:
            chunk = await run.next()
            if chunk is None:
                break
            found += [row["id"] for row in run.take(chunk.slice(0, 5))]
            positions = run.positions
    assert found == expected

    postgres_only.run(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    assert await read_all(source, positions) == []
