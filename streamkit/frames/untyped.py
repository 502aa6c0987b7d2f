"""Rows of no declared type: dicts, whose columns are found in each batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any, Final, get_args, get_origin, is_typeddict

from streamkit.errors import DataError, RowError, TopologyError
from streamkit.frames.column import (
    Column,
    ColumnError,
    arrow_types,
    first_failed,
    misfit,
    pyarrow,
)
from streamkit.frames.moments import Dates, Durations, Instants, Locals, Times
from streamkit.frames.objects import combined
from streamkit.frames.scalars import Binaries, Texts
from streamkit.frames.schema import rows_of
from streamkit.frames.types import column_of
from streamkit.record import Kind, Value
from streamkit.serde.kinds import bare

_LITERAL_KEYS_MAX: Final = 200


def is_untyped(kind: Kind) -> bool:
    """Return whether the columns of rows are only known when the rows are there."""
    kind = bare(kind)
    found = get_origin(kind) or kind
    if kind in (None, Any):
        return True
    return isinstance(found, type) and issubclass(found, Mapping) and not is_typeddict(found)


def part_of(kind: Kind) -> Column | None:
    """Return the column of each key in dicts of a type such as ``dict[str, float]``.

    Raises:
        TopologyError: The keys are not text, or the values cannot be a column.
    """
    arguments = get_args(bare(kind))
    if len(arguments) != 2:
        return None
    key, part = map(bare, arguments)
    if key not in (str, Any):
        raise TopologyError(f"the names of columns are text, but the keys of {kind} are not")
    return None if part in (None, Any) else column_of(part)


def untyped_batch(rows: Sequence[Value], part: Column | None) -> pyarrow.RecordBatch:
    """Return rows as columns: dicts, or objects of one class with fields.

    Args:
        rows: The rows.
        part: The column of each key; None if it is found from the values.

    Raises:
        RowError: A row does not fit to those before it; the message names the field.
    """
    kinds = set(map(type, rows))
    if len(kinds) == 1 and not issubclass(kind := next(iter(kinds)), Mapping):
        try:
            return rows_of(kind).batch(rows)
        except TopologyError as error:
            raise RowError(0, str(error)) from None
    names = _names(rows, kinds)
    arrays = [_array(name, [row.get(name) for row in rows], part) for name in names]
    return pyarrow.RecordBatch.from_arrays(arrays, names=names)


def untyped_rows(table: pyarrow.Table | pyarrow.RecordBatch) -> list[Value]:
    """Return columns as dicts.

    Raises:
        DataError: A column has values that Python does not have, such as nanoseconds.
    """
    names = table.schema.names
    columns = [untyped_values(name, combined(table.column(name))) for name in names]
    return _maker_of(tuple(names))(columns)


@lru_cache(maxsize=256)
def _maker_of(names: tuple[str, ...]) -> Callable[[Sequence[list[Value]]], list[Value]]:
    """Return what makes dicts with these keys from columns of the same length."""
    if not names or len(names) > _LITERAL_KEYS_MAX:
        return lambda columns: [
            dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)
        ]
    # A literal takes a third of the time of `dict(zip(names, row))`.
    row = ", ".join(f"v{number}" for number in range(len(names)))
    items = ", ".join(f"{name!r}: v{number}" for number, name in enumerate(names))
    make: Callable[[Sequence[list[Value]]], list[Value]] = eval(
        f"lambda columns: [{{{items}}} for {row}, in zip(*columns)]"
    )
    return make


def untyped_exact_batch(
    table: pyarrow.Table | pyarrow.RecordBatch,
) -> pyarrow.RecordBatch | None:
    """Return columns as one batch, if `untyped_rows` certainly succeeds with them."""
    names = table.schema.names
    if not names or len(set(names)) < len(names):
        return None
    arrays = [combined(table.column(name)) for name in names]
    if not all(map(_is_certain, arrays)):
        return None
    return pyarrow.RecordBatch.from_arrays(arrays, schema=table.schema)


def _is_certain(array: pyarrow.Array) -> bool:
    """Return whether all values of an array can certainly be read."""
    kind = array.type
    if any(each(kind) for each in _NUMBERS):
        return True
    if arrow_types.is_dictionary(kind):
        return _is_certain(array.dictionary)
    if arrow_types.is_struct(kind):
        return all(map(_is_certain, array.flatten()))
    if any(each(kind) for each in _LISTS):
        return _is_certain(array.flatten())
    column = next((each for each in _CERTAIN if each.arrow == kind or each.reads(kind)), None)
    return column is not None and column.exact(array) is not None


def untyped_values(name: str, array: pyarrow.Array) -> list[Value]:
    """Return the values of a column.

    Raises:
        DataError: It has values that Python does not have, such as nanoseconds.
    """
    try:
        if arrow_types.is_dictionary(array.type):
            array = array.dictionary_decode()
        found: list[Value] = _read(array)
    except Exception as error:
        raise DataError(f"the column {name!r} of a frame cannot be read: {error}") from None
    return found


def _names(rows: Sequence[Value], kinds: set[type]) -> list[str]:
    if not all(issubclass(each, Mapping) for each in kinds):
        number = next(n for n, row in enumerate(rows) if not isinstance(row, Mapping))
        text = f"row {number} is of type {type(rows[number]).__name__}, but rows of a frame are "
        raise RowError(number, f"{text}dicts, or objects of one class")
    if not all(rows):
        number = next(n for n, row in enumerate(rows) if not row)
        raise RowError(number, f"row {number} has no fields")
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    for other in (name for name in names if not isinstance(name, str)):
        number = next(n for n, row in enumerate(rows) if other in row)
        raise RowError(number, f"row {number} has the key {other!r}, but names of columns are text")
    return names


def _array(name: str, values: Sequence[Value], part: Column | None) -> pyarrow.Array:
    build = _inferred if part is None else part.build
    try:
        return build(values)
    except Exception:
        number = first_failed(build, values, len(values))
    try:
        build(values[: number + 1])
    except Exception as error:
        text = misfit(f"row {number}: the field {name!r}", values[number], error)
        raise RowError(number, text) from None
    raise AssertionError("a value that fits was reported as wrong")


def _inferred(values: Sequence[Value]) -> pyarrow.Array:
    kinds = set(map(type, values)) - {type(None)}
    if kinds and all(issubclass(each, datetime) for each in kinds):
        first = next(each for each in values if each is not None)
        return (Locals if first.tzinfo is None else Instants)(is_nullable=True).build(values)
    if bool in kinds and kinds != {bool}:
        raise ColumnError("other rows have another type there")
    return pyarrow.array(values)


def _read(array: pyarrow.Array) -> list[Value]:
    kind = array.type
    for column in _QUICK:
        if column.arrow == kind or column.reads(kind):
            return column.read(array)
    if arrow_types.is_map(kind):
        return array.to_pylist(maps_as_pydicts="strict")  # type: ignore[no-any-return]
    return array.to_pylist()  # type: ignore[no-any-return]


# Their own conversion is faster than that of Arrow.
_QUICK = [kind(is_nullable=True) for kind in (Instants, Locals, Dates, Times, Durations)]
_CERTAIN = [*_QUICK, *(kind(is_nullable=True) for kind in (Texts, Binaries))]
# Every value of these can be read.
_NUMBERS: Final = (
    arrow_types.is_integer,
    arrow_types.is_floating,
    arrow_types.is_decimal,
    arrow_types.is_boolean,
    arrow_types.is_null,
)
_LISTS: Final = (arrow_types.is_list, arrow_types.is_large_list, arrow_types.is_fixed_size_list)
