"""Finds rows of a table by key, for async stages: many calls share a query, and rows are kept."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from types import TracebackType
from typing import Final, Generic, TypeVar, cast

import anyio

from streamkit.connectors.sql.columns import row_type
from streamkit.connectors.sql.dialects import table_parts
from streamkit.connectors.sql.finder import SqlFinder
from streamkit.connectors.sql.keyed_reader import Key
from streamkit.connectors.sql.opening import session_for
from streamkit.connectors.sql.options import Url, checked_url, database_at, duration_s, names_of
from streamkit.connectors.sql.queries import check_rows
from streamkit.connectors.sql.tables import key_columns
from streamkit.connectors.sql.worker import SessionWorker
from streamkit.dataflow.lookup_tables import MISSING, RowCache
from streamkit.env import SystemClock
from streamkit.errors import UsageError
from streamkit.record import Value

T = TypeVar("T")

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
        self._finder: SqlFinder | None = None
        self._wanted: dict[Key, _Wanted] = {}
        self._turn = anyio.Lock()

    async def __aenter__(self) -> SqlLookup[T]:
        """Connect; wait while the database is away.

        Raises:
            ConfigError: The table or a column does not exist.
        """
        session = session_for(database_at(self._url), creates=False)
        worker = SessionWorker(session, self._clock, _ignore, f"lookup in {self._table}")
        finder = SqlFinder(worker, self._table, self._rows, self._key)
        try:
            await finder.open()
        except BaseException:
            await finder.close()
            raise
        self._finder = finder
        return self

    async def __aexit__(
        self,
        kind: builtins.type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._finder is not None:
            await self._finder.close()

    async def find(self, key: Value) -> T | None:
        """Return the row with a key; None if there is none.

        Raises:
            StreamKitError: The database refuses the query.
            ValueError: The key is not one of the table, or the row is not of the type.
        """
        assert self._finder is not None, "the lookup must be opened with `async with`"
        values = self._finder.encoded(key)
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
        finder = self._finder
        assert finder is not None, "it was opened"
        others = islice((each for each in self._wanted if each != own), finder.keys_max - 1)
        keys = [own, *others]
        # Not in a finally block: a call that was cancelled leaves its key to the others.
        found = await finder.find(keys)
        now_s = self._clock.monotonic_s()
        for key in keys:
            each = wanted if key == own else self._wanted[key]
            self._wanted.pop(key, None)
            each.is_found = True
            try:
                each.row = finder.decoded(found[key]) if key in found else None
            except ValueError as error:
                each.error = error
                continue
            self._cache.put(key, each.row, now_s)


def _ignore(text: str) -> None:
    """Show nothing: calls that wait for the database are seen by their stage."""
