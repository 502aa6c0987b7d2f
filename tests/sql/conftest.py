"""Each test with ``database`` runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from tests.mariadb.server import MariaDbServer
from tests.mariadb.server import programs as mariadb_programs
from tests.postgres.server import PostgresServer, programs
from tests.sql.databases import (
    TestDatabase,
    mariadb_database,
    postgres_database,
    sqlite_database,
)


@pytest.fixture(scope="session", autouse=True)
def a_server_that_outlives_the_tests(request: pytest.FixtureRequest) -> None:
    # Started before the first test, so that no test seems to leave its sockets open.
    if programs() is not None:
        request.getfixturevalue("postgres")
    if mariadb_programs() is not None:
        request.getfixturevalue("mariadb")


@pytest.fixture(params=["sqlite", "sqlalchemy", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> TestDatabase:
    if request.param == "sqlite":
        return sqlite_database(tmp_path)
    if request.param == "sqlalchemy":
        pytest.importorskip("sqlalchemy", reason="needs an optional package: sqlalchemy")
        return sqlite_database(tmp_path, "sqlite+pysqlite")
    only = f"{request.param}_only"
    return request.getfixturevalue(only)  # type: ignore[no-any-return]


@pytest.fixture
def postgres_only(request: pytest.FixtureRequest) -> TestDatabase:
    # The reason to skip comes from the server, before a database is created in it.
    server = cast("PostgresServer", request.getfixturevalue("postgres"))
    return postgres_database(server.url(request.getfixturevalue("new_database")()))


@pytest.fixture
def mariadb_only(request: pytest.FixtureRequest) -> TestDatabase:
    server = cast("MariaDbServer", request.getfixturevalue("mariadb"))
    return mariadb_database(server, request.getfixturevalue("new_mariadb_database")())
