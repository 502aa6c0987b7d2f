"""How SQLite stores what it has no type for: as text whose order is that of the values."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final
from uuid import UUID

import msgspec

from streamkit.connectors.sql.columns import ColumnType as T
from streamkit.connectors.sql.tables import Limits
from streamkit.connectors.sql.value_checks import (
    CHECKS,
    Checks,
    aware,
    date,
    decimal,
    expected,
    floats,
    intervals,
    naive,
    never,
    text_checks,
    time_of_day,
    uuid,
)
from streamkit.record import Value


def _sqlite_floats(limits: Limits) -> Checks:
    def is_fine(values: Sequence[Value]) -> bool:
        total = sum(values)
        return total == total or not any(map(math.isnan, values))

    def one(value: Value) -> float:
        number: float = floats(limits)[2](value)
        if math.isnan(number):
            raise ValueError("SQLite stores NaN as NULL: use None")
        return number

    return (float,), is_fine, one


def _sqlite_texts(limits: Limits) -> Checks:
    return text_checks(limits, refuses_nul=False)


def _sqlite_timestamps(limits: Limits) -> Checks:
    # The same zone and length everywhere, so that the order of the texts is that of the times.
    def one(value: Value) -> str:
        return aware(value).astimezone(dt.UTC).isoformat(" ", "microseconds")

    return (), never, one


def _sqlite_local_timestamps(limits: Limits) -> Checks:
    return (), never, lambda value: naive(value).isoformat(" ", "microseconds")


def _sqlite_dates(limits: Limits) -> Checks:
    return (), never, lambda value: date(value).isoformat()


def _sqlite_times(limits: Limits) -> Checks:
    return (), never, lambda value: time_of_day(value).isoformat("microseconds")


def _sqlite_intervals(limits: Limits) -> Checks:
    return (), never, lambda value: msgspec.to_builtins(intervals(limits)[2](value))


def _sqlite_decimals(limits: Limits) -> Checks:
    return (), never, lambda value: str(decimal(value))


def _sqlite_uuids(limits: Limits) -> Checks:
    return (), never, lambda value: str(uuid(value))


def _sqlite_any(limits: Limits) -> Checks:
    return (), never, lambda value: sqlite_value(value, limits)


def sqlite_value(value: Value, limits: Limits) -> Value:
    """Return a value as a column that may hold any value stores it.

    Raises:
        TypeError: SQLite cannot store its type.
        ValueError: It cannot store the value.
    """
    if isinstance(value, dt.datetime):
        holds = T.LOCAL_TIMESTAMP if value.tzinfo is None else T.TIMESTAMP
    else:
        found = next((holds for kind, holds in _OF_TYPES.items() if isinstance(value, kind)), None)
        if found is None:
            raise expected(value, "a value that SQLite can store")
        holds = found
    return (SQLITE_CHECKS.get(holds) or CHECKS[holds])(limits)[2](value)


# The first one that fits, so bool comes before int.
_OF_TYPES: Final[dict[type, T]] = {
    bool: T.BOOL,
    int: T.INT,
    float: T.FLOAT,
    str: T.TEXT,
    bytes: T.BYTES,
    dt.date: T.DATE,
    dt.time: T.TIME,
    dt.timedelta: T.INTERVAL,
    Decimal: T.DECIMAL,
    UUID: T.UUID,
    dict: T.JSON,
    list: T.JSON,
}
SQLITE_CHECKS: Final[dict[T, Callable[[Limits], Checks]]] = {
    T.FLOAT: _sqlite_floats,
    T.TEXT: _sqlite_texts,
    T.TIMESTAMP: _sqlite_timestamps,
    T.LOCAL_TIMESTAMP: _sqlite_local_timestamps,
    T.DATE: _sqlite_dates,
    T.TIME: _sqlite_times,
    T.INTERVAL: _sqlite_intervals,
    T.DECIMAL: _sqlite_decimals,
    T.UUID: _sqlite_uuids,
    T.ANY: _sqlite_any,
}
