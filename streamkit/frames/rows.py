"""Values of a stream as columns, and columns as values, for whatever type is declared."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from streamkit.errors import RowError, TopologyError, shown
from streamkit.frames.column import pyarrow
from streamkit.frames.objects import Objects
from streamkit.frames.scalars import Floats
from streamkit.frames.schema import rows_of
from streamkit.frames.untyped import (
    is_untyped,
    part_of,
    untyped_batch,
    untyped_rows,
    untyped_values,
)
from streamkit.record import Kind, Value

_PLACE: Final = re.compile(r"^(?P<why>.*?)(?: - at `\$\[(?P<row>\d+)\](?P<path>.*)`)?$", re.DOTALL)


def batch_maker(kind: Kind) -> Callable[[Sequence[Value]], pyarrow.RecordBatch]:
    """Return what makes columns of values of a type; None is an unknown type.

    Raises:
        TopologyError: Values of the type cannot be columns.
    """
    if is_untyped(kind):
        return partial(untyped_batch, part=part_of(kind))
    return rows_of(kind).batch


class Reading:
    """How columns become values of a type; without a type, rows are dicts.

    A type that is not one of rows with known columns, such as a union, is left to msgspec.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._objects: Objects | None = None
        if not is_untyped(kind):
            try:
                self._objects = rows_of(kind)
            except TopologyError:
                pass  # msgspec converts dicts to it, or says why it cannot

    @property
    def plain_floats(self) -> list[str]:
        """The columns that have NaN where a value is missing, because None is not allowed."""
        fields = () if self._objects is None else self._objects.fields
        return [
            each.name
            for each in fields
            if isinstance(each.column, Floats) and not each.column.is_nullable
        ]

    def rows(self, table: pyarrow.Table) -> list[Value]:
        """Return the rows of a table.

        Raises:
            DataError: It has other columns, or other types of columns.
            RowError: A value is not of the type.
        """
        if self._objects is not None:
            return self._objects.rows(table)
        return self._converted(untyped_rows(table), self._kind)

    def values(self, array: pyarrow.Array) -> list[Value]:
        """Return the values of one column; None is always allowed.

        Raises:
            DataError: It has values that Python does not have.
            RowError: A value is not of the type.
        """
        kind = None if self._kind is None else self._kind | None
        return self._converted(untyped_values("", array), kind)

    def _converted(self, values: list[Value], kind: Kind) -> list[Value]:
        if kind is None:
            return values
        try:
            return msgspec.convert(values, list[kind])
        except msgspec.ValidationError as error:
            found = _PLACE.match(str(error))
            assert found is not None, "the pattern matches every text"
            row = int(found["row"] or 0)
            at = f" at {found['path']}" if found["path"] else ""
            raise RowError(row, f"row {row}{at} is {shown(values[row])}: {found['why']}") from None
