"""Records that wait for a call, and whose values are rows of columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from streamkit.frames.column_rows import ColumnRows, joined_values
from streamkit.state.pending import PendingRecord

_columns: Final = attrgetter("columns")


def records_in(columns: ColumnRows, *others: Iterable[Any]) -> list[PendingRecord]:
    """Return a record for each row of columns. Its value is made when it is asked for.

    Args:
        columns: The values.
        others: The other arguments of `PendingRecord`, one for each row.
    """
    records = list(map(PendingRecord, range(len(columns)), *others))
    for record in records:
        record.columns = columns
    return records


def values_of(records: Sequence[PendingRecord]) -> Sequence[Any]:
    """Return the values of records; as columns, if they are rows of columns."""
    if not records or records[0].columns is None:
        return [record.value for record in records]
    parts: list[Sequence[Any]] = []
    for columns, found in groupby(records, _columns):
        run = list(found)
        if isinstance(columns, ColumnRows) and run[-1].row - run[0].row + 1 == len(run):
            parts.append(columns.part(run[0].row, run[-1].row + 1))
        else:
            parts.append([record.value for record in run])
    return joined_values(parts)
