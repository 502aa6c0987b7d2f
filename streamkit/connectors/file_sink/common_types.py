"""Finds types of Arrow for values and columns whose types are not declared.

| values of a column | its type |
|---|---|
| of one type | that type |
| whole numbers and fractions | fractions, if no number changes |
| whole numbers and decimals | decimals |
| times of different time zones | times in UTC |
| lists or objects | those of the common types of their parts |
| others | text: values that are not text as JSON |

So a row never fails because of other rows, and a file can always be written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, time
from decimal import Decimal
from itertools import chain
from typing import Final

import pyarrow
from pyarrow import types

from streamkit.frames.moments import Instants, Locals
from streamkit.record import Value
from streamkit.serde.finite import not_finite
from streamkit.serde.json_values import dumps

Batches = Callable[[], Iterator[pyarrow.RecordBatch]]

_TEXT: Final = pyarrow.string()
_INDEX_BITS: Final = 32
_UNITS: Final = ("s", "ms", "us", "ns")
_NONE: Final = type(None)


# --- values --------------------------------------------------------------------------


def batch_of_dicts(rows: Sequence[Value]) -> tuple[pyarrow.RecordBatch, list[str]]:
    """Return dicts as columns, and the names of those whose values have no common type."""
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    mixed = []
    arrays = []
    for name in names:
        values = [row.get(name) for row in rows]
        array = _array(values)
        if array is None:
            mixed.append(name)
            array = _texts(values)
        arrays.append(array)
    return pyarrow.RecordBatch.from_arrays(arrays, names=names), mixed


def _array(values: Sequence[Value]) -> pyarrow.Array | None:
    """Return values as an array of their common type, or None if they have no such type."""
    if not _have_common_type(values):
        return None
    kinds = set(map(type, values)) - {_NONE}
    try:
        if kinds == {datetime}:
            is_aware = next(each for each in values if each is not None).tzinfo is not None
            return (Instants if is_aware else Locals)(is_nullable=True).build(values)
        if kinds == {int, Decimal}:
            values = [None if each is None else Decimal(each) for each in values]
        return pyarrow.array(values)
    except OverflowError:
        return _large_numbers(values)
    except (pyarrow.ArrowException, ValueError, TypeError):
        return None


def _large_numbers(values: Sequence[Value]) -> pyarrow.Array | None:
    try:
        return pyarrow.array(values, pyarrow.uint64())
    except (OverflowError, pyarrow.ArrowException, TypeError):
        return None


def _have_common_type(values: Sequence[Value]) -> bool:
    """Return whether Arrow may find the type of values; it would change some others in silence."""
    kinds = set(map(type, values)) - {_NONE}
    if kinds <= {int, float} or kinds == {int, Decimal}:
        return True
    if len(kinds) != 1:
        return False
    kind = next(iter(kinds))
    full = [each for each in values if each is not None]
    if kind is list:
        return _have_common_type(list(chain.from_iterable(full)))
    if kind is dict:
        names = set(chain.from_iterable(full))
        return all(_have_common_type([each.get(name) for each in full]) for name in names)
    if kind is datetime:
        return len({each.tzinfo is None for each in full}) == 1
    return kind is not time or all(each.tzinfo is None for each in full)


def _texts(values: Sequence[Value]) -> pyarrow.Array:
    return pyarrow.array([_text(each) for each in values], _TEXT)


def _text(value: Value) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float | Decimal | datetime | time):
        return value.isoformat() if isinstance(value, datetime | time) else str(value)
    if not_finite(value) is not None:  # which `dumps` would replace by null
        return json.dumps(value, default=str)
    data = dumps(value).decode()
    return data[1:-1] if data.startswith('"') else data


# --- columns -------------------------------------------------------------------------


def united(batches: Batches) -> tuple[pyarrow.Schema, list[str]]:
    """Return the columns that all batches fit into, and the names of those that become text.

    Args:
        batches: Returns the batches; it is called several times.
    """
    dictionaries: dict[str, pyarrow.Array] = {}
    # Each once: rows with few of many fields have many schemas.
    schemas = dict.fromkeys(_with_wide_indices(batch, dictionaries) for batch in batches())
    if len(schemas) < 2:
        given = next(iter(schemas), pyarrow.schema([]))
        kept = [each.with_type(_storable(each.type)) for each in given]
        return pyarrow.schema(kept, given.metadata), []
    kinds: dict[str, pyarrow.DataType | None] = {}
    for field in chain.from_iterable(schemas):
        known = kinds.get(field.name, field.type)
        kinds[field.name] = None if known is None else _common(known, field.type)
    mixed = [name for name, kind in kinds.items() if kind is None]
    found = {name: _TEXT if kind is None else _storable(kind) for name, kind in kinds.items()}
    for batch in batches():
        for field in batch.schema:
            kind = found[field.name]
            if field.type != kind and not _fits(batch.column(field.name), kind):
                found[field.name] = _TEXT
                mixed.append(field.name)
    return pyarrow.schema([pyarrow.field(name, kind) for name, kind in found.items()]), mixed


def _with_wide_indices(
    batch: pyarrow.RecordBatch, dictionaries: dict[str, pyarrow.Array]
) -> pyarrow.Schema:
    """Return the schema of a batch, with room for the dictionaries of several batches together.

    Args:
        batch: The batch.
        dictionaries: The first dictionary of each column; those of the batch are added.
    """
    schema = batch.schema
    for at, field in enumerate(schema):
        if types.is_dictionary(field.type) and field.type.index_type.bit_width < _INDEX_BITS:
            found = batch.column(at).dictionary
            if not dictionaries.setdefault(field.name, found).equals(found):
                schema = schema.set(at, field.with_type(_wide(field.type)))
    return schema


def _wide(kind: pyarrow.DataType) -> pyarrow.DataType:
    return pyarrow.dictionary(pyarrow.int32(), kind.value_type, kind.ordered)


def _common(one: pyarrow.DataType, other: pyarrow.DataType) -> pyarrow.DataType | None:
    """Return a type that values of two types fit into, or None if only text would do."""
    if one == other:
        return one
    if all(map(types.is_dictionary, (one, other))) and _wide(one) == _wide(other):
        return _wide(one)
    if types.is_dictionary(one) or types.is_dictionary(other):
        plain = [each.value_type if types.is_dictionary(each) else each for each in (one, other)]
        return _common(*plain)
    both = (one, other)
    if all(types.is_timestamp(each) and each.tz is not None for each in both):
        return pyarrow.timestamp(max((each.unit for each in both), key=_UNITS.index), "UTC")
    if any(map(types.is_decimal, both)) and any(map(types.is_floating, both)):
        return None
    if any(map(_is_text, both)) != all(map(_is_text, both)) and not any(map(types.is_null, both)):
        return None  # also of bytes, which are not text
    fields = [pyarrow.schema([pyarrow.field("", each)]) for each in both]
    try:
        return pyarrow.unify_schemas(fields, promote_options="permissive").field(0).type
    except pyarrow.ArrowException:
        return None


def _is_text(kind: pyarrow.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _fits(column: pyarrow.Array, kind: pyarrow.DataType) -> bool:
    try:
        converted(column, kind)
    except (pyarrow.ArrowException, ValueError, OverflowError, TypeError):
        return False
    return True


def converted(column: pyarrow.Array, kind: pyarrow.DataType) -> pyarrow.Array:
    """Return a column with the type that `united` has found.

    Raises:
        Exception: A value does not fit; Arrow and Python have many errors for that.
    """
    if column.type == kind:
        return column
    if types.is_dictionary(kind):
        found = (
            column.dictionary_decode() if types.is_dictionary(column.type) else column
        ).dictionary_encode()
        return pyarrow.DictionaryArray.from_arrays(
            found.indices, found.dictionary, ordered=kind.ordered
        )
    if types.is_dictionary(column.type):
        return converted(column.dictionary_decode(), kind)
    if kind == _TEXT and not (_is_text(column.type) or types.is_null(column.type)):
        try:
            return _texts(column.to_pylist())
        except (ValueError, TypeError, OverflowError):  # values that Python does not have
            return column.cast(_TEXT)
    try:
        return column.cast(kind)
    except pyarrow.ArrowException:
        pass  # Arrow cannot make decimals of whole numbers, whatever their values are
    return pyarrow.array(_without_empty(column.to_pylist()), kind)


def _storable(kind: pyarrow.DataType) -> pyarrow.DataType:
    """Return a type without objects that have no fields, which Parquet cannot have."""
    if types.is_struct(kind):
        parts = [each.with_type(_storable(each.type)) for each in kind]
        return pyarrow.struct(parts) if parts else pyarrow.null()
    if types.is_list(kind):
        return pyarrow.list_(kind.value_field.with_type(_storable(kind.value_type)))
    return kind


def _without_empty(value: Value) -> Value:
    """Replace each object that has no fields by None."""
    if isinstance(value, dict):
        return {key: _without_empty(each) for key, each in value.items()} or None
    return [_without_empty(each) for each in value] if isinstance(value, list) else value
