"""Looks up the rows of records in tables that stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import repeat
from operator import is_

from streamkit.dataflow.lookup_tables import MISSING, RowCache, RowFinder, RowLookup
from streamkit.errors import RowError
from streamkit.observe.facts import Lookups
from streamkit.record import Value


class OpenLookup:
    """The lookups of one stage in one run.

    Args:
        lookup: What the stage looks up.
        finder: Finds the rows.
        now_s: The monotonic time.
    """

    def __init__(self, lookup: RowLookup, finder: RowFinder, now_s: Callable[[], float]) -> None:
        self._lookup = lookup
        self._finder = finder
        self._now_s = now_s
        self._cache = RowCache(lookup.cache_rows, lookup.cache_s)
        self._queries = 0
        self._keys = 0
        self._without_row = 0

    def figures(self) -> Lookups:
        """Return what the lookups have cost so far."""
        return Lookups(self._queries, self._keys, self._without_row)

    async def open(self) -> None:
        """Connect.

        Raises:
            StreamKitError: The table cannot be used.
        """
        await self._finder.open()

    async def close(self) -> None:
        """Close everything."""
        await self._finder.close()

    async def call(self, values: Sequence[Value]) -> list[Value]:
        """Return the result of each value; None for one that is dropped.

        Raises:
            RowError: A function of the user failed for a value, or its row is not valid.
            StreamKitError: The rows cannot be read.
        """
        lookup = self._lookup
        keys = self._encoded(_listed(values, map(lookup.on, values)))
        found, invalid = await self._rows(keys)
        if invalid:
            row = next(row for row, key in enumerate(keys) if key in invalid)
            raise RowError(row) from invalid[keys[row]]
        combine, drops_missing = lookup.combine, lookup.drops_missing
        rows = list(map(found.__getitem__, keys))
        self._without_row += sum(map(is_, rows, repeat(None)))
        return _listed(
            values,
            (
                None if row is None and drops_missing else combine(value, row)
                for value, row in zip(values, rows, strict=True)
            ),
        )

    def _encoded(self, keys: Sequence[Value]) -> Sequence[Hashable]:
        given = [key for key in keys if key is not None]
        try:
            encoded = self._finder.encoded_all(given)
            hash(tuple(encoded))
        except Exception:
            for row, key in enumerate(keys):
                if key is not None:
                    self._refuse_key(row, key)
            raise  # a finder that refuses all keys, but none of them alone
        if len(given) == len(keys):
            return encoded
        rest = iter(encoded)
        return [None if key is None else next(rest) for key in keys]

    def _refuse_key(self, row: int, key: Value) -> None:
        try:
            hash(self._finder.encoded(key))
        except Exception as error:
            raise RowError(row) from error

    async def _rows(
        self, keys: Sequence[Hashable]
    ) -> tuple[Mapping[Hashable, Value], Mapping[Hashable, Exception]]:
        """Return the row of each key, and the errors of rows that are not valid."""
        now_s = self._now_s()
        get = self._cache.get
        rows = {key: get(key, now_s) for key in dict.fromkeys(keys)}
        rows[None] = None  # what has no key has no row
        wanted = [key for key, row in rows.items() if row is MISSING]
        invalid: dict[Hashable, Exception] = {}
        for at in range(0, len(wanted), self._finder.keys_max):
            part = wanted[at : at + self._finder.keys_max]
            self._queries += 1
            self._keys += len(part)
            found = await self._finder.find(part)
            now_s = self._now_s()
            for key in part:
                try:
                    rows[key] = self._finder.decoded(found[key]) if key in found else None
                except Exception as error:
                    invalid[key] = error
                    continue
                self._cache.put(key, rows[key], now_s)
        return rows, invalid


def _listed(values: Sequence[Value], results: Iterable[Value]) -> list[Value]:
    """Return what a function of the user gives for each value.

    Raises:
        RowError: It failed for a value.
    """
    listed: list[Value] = []
    try:
        listed.extend(results)
        if len(listed) < len(values):  # for `extend`, StopIteration means the end
            raise RuntimeError("the function raised StopIteration")
    except BaseException as error:  # the user's function may raise anything
        raise RowError(len(listed)) from error
    return listed
