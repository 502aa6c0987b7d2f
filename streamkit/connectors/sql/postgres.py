"""PostgreSQL, with psycopg."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from streamkit.connectors.sql.dialects import POSTGRES
from streamkit.connectors.sql.postgres_catalog import described
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
    refused,
)
from streamkit.connectors.sql.statements import Target
from streamkit.connectors.sql.tables import ARRAY_MARK, Table
from streamkit.connectors.sql.url import Database
from streamkit.errors import ConfigError, StreamKitError
from streamkit.record import Value

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.pq import TransactionStatus

    from streamkit.connectors.sql.postgres_values import register
except ImportError as error:
    raise driver_missing("psycopg", "postgres") from error

# For each connection, unless the URL has its own; a dead network must not hold a job for ever.
_OPTIONS: Final = {
    "application_name": "streamkit",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "tcp_user_timeout": "60000",
}
# The values of a table must not depend on the settings of its server or its user.
_SESSION: Final = "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'"
_INTERRUPT_S_MAX: Final = 5.0
_LOCK_MS_MAX: Final = 500
# Source: https://www.postgresql.org/docs/current/errcodes-appendix.html. The server ends or starts,
# or has no free connection, memory or disk, or is a standby since another one is the primary.
_TRANSIENT: Final = ("08", "25006", "53", "57P01", "57P02", "57P03", "57P05", "40001")
# A lock that is not granted in time, or a deadlock.
_BUSY: Final = ("55P03", "40P01")
_DATA: Final = ("22", "23")
_STATEMENT_POOL: Final = "statement pooling mode"
# An error of a connection has no code. These say that another attempt would fail too; all else,
# such as a server that starts, may end.
_FINAL: Final = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "not permitted to log in",
    "permission denied",
    "does not support SSL",
    "certificate",
)
_COPIED_TYPES: Final = {
    "bigint": "int8",
    "integer": "int4",
    "smallint": "int2",
    "numeric": "numeric",
    "double precision": "float8",
    "real": "float4",
    "boolean": "bool",
    "text": "text",
    "character varying": "text",
    "character": "text",
    "citext": "text",
    "bytea": "bytea",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "date": "date",
    "time without time zone": "time",
    "interval": "interval",
    "uuid": "uuid",
    "jsonb": "jsonb",
    "json": "json",
}
# An array has the type of its items in it, which must be exactly that of the column.
_COPIED_ITEMS: Final = {
    **_COPIED_TYPES,
    "character varying": "varchar",
    "character": "",
    "citext": "",
}
_CURSOR: Final = "streamkit_page"
_STAGE: Final = "pg_temp.streamkit_rows"
# A vacuum writes no rows, but may run for hours; neither do the cursors of other sources.
_TRANSACTIONS: Final = """
SELECT l.virtualtransaction
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'virtualxid' AND l.granted AND l.mode = 'ExclusiveLock'
  AND l.pid <> pg_backend_pid() AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
  AND strpos(coalesce(a.query, ''), 'streamkit_page') = 0
  AND a.datid = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL
