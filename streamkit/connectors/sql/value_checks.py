"""Which values columns of each type can hold, and how other values are converted."""

from __future__ import annotations

import datetime as dt
import math
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Final
from uuid import UUID

from streamkit.connectors.sql.columns import ColumnType as T
from streamkit.connectors.sql.tables import Limits
from streamkit.errors import shown
from streamkit.record import Value
from streamkit.serde.finite import not_finite
from streamkit.serde.json_values import dumps

_SINGLE_MAX: Final = 3.4028234663852886e38
_IN_32_BITS: Final = struct.Struct("f")
_NUL_IN_JSON: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

One = Callable[[Value], Value]
IsFine = Callable[[Sequence[Value]], bool]
# The types that are written as they are, the check of a column of them, and the conversion of any
# other value, which raises TypeError or ValueError.
Checks = tuple[Iterable[type], IsFine, One]


def always(values: Sequence[Value]) -> bool:
    return True


def never(values: Sequence[Value]) -> bool:
    return not values


def expected(value: Value, what: str) -> TypeError:
    return TypeError(f"{shown(value)} is {type(value).__name__}, not {what}")


def ints(limits: Limits) -> Checks:
    bound = 1 << (limits.int_bits - (not limits.is_unsigned))
    if limits.digits_max is not None:
        bound = min(bound, 10**limits.digits_max)
    least = 0 if limits.is_unsigned else -bound

    def is_fine(values: Sequence[Value]) -> bool:
        return not values or (least <= min(values) and max(values) < bound)

    def one(value: Value) -> int:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise expected(value, "a whole number")
        number = value.__index__()
        if number < 0 and limits.is_unsigned:
            raise ValueError(f"{shown(number)} is negative, but the column is unsigned")
        if not least <= number < bound:
            raise ValueError(f"{shown(number)} is too large: the column has {limits.int_bits} bits")
        return int(number)

    return (int,), is_fine, one


def floats(limits: Limits) -> Checks:
    return ((), never, _single) if limits.is_single else ((float,), always, _double)


def _double(value: Value) -> float:
    if isinstance(value, bool) or not isinstance(value, float | int):
        raise expected(value, "a number")
    return float(value)


def _single(value: Value) -> float:
    """Return the number that the column will hold, so that a key is equal to it."""
    number = _double(value)
    if abs(number) > _SINGLE_MAX and math.isfinite(number):
        raise ValueError(f"{number} is too large: the column has 32 bits")
    found: float = _IN_32_BITS.unpack(_IN_32_BITS.pack(number))[0]
    return found


def bools(limits: Limits) -> Checks:
    def one(value: Value) -> bool:
        if type(value).__name__ not in ("bool", "bool_"):  # numpy has its own
            raise expected(value, "a boolean")
        return bool(value)

    return (bool,), always, one


def texts(limits: Limits) -> Checks:
    return text_checks(limits, refuses_nul=True)


def text_checks(limits: Limits, *, refuses_nul: bool) -> Checks:
    length_max, labels = limits.length_max, frozenset(limits.labels)

    def is_fine(values: Sequence[Value]) -> bool:
        if labels:
            return labels.issuperset(values)
        joined = "".join(values)
        if refuses_nul and "\0" in joined:
            return False
        if length_max is not None and values and max(map(len, values)) > length_max:
            return False
        return joined.isascii() or _is_unicode(joined)

    def one(value: Value) -> str:
        if not isinstance(value, str):
            raise expected(value, "text")
        text = str.__str__(value)
        if refuses_nul and "\0" in text:
            raise ValueError("text in PostgreSQL cannot contain the character NUL")
        if length_max is not None and len(text) > length_max:
            raise ValueError(f"it has {len(text)} characters, but the column allows {length_max}")
        if labels and text not in labels:
            raise ValueError(f"{shown(text)} is not one of {', '.join(limits.labels)}")
        text.encode()  # a lone surrogate raises
        return text

    return (str,), is_fine, one


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def byte_strings(limits: Limits) -> Checks:
    def one(value: Value) -> bytes:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise expected(value, "bytes")
        return bytes(value)

    return (bytes,), always, one


def timestamps(limits: Limits) -> Checks:
    def is_fine(values: Sequence[Value]) -> bool:
        return None not in {each.tzinfo for each in values}

    return (dt.datetime,), is_fine, aware


