"""The PostgreSQL server of the tests runs, restarts, and ends with the tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.inner_pytest import ROOT, run_tests
from tests.postgres.fixtures import connected
from tests.postgres.server import PostgresServer, programs
from tests.proxy import Cut, Proxy

CRASHES = """
import os, sys
from tests.postgres.server import PostgresServer

with PostgresServer() as server:
    print(server._pid, server._folder, flush=True)
    sys.stdin.readline()
    os._exit(1)
"""
NEEDS_POSTGRES = """
def test_talks_to_postgres(postgres):
    raise AssertionError("it runs")
"""


@pytest.fixture
def database(postgres: PostgresServer, new_database: Callable[[], str]) -> str:
    return new_database()


def test_committed_rows_survive_a_restart_and_a_kill(
    postgres: PostgresServer, database: str
) -> None:
    url = postgres.url(database)
    with connected(url) as connection:
        connection.execute("CREATE TABLE t (a int)")
        connection.execute("INSERT INTO t VALUES (1)")
    postgres.restart()
    with connected(url) as connection:
        connection.execute("INSERT INTO t VALUES (2)")
    postgres.kill()
    postgres.start()
    with connected(url) as connection:
        assert connection.execute("SELECT a FROM t ORDER BY a").fetchall() == [(1,), (2,)]


def test_a_proxy_cuts_a_connection_at_a_byte(postgres: PostgresServer, database: str) -> None:
    with Proxy(postgres.port, postgres.port, is_framed=False) as proxy:
        with connected(postgres.url(database, port=proxy.port)) as connection:
            connection.execute("CREATE TABLE t (a text)")
        sent = proxy.carried["sc up"]
        cut = Cut("sc up", sent + 200)
        proxy.restart(cut)
        psycopg = pytest.importorskip("psycopg", reason="needs an optional package: psycopg")
        with pytest.raises(psycopg.OperationalError):
            connected(postgres.url(database, port=proxy.port)).execute(
                "INSERT INTO t VALUES (%s)", ("x" * sent,)
            )
        assert cut.fired == 1
    with connected(postgres.url(database)) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.skipif(programs() is None, reason="needs PostgreSQL")
def test_the_server_ends_if_the_tests_crash() -> None:
    crashing = subprocess.Popen(
        [sys.executable, "-c", CRASHES],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert crashing.stdout is not None
    pid, folder = crashing.stdout.readline().split()
    assert Path(f"/proc/{pid}").exists() or sys.platform != "linux"
    assert Path(folder, "data").is_dir()
    crashing.communicate("\n")  # ends with the guard, which holds the same standard error
    assert crashing.returncode == 1
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(folder).exists()


def test_without_postgresql_the_tests_are_skipped(tmp_path: Path) -> None:
    hidden = "\nimport tests.postgres.fixtures\ntests.postgres.fixtures.programs = lambda: None\n"
    last = run_tests(tmp_path, NEEDS_POSTGRES, more_conftest=hidden).splitlines()[-1]
    assert "1 skipped" in last
