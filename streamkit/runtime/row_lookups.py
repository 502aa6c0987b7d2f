"""Looks up the rows of records in tables that stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from streamkit.dataflow.lookup_tables import MISSING, RowCache, RowFinder, RowLookup
from streamkit.errors import RowError
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
        keys = [self._key(row, value) for row, value in enumerate(values)]
        found, invalid = await self._rows(keys)
        combine, drops_missing = self._lookup.combine, self._lookup.drops_missing
        results: list[Value] = []
        for row, (value, key) in enumerate(zip(values, keys, strict=True)):
            if key in invalid:
                raise RowError(row) from invalid[key]
            found_row = found[key]
            if found_row is None and drops_missing:
                results.append(None)
                continue
            try:
                results.append(combine(value, found_row))
            except BaseException as error:  # the user's function may raise anything
                raise RowError(row) from error
        return results

    def _key(self, row: int, value: Value) -> Hashable:
        try:
            key = self._lookup.on(value)
            encoded = None if key is None else self._finder.encoded(key)
            hash(encoded)
        except BaseException as error:
            raise RowError(row) from error
        return encoded

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
