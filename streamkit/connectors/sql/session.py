"""What sources and sinks need of one connection to a database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from streamkit.connectors.sql.dialects import Dialect
from streamkit.connectors.sql.queries import Selection, Statement
from streamkit.connectors.sql.rows import Row
from streamkit.connectors.sql.statements import Target
from streamkit.connectors.sql.tables import Table
from streamkit.connectors.sql.url import Database
from streamkit.errors import ConfigError, ConnectFailed, DataError, StreamKitError, TransportError
from streamkit.record import Value

_SPACES: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Result:
    """The rows of a query, and the names of their columns. JSON is a `msgspec.Raw`."""

    names: tuple[str, ...]
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Range:
    """The rows to read next. ``is_new``: they do not follow those of the last call."""

    selection: Selection
    after: Sequence[Value] | None
    until: Sequence[Value]
    is_new: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order. ``following`` is the row after them, if it is known; ``is_last``: there is
    none."""

    result: Result
    is_last: bool
    following: Row | None = None


class Session(Protocol):
    """One connection. Its methods block; only `interrupt` may be called from another thread.

    Errors of the connection are TransportError: what was not committed is lost, and a commit may
    have happened or not. Any other error of the database is a StreamKitError.
    """

    dialect: Dialect

    def open(self) -> None:
        """Connect.

        Raises:
            ConnectFailed: The database cannot be reached; not retryable if it refuses the user.
            ConfigError: It cannot be opened at all, for example because a driver is missing.
        """

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back."""

    def interrupt(self) -> None:
        """Make a statement that runs now in another thread fail soon."""

    def describe(self, table: str) -> Table | None:
        """Return the columns and keys of a table; None if there is no such table."""

    def query(self, statement: Statement) -> Result:
        """Return the rows of a query."""

    def read(self, rows: Range, limit: int) -> Page:
        """Return the next rows of a range, at most ``limit``."""

    def execute(self, statement: Statement) -> int:
        """Carry out a statement and return how many rows it changed."""

    def begin(self, *, waits: bool = True) -> None:
        """Begin a transaction that writes.

        Args:
            waits: Whether it waits for locks of other transactions. Otherwise `DatabaseBusy` is
                raised soon, also by later statements of the transaction.
        """

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction has begun and not ended."""

    def write(self, target: Target, rows: Iterable[Row]) -> None:
        """Write rows in the current transaction. With a key, each key occurs at most once."""

    def delete(self, target: Target, keys: Sequence[Row]) -> None:
        """Delete the rows with these keys in the current transaction."""

    def open_transactions(self) -> frozenset[str] | None:
        """Return the transactions of other sessions that may still write; None if not known."""


class DatabaseBusy(TransportError):
    """Another transaction holds a lock that this one needs."""


def read_page(session: Session, rows: Range, limit: int) -> Page:
    """Read a page with a query of its own, which also returns the row after the page."""
    found = session.query(rows.selection.page(limit + 1, after=rows.after, until=rows.until))
    if len(found.rows) <= limit:
        return Page(found, is_last=True)
    return Page(Result(found.names, found.rows[:limit]), False, found.rows[limit])


def driver_missing(module: str, extra: str) -> ConfigError:
    """Return the error for an optional package that is not installed."""
    return ConfigError(
        f"the package {module!r} is not installed", hint=f"pip install 'fluvio-streamkit[{extra}]'"
    )


def connect_failed(database: Database, error: Exception, *, retryable: bool) -> ConnectFailed:
    """Return the error for a database that cannot be reached."""
    return ConnectFailed(
        str(database),
        _text(database, error),
        hint="" if retryable else "check the URL, the user and the password",
        retryable=retryable,
    )


def connection_lost(database: Database, error: Exception) -> TransportError:
    """Return the error for a connection that ended, or a server that cannot answer now."""
    return TransportError(f"{database}: {_text(database, error)}", sent=True)


def busy(database: Database, error: Exception) -> DatabaseBusy:
    """Return the error for a lock that another transaction holds."""
    return DatabaseBusy(f"{database}: {_text(database, error)}", sent=True)


def refused(database: Database, error: Exception, *, is_data: bool) -> StreamKitError:
    """Return the error for a statement that the database refuses."""
    kind = DataError if is_data else StreamKitError
    return kind(f"{database} refused a statement: {_text(database, error)}")


def _text(database: Database, error: Exception) -> str:
    """Return the text of an error in one line, without passwords."""
    text = _SPACES.sub(" ", database.hidden(str(error))).strip()
    return text or type(error).__name__
