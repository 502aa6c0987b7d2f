"""kill -9 at any moment: every row of a topic and of a table is in the database exactly once."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.postgres.server import PostgresServer
from tests.sql.databases import TestDatabase, names
from tests.stop.job_environment import Place, place_in
from tests.stop.running import Job

JOB = Path(__file__).parent / "jobs" / "copying_sql.py"
LANES = 3


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as found:
        yield found


def counted(database: TestDatabase, table: str, columns: str) -> list[tuple[Any, ...]]:
    """Return the number of rows, of different rows, and the highest number of equal ones."""
    return database.run(
        f"SELECT sum(n), count(*), max(n) FROM (SELECT count(*) AS n FROM {table} "
        f"GROUP BY {columns}) AS c"
    )


def commits(database: TestDatabase) -> int:
    """Return the number of commits of the sink that has made most of them."""
    if not database.has_table("streamkit_positions"):
        return 0
    return max(names(database.run("SELECT number FROM streamkit_positions")), default=0)


def wait_for_commit(database: TestDatabase, job: Job, before: int) -> None:
    while commits(database) <= before:
        assert job.process.poll() is None, job.words


def create_tables(database: TestDatabase) -> None:
    database.run("CREATE TABLE source_rows (id bigint PRIMARY KEY, changed bigint NOT NULL)")
    database.run("CREATE TABLE lanes (lane bigint PRIMARY KEY, name text NOT NULL)")
    lanes = ", ".join(f"({number}, '{number}')" for number in range(LANES))
    database.run(f"INSERT INTO lanes VALUES {lanes}")


def add_rows(database: TestDatabase, first: int, count: int) -> None:
    numbers = range(first, first + count)
    rows = ", ".join(f"({number}, {number // 10})" for number in numbers)
    database.run(f"INSERT INTO source_rows VALUES {rows}")


@pytest.mark.timeout(900)
def test_a_killed_job_writes_every_row_to_mariadb_exactly_once(
    place: Place, mariadb_only: TestDatabase, is_deep: bool
) -> None:
    check_kills(place, mariadb_only, 40 if is_deep else 2)


@pytest.mark.timeout(900)
def test_a_repeatedly_killed_job_writes_every_row_exactly_once(
    place: Place, database: TestDatabase, is_deep: bool
) -> None:
    check_kills(place, database, 40 if is_deep else 5)


def check_kills(place: Place, database: TestDatabase, kills: int) -> None:
    count = 2_000
    create_tables(database)
    chosen = random.Random(kills)
    for number in range(kills):
        before = commits(database)
        # Enough new rows for the aim, even if all that came before are committed.
        place.produce_rows("numbers", lanes=LANES, count=count, first=number * count)
        add_rows(database, number * count, count)
        environment = {"DATABASE": database.url}
        # Every second job kills itself, perhaps before its first commit.
        kills_itself = number % 2 == 0
        if kills_itself:
            aims = (
                f"topic:{chosen.randint(1, LANES * count)}",
                f"table:{chosen.randint(1, count)}",
            )
            environment["AIM"] = f"{chosen.choice(aims)}:{int(signal.SIGKILL)}"
        with place.job(JOB, "--commit-interval", "20ms", **environment) as job:
            if not kills_itself:
                wait_for_commit(database, job, before)
                time.sleep(chosen.uniform(0, 0.1))
                job.signal(signal.SIGKILL)
            assert job.wait() == -signal.SIGKILL, job.words
    rest = place.run(JOB, "--once", DATABASE=database.url)
    assert rest.process.returncode == 0, rest.words

    total = kills * count
    for table in ("inserted", "replaced"):
        assert counted(database, table, "lane, number") == [(LANES * total,) * 2 + (1,)]
    assert counted(database, "copied", "id") == [(total, total, 1)]

    nothing = place.run(JOB, "--once", DATABASE=database.url)
    assert nothing.process.returncode == 0, nothing.words
    assert nothing.ended["records_in"] == 0


@pytest.mark.timeout(900)
def test_a_server_that_is_killed_while_a_job_runs_gets_every_row_exactly_once(
    place: Place, postgres: PostgresServer, postgres_only: TestDatabase, is_deep: bool
) -> None:
    kills, count = (20 if is_deep else 3), 2_000
    place.produce_rows("numbers", lanes=LANES, count=count)
    create_tables(postgres_only)
    add_rows(postgres_only, 0, count)
    with place.job(JOB, "--commit-interval", "20ms", DATABASE=postgres_only.url) as job:
        for number in range(1, kills + 1):
            before = commits(postgres_only)
            place.produce_rows("numbers", lanes=LANES, count=count, first=number * count)
            add_rows(postgres_only, number * count, count)
            wait_for_commit(postgres_only, job, before)
            postgres.kill()
            postgres.start()
        job.wait_for_note("connected again after")
        job.signal(signal.SIGTERM)
        assert job.wait() == 0, job.words
    rest = place.run(JOB, "--once", DATABASE=postgres_only.url)
    assert rest.process.returncode == 0, rest.words
    total = (kills + 1) * count
    for table in ("inserted", "replaced"):
        assert counted(postgres_only, table, "lane, number") == [(LANES * total,) * 2 + (1,)]
    assert counted(postgres_only, "copied", "id") == [(total, total, 1)]
