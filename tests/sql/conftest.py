"""Each test with ``database`` runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from tests.postgres.server import PostgresServer, programs
from tests.sql.databases import TestDatabase, postgres_database, sqlite_database


@pytest.fixture(scope="session", autouse=True)
def a_server_that_outlives_the_tests(request: pytest.FixtureRequest) -> None:
    # Started before the first test, so that no test seems to leave its sockets open.
    if programs() is not None:
        request.getfixturevalue("postgres")


@pytest.fixture(params=["sqlite", "sqlalchemy", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> TestDatabase:
    if request.param == "sqlite":
        return sqlite_database(tmp_path)
    if request.param == "sqlalchemy":
        pytest.importorskip("sqlalchemy", reason="needs an optional package: sqlalchemy")
        return sqlite_database(tmp_path, "sqlite+pysqlite")
    return request.getfixturevalue("postgres_only")  # type: ignore[no-any-return]


@pytest.fixture
def postgres_only(request: pytest.FixtureRequest) -> TestDatabase:
    # The reason to skip comes from the server, before a database is created in it.
    server = cast("PostgresServer", request.getfixturevalue("postgres"))
    return postgres_database(server.url(request.getfixturevalue("new_database")()))
