"""Fixtures with a real MariaDB server. Without one, their tests are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from tests.mariadb.server import PASSWORD, USER, MariaDbServer, programs

NO_MARIADB = "needs MariaDB: mariadbd and mariadb-install-db are not on PATH"


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDbServer]:
    """A server that all tests share; a test that kills it must start it again."""
    pytest.importorskip("pymysql", reason="needs an optional package: pymysql")
    if programs() is None:
        pytest.skip(NO_MARIADB)
    with MariaDbServer() as server:
        yield server


@pytest.fixture(scope="session")
def new_mariadb_database(mariadb: MariaDbServer) -> Callable[[], str]:
    """Creates an empty database and returns its name."""
    numbers = count(1)

    def create() -> str:
        name = f"test_{next(numbers)}"
        run(mariadb.port, "", f"CREATE DATABASE {name}")
        return name

    return create


def run(port: int, database: str, text: str) -> list[tuple[Any, ...]]:
    """Carry out one statement with the plain driver, and return its rows."""
    import pymysql

    connection = pymysql.connect(
        host="127.0.0.1", port=port, user=USER, password=PASSWORD, database=database or None
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(text)
            connection.commit()
            return list(cursor.fetchall())
    finally:
        connection.close()
