"""The rows that a test gives to a lookup, in place of a table of a connector."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from streamkit.dataflow.lookup_tables import RowFinder, RowLookup
from streamkit.errors import UsageError
from streamkit.record import Value
from streamkit.runtime.row_lookups import OpenLookup


class GivenRows(RowFinder):
    """Finds rows that a test has given.

    Args:
        name: The name of the stage.
        lookup: What it looks up.
    """

    def __init__(self, name: str, lookup: RowLookup) -> None:
        self.rows: Mapping[Hashable, Value] | None = None
        self._name = name
        # The test may give other rows later.
        uncached = replace(lookup, cache_rows=0)
        self.call = OpenLookup(uncached, self, lambda: 0.0).call

    async def open(self) -> None:
        pass

    async def find(self, keys: Sequence[Hashable]) -> Mapping[Hashable, Value]:
        if self.rows is None:
            raise UsageError(
                f"the test has no rows for {self._name!r}, and does not open the table",
                hint=f"give them before the records: job.set_rows({self._name!r}, {{key: row}})",
            )
        return {key: self.rows[key] for key in keys if key in self.rows}

    async def close(self) -> None:
        pass