def aware(value: Value) -> dt.datetime:
    if not isinstance(value, dt.datetime):
        raise expected(value, "a datetime")
    if value.utcoffset() is None:
        raise ValueError(
            f"{value} has no time zone; add one, or annotate the field with "
            "msgspec.Meta(tz=False) for times without a zone"
        )
    return value


def local_timestamps(limits: Limits) -> Checks:
    def is_fine(values: Sequence[Value]) -> bool:
        return {each.tzinfo for each in values} <= {None}

    return (dt.datetime,), is_fine, naive


def naive(value: Value) -> dt.datetime:
    if not isinstance(value, dt.datetime):
        raise expected(value, "a datetime")
    if value.tzinfo is not None:
        raise ValueError(f"{value} has a time zone, but the column has times without one")
    return value


def dates(limits: Limits) -> Checks:
    return (dt.date,), always, date


def date(value: Value) -> dt.date:
    if not isinstance(value, dt.date) or isinstance(value, dt.datetime):
        raise expected(value, "a date")
    return value


def times(limits: Limits) -> Checks:
    def is_fine(values: Sequence[Value]) -> bool:
        return {each.tzinfo for each in values} <= {None}

    return (dt.time,), is_fine, time_of_day


def time_of_day(value: Value) -> dt.time:
    if not isinstance(value, dt.time):
        raise expected(value, "a time")
    if value.tzinfo is not None:
        raise ValueError(f"{value} has a time zone, but the column has times without one")
    return value


def intervals(limits: Limits) -> Checks:
    def one(value: Value) -> dt.timedelta:
        if not isinstance(value, dt.timedelta):
            raise expected(value, "a timedelta")
        return value

    return (dt.timedelta,), always, one


def decimals(limits: Limits) -> Checks:
    return decimal_checks(limits, has_nan=True)


def decimal_checks(limits: Limits, *, has_nan: bool) -> Checks:
    bound = None if limits.digits_max is None else Decimal(10) ** limits.digits_max

    def is_fine(values: Sequence[Value]) -> bool:
        if not all(each.is_finite() for each in values):
            return False
        return bound is None or not values or max(map(abs, values)) < bound

    def one(value: Value) -> Decimal:
        number = decimal(value)
        if has_nan and number.is_qnan():
            return number
        if not number.is_finite():
            raise ValueError(f"{number} is not a number that the column can hold")
        if bound is not None and abs(number) >= bound:
            raise ValueError(
                f"{number} is too large: the column has {limits.digits_max} digits before the point"
            )
        return number

    return (Decimal,), is_fine, one


def decimal(value: Value) -> Decimal:
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if not isinstance(value, Decimal):
        raise expected(value, "a Decimal")
    return value


def uuids(limits: Limits) -> Checks:
    if limits.is_text:
        return (), never, lambda value: str(uuid(value))
    return (UUID,), always, uuid


def uuid(value: Value) -> UUID:
    if not isinstance(value, UUID):
        raise expected(value, "a UUID")
    return value


def json_texts(limits: Limits) -> Checks:
    return (), never, _as_json


def _as_json(value: Value) -> str:
    """Return a value as JSON text that a database accepts.

    PostgreSQL refuses NUL in ``jsonb``. It is refused for SQLite too, so that the same rows fit.
    """
    data = dumps(value)
    if b"null" in data and (path := not_finite(value)) is not None:
        raise ValueError(f"NaN or infinity{f' at {path}' if path else ''} is not valid JSON")
    if b"\\u0000" in data and _NUL_IN_JSON.search(data):
        raise ValueError("its text contains the character NUL")
    return data.decode()


CHECKS: Final[dict[T, Callable[[Limits], Checks]]] = {
    T.INT: ints,
    T.FLOAT: floats,
    T.BOOL: bools,
    T.TEXT: texts,
    T.BYTES: byte_strings,
    T.TIMESTAMP: timestamps,
    T.LOCAL_TIMESTAMP: local_timestamps,
    T.DATE: dates,
    T.TIME: times,
    T.INTERVAL: intervals,
    T.DECIMAL: decimals,
    T.UUID: uuids,
    T.JSON: json_texts,
}
