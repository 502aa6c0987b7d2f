"""Which columns a type of rows has: a msgspec Struct, a dataclass or a TypedDict."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from operator import attrgetter, itemgetter
from typing import Final
from uuid import UUID

from msgspec import inspect as shape

from streamkit.errors import TopologyError
from streamkit.record import Kind, Value
from streamkit.serde.kinds import bare


class ColumnType(Enum):
    """What a column holds; the value describes it in errors."""

    INT = "whole numbers"
    FLOAT = "floating-point numbers"
    BOOL = "booleans"
    TEXT = "text"
    BYTES = "bytes"
    TIMESTAMP = "times with a time zone"
    LOCAL_TIMESTAMP = "times without a time zone"
    ARRAY = "lists"
    DATE = "dates"
    TIME = "times of a day"
    INTERVAL = "durations"
    DECIMAL = "decimal numbers"
    UUID = "UUIDs"
    JSON = "JSON"
    # Only in existing tables of SQLite, for rows without a declared type.
    ANY = "values of any type"


# The types of values that columns hold; JSON is text.
PYTHON_TYPES: Final[dict[ColumnType, type]] = {
    ColumnType.INT: int,
    ColumnType.FLOAT: float,
    ColumnType.BOOL: bool,
    ColumnType.TEXT: str,
    ColumnType.BYTES: bytes,
    ColumnType.TIMESTAMP: dt.datetime,
    ColumnType.LOCAL_TIMESTAMP: dt.datetime,
    ColumnType.DATE: dt.date,
    ColumnType.TIME: dt.time,
    ColumnType.INTERVAL: dt.timedelta,
    ColumnType.DECIMAL: Decimal,
    ColumnType.UUID: UUID,
    ColumnType.JSON: str,
    ColumnType.ARRAY: list,
    ColumnType.ANY: object,
}
_TYPES: Final[dict[type[shape.Type], ColumnType]] = {
    shape.BoolType: ColumnType.BOOL,
    shape.IntType: ColumnType.INT,
    shape.FloatType: ColumnType.FLOAT,
    shape.StrType: ColumnType.TEXT,
    shape.BytesType: ColumnType.BYTES,
    shape.ByteArrayType: ColumnType.BYTES,
    shape.MemoryViewType: ColumnType.BYTES,
    shape.DateType: ColumnType.DATE,
    shape.TimeType: ColumnType.TIME,
    shape.TimeDeltaType: ColumnType.INTERVAL,
    shape.DecimalType: ColumnType.DECIMAL,
    shape.UUIDType: ColumnType.UUID,
}
_LISTS: Final = (shape.ListType, shape.VarTupleType, shape.SetType, shape.FrozenSetType)
_UNSUPPORTED: Final = (shape.CustomType, shape.ExtType)
_OF_VALUES: Final = {str: ColumnType.TEXT, int: ColumnType.INT}


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a row type, and the column that holds it.

    ``name`` is that of the column, ``field`` that of the attribute or key. ``may_be_missing``: NULL
    stands for a key that a TypedDict does not have. ``enum`` is the class of its values, if that is
    an enumeration. ``items`` is a column for one item, if the values are lists that an array of a
    database could hold; they are JSON where the column is not an array.
    """

    name: str
    field: str
    holds: ColumnType
    is_nullable: bool = False
    may_be_missing: bool = False
    enum: type[Enum] | None = None
    items: Column | None = None


@dataclass(frozen=True, slots=True)
class RowType:
    """A type of rows and its columns, in the order of its fields."""

    kind: Kind
    columns: tuple[Column, ...]

    def __str__(self) -> str:
        return getattr(self.kind, "__name__", str(self.kind))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(each.name for each in self.columns)

    def column(self, name: str) -> Column | None:
        """Return the column with a name; None if there is none."""
        return next((each for each in self.columns if each.name == name), None)

    def getters(self) -> tuple[Callable[[Value], Value], ...]:
        """Return for each column the function from a row to its value.

        A row that is not of the type makes one of them raise.
        """
        if self.kind is dict or hasattr(self.kind, "__total__"):  # a TypedDict
            return tuple(map(_of_mapping, self.columns))
        return tuple(attrgetter(each.field) for each in self.columns)


