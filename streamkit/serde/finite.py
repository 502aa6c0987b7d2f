"""Finds NaN and infinity, which JSON does not have: msgspec and pydantic write them as null.

Columns are checked as a whole for speed. If the floats of a class are plain fields, each field is
summed up: the sum is finite only if every value is. Other values are searched only if their
encoded bytes contain ``null``.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any

import msgspec

from streamkit.serde.kinds import is_pydantic, may_hold_floats, members

Fault = tuple[int, Exception]
_LEAVES = (str, bytes, int, type(None))
_SEQUENCES = (list, tuple, set, frozenset)
_NUMBERS = (float, int, bool, type(None))
_ROWS_SEARCHED = 256
_has_null = re.compile(b"null").search


def lost_float(values: Sequence[Any], encoded: Sequence[bytes]) -> Fault | None:
    """Return the first row with a NaN or infinity and its error; None without one."""
    if _all_finite(values):
        return None
    for start in range(0, len(encoded), _ROWS_SEARCHED):
        # One search over joined rows is faster than one per row, and the copy is small.
        if _has_null(b"".join(encoded[start : start + _ROWS_SEARCHED])):
            fault = _first_lost(values, encoded, range(start, start + _ROWS_SEARCHED))
            if fault is not None:
                return fault
    return None


def not_finite(value: Any) -> str | None:
    """Return the path to the first NaN or infinity in a value; None without one."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    if isinstance(value, _LEAVES):
        return None
    for step, part in _parts(value):
        path = not_finite(part)
        if path is not None:
            return (f".{step}" if isinstance(step, str) else f"[{step[0]!r}]") + path
    return None


def _first_lost(values: Sequence[Any], encoded: Sequence[bytes], rows: range) -> Fault | None:
    for row in rows[: len(encoded) - rows.start]:
        path = not_finite(values[row]) if b"null" in encoded[row] else None
        if path is not None:
            where = f" at {path}" if path else ""
            return row, ValueError(
                f"the value has NaN or infinity{where}, which JSON cannot represent: "
                "use None, or your own format with value="
            )
    return None


def _all_finite(values: Sequence[Any]) -> bool:
    """Return True only if all floats are certainly finite; False if sums cannot decide it."""
    kinds = set(map(type, values))
    if len(kinds) != 1:
        return not kinds
    floats = _float_columns(kinds.pop())
    if floats is None:
        return False
    try:
        return all(math.isfinite(sum(column(values))) for column in floats)
    except (TypeError, AttributeError, OverflowError):  # a field has a value of another type
        return False


@cache
def _float_columns(kind: Any) -> tuple[Callable[[Any], Iterable[Any]], ...] | None:
    """Return functions that extract each column of floats; None if floats may be nested."""
    if kind in (str, bytes, int, bool, type(None)):
        return ()
    if kind is float:
        return (iter,)
    hints = _float_fields(kind)
    known = dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct)
    if not known or not all(_is_number(hint) for hint in hints.values()):
        return None
    return tuple(_column_of(name, hint) for name, hint in hints.items())


def _column_of(name: str, hint: Any) -> Callable[[Any], Iterable[Any]]:
    field = attrgetter(name)
    if type(None) in members(hint):
        return lambda values: filter(None, map(field, values))
    return lambda values: map(field, values)


def _is_number(hint: Any) -> bool:
    return all(each in _NUMBERS for each in members(hint))


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    """Return the parts of a value: fields by name, items by a tuple of their key or index."""
    if isinstance(value, Mapping):
        return (((key,), part) for key, part in value.items())
    if isinstance(value, _SEQUENCES):
        return (((number,), part) for number, part in enumerate(value))
    if isinstance(value, enum.Enum):
        return (("value", value.value),)
    if is_pydantic(type(value)):
        extra = getattr(value, "__pydantic_extra__", None) or {}
        return (*vars(value).items(), *extra.items())
    kind: Any = type(value)
    return ((name, getattr(value, name, None)) for name in _float_fields(kind))


@cache
def _float_fields(kind: Any) -> dict[str, Any]:
    """Return the fields of a Struct, dataclass or attrs class that may hold floats."""
    if issubclass(kind, msgspec.Struct):
        hints = _hints_of(kind, kind.__struct_fields__)
    elif dataclasses.is_dataclass(kind):
        hints = _hints_of(kind, (each.name for each in dataclasses.fields(kind)))
    else:
        hints = dict.fromkeys((each.name for each in getattr(kind, "__attrs_attrs__", ())), Any)
    return {name: hint for name, hint in hints.items() if may_hold_floats(hint)}


def _hints_of(kind: Any, names: Iterable[str]) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except (NameError, TypeError, AttributeError):  # an annotation that cannot be resolved
        hints = {}
    return {name: hints.get(name, Any) for name in names}
