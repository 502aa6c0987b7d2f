"""Databases that tests write to and inspect with the plain drivers, not with our own code."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamkit.connectors.sql.dialects import POSTGRES, SQLITE, Dialect
from streamkit.connectors.sql.opening import session_for
from streamkit.connectors.sql.other_dialects import dialect_for
from streamkit.connectors.sql.session import Session
from streamkit.connectors.sql.url import database_of
from tests.mariadb.fixtures import run as run_in_mariadb
from tests.mariadb.server import MariaDbServer
from tests.postgres.fixtures import connected


@dataclass(frozen=True)
class TestDatabase:
    """An empty database. ``run`` carries out one statement and returns its rows."""

    __test__ = False

    dialect: Dialect
    url: str
    run: Callable[[str], list[tuple[Any, ...]]]

    @property
    def is_postgres(self) -> bool:
        return self.dialect is POSTGRES

    def run_all(self, *statements: str) -> None:
        for each in statements:
            self.run(each)

    def has_table(self, name: str) -> bool:
        if self.dialect is SQLITE:
            places = "sqlite_master WHERE type = 'table' AND name"
        else:
            here = "current_schema()" if self.is_postgres else "DATABASE()"
            places = f"information_schema.tables WHERE table_schema = {here} AND table_name"
        return self.run(f"SELECT 1 FROM {places} = '{name}'") != []

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session of ours."""
        session = session_for(database_of(self.url), creates=True)
        session.open()
        try:
            yield session
        finally:
            session.close()


def sqlite_database(folder: Path, scheme: str = "sqlite") -> TestDatabase:
    path = folder / "test database.db"

    def run(text: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(path)
        try:
            with connection:
                return connection.execute(text).fetchall()
        finally:
            connection.close()

    return TestDatabase(SQLITE, f"{scheme}:///{path}", run)


def postgres_database(url: str) -> TestDatabase:
    def run(text: str) -> list[tuple[Any, ...]]:
        with connected(url) as connection:
            cursor = connection.execute(text)
            return list(cursor.fetchall()) if cursor.description else []

    return TestDatabase(POSTGRES, url, run)


def mariadb_database(server: MariaDbServer, name: str) -> TestDatabase:
    def run(text: str) -> list[tuple[Any, ...]]:
        return run_in_mariadb(server.port, name, text)

    return TestDatabase(dialect_for("mysql", "`"), server.url(name), run)


def names(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return the first value of each row."""
    return [row[0] for row in rows]
