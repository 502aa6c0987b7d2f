"""Tables that stay where they are, such as in a database, and are looked up by key.

Users find the contract, `LookupTable` and `RowFinder`, in `streamkit.connectors`.

| step of a lookup | who does it |
|---|---|
| records wait while a query is in progress; the next query is for all of them | the engine |
| ``on=`` gives their keys | the user's function |
| rows that were found a short time ago are used again | the engine, `RowCache` |
| the others are found | `RowFinder.find` |
| ``combine=`` makes a result of each record and its row | the user's function |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from streamkit.dataflow.contracts import ConnectorEnv
from streamkit.record import Kind, Value

MISSING: Final = object()


class LookupTable(ABC):
    """Describes a place where rows are found by key. Use a frozen dataclass."""

    def check(self, kind: Kind) -> None:  # noqa: B027  # may stay empty
        """Refuse lookups of rows of a type, when the graph is made.

        Raises:
            StreamKitError: The type, or an option of this table, is not for lookups.
        """

    @abstractmethod
    def finder(self, env: ConnectorEnv) -> RowFinder:
        """Create what finds the rows in one run; it must not open anything yet.

        ``env.kind`` is the type of the rows.
        """


class RowFinder(ABC):
    """Finds the rows of one table. Used by one task, one call at a time."""

    # How many keys one call of `find` gets at most.
    keys_max: int = 500

    @abstractmethod
    async def open(self) -> None:
        """Connect.

        Raises:
            StreamKitError: The table cannot be used.
        """

    def encoded(self, key: Value) -> Hashable:
        """Return a key as `find` gets it; equal keys must have the same row.

        Raises:
            ValueError: It is not a key of the table. The error is that of its record.
        """
        return key  # type: ignore[no-any-return]

    def encoded_all(self, keys: Sequence[Value]) -> Sequence[Hashable]:
        """Return many keys as `find` gets them; if it raises, each key is given to `encoded`."""
        return list(map(self.encoded, keys))

    @abstractmethod
    async def find(self, keys: Sequence[Hashable]) -> Mapping[Hashable, Value]:
        """Return the rows of some different keys, by key; keys without a row are left out.

        Raises:
            StreamKitError: The rows cannot be read.
        """

    def decoded(self, row: Value) -> Value:
        """Return a row as the user gets it.

        Raises:
            ValueError: It is not of the type. The error is that of each record with its key.
        """
        return row

    @abstractmethod
    async def close(self) -> None:
        """Close everything; also called if `open` has failed, and more than once."""


@dataclass(frozen=True, slots=True)
class RowLookup:
    """How the records of a stage look up rows.

    ``drops_missing``: drop a record without a row. ``cache_rows`` and ``cache_s`` are how many rows
    are kept, and for how long.
    """

    table: LookupTable
    row_type: Kind
    on: Callable[[Value], object]
    combine: Callable[[Value, Value], Value]
    drops_missing: bool
    cache_rows: int
    cache_s: float

    def __str__(self) -> str:
        return str(self.table)


class RowCache:
    """Rows by their keys, for a limited time; the least recently used ones are dropped first."""

    def __init__(self, rows_max: int, for_s: float) -> None:
        self._rows_max = rows_max
        self._for_s = for_s
        self._rows: OrderedDict[Hashable, tuple[float, Value]] = OrderedDict()

    def get(self, key: Hashable, now_s: float) -> Value:
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

    def put(self, key: Hashable, row: Value, now_s: float) -> None:
        """Keep the row of a key; None for a key without a row."""
        if self._rows_max == 0:
            return
        self._rows[key] = (now_s, row)
        self._rows.move_to_end(key)
        if len(self._rows) > self._rows_max:
            self._rows.popitem(last=False)
