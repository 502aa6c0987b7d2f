"""Any other database, with SQLAlchemy and the driver that its URL names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, Final

from streamkit.connectors.sql.dialects import table_parts
from streamkit.connectors.sql.other_dialects import MARK, dialect_for
from streamkit.connectors.sql.queries import Statement
from streamkit.connectors.sql.rows import Row
from streamkit.connectors.sql.session import (
    Page,
    Range,
    Result,
    busy,
    connect_failed,
    connection_lost,
    driver_missing,
    read_page,
    refused,
)
from streamkit.connectors.sql.statements import Target
from streamkit.connectors.sql.tables import Table, TableColumn
from streamkit.connectors.sql.url import Database
from streamkit.errors import ConfigError

try:
    import sqlalchemy as sa
    from sqlalchemy import exc
    from sqlalchemy.pool import NullPool
except ImportError as error:
    raise driver_missing("sqlalchemy", "sql") from error

_MANY_ROWS: Final = 1_000
# Another transaction holds a lock, or has changed the same rows.
_BUSY: Final = re.compile(r"locked|busy|deadlock|lock wait timeout|conflict on|serializ", re.I)
# There may be space again later, or another server may be the one that is written to.
_LATER: Final = re.compile(r"disk is full|disk full|no space left|read[-_ ]only", re.I)
# Rows that MySQL and MariaDB refuse with an error of another class: no default, a text that is not
# a value of the type, a constraint. Source: https://mariadb.com/kb/en/mariadb-error-codes/.
_DATA_CODES: Final = (1264, 1265, 1292, 1364, 1366, 3819, 4025)
_LOCK_S_MAX: Final = 1  # the least that MySQL has
_SQLITE_LOCK_MS: Final = 5_000
_MYSQL: Final = ("mysql", "mariadb")
# What a value means must not depend on the settings of the server: a TIMESTAMP is in UTC, a value
# that does not fit is refused and not shortened, and 0 in a column that the database numbers is 0.
_MYSQL_SESSION: Final = (
    "SET SESSION time_zone = '+00:00', "
    "sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO')"
)
# Another attempt to connect would fail too; all else, such as a server that starts, may end.
_FINAL: Final = re.compile(
    r"denied|authentication|password|unknown database|does not exist|unable to open|not a database",
    re.I,
)
# In a type, what is no part of its name.
_COLLATION: Final = re.compile(r" (?:CHARACTER SET|COLLATE) .*", re.DOTALL)
_DUCKDB_COLUMNS: Final = """
SELECT column_name, data_type, is_nullable = 'YES', column_default IS NOT NULL
FROM information_schema.columns
WHERE table_name = :name AND table_schema = coalesce(:schema, current_schema())
ORDER BY ordinal_position
"""
_DUCKDB_KEYS: Final = """
SELECT constraint_type, constraint_column_names FROM duckdb_constraints()
WHERE table_name = :name AND schema_name = coalesce(:schema, current_schema())
AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')
ORDER BY constraint_type
"""


class AlchemySession:
    """A connection that SQLAlchemy makes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        try:
            self._engine = sa.create_engine(database.url.reveal(), poolclass=NullPool)
        except exc.NoSuchModuleError:
            raise ConfigError(
                f"{database}: SQLAlchemy does not know this kind of database",
                hint="install the package with its dialect",
            ) from None
        except ImportError as error:
            raise ConfigError(
                f"{database}: the package {error.name!r}, its driver, is not installed",
                hint=f"pip install {error.name}",
            ) from None
        except (exc.ArgumentError, ValueError):  # the text of the error has the URL
            raise ConfigError(f"{database}: the URL cannot be read") from None
        quote = self._engine.dialect.identifier_preparer.initial_quote
        self.dialect = dialect_for(self._engine.dialect.name, quote)
        self._connection: sa.Connection | None = None
        self._waits_for_locks = True

    def open(self) -> None:
        try:
            self._connection = self._engine.connect()
            if self._is_mysql:
                self._connection.exec_driver_sql(_MYSQL_SESSION)
                self._connection.commit()
        except exc.DBAPIError as error:
            cause = error.orig or error
            self.close()
            is_retryable = _FINAL.search(str(cause)) is None
            raise connect_failed(self._database, _plain(cause), retryable=is_retryable) from None
        self._waits_for_locks = True

    def close(self) -> None:
        if self._connection is not None:
            # The connection may be lost, and with it the transaction.
            with suppress(exc.SQLAlchemyError):
                self._connection.close()
            self._connection = None

    def interrupt(self) -> None:
        connection = self._connection
        if connection is None:
            return
        with suppress(Exception):  # it was closed just now, so nothing runs
            driver: Any = connection.connection.driver_connection
            if self._is_mysql:
                # The connection is busy, so another one has to do it.
                with self._engine.connect() as other:
                    other.exec_driver_sql(f"KILL QUERY {int(driver.thread_id())}")
                return
            stop = getattr(driver, "interrupt", None)
            if stop is not None:
                stop()

    def describe(self, table: str) -> Table | None:
        *schemas, name = table_parts(table)
        schema = ".".join(schemas) or None
        with self._errors():
            if self._engine.dialect.name == "duckdb":
                return self._described_by_duckdb(name, schema)
            return self._inspected(name, schema)

    def query(self, statement: Statement) -> Result:
        with self._errors(), self._closed_after():
            found = self._executed(statement)
            return Result(tuple(found.keys()), [tuple(row) for row in found.fetchall()])

    def read(self, rows: Range, limit: int) -> Page:
        return read_page(self, rows, limit)

    def execute(self, statement: Statement) -> int:
        with self._errors(), self._closed_after():
            return _changed(self._executed(statement))

    def begin(self, *, waits: bool = True) -> None:
        self._wait_for_locks(waits=waits)
        with self._errors():
            self._open_connection.begin()

    def commit(self) -> None:
        if self._is_sqlite:  # it locks the file only now
            self._wait_for_locks(waits=True)
        with self._errors():
            self._open_connection.commit()

    def rollback(self) -> None:
        with self._errors():
            self._open_connection.rollback()

    @property
    def is_in_transaction(self) -> bool:
        return self._open_connection.in_transaction()

    def write(self, target: Target, rows: Iterable[Row]) -> None:
        self._many(target.insert(), rows)

    def delete(self, target: Target, keys: Sequence[Row]) -> None:
        self._many(target.delete(), keys)

    def open_transactions(self) -> frozenset[str] | None:
        return None  # there is no query for all databases

    @property
    def _open_connection(self) -> sa.Connection:
        assert self._connection is not None, "open comes first"
        return self._connection

    def _wait_for_locks(self, *, waits: bool) -> None:
        if waits == self._waits_for_locks:
            return
        self._waits_for_locks = waits
        if self._is_mysql:
            limit = "DEFAULT" if waits else _LOCK_S_MAX
            self.execute(Statement(f"SET SESSION innodb_lock_wait_timeout = {limit}"))
        elif self._is_sqlite:
            limit_ms = _SQLITE_LOCK_MS if waits else 0
            self.query(Statement(f"PRAGMA busy_timeout = {limit_ms}"))

    @property
    def _is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @property
    def _is_mysql(self) -> bool:
        return self._engine.dialect.name in _MYSQL

    def _executed(self, statement: Statement) -> sa.CursorResult[Any]:
        if not statement.parameters:
            # Without parameters, a driver does not read a percent sign as the begin of one.
            return self._open_connection.exec_driver_sql(
                statement.text, execution_options={"no_parameters": True}
            )
        return self._open_connection.execute(
            _text(statement.text), _parameters(statement.parameters)
        )

    @contextmanager
    def _closed_after(self) -> Iterator[None]:
        """End the transaction that SQLAlchemy begins for a single statement."""
        is_single = not self._open_connection.in_transaction()
        yield
        if is_single:
            self._open_connection.commit()

    def _many(self, text: str, rows: Iterable[Row]) -> None:
        statement = _text(text)
        left = iter(rows)
        with self._errors():
            while some := [_parameters(row) for row in islice(left, _MANY_ROWS)]:
                self._open_connection.execute(statement, some)

    def _inspected(self, name: str, schema: str | None) -> Table | None:
        with self._closed_after():
            found = sa.inspect(self._open_connection)
            if not (found.has_table(name, schema) or name in found.get_view_names(schema)):
                return None
            names = found.get_pk_constraint(name, schema)["constrained_columns"]
            key = tuple(map(self._name, names))
            columns = tuple(
                self._column(each, is_only_key=key == (self._name(each["name"]),))
                for each in found.get_columns(name, schema)
            )
            constraints = found.get_unique_constraints(name, schema)
            unique = [frozenset(map(self._name, each["column_names"])) for each in constraints]
            for index in found.get_indexes(name, schema):
                names = [each for each in index["column_names"] if each is not None]
                is_partial = any(
                    each.endswith("_where") for each in index.get("dialect_options", {})
                )
                if index["unique"] and not is_partial and len(names) == len(index["column_names"]):
                    unique.append(frozenset(map(self._name, names)))
            keys = [frozenset(key)] if key else []
            return Table(columns, key, (*keys, *unique))

    def _column(self, column: Any, *, is_only_key: bool) -> TableColumn:
        kind = ""
        if not isinstance(column["type"], sa.types.NullType):  # a type that SQLAlchemy knows
            kind = _COLLATION.sub("", column["type"].compile(self._engine.dialect))
        is_row_number = self._engine.dialect.name == "sqlite" and kind.upper() == "INTEGER"
        return TableColumn(
            self._name(column["name"]),
            kind,
            is_nullable=bool(column["nullable"]),
            has_default=column["default"] is not None
            or column.get("autoincrement") is True
            or "identity" in column
            or (is_only_key and is_row_number),
            is_generated="computed" in column,
            labels=tuple(getattr(column["type"], "enums", None) or ()),
        )

    def _name(self, name: str) -> str:
        """Return the name of a column, which SQLAlchemy reads from SQL of MySQL as it is there."""
        return name.replace("``", "`") if self._is_mysql else name

    def _described_by_duckdb(self, name: str, schema: str | None) -> Table | None:
        # Its dialect for SQLAlchemy reads catalogs that DuckDB does not have.
        place = {"name": name, "schema": schema}
        with self._closed_after():
            columns = self._open_connection.execute(sa.text(_DUCKDB_COLUMNS), place).fetchall()
            keys = self._open_connection.execute(sa.text(_DUCKDB_KEYS), place).fetchall()
        if not columns:
            return None
        primary = next((tuple(names) for kind, names in keys if kind == "PRIMARY KEY"), ())
        found = tuple(TableColumn(*row) for row in columns)
        return Table(found, primary, tuple(frozenset(names) for _, names in keys))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            cause = error.orig or error
            is_lost = error.connection_invalidated or isinstance(error, exc.InterfaceError)
            if is_lost or _LATER.search(str(cause)) is not None:
                raise connection_lost(self._database, _plain(cause)) from None
            if _BUSY.search(str(cause)) is not None:
                raise busy(self._database, _plain(cause)) from None
            is_data = isinstance(error, exc.IntegrityError | exc.DataError) or (
                self._is_mysql and cause.args[:1] in [(code,) for code in _DATA_CODES]
            )
            raise refused(self._database, _plain(cause), is_data=is_data) from None


def _plain(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(str(error))


def _text(text: str) -> sa.TextClause:
    """Return a statement with a name for each placeholder."""
    first, *rest = (part.replace(":", r"\:") for part in text.split(MARK))
    return sa.text(first + "".join(f":p{at} {part}" for at, part in enumerate(rest)))


def _parameters(row: Sequence[Any]) -> dict[str, Any]:
    return {f"p{at}": value for at, value in enumerate(row)}


def _changed(result: sa.CursorResult[Any]) -> int:
    if result.rowcount >= 0 or not result.returns_rows:
        return result.rowcount
    return int(result.scalar() or 0)  # DuckDB returns the number as a row
