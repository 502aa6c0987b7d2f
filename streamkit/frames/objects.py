"""Columns of objects with fields: each field is a column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import count
from operator import attrgetter
from typing import Final, Literal

from msgspec import UNSET

from streamkit.errors import DataError, RowError
from streamkit.frames.column import (
    Column,
    ColumnError,
    arrow_types,
    first_failed,
    misfit,
    pyarrow,
    reason,
)
from streamkit.record import Value

Absent = Literal["none", "unset", "missing"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an object.

    ``key`` is its name in the program, ``name`` that of its column, as in JSON. ``is_optional``:
    an object can be made without it. ``absent`` is what an object has if a column has null, but
    the type of the field does not allow None: an unset field, or a key that is missing.
    """

    key: str
    name: str
    column: Column
    is_optional: bool = False
    absent: Absent = "none"


class Objects(Column):
    """Objects of one class, or dicts with known keys.

    Args:
        kind: Their class; dict for those of a TypedDict.
        fields: Their fields, in the order in which the class takes them.
        takes_order: Whether the class can be called with all fields in order.
        is_nullable: Whether an object may be None.
    """

    def __init__(
        self,
        kind: type,
        name: str,
        fields: Sequence[Field],
        *,
        takes_order: bool,
        is_nullable: bool = False,
    ) -> None:
        self.kinds = (kind,)
        self.name = name
        super().__init__(is_nullable=is_nullable)
        self._make = kind
        self._takes_order = takes_order
        self.fields: Final = tuple(fields)
        self.schema: Final = pyarrow.schema(
            [
                pyarrow.field(each.name, each.column.arrow, each.column.is_nullable)
                for each in fields
            ]
        )
        self.arrow = pyarrow.struct(list(self.schema))

    # --- rows to columns -------------------------------------------------------------

    def batch(self, rows: Sequence[Value]) -> pyarrow.RecordBatch:
        """Return rows as columns.

        Raises:
            RowError: A row does not fit; the message names the field.
        """
        try:
            self._check(set(map(type, rows)))
            arrays = [each.column.build(self._values(each, rows)) for each in self.fields]
        except Exception:
            raise self._row_error(rows) from None
        return pyarrow.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _values(self, field: Field, rows: Sequence[Value]) -> list[Value]:
        if self._make is not dict:
            return list(map(attrgetter(field.key), rows))
        key = field.key
        if field.absent == "missing":
            return [row.get(key) for row in rows]
        return [row[key] for row in rows]

    def _row_error(self, rows: Sequence[Value]) -> RowError:
        """Return the error for the first row that does not fit."""

        def converted(part: Sequence[Value]) -> None:
            self._check(set(map(type, part)))
            for each in self.fields:
                each.column.build(self._values(each, part))

        number = first_failed(converted, rows, len(rows))
        return RowError(number, f"row {number}: {self._row_problem(rows[number])}")

    def _row_problem(self, row: Value) -> str:
        try:
            self._check({type(row)})
        except ColumnError as error:
            return misfit("the value", row, error)
        for each in self.fields:
            try:
                values = self._values(each, [row])
            except (AttributeError, KeyError):
                return f"the value has no field {each.key!r}"
            try:
                each.column.build(values)
            except Exception as error:
                return misfit(f"the field {each.key!r}", values[0], error)
        raise AssertionError("a row that fits was reported as wrong")

    def _build(self, values: Sequence[Value]) -> pyarrow.Array:
        full = [each for each in values if each is not None]
        arrays = []
        for each in self.fields:
            try:
                arrays.append(each.column.build(self._values(each, full)))
            except Exception as error:
                raise ColumnError(f"in its field {each.key!r}: {reason(error)}") from None
        array = pyarrow.StructArray.from_arrays(arrays, fields=list(self.schema))
        if len(full) == len(values):
            return array
        places = count()
        taken = [None if each is None else next(places) for each in values]
        return array.take(pyarrow.array(taken, pyarrow.int64()))

    # --- columns to rows -------------------------------------------------------------

    def rows(self, table: pyarrow.Table | pyarrow.RecordBatch) -> list[Value]:
        """Return columns as rows.

        Raises:
            RowError: A value does not fit into its field; the message names the field.
            DataError: The table has other columns, or other types of columns.
        """
        problem = self._names_problem(table.schema.names) if len(table) else ""
        if problem:
            raise DataError(f"a frame for {self.name} {problem}")
        given = {each.name: combined(table.column(each.name)) for each in table.schema}
        columns: dict[str, list[Value]] = {}
        for field in self.fields:
            if field.name in given:
                columns[field.key] = _field_values(field, given[field.name])
        return self._made(columns, len(table))

    def exact_batch(self, table: pyarrow.Table | pyarrow.RecordBatch) -> pyarrow.RecordBatch | None:
        """Return columns with the types of the fields, if `rows` certainly succeeds with them.

        None means that only `rows` can find out whether each row fits.
        """
        if not _is_plain(self._make) or self._names_problem(table.schema.names):
            return None
        if len(table.schema) != len(self.fields):
            return None
        arrays = []
        for each in self.fields:
            array = each.column.exact(combined(table.column(each.name)))
            if array is None:
                return None
            arrays.append(array)
        return pyarrow.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _names_problem(self, names: Sequence[str]) -> str:
        """Return how the names of columns differ from those of the fields."""
        known = [each.name for each in self.fields]
        absent = [each.name for each in self.fields if not each.is_optional]
        missing = [name for name in absent if name not in names]
        other = [name for name in names if name not in known]
        parts = []
        if missing:
            parts.append(f"lacks {_columns(missing)}")
        if len(set(names)) < len(names):
            parts.append("has several columns of the same name")
        if other:
            close = get_close_matches(other[0], known, 1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            parts.append(f"has {_columns(other)}, for which there is no field{meant}")
        return " and ".join(parts)

    def problem(self, given: pyarrow.DataType) -> str:
        if arrow_types.is_null(given):
            return ""
        if not arrow_types.is_struct(given):
            return super().problem(given)
        found = {each.name: each.type for each in given}
        if problem := self._names_problem(list(found)):
            return problem
        for field in self.fields:
            if field.name in found and (problem := field.column.problem(found[field.name])):
                return f"has a field {field.name!r} that {problem}"
        return ""

    def reads(self, given: pyarrow.DataType) -> bool:
        return bool(arrow_types.is_struct(given)) and not self.problem(given)

    def _cast(self, array: pyarrow.Array) -> pyarrow.Array:
        return array  # its fields cast themselves

    def _read(self, array: pyarrow.Array) -> list[Value]:
        full = array.drop_null()
        found = {each.name for each in array.type}
        columns = {
            each.key: _with_absent(each, each.column.read(full.field(each.name)))
            for each in self.fields
            if each.name in found
        }
        made = self._made(columns, len(full))
        if len(full) == len(array):
            return made
        left = iter(made)
        return [next(left) if is_valid else None for is_valid in array.is_valid().to_pylist()]

    def _made(self, columns: Mapping[str, list[Value]], height: int) -> list[Value]:
        make: Callable[..., Value] = self._make
        if self._takes_order and len(columns) == len(self.fields):
            return list(map(make, *columns.values()))
        keys = list(columns)
        rows = zip(*columns.values(), strict=True) if columns else [()] * height
        leaves_out = {each.key for each in self.fields if each.absent == "missing"}
        if leaves_out:
            return [
                {
                    key: value
                    for key, value in zip(keys, row, strict=True)
                    if value is not None or key not in leaves_out
                }
                for row in rows
            ]
        return [make(**dict(zip(keys, row, strict=True))) for row in rows]


def _is_plain(kind: type) -> bool:
    """Return whether a class runs no code of the user when an object is made."""
    if hasattr(kind, "__post_init__"):
        return False
    code = getattr(kind.__init__, "__code__", None)  # type: ignore[misc]
    return code is None or code.co_filename == "<string>"  # made by `dataclass`


def _field_values(field: Field, array: pyarrow.Array) -> list[Value]:
    problem = field.column.problem(array.type)
    if problem and len(array):
        raise DataError(f"the column {field.name!r} of a frame {problem}")
    try:
        return _with_absent(field, field.column.read(array))
    except Exception:
        number = first_failed(field.column.read, array, len(array))
    try:
        field.column.read(array[number : number + 1])
    except Exception as error:
        value = _shown_value(array[number])
        text = misfit(f"row {number}: the column {field.name!r}", value, error)
        raise RowError(number, text) from None
    raise AssertionError("a value that fits was reported as wrong")


def _shown_value(scalar: pyarrow.Scalar) -> Value:
    try:
        return scalar.as_py()
    except Exception:  # such as a text that is not UTF-8, or a time that Python does not have
        return scalar


def _with_absent(field: Field, values: list[Value]) -> list[Value]:
    if field.absent != "unset" or None not in values:
        return values
    return [UNSET if value is None else value for value in values]


def combined(column: pyarrow.Array | pyarrow.ChunkedArray) -> pyarrow.Array:
    """Return the parts of a column as one array."""
    if not isinstance(column, pyarrow.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _columns(names: Sequence[str]) -> str:
    listed = ", ".join(map(repr, names))
    return f"the column {listed}" if len(names) == 1 else f"the columns {listed}"
