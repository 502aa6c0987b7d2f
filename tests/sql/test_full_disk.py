"""A disk that is full for a while: the sink waits, and each row is written once."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from streamkit.connectors.sql import SqlSink
from tests.sql.kinds import Total
from tests.sql.writing import Job


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite"])
async def test_a_full_disk_is_waited_for(small_disk: Path, tmp_path: Path, scheme: str) -> None:
    if scheme != "sqlite":
        pytest.importorskip("sqlalchemy", reason="needs an optional package: sqlalchemy")
    job = Job(tmp_path / "job", Total)
    used = small_disk / "used"
    async with job.run(SqlSink(f"{scheme}:///{small_disk}/totals.db", "totals")) as run:
        await run.write([Total(0, "first")])
        await run.commit()
        with pytest.raises(OSError, match="No space left"):
            used.write_bytes(b"x" * (2 << 20))

        def clear(seconds: float) -> None:
            if job.notes:
                used.unlink(missing_ok=True)

        job.clock.on_sleep = clear
        await run.write([Total(number, "x" * 1000) for number in range(1, 200)])
        await run.commit()
    assert "full; retrying until the database is back" in job.notes[0]
    connection = sqlite3.connect(small_disk / "totals.db")
    found = connection.execute("SELECT count(*), count(DISTINCT id) FROM totals").fetchall()
    connection.close()
    assert found == [(200, 200)]
