"""Rows without a declared type: dicts, whose columns are those of an existing table.

| column of the table | a row that has no such key |
|---|---|
| is generated | must not have it |
| has a default | gets the default, if the first row of the run has no such key either |
| may be NULL | gets NULL |
| any other | is refused |

A text is converted to the type of its column, since the fields of CSV and the times of JSON are
texts.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import msgspec

from streamkit.connectors.sql.columns import PYTHON_TYPES, Column, RowType
from streamkit.connectors.sql.columns import ColumnType as T
from streamkit.connectors.sql.dialects import Dialect
from streamkit.connectors.sql.sqlite_values import sqlite_value
from streamkit.connectors.sql.tables import ARRAY_MARK, Limits, Table
from streamkit.connectors.sql.values import Values, array_values, values_of
from streamkit.errors import shown
from streamkit.record import Value

# Numbers of an `oid`, times of a `timetz` and the like.
_WITH_TEXT: Final = (int, float, Decimal, dt.date, dt.time)
_OF_AFFINITIES: Final = {"integer": T.INT, "real": T.FLOAT, "text": T.TEXT}


def untyped_rows(
    dialect: Dialect, table: Table, values: Sequence[Value], key: Sequence[str]
) -> RowType:
    """Return the columns of a table as those of rows.

    Args:
        dialect: The database system.
        table: The table.
        values: The first rows. A column with a default is left out if the first one has no such
            key.
        key: Columns that are never left out.
    """
    first = next((each for each in values if isinstance(each, Mapping)), {})
    columns = []
    for each in table.columns:
        is_left_out = each.has_default and each.name not in (*first, *key)
        if not each.is_generated and not is_left_out:
            may_be_missing = each.is_nullable and not each.has_default
            holds = _holds(dialect, each.type.removesuffix(ARRAY_MARK))
            column = Column(each.name, each.name, holds, each.is_nullable, may_be_missing)
            if each.type.endswith(ARRAY_MARK):
                items = Column(each.name, each.name, holds, is_nullable=True)
                column = replace(column, holds=T.ARRAY, items=items)
            columns.append(column)
    return RowType(dict, tuple(columns))


def _holds(dialect: Dialect, declared: str) -> T:
    kind = dialect.kind_of(declared)
    if dialect.affinities:
        return _OF_AFFINITIES.get(kind, T.ANY)
    if kind == "numeric":  # which also fits whole numbers
        return T.DECIMAL
    for each, name in dialect.types.items():
        if dialect.kind_of(name) == kind:
            return each
    # The database reads values of its other types from text.
    return next((each for each, kinds in dialect.fits.items() if kind in kinds), T.TEXT)


@dataclass(frozen=True, slots=True)
class KeysCheck:
    """Refuses dicts with other keys than the columns that are written."""

    written: frozenset[str]
    required: frozenset[str]
    left_out: frozenset[str]

    def __call__(self, row: Value) -> None:
        """Check a row.

        Raises:
            ValueError: It is not a dict, or it has other keys.
        """
        if not isinstance(row, Mapping):
            raise ValueError(f"the value is {type(row).__name__}, not an object with columns")
        for name in row.keys() - self.written:
            if name in self.left_out:
                raise ValueError(
                    f"it has the column {name!r}, which the first row does not have; all rows need "
                    "the same columns with a default"
                )
            raise ValueError(f"it has {shown(name)}, but the table has no such column to write")
        for name in self.required - row.keys():
            raise ValueError(f"it has no column {name!r}, which cannot be NULL or has a default")


def keys_check(table: Table, rows: RowType) -> KeysCheck:
    """Return the check of the dicts that are written to a table."""
    generated = {each.name for each in table.columns if each.is_generated}
    return KeysCheck(
        frozenset(rows.names),
        frozenset(each.name for each in rows.columns if not each.may_be_missing),
        frozenset(each.name for each in table.columns) - set(rows.names) - generated,
    )


def lenient(values: Values, limits: Limits, dialect: Dialect) -> Values:
    """Return a column that also converts texts, and other values of JSON, to its type."""

    holds, items = values.column.holds, values.column.items
    if holds is T.ANY and limits.declared:
        return _of_declared(values, limits.declared)
    if holds is T.ARRAY and items is not None:
        of_items = replace(limits, is_nullable=True)
        inner = lenient(values_of(items, dialect, of_items), of_items, dialect)
        values = array_values(values.column, limits, inner)

    def one(value: Value) -> Value:
        if value == "" and holds not in (T.TEXT, T.ANY) and values.is_nullable:
            return None  # an empty field of CSV
        try:
            return values.one(value)
        except (TypeError, ValueError) as error:
            if dialect.stores != "native":
                converted = _without_type(value, holds, limits)
                if converted is not None:
                    return converted
            if holds is T.TEXT:
                is_other = dialect.stores == "native" and not (limits.is_text or limits.labels)
                if not is_other or not isinstance(value, _WITH_TEXT):
                    raise
                return values.one(str(value))  # PostgreSQL reads its other types from text
            return values.one(_converted(value, holds, error))

    return replace(values, one=one)


def _of_declared(values: Values, declared: str) -> Values:
    """Return a column of SQLite that can hold any value, but converts texts to its type."""
    is_bytes, is_boolean = "blob" in declared, "bool" in declared

    def one(value: Value) -> Value:
        if value == "" and values.is_nullable:
            return None
        if is_boolean and value in ("true", "false"):
            return int(value == "true")
        if is_bytes and isinstance(value, str):
            try:
                return msgspec.convert(value, bytes, strict=False)
            except msgspec.ValidationError:
                raise ValueError(f"{shown(value)} is not one of {T.BYTES.value}") from None
        return values.one(value)

    return replace(values, one=one, plain=values.plain - {str})


def _converted(value: Value, holds: T, error: Exception) -> Value:
    """Convert a value of JSON or CSV.

    Raises:
        ValueError: It cannot be converted.
    """
    read = _READERS.get(holds)
    try:
        if read is not None and isinstance(value, str | dt.datetime):
            return read(value)
        if holds is T.DECIMAL and isinstance(value, float):
            return Decimal(repr(value))
        return msgspec.convert(value, PYTHON_TYPES[holds], strict=False)
    except (ValueError, TypeError):
        raise ValueError(f"{shown(value)} is not one of {holds.value}") from error


def _without_type(value: Value, holds: T, limits: Limits) -> Value:
    """Return what is stored for a value that the database has no type for; None for any other."""
    if value in ("true", "false") and holds is T.INT and limits.int_bits == 8:
        return int(value == "true")  # a BOOLEAN of MySQL is a TINYINT
    if isinstance(value, bool):
        return int(value) if holds is T.INT else None
    if holds is not T.TEXT or isinstance(value, int | float | bytes):
        return None
    return sqlite_value(value, limits)


def _in_utc(value: str | dt.datetime) -> dt.datetime:
    # As in the session of PostgreSQL, and in sources, a time without a zone is in UTC.
    found = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)


def _without_zone(value: str | dt.datetime) -> dt.datetime:
    return _in_utc(value).replace(tzinfo=None)


_READERS: Final[dict[T, Callable[[Any], Value]]] = {
    T.TIMESTAMP: _in_utc,
    T.LOCAL_TIMESTAMP: _without_zone,
    T.DATE: dt.date.fromisoformat,
    T.TIME: dt.time.fromisoformat,
    T.ARRAY: msgspec.json.decode,
}
