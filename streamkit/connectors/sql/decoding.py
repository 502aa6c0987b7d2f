"""Turns rows that a database returned into values of a row type."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

import msgspec

from streamkit.connectors.sql.columns import ColumnType as T
from streamkit.connectors.sql.columns import RowType
from streamkit.errors import shown
from streamkit.record import Kind, Value
from streamkit.serde.kinds import bare

# A row by the names of its columns. JSON of the database is a `msgspec.Raw`.
NamedRow = Mapping[str, Value]
_WITH_JSON: Final = (msgspec.Raw, list)


@dataclass(frozen=True, slots=True)
class Fix:
    """Converts what drivers return differently, such as 0 and 1 for booleans in SQLite.

    Values of the types ``plain`` and None stay as they are.
    """

    name: str
    plain: frozenset[type]
    one: Callable[[Value], Value]


@dataclass(frozen=True, slots=True)
class RowDecoder:
    """Makes values of a type from rows.

    ``optional`` are the keys of a TypedDict that are left out if they are NULL.
    """

    rows: RowType
    fixes: tuple[Fix, ...]
    optional: frozenset[str] = frozenset()

    def one(self, row: NamedRow) -> Value:
        """Return the value of one row.

        Raises:
            ValueError: The row is not of the type; the text names the column.
        """
        return msgspec.convert(self._fixed(row, self.fixes), self.rows.kind)

    def many(self, rows: Sequence[NamedRow]) -> Sequence[Value]:
        """Return the values of many rows.

        Raises:
            ValueError: A row is not of the type.
        """
        fixes = [fix for fix in self.fixes if _needs(fix, rows)]
        if fixes or self.optional:
            rows = [self._fixed(row, fixes) for row in rows]
        column: Kind = list[self.rows.kind]  # type: ignore[name-defined]  # known at run time
        found: list[Value] = msgspec.convert(rows, column)
        return found

    def _fixed(self, row: NamedRow, fixes: Iterable[Fix]) -> NamedRow:
        changed = {
            fix.name: fix.one(value) for fix in fixes if (value := row.get(fix.name)) is not None
        }
        found = {**row, **changed} if changed else row
        if self.optional:
            return {k: v for k, v in found.items() if v is not None or k not in self.optional}
        return found


def row_decoder(rows: RowType) -> RowDecoder:
    """Return how rows become values of a type."""
    fixes = [Fix(each.name, *_FIXES[each.holds]) for each in rows.columns if each.holds in _FIXES]
    optional = frozenset(each.name for each in rows.columns if each.may_be_missing)
    return RowDecoder(rows, tuple(fixes), optional)


def _needs(fix: Fix, rows: Sequence[NamedRow]) -> bool:
    """Return whether a column has a value that must be converted; False if it was not read."""
    if not rows or fix.name not in rows[0]:
        return False
    return not set(map(type, map(itemgetter(fix.name), rows))) <= fix.plain


def is_untyped(kind: Kind) -> bool:
    """Return whether rows are dicts, because no other type is declared."""
    kind = bare(kind)
    return kind is Any or kind is dict or kind == dict[str, Any]


def plain_row(row: NamedRow) -> dict[str, Value]:
    """Return a row as a dict of Python values, for sources without a row type."""
    return {
        name: _plain_value(value) if isinstance(value, _WITH_JSON) else value
        for name, value in row.items()
    }


def _plain_value(value: Value) -> Value:
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    return [_plain_value(each) for each in value] if isinstance(value, list) else value


def _as_json(value: Value) -> Value:
    if isinstance(value, str | bytes):
        return msgspec.json.decode(value)
    return _plain_value(value)


def _as_bool(value: Value) -> Value:
    if value in (b"\0", b"\1"):  # a BIT in MySQL
        return value == b"\1"
    return bool(value) if type(value) is int and value in (0, 1) else value


def _as_int(value: Value) -> Value:
    if isinstance(value, Decimal):
        if not value.is_finite() or value != value.to_integral_value():
            raise ValueError(f"{value} is not a whole number")
        return int(value)
    return value


def _as_text(value: Value) -> Value:
    if isinstance(value, UUID):
        return str(value)
    return bytes(value).decode() if isinstance(value, msgspec.Raw) else value


def _as_time(value: Value) -> Value:
    is_of_day = isinstance(value, dt.timedelta) and dt.timedelta(0) <= value < dt.timedelta(days=1)
    return (dt.datetime.min + value).time() if is_of_day else value  # noqa: DTZ901  # as in MySQL


def _as_bytes(value: Value) -> Value:
    if isinstance(value, str):  # msgspec would read it as base64
        raise ValueError(f"{shown(value)} is text, not bytes")
    return value


def _plain(*types: type) -> frozenset[type]:
    return frozenset((*types, type(None)))


_FIXES: Final[dict[T, tuple[frozenset[type], Callable[[Value], Value]]]] = {
    T.JSON: (_plain(), _as_json),
    T.BOOL: (_plain(bool), _as_bool),
    T.INT: (_plain(int), _as_int),
    T.TEXT: (_plain(str), _as_text),
    T.BYTES: (_plain(bytes), _as_bytes),
    T.TIME: (_plain(dt.time), _as_time),
}
