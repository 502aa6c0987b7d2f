"""Positions of a source as text: the values of its ordering columns in the last row.

The values are kept exactly, because the next query compares the columns with them: a time with all
its microseconds, a decimal number with all its digits.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final
from uuid import UUID

import msgspec

from streamkit.errors import DataError, StateMismatch, shown
from streamkit.record import Value

_PLAIN: Final = (bool, int, float, str)
_Write = Callable[[Value], str]
_Read = Callable[[str], Value]
# Types that JSON does not have, by the name that marks them.
_MARKED: Final[dict[str, tuple[type, _Write, _Read]]] = {
    "datetime": (dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    "date": (dt.date, dt.date.isoformat, dt.date.fromisoformat),
    "time": (dt.time, dt.time.isoformat, dt.time.fromisoformat),
    "seconds": (
        dt.timedelta,
        lambda value: f"{value.days} {value.seconds} {value.microseconds}",
        lambda text: dt.timedelta(*map(int, text.split())),
    ),
    "decimal": (Decimal, str, Decimal),
    "uuid": (UUID, str, UUID),
    "bytes": (bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode),
}
_NAMES: Final = {kind: name for name, (kind, _, _) in _MARKED.items()}


def encode_position(values: Sequence[Value]) -> str:
    """Write the values of the ordering columns of a row.

    Raises:
        DataError: A value has a type that cannot be a position.
    """
    return msgspec.json.encode([_written(each) for each in values]).decode()


def decode_position(text: str) -> tuple[Value, ...]:
    """Read what `encode_position` wrote.

    Raises:
        StateMismatch: The text is not a position of a table.
    """
    try:
        return tuple(map(_read, msgspec.json.decode(text, type=list[Value])))
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise StateMismatch(
            f"{shown(text)} is not a position in a table: {error}",
            hint="start over with --fresh-state",
        ) from error


def _written(value: Value) -> Value:
    kind = type(value)
    if kind is float and (value != value or value in (float("inf"), float("-inf"))):
        return {"float": str(value)}
    if kind in _PLAIN:
        return value
    name = _NAMES.get(kind)
    if name is None:
        what = "JSON" if kind is msgspec.Raw else f"{shown(value)}, a {kind.__name__}"
        raise DataError(
            f"the column that orders the rows has {what}, which cannot be a position",
            hint="order by a column of numbers, text, times, UUIDs or bytes",
        )
    return {name: _MARKED[name][1](value)}


def _read(written: Value) -> Value:
    if not isinstance(written, dict):
        if type(written) not in _PLAIN:
            raise TypeError(f"{shown(written)} is not a value of a column")
        return written
    ((name, text),) = written.items()
    return float(text) if name == "float" else _MARKED[name][2](text)
