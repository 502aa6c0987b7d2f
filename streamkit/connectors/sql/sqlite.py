"""SQLite, with the module of the standard library."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import length_hint
from typing import Final
from urllib.parse import quote

from streamkit.connectors.sql.dialects import SQLITE, table_parts
from streamkit.connectors.sql.queries import Statement
from streamkit.connectors.sql.rows import Row
from streamkit.connectors.sql.session import (
    Page,
    Range,
    Result,
    busy,
    connect_failed,
    connection_lost,
    read_page,
    refused,
)
from streamkit.connectors.sql.statements import Target
from streamkit.connectors.sql.tables import Table, TableColumn
from streamkit.connectors.sql.url import Database
from streamkit.errors import DataError, shown

# A wait for another process cannot be interrupted, so it is short, and then repeated.
_BUSY_S_MAX: Final = 2.0
# Another process writes.
_BUSY: Final = ("locked", "busy")
_FULL: Final = "full"
# Source: https://www.sqlite.org/pragma.html#pragma_table_xinfo; 2 and 3 are generated columns.
_GENERATED: Final = (2, 3)
_EXPRESSION: Final = -2
# Rows that are given to the library in one call.
_ROWS_AT_ONCE: Final = 10_000


class SqliteSession:
    """A connection to a file.

    Args:
        database: The file.
        creates: Create the file if it is missing.
    """

    dialect = SQLITE

    def __init__(self, database: Database, *, creates: bool) -> None:
        self._database = database
        self._creates = creates
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        assert self._database.path is not None, "every SQLite database has a file"
        path = quote(str(self._database.path.absolute()))
        uri = f"file:{path}?mode={'rwc' if self._creates else 'rw'}"
        try:
            self._connection = sqlite3.connect(
                uri, timeout=_BUSY_S_MAX, isolation_level=None, check_same_thread=False, uri=True
            )
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.Error as error:
            if _is_busy(error):
                return  # so it is a database, and whoever needs the lock waits for it
            self.close()
            raise connect_failed(self._database, error, retryable=False) from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def interrupt(self) -> None:
        connection = self._connection
        if connection is not None:
            try:
                connection.interrupt()
            except sqlite3.ProgrammingError:
                pass  # it was closed just now, so nothing runs

    def describe(self, table: str) -> Table | None:
        *schema, name = table_parts(table)
        place = (name, schema[-1] if schema else "main")
        found = self.query(
            Statement(
                "SELECT name, type, [notnull], dflt_value, pk, hidden "
                "FROM pragma_table_xinfo(?, ?)",
                place,
            )
        ).rows
        if not found:
            return None
        key = tuple(row[0] for row in sorted(found, key=lambda row: row[4]) if row[4])
        columns = tuple(_column(row, is_only_key=len(key) == 1) for row in found)
        unique = [frozenset(key)] if key else []
        unique += self._unique_indexes(place)
        return Table(columns, key, tuple(unique))

    def query(self, statement: Statement) -> Result:
        with self._errors():
            cursor = self._open_connection.execute(statement.text, statement.parameters)
            rows = cursor.fetchall()
            return Result(tuple(each[0] for each in cursor.description or ()), rows)

    def read(self, rows: Range, limit: int) -> Page:
        # A query that stays open would keep other processes from writing.
        return read_page(self, rows, limit)

    def execute(self, statement: Statement) -> int:
        with self._errors():
            cursor = self._open_connection.execute(statement.text, statement.parameters)
            return cursor.rowcount

    def begin(self, *, waits: bool = True) -> None:
        self._wait_for_locks(_BUSY_S_MAX if waits else 0.0)
        # A transaction that begins to write later may find that it has to wait for another one
        # that waits for it.
        self.execute(Statement("BEGIN IMMEDIATE"))

    def commit(self) -> None:
        self._wait_for_locks(_BUSY_S_MAX)
        self.execute(Statement("COMMIT"))

    def rollback(self) -> None:
        if self.is_in_transaction:
            self.execute(Statement("ROLLBACK"))

    @property
    def is_in_transaction(self) -> bool:
        return self._open_connection.in_transaction

    def write(self, target: Target, rows: Iterable[Row]) -> None:
        self._many(target.insert(), rows, target.columns)

    def delete(self, target: Target, keys: Sequence[Row]) -> None:
        self._many(target.delete(), keys, target.key)

    def open_transactions(self) -> frozenset[str] | None:
        return None  # only one transaction writes at a time, so commits are in order

    @property
    def _open_connection(self) -> sqlite3.Connection:
        assert self._connection is not None, "open comes first"
        return self._connection

    def _wait_for_locks(self, seconds: float) -> None:
        self.query(Statement(f"PRAGMA busy_timeout = {int(seconds * 1_000)}"))

    def _many(self, text: str, rows: Iterable[Row], columns: tuple[str, ...]) -> None:
        rest = iter(rows)
        while some := list(islice(rest, _ROWS_AT_ONCE)):
            left = iter(some)
            try:
                with self._errors():
                    self._open_connection.executemany(text, left)
            except DataError as error:
                row = some[len(some) - length_hint(left) - 1]
                values = dict(zip(columns, row, strict=True))
                raise DataError(f"{error}; the row is {shown(values)}") from error.__cause__

    def _unique_indexes(self, place: tuple[str, str]) -> Iterator[frozenset[str]]:
        indexes = self.query(
            Statement(
                'SELECT name FROM pragma_index_list(?, ?) WHERE "unique" AND NOT partial', place
            )
        ).rows
        for (index,) in indexes:
            columns = self.query(
                Statement(
                    "SELECT cid, name FROM pragma_index_xinfo(?, ?) WHERE key", (index, place[1])
                )
            ).rows
            if all(number != _EXPRESSION for number, _ in columns):
                yield frozenset(name for _, name in columns)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if _is_busy(error):
                raise busy(self._database, error) from error
            if isinstance(error, sqlite3.OperationalError) and _FULL in str(error):
                raise connection_lost(self._database, error) from error  # it may get space again
            is_data = isinstance(error, sqlite3.IntegrityError | sqlite3.DataError)
            raise refused(self._database, error, is_data=is_data) from error


def _is_busy(error: sqlite3.Error) -> bool:
    is_operational = isinstance(error, sqlite3.OperationalError)
    return is_operational and any(word in str(error) for word in _BUSY)


def _column(row: Row, *, is_only_key: bool) -> TableColumn:
    name, kind, is_not_null, default, key, hidden = row
    # Such a column is the number of the row, which SQLite chooses if none is given.
    is_row_number = bool(key) and is_only_key and kind.upper() == "INTEGER"
    return TableColumn(
        name,
        kind,
        is_nullable=not is_not_null,
        has_default=default is not None or is_row_number,
        is_generated=hidden in _GENERATED,
    )
