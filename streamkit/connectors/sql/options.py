"""Tables and queries of databases, as users describe them. Importable without any driver."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, get_args

from streamkit.connectors.sql.dialects import table_parts
from streamkit.connectors.sql.queries import check_rows
from streamkit.connectors.sql.url import Database, database_of
from streamkit.errors import UsageError, shown
from streamkit.record import Value
from streamkit.settings.secret import Secret
from streamkit.units import seconds_of

# A function is called when the job starts, so it may read the settings of the job.
Url = str | Secret | Callable[[], str | Secret]
Mode = Literal["insert", "upsert", "ignore"]

PAGE_ROWS_DEFAULT: Final = 10_000
SETTLE_S_DEFAULT: Final = 60.0
_NAME_CHARACTERS_MAX: Final = 60


@dataclass(frozen=True, slots=True, repr=False)
class SqlTable:
    """The rows of a table, in the order of a column that grows.

    A later poll and a later run read the rows after the last one that was committed.

    Args:
        url: ``postgresql://user:password@host/database``, ``sqlite:///file.db``, or a URL of
            SQLAlchemy; a `Secret` with it; or a function that returns it when the job starts.
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

    def __post_init__(self) -> None:
        table_parts(self.table)
        check_rows(self.splits, "splits")
        if self.splits > 1 and self.incremental is not None:
            raise UsageError(
                "splits= divides a table by its key, so it cannot be used with incremental="
            )
        _check_source(self)

    def __repr__(self) -> str:
        return f"SqlTable({_place(self.url)}, {self.table!r})"

    def __str__(self) -> str:
        return f"table {self.table} of {_place(self.url)}"

    @property
    def name(self) -> str:
        """A name for the source."""
        return node_name(self.table)

    @property
    def database(self) -> Database:
        """The database; a function that gives its URL is called."""
        return _database(self.url)


@dataclass(frozen=True, slots=True, repr=False)
class SqlQuery:
    """The rows of a query, in the order of a column that grows.

    The query is read in pages, as ``SELECT * FROM (query) WHERE (incremental, key) > (...)``, so it
    needs no ORDER BY and no LIMIT of its own.

    Args:
        url: As in `SqlTable`.
        query: A SELECT without parameters.
        key: The columns of its result that identify a row.
        incremental: As in `SqlTable`.
        every: As in `SqlTable`.
        batch_rows: As in `SqlTable`.
        settle: As in `SqlTable`.
        name: A name for the source.

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

    def __post_init__(self) -> None:
        if not isinstance(self.query, str) or not self.query.strip(" \t\r\n;"):
            raise UsageError(f"query={shown(self.query)} is not a SELECT")
        if not names_of(self.key):
            raise UsageError("key= is empty", hint='for example key="id"')
        _check_source(self)

    def __repr__(self) -> str:
        return f"SqlQuery({_place(self.url)}, {self.query!r})"

    def __str__(self) -> str:
        return f"a query of {_place(self.url)}"

    @property
    def database(self) -> Database:
        """The database; a function that gives its URL is called."""
        return _database(self.url)


@dataclass(frozen=True, slots=True, repr=False)
class SqlSink:
    """A table that rows are written to.

    Args:
        url: As in `SqlTable`.
        table: The name of the table, exactly as the database has it; ``"schema.table"`` is allowed.
        mode: ``"insert"`` adds rows. ``"upsert"`` replaces the row with the same key. ``"ignore"``
            keeps the row that has the key already.
        key: The column or columns that identify a row; only with ``"upsert"`` and ``"ignore"``.
        create: Create the table if it is missing.
        deletes: With ``"upsert"``: a value that is None deletes the row with the key of the record.

    Raises:
        UsageError: An argument is not valid.
    """

    url: Url
    table: str
    mode: Mode = "insert"
    key: str | Sequence[str] | None = None
    create: bool = True
    deletes: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _checked_url(self.url))
        table_parts(self.table)
        object.__setattr__(self, "key", names_of(self.key))
        if self.mode not in get_args(Mode):
            raise UsageError(
                f"mode={shown(self.mode)} is not a valid mode",
                hint=f"use {', '.join(map(repr, get_args(Mode)))}",
            )
        if self.mode == "insert" and self.key:
            raise UsageError(
                'mode="insert" has no key=', hint='use mode="upsert" to replace rows by their key'
            )
        if self.mode != "insert" and not self.key:
            raise UsageError(f"mode={self.mode!r} needs key=", hint='for example key="id"')

    def __repr__(self) -> str:
        return f"SqlSink({_place(self.url)}, {self.table!r}, mode={self.mode!r})"

    def __str__(self) -> str:
        return f"table {self.table} of {_place(self.url)}"

    @property
    def name(self) -> str:
        """A name for the sink."""
        return f"to-{node_name(self.table)}"[:_NAME_CHARACTERS_MAX]

    @property
    def database(self) -> Database:
        """The database; a function that gives its URL is called."""
        return _database(self.url)


def node_name(table: str) -> str:
    """Return the name of a node for a table: a-z, 0-9 and ``-``."""
    plain = re.sub(r"[^a-z0-9]+", "-", table_parts(table)[-1].lower()).strip("-")
    return plain[:_NAME_CHARACTERS_MAX].rstrip("-") or "table"


def names_of(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return names of columns that were given as one name or several.

    Raises:
        UsageError: They are not names.
    """
    found = (names,) if isinstance(names, str) else tuple(names or ())
    for each in found:
        if not isinstance(each, str) or not each:
            raise UsageError(f"{shown(each)} is not the name of a column")
    if len(set(found)) != len(found):
        raise UsageError(f"a column is named twice: {', '.join(found)}")
    return found


def duration_s(value: Value, name: str, *, zero: bool) -> float:
    """Return a duration in seconds.

    Raises:
        UsageError: It is not a valid duration.
    """
    seconds = seconds_of(value) if isinstance(value, int | float | timedelta) else math.nan
    if isinstance(value, bool) or not math.isfinite(seconds) or seconds < 0:
        raise UsageError(f"{name}={shown(value)} must be a number of seconds or a timedelta")
    if seconds == 0 and not zero:
        raise UsageError(f"{name}= must be more than 0 seconds")
    return float(seconds)


def _check_source(source: SqlTable | SqlQuery) -> None:
    object.__setattr__(source, "url", _checked_url(source.url))
    object.__setattr__(source, "key", names_of(source.key))
    if isinstance(source, SqlTable):
        object.__setattr__(source, "columns", names_of(source.columns))
    if source.incremental is not None:
        names_of(source.incremental)
    if source.every is not None:
        object.__setattr__(source, "every", duration_s(source.every, "every", zero=False))
    object.__setattr__(source, "settle", duration_s(source.settle, "settle", zero=True))
    check_rows(source.batch_rows, "batch_rows")


def _checked_url(url: Url) -> Url:
    """Return a URL that does not show its password.

    Raises:
        UsageError: It is not a valid URL.
    """
    return url if callable(url) else database_of(url).url


def _database(url: Url) -> Database:
    return database_of(url() if callable(url) else url)


def _place(url: Url) -> str:
    return "a database of the settings" if callable(url) else str(database_of(url))
