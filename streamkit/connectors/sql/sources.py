"""Tables and queries as sources. Importable without any driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import msgspec

from streamkit.connectors.sql.columns import ColumnType, row_type
from streamkit.connectors.sql.decoding import is_untyped, plain_row, row_decoder
from streamkit.connectors.sql.dialects import table_parts
from streamkit.connectors.sql.options import (
    Url,
    checked_url,
    database_at,
    duration_s,
    names_of,
    node_name,
    place_of,
)
from streamkit.connectors.sql.queries import check_rows
from streamkit.connectors.sql.tables import key_columns
from streamkit.connectors.sql.url import Database
from streamkit.dataflow.contracts import ConnectorEnv, Decoder, Source, SourceReader
from streamkit.dataflow.lookup_tables import LookupTable, RowFinder
from streamkit.errors import TopologyError, UsageError, shown
from streamkit.record import Kind, Value
from streamkit.serde.binding import Serde
from streamkit.serde.json_values import dumps

PAGE_ROWS_DEFAULT: Final = 10_000
SETTLE_S_DEFAULT: Final = 60.0


class Rows(Source[Any]):
    """What tables and queries have in common: how their rows become values."""

    __slots__ = ()

    def decoder(self, kind: Kind, serde: Serde | None) -> Decoder:
        """Return how rows become values: by the names of their columns, or as dicts.

        Raises:
            TopologyError: The type has no columns, or the user gave ``value=``.
        """
        if serde is not None:
            raise TopologyError(f"{self} has no option value=: its rows are not bytes")
        if kind is None or is_untyped(kind):
            return Decoder(plain_row)
        found = row_decoder(row_type(kind))
        return Decoder(found.one, found.many)

    def encoded(self, value: Value, kind: Kind, serde: Serde | None) -> Value:
        """Return a value as a row of the database."""
        if kind is None or is_untyped(kind):
            return value
        rows = row_type(kind)
        parts = [getter(value) for getter in rows.getters()]
        return {
            column.name: msgspec.Raw(dumps(part)) if column.holds is ColumnType.JSON else part
            for column, part in zip(rows.columns, parts, strict=True)
        }

    def place(self, topic: str, partition: int, offset: int) -> str:
        """Return a text for the place of a row: how many rows of its part come before it."""
        part = f" of part {partition}" if partition else ""
        return f"{topic}, row {offset}{part}"

    def reader(self, env: ConnectorEnv) -> SourceReader:
        # The reader needs these classes, and its driver may be missing.
        from streamkit.connectors.sql.reader import SqlReader

        assert isinstance(self, SqlTable | SqlQuery), "there are no others"
        return SqlReader(self, env)


@dataclass(frozen=True, slots=True, repr=False)
class SqlTable(Rows, LookupTable):
    """The rows of a table, in the order of a column that grows.

    A later poll and a later run read the rows after the last one that was committed. As the table
    of `Stream.lookup`, it has rows that are found by their ``key``.

    Attributes:
        url: ``postgresql://user:password@host/database`` or ``sqlite:///file.db``; a `Secret` with
            it; or a function that returns it when the job starts.
        table: The name of the table, exactly as the database has it; ``"schema.table"`` is allowed.
        incremental: The column that grows when a row is added or changed, such as ``updated_at``.
            Without it, rows are read in order of their key, and changed rows not again.
        key: The column or columns that identify a row. By default the primary key.
        columns: The columns to read; by default all.
        every: Look for new rows again after this time, in seconds or as a timedelta. If it is None,
            the source ends at the last row that the table has when the job starts.
        batch_rows: How many rows one query returns.
        settle: Wait up to this time for transactions that are open, since they may commit rows
            with an earlier place in the order. Only PostgreSQL shows them. 0 does not wait.
        splits: Read this number of ranges of the key at the same time, each with its own
            connection. The key must be one column of whole numbers.
        delay: Leave rows for a later look, or run, whose incremental column has a time less than
            this ago, by the clock of the database.

    Raises:
        UsageError: An argument is not valid.
    """

    url: Url
    table: str
    incremental: str | None = None
    key: str | Sequence[str] | None = None
    columns: Sequence[str] | None = None
    every: float | timedelta | None = None
    batch_rows: int = PAGE_ROWS_DEFAULT
    settle: float | timedelta = SETTLE_S_DEFAULT
    splits: int = 1
    delay: float | timedelta = 0.0

    def __post_init__(self) -> None:
        table_parts(self.table)
        check_rows(self.splits, "splits")
        if self.splits > 1 and self.incremental is not None:
            raise UsageError(
                "splits= divides a table by its key, so it cannot be used with incremental="
            )
        _check_source(self)

    def __repr__(self) -> str:
        return f"SqlTable({place_of(self.url)}, {self.table!r})"

    def __str__(self) -> str:
        return f"table {self.table} of {place_of(self.url)}"

    @property
    def name(self) -> str:
        """A name for the source."""
        return node_name(self.table)

    @property
    def database(self) -> Database:
        """The database; a function that gives its URL is called."""
        return database_at(self.url)

    def check(self, kind: Kind) -> None:
        """Refuse a lookup of rows of a type.

        Raises:
            TopologyError: The type has no columns, or not those of the key.
            UsageError: An option is only for reading the whole table.
        """
        key_columns(row_type(kind), names_of(self.key))
        given = [each for each in ("incremental", "columns", "every") if getattr(self, each)]
        given += ["splits"] if self.splits > 1 else []
        if given:
            raise UsageError(
                f"{given[0]}= of {self} is for reading all rows, not for a lookup",
                hint="a lookup needs the URL, the table and its key; the fields of its row type "
                "are the columns",
            )

    def finder(self, env: ConnectorEnv) -> RowFinder:
        """Create what finds rows by their key."""
        from streamkit.connectors.sql.finder import SqlFinder
        from streamkit.connectors.sql.opening import session_for
        from streamkit.connectors.sql.worker import SessionWorker

        session = session_for(self.database, creates=False)
        worker = SessionWorker(session, env.clock, env.note, f"lookup {env.name}")
        return SqlFinder(worker, self.table, row_type(env.kind), names_of(self.key))


@dataclass(frozen=True, slots=True, repr=False)
class SqlQuery(Rows):
    """The rows of a query, in the order of a column that grows.

    The query is read in pages, as ``SELECT * FROM (query) WHERE (incremental, key) > (...)``, so it
    needs no ORDER BY and no LIMIT of its own.

    Attributes:
        url: As in `SqlTable`.
        query: A SELECT without parameters.
        key: The columns of its result that identify a row.
        incremental: As in `SqlTable`.
        every: As in `SqlTable`.
        batch_rows: As in `SqlTable`.
        settle: As in `SqlTable`.
        name: A name for the source.
        delay: As in `SqlTable`.

    Raises:
        UsageError: An argument is not valid.
    """

    url: Url
    query: str
    key: str | Sequence[str]
    incremental: str | None = None
    every: float | timedelta | None = None
    batch_rows: int = PAGE_ROWS_DEFAULT
    settle: float | timedelta = SETTLE_S_DEFAULT
    name: str = "query"
    delay: float | timedelta = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.query, str) or not self.query.strip(" \t\r\n;"):
            raise UsageError(f"query={shown(self.query)} is not a SELECT")
        if not names_of(self.key):
            raise UsageError("key= is empty", hint='for example key="id"')
        _check_source(self)

    def __repr__(self) -> str:
        return f"SqlQuery({place_of(self.url)}, {self.query!r})"

    def __str__(self) -> str:
        return f"a query of {place_of(self.url)}"

    @property
    def database(self) -> Database:
        """The database; a function that gives its URL is called."""
        return database_at(self.url)


def _check_source(source: SqlTable | SqlQuery) -> None:
    object.__setattr__(source, "url", checked_url(source.url))
    object.__setattr__(source, "key", names_of(source.key))
    if isinstance(source, SqlTable):
        object.__setattr__(source, "columns", names_of(source.columns))
    if source.incremental is not None:
        names_of(source.incremental)
    if source.every is not None:
        object.__setattr__(source, "every", duration_s(source.every, "every", zero=False))
    object.__setattr__(source, "settle", duration_s(source.settle, "settle", zero=True))
    object.__setattr__(source, "delay", duration_s(source.delay, "delay", zero=True))
    if source.delay and source.incremental is None:
        raise UsageError("delay= needs incremental=, the column with the time of a row")
    check_rows(source.batch_rows, "batch_rows")
