"""Fixtures with a real PostgreSQL server. Without one, their tests are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from tests.postgres.server import PostgresServer, programs

NO_POSTGRES = "needs PostgreSQL: its programs are neither in /usr/lib/postgresql nor on PATH"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server that all tests share; a test that stops it must start it again."""
    if programs() is None:
        pytest.skip(NO_POSTGRES)
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def new_database(postgres: PostgresServer) -> Callable[[], str]:
    """Creates an empty database and returns its name."""
    numbers = count(1)

    def create() -> str:
        name = f"test_{next(numbers)}"
        with connected(postgres.url()) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return name

    return create


def connected(url: str) -> Any:
    """Open a connection that commits each statement, to prepare and to inspect databases."""
    psycopg = pytest.importorskip("psycopg", reason="needs an optional package: psycopg")
    return psycopg.connect(url, autocommit=True)
