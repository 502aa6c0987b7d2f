"""Values of a stream as columns, and columns as values, for whatever type is declared."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from streamkit.errors import DataError, RowError, TopologyError, shown
from streamkit.frames.column import pyarrow
from streamkit.frames.column_rows import ColumnRows
from streamkit.frames.objects import Objects
from streamkit.frames.scalars import Floats
from streamkit.frames.schema import rows_of
from streamkit.frames.untyped import (
    is_untyped,
    part_of,
    untyped_batch,
    untyped_exact_batch,
    untyped_rows,
    untyped_values,
)
from streamkit.record import Kind, Value
from streamkit.serde.kinds import bare

_PLACE: Final = re.compile(r"^(?P<why>.*?)(?: - at `\$\[(?P<row>\d+)\](?P<path>.*)`)?$", re.DOTALL)


def batch_maker(kind: Kind) -> Callable[[Sequence[Value]], pyarrow.RecordBatch]:
    """Return what makes columns of values of a type; None is an unknown type.

    Raises:
        TopologyError: Values of the type cannot be columns.
    """
    if is_untyped(kind):
        return partial(untyped_batch, part=part_of(kind))
    return rows_of(kind).batch


def batch_of(values: Sequence[Value], kind: Kind) -> pyarrow.RecordBatch:
    """Return values of a type as columns; those that are columns stay what they are.

    Raises:
        RowError: A value does not fit.
    """
    if type(values) is ColumnRows and values.kind == kind:
        return values.batch
    return batch_maker(kind)(values)


class Reading:
    """How columns become values of a type; without a type, rows are dicts.

    A type that is not one of rows with known columns, such as a union, is left to msgspec.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        # Whether rows are dicts of any values, which need no conversion.
        self._is_free = bare(kind) in (None, Any, dict, dict[str, Any])
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

    def columns_of(self, schema: pyarrow.Schema, given: Sequence[str] | None = None) -> list[str]:
        """Return the columns of a file that the type has; others of the file are not read.

        Args:
            schema: The columns of the file.
            given: Those to read for dicts; by default all.

        Raises:
            DataError: The file has not the columns that the type needs, or has other types.
        """
        names = schema.names
        fields = () if self._objects is None else self._objects.fields
        wanted = [each.name for each in fields] or (names if given is None else given)
        found = [name for name in wanted if name in names]
        if not fields and len(found) < len(wanted):
            missing = next(name for name in wanted if name not in names)
            raise DataError(f"there is no column {missing!r}, only {', '.join(names)}")
        for each in fields:
            if each.name in found:
                problem = each.column.problem(schema.field(each.name).type)
                if problem and names.count(each.name) == 1:
                    raise DataError(f"the column {each.name!r} {problem}")
            elif not each.is_optional:
                raise DataError(f"there is no column {each.name!r}, only {', '.join(names)}")
        for name in found:
            if names.count(name) > 1:
                raise DataError(f"there are several columns {name!r}")
        if not found:
            raise DataError(f"there is no column of the type, only {', '.join(names) or 'none'}")
        return found

    def rows(self, table: pyarrow.Table | pyarrow.RecordBatch) -> list[Value]:
        """Return the rows of a table.

        Raises:
            DataError: It has other columns, or other types of columns.
            RowError: A value is not of the type.
        """
        if self._objects is not None:
            return self._objects.rows(table)
        rows = untyped_rows(table)
        return rows if self._is_free else self._converted(rows, self._kind)

    def columns(self, table: pyarrow.Table | pyarrow.RecordBatch) -> ColumnRows | None:
        """Return the rows of a table without making them, if `rows` certainly succeeds.

        None means that only `rows` can find out whether each row is of the type.
        """
        batch = self.exact_batch(table)
        return None if batch is None else self.of_exact(batch)

    def exact_batch(self, table: pyarrow.Table | pyarrow.RecordBatch) -> pyarrow.RecordBatch | None:
        """Return the columns for `of_exact`; None if a row may be not of the type."""
        if self._objects is not None:
            return self._objects.exact_batch(table)
        return untyped_exact_batch(table) if self._is_free else None

    def of_exact(self, batch: pyarrow.RecordBatch) -> ColumnRows:
        """Return the rows of a batch that `exact_batch` has returned, or of a part of it."""
        return ColumnRows(batch, self._kind, self.rows)

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