def row_type(kind: Kind) -> RowType:
    """Return the columns of a type of rows.

    Raises:
        TopologyError: The type has no columns, or one that cannot be stored.
    """
    kind = bare(kind)
    try:
        found = shape.type_info(kind)
    except Exception as error:  # msgspec raises what an annotation raises
        raise TopologyError(f"{_name(kind)} has no columns: {error}") from error
    if not isinstance(found, shape.StructType | shape.DataclassType | shape.TypedDictType):
        raise TopologyError(
            f"{_name(kind)} has no columns",
            hint="rows need a type with fields: a msgspec Struct, a dataclass or a TypedDict",
        )
    columns = tuple(_column(kind, each) for each in found.fields)
    if not columns:
        raise TopologyError(f"{_name(kind)} has no fields, so a row would have no columns")
    return RowType(kind, columns)


def _column(kind: Kind, field: shape.Field) -> Column:
    inner, is_nullable = _without_none(field.type)
    # A TypedDict may lack a key; a class always has its attribute.
    may_be_missing = hasattr(kind, "__total__") and not field.required
    found = _type(inner)
    if found is None:
        raise TopologyError(
            f"the field {field.name!r} of {_name(kind)} cannot be stored in a column",
            hint="use numbers, text, bytes, dates, times, Decimal, UUID, an Enum, or types that "
            "JSON can represent",
        )
    return Column(
        field.encode_name,
        field.name,
        found,
        is_nullable or may_be_missing,
        may_be_missing,
        _enum_of(inner),
        _items(field, inner),
    )


def _enum_of(kind: shape.Type) -> type[Enum] | None:
    return kind.cls if isinstance(kind, shape.EnumType) else None


def _items(field: shape.Field, kind: shape.Type) -> Column | None:
    if not isinstance(kind, _LISTS):
        return None
    inner, is_nullable = _without_none(kind.item_type)
    found = _type(inner)
    if found in (None, ColumnType.JSON):
        return None
    return Column(field.encode_name, field.name, found, is_nullable, enum=_enum_of(inner))


def _without_none(kind: shape.Type) -> tuple[shape.Type, bool]:
    if not isinstance(kind, shape.UnionType):
        return kind, isinstance(kind, shape.NoneType | shape.AnyType)
    left = tuple(each for each in kind.types if not isinstance(each, shape.NoneType))
    inner = left[0] if len(left) == 1 else shape.UnionType(left)
    return inner, len(left) < len(kind.types)


def _type(kind: shape.Type) -> ColumnType | None:
    """Return the type of the column for values of a type; None if no column can hold them."""
    if isinstance(kind, shape.Metadata):
        return _type(kind.type)
    if isinstance(kind, shape.EnumType):
        return _of_values([each.value for each in kind.cls])
    if isinstance(kind, shape.LiteralType):
        return _of_values(kind.values)
    if isinstance(kind, shape.DateTimeType):
        return ColumnType.LOCAL_TIMESTAMP if kind.tz is False else ColumnType.TIMESTAMP
    if isinstance(kind, shape.UnionType):
        parts = {_type(each) for each in kind.types}
        if None in parts:
            return None
        if parts == {ColumnType.INT, ColumnType.FLOAT}:
            return ColumnType.FLOAT
        return parts.pop() if len(parts) == 1 else ColumnType.JSON
    if isinstance(kind, _UNSUPPORTED):
        return None
    return _TYPES.get(type(kind), ColumnType.JSON)


def _of_values(values: Sequence[Value]) -> ColumnType | None:
    kinds = {type(each) for each in values}
    return _OF_VALUES.get(kinds.pop()) if len(kinds) == 1 else None


def _of_mapping(column: Column) -> Callable[[Value], Value]:
    field = column.field
    return (lambda row: row.get(field)) if column.may_be_missing else itemgetter(field)


def _name(kind: Kind) -> str:
    return getattr(kind, "__name__", str(kind))
