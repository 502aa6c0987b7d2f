"""How databases that are used through SQLAlchemy store values: times in UTC, without a zone."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from streamkit.connectors.sql.columns import ColumnType as T
from streamkit.connectors.sql.tables import Limits
from streamkit.connectors.sql.value_checks import (
    Checks,
    aware,
    decimal_checks,
    decimals,
    floats,
    intervals,
    never,
    uuid,
)
from streamkit.record import Value


def _timestamps(limits: Limits) -> Checks:
    return (), never, lambda value: aware(value).astimezone(dt.UTC).replace(tzinfo=None)


def _intervals(limits: Limits) -> Checks:
    return (), never, lambda value: msgspec.to_builtins(intervals(limits)[2](value))


def _decimals(limits: Limits) -> Checks:
    if not limits.is_text:
        return decimal_checks(limits, has_nan=False)
    return (), never, lambda value: str(decimals(limits)[2](value))


def _uuids(limits: Limits) -> Checks:
    return (), never, lambda value: str(uuid(value))


def _finite_floats(limits: Limits) -> Checks:
    def is_fine(values: Sequence[Value]) -> bool:
        return all(map(math.isfinite, values)) and floats(limits)[1](values)

    def one(value: Value) -> float:
        number: float = floats(limits)[2](value)
        if not math.isfinite(number):
            raise ValueError(f"{number} cannot be stored in MySQL: use None")
        return number

    return (float,), is_fine, one


PORTABLE_CHECKS: Final[dict[T, Callable[[Limits], Checks]]] = {
    T.TIMESTAMP: _timestamps,
    T.INTERVAL: _intervals,
    T.DECIMAL: _decimals,
    T.UUID: _uuids,
}
MYSQL_CHECKS: Final = {**PORTABLE_CHECKS, T.FLOAT: _finite_floats}