SELECT gid FROM pg_prepared_xacts WHERE database = current_database()
"""


@dataclass(frozen=True, slots=True)
class _Written:
    """A table that is written to.

    ``types`` are those in which its columns are copied, empty if one is not known. Binary values
    take a small part of the time that text takes, but need the exact types.
    """

    types: tuple[str, ...]
    is_view: bool


class PostgresSession:
    """A connection to a server."""

    dialect = POSTGRES

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: psycopg.Connection[tuple[Value, ...]] | None = None
        self._has_cursor = False
        # The tables that this transaction writes to.
        self._tables: dict[Target, _Written] = {}
        self._reads_all_times = False

    def open(self) -> None:
        url = self._database.url.reveal()
        try:
            given = conninfo_to_dict(url)
            conninfo = make_conninfo(url, **{k: v for k, v in _OPTIONS.items() if k not in given})
        except psycopg.Error:
            # Its text has the URL, and so the password.
            unreadable = ValueError("the URL cannot be read")
            raise connect_failed(self._database, unreadable, retryable=False) from None
        try:
            self._connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)
            self._connection.execute(_SESSION)
        except psycopg.Error as error:
            self.close()
            is_retryable = _may_connect_later(error)
            raise connect_failed(self._database, error, retryable=is_retryable) from None
        register(self._connection, reads_all_times=self._reads_all_times)

    def close(self) -> None:
        self._has_cursor = False
        self._tables.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def interrupt(self) -> None:
        connection = self._connection
        if connection is not None:
            try:
                connection.cancel_safe(timeout=_INTERRUPT_S_MAX)
            except psycopg.Error:
                pass  # the connection has ended, so nothing runs

    def describe(self, table: str) -> Table | None:
        # In a parameter, a percent sign is not a placeholder.
        return described(self.query, self.dialect.table(table).replace("%%", "%"))

    def query(self, statement: Statement) -> Result:
        with self._errors():
            cursor = self._open_connection.execute(_sql(statement.text), statement.parameters)
            names = tuple(each.name for each in cursor.description or ())
            try:
                return Result(names, cursor.fetchall())
            except psycopg.DataError as error:
                if self._reads_all_times:
                    raise
                # A time that Python does not have. The call is repeated with other loaders.
                self._reads_all_times = True
                raise connection_lost(self._database, error) from error

    def read(self, rows: Range, limit: int) -> Page:
        # A cursor sorts the rows once, where a query for each page could sort all that are left.
        if rows.is_new or not self._has_cursor:
            if self._has_cursor:
                self._close_cursor()
            statement = rows.selection.rows(after=rows.after, until=rows.until)
            self.execute(Statement("BEGIN READ ONLY"))
            text = f"DECLARE {_CURSOR} NO SCROLL CURSOR FOR {statement.text}"
            self.execute(Statement(text, statement.parameters))
            self._has_cursor = True
        found = self.query(Statement(f"FETCH {limit:d} FROM {_CURSOR}"))
        is_last = len(found.rows) < limit
        if is_last:
            self._close_cursor()
        return Page(found, is_last)

    def _close_cursor(self) -> None:
        self._has_cursor = False
        self.execute(Statement("COMMIT"))

    def execute(self, statement: Statement) -> int:
        with self._errors():
            cursor = self._open_connection.execute(_sql(statement.text), statement.parameters)
            return cursor.rowcount

    def begin(self, *, waits: bool = True) -> None:
        self._tables.clear()
        self.execute(Statement("BEGIN"))
        if not waits:
            self.execute(Statement(f"SET LOCAL lock_timeout = {_LOCK_MS_MAX}"))

    def commit(self) -> None:
        self.execute(Statement("COMMIT"))

    def rollback(self) -> None:
        self.execute(Statement("ROLLBACK"))

    @property
    def is_in_transaction(self) -> bool:
        return self._open_connection.info.transaction_status != TransactionStatus.IDLE

    def write(self, target: Target, rows: Iterable[Row]) -> None:
        written = self._written(target)
        if not target.key and not written.is_view:
            self._copy(self.dialect.table(target.table), target, written.types, rows)
            return
        # COPY cannot replace rows, and not write to a view, so rows are copied to a table of this
        # transaction first.
        names = self.dialect.quoted_all(target.columns)
        self.execute(
            Statement(
                f"CREATE TEMPORARY TABLE IF NOT EXISTS {_STAGE} ON COMMIT DROP AS "
                f"SELECT {names} FROM {self.dialect.table(target.table)} WITH NO DATA"
            )
        )
        self._copy(_STAGE, target, written.types, rows)
        self.execute(Statement(target.insert_from(_STAGE)))
        self.execute(Statement(f"TRUNCATE {_STAGE}"))

    def delete(self, target: Target, keys: Sequence[Row]) -> None:
        with self._errors(), self._open_connection.cursor() as cursor:
            cursor.executemany(_sql(target.delete()), keys)

    def open_transactions(self) -> frozenset[str] | None:
        found = self.query(Statement("SELECT pg_is_in_recovery()")).rows
        if found[0][0]:
            return None  # a standby does not know the transactions of its primary
        return frozenset(name for (name,) in self.query(Statement(_TRANSACTIONS)).rows)

    @property
    def _open_connection(self) -> psycopg.Connection[tuple[Value, ...]]:
        assert self._connection is not None, "open comes first"
        return self._connection

    def _written(self, target: Target) -> _Written:
        """Return how rows are copied to a table in this transaction.

        The table is locked against changes of its columns first: binary values of another type
        would be read as wrong ones.
        """
        if target not in self._tables:
            relation = self.dialect.table(target.table)
            self.execute(Statement(f"LOCK TABLE {relation} IN ROW EXCLUSIVE MODE"))
            table = self.describe(target.table)
            known = {each.name: each.type for each in table.columns} if table else {}
            kinds = [self.dialect.kind_of(known.get(name, "")) for name in target.columns]
            types = tuple(map(_copied_type, kinds))
            types = types if all(types) else ()
            self._tables[target] = _Written(types, table is not None and table.is_view)
        return self._tables[target]

    def _copy(
        self, relation: str, target: Target, types: Sequence[str], rows: Iterable[Row]
    ) -> None:
        names = self.dialect.quoted_all(target.columns).replace("%%", "%")
        options = " (FORMAT BINARY)" if types else ""
        text = f"COPY {relation.replace('%%', '%')} ({names}) FROM STDIN{options}"
        connection = self._open_connection
        with self._errors(), connection.cursor() as cursor, cursor.copy(_sql(text)) as copy:
            if types:
                copy.set_types(types)
            try:
                for row in rows:
                    copy.write_row(row)
            except (TypeError, ValueError, ArithmeticError, struct.error) as error:
                # Rows were checked against the columns that the table had when the job started.
                raise StreamKitError(
                    f"{self._database}: a row does not fit into {target.table} any more: {error}",
                    hint="its columns have changed; start the job again to see what does not match",
                ) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            state = error.sqlstate or ""
            if _STATEMENT_POOL in str(error):
                raise ConfigError(
                    f"{self._database}: PgBouncer allows no transactions in its statement mode",
                    hint="set pool_mode = transaction, or connect to PostgreSQL itself",
                ) from None
            is_lost = self._connection is None or self._connection.closed
            if state.startswith(_BUSY):
                raise busy(self._database, error) from error
            if is_lost or state.startswith(_TRANSIENT):
                raise connection_lost(self._database, error) from error
            raise refused(self._database, error, is_data=state.startswith(_DATA)) from error


def _copied_type(kind: str) -> str:
    """Return the type in which values of a column are copied; empty if it is not known."""
    if not kind.endswith(ARRAY_MARK):
        return _COPIED_TYPES.get(kind, "")
    item = _COPIED_ITEMS.get(kind.removesuffix(ARRAY_MARK).rstrip(), "")
    return f"{item}{ARRAY_MARK}" if item else ""


def _may_connect_later(error: psycopg.Error) -> bool:
    is_operational = isinstance(error, psycopg.OperationalError)
    return is_operational and not any(each in str(error) for each in _FINAL)


def _sql(text: str) -> bytes:
    return text.encode()
