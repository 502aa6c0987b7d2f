"""Finds rows of a table by their key, for stages: many calls share a query, and rows are kept."""

from __future__ import annotations

import builtins
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Final, Generic, TypeVar, cast

import anyio

from streamkit.connectors.sql.columns import row_type
from streamkit.connectors.sql.dialects import table_parts
from streamkit.connectors.sql.keyed_reader import KeyedReader, keyed_reader
from streamkit.connectors.sql.opening import session_for
from streamkit.connectors.sql.options import Url, checked_url, database_at, duration_s, names_of
from streamkit.connectors.sql.queries import check_rows
from streamkit.connectors.sql.session import Session
from streamkit.connectors.sql.tables import (
    existing_columns,
    key_columns,
    limits_of,
    refuse_absent,
)
from streamkit.connectors.sql.worker import SessionWorker
from streamkit.env import SystemClock
from streamkit.errors import UsageError
from streamkit.record import Value

T = TypeVar("T")
# The values of the key columns, as the database has them.
Key = tuple[Value, ...]

MISSING: Final = object()
_CACHE_ROWS: Final = 100_000
_CACHE_S: Final = 60.0


@dataclass(eq=False, slots=True)
class _Wanted:
    """A key that calls wait for, and what was found."""

    is_found: bool = False
    row: Value = None
    error: Exception | None = None


class SqlLookup(Generic[T]):
    """Finds rows of a table by their key. Open it in the lifespan of the app.

    Calls that wait at the same time share a query. A row that was found, or not found, is kept for
    a time, so a change in the table is seen late.

    Args:
        url: As in `SqlTable`.
        table: The name of the table.
        type: The type of its rows: a msgspec Struct, a dataclass or a TypedDict.
        key: The column or columns that identify a row; `find` gets a tuple for several.
        cache_rows: How many rows are kept, the least recently used are dropped; 0 keeps none.
        cache_for: For how long a row is kept, in seconds or as a timedelta.

    Raises:
        UsageError: An argument is not valid.
        TopologyError: The type has no columns, or not those of the key.
    """

    def __init__(
        self,
        url: Url,
        table: str,
        type: type[T],
        key: str | Sequence[str],
        *,
        cache_rows: int = _CACHE_ROWS,
        cache_for: float | timedelta = _CACHE_S,
    ) -> None:
        self._url = checked_url(url)
        self._table = table
        table_parts(table)
        self._rows = row_type(type)
        self._key = key_columns(self._rows, names_of(key))
        if not self._key:
            raise UsageError("key= is empty", hint='for example key="id"')
        if cache_rows != 0:
            check_rows(cache_rows, "cache_rows")
        self._cache = RowCache(cache_rows, duration_s(cache_for, "cache_for", zero=True))
        self._clock = SystemClock()
        self._worker: SessionWorker | None = None
        self._reader: KeyedReader | None = None
        self._wanted: dict[Key, _Wanted] = {}
        self._turn = anyio.Lock()

    async def __aenter__(self) -> SqlLookup[T]:
        """Connect; wait while the database is away.

        Raises:
            ConfigError: The table or a column does not exist.
        """
        database = database_at(self._url)
        session = session_for(database, creates=False)
        self._worker = SessionWorker(session, self._clock, _ignore, f"lookup in {self._table}")
        try:
            self._reader = await self._worker.repeat(self._make_reader)
        except BaseException:
            await self._worker.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: builtins.type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._worker is not None:
            await self._worker.close()

    async def find(self, key: Value) -> T | None:
        """Return the row with a key; None if there is none.

        Raises:
            StreamKitError: The database refuses the query.
            ValueError: The key is not one of the table, or the row is not of the type.
        """
        assert self._reader is not None, "the lookup must be opened with `async with`"
        values = self._reader.encoded(key)
        kept = self._cache.get(values, self._clock.monotonic_s())
        if kept is not MISSING:
            return cast("T | None", kept)
        wanted = self._wanted.setdefault(values, _Wanted())
        # One call makes a query for all that wait for their turn; the others find their row.
        async with self._turn:
            if not wanted.is_found:
                await self._find_all(values, wanted)
        if wanted.error is not None:
            raise wanted.error
        return cast("T | None", wanted.row)

    async def _find_all(self, own: Key, wanted: _Wanted) -> None:
        assert self._reader is not None, "it was opened"
        assert self._worker is not None, "it was opened"
        others = islice((each for each in self._wanted if each != own), self._reader.keys_max - 1)
        keys = [own, *others]
        # Not in a finally block: a call that was cancelled leaves its key to the others.
        found = await self._worker.repeat(partial(self._reader.read, keys))
        now_s = self._clock.monotonic_s()
        for key in keys:
            each = wanted if key == own else self._wanted[key]
            self._wanted.pop(key, None)
            each.is_found = True
            try:
                each.row = self._reader.decoded(found.get(key))
            except ValueError as error:
                each.error = error
                continue
            self._cache.put(key, each.row, now_s)

    def _make_reader(self, session: Session) -> KeyedReader:
        what = f"the table {self._table}"
        table = refuse_absent(what, session.describe(self._table))
        existing_columns(what, session.dialect, self._rows.names, table)
        limits = limits_of(session.dialect, table, self._rows)
        return keyed_reader(session.dialect, self._table, self._rows, self._key, limits)


class RowCache:
    """Rows by their keys, for a limited time; the least recently used ones are dropped first."""

    def __init__(self, rows_max: int, for_s: float) -> None:
        self._rows_max = rows_max
        self._for_s = for_s
        self._rows: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def get(self, key: Key, now_s: float) -> Value:
        """Return the row of a key; `MISSING` if it is not kept, or for too long."""
        found = self._rows.get(key)
        if found is None:
            return MISSING
        kept_s, row = found
        if now_s - kept_s >= self._for_s:
            del self._rows[key]
            return MISSING
        self._rows.move_to_end(key)
        return row

    def put(self, key: Key, row: Value, now_s: float) -> None:
        """Keep a row; None says that there is none."""
        if self._rows_max == 0:
            return
        self._rows[key] = (now_s, row)
        self._rows.move_to_end(key)
        if len(self._rows) > self._rows_max:
            self._rows.popitem(last=False)


def _ignore(text: str) -> None:
    """Show nothing: calls that wait for the database are seen by their stage."""
