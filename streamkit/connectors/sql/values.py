"""Checks and converts the values of one column, so that the database refuses none of them.

A database refuses a batch as a whole. So a value that it would refuse is found here first, and only
the record with this value fails. The usual types are checked as a column; a column with any other
type is converted value by value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from streamkit.connectors.sql.columns import Column, ColumnType
from streamkit.connectors.sql.dialects import Dialect
from streamkit.connectors.sql.portable_values import MYSQL_CHECKS, PORTABLE_CHECKS
from streamkit.connectors.sql.sqlite_values import SQLITE_CHECKS
from streamkit.connectors.sql.tables import Limits
from streamkit.connectors.sql.value_checks import (
    CHECKS,
    Checks,
    IsFine,
    One,
    always,
    expected,
    never,
)
from streamkit.record import Value


@dataclass(frozen=True, slots=True)
class Values:
    """How the values of one column are checked and converted.

    A column whose values all have one of the types ``plain``, and for which ``is_fine`` returns
    true, is written as it is. Otherwise each value is given to ``one``, which converts it or raises
    TypeError or ValueError. Neither gets None.
    """

    column: Column
    is_nullable: bool
    plain: frozenset[type]
    is_fine: IsFine
    one: One

    def converted(self, values: Sequence[Value]) -> Sequence[Value]:
        """Return the values as the database driver gets them.

        Raises:
            BadValue: A value cannot be written.
        """
        kinds = set(map(type, values))
        present = values
        if type(None) in kinds:
            kinds.discard(type(None))
            present = [each for each in values if each is not None]
        has_only_allowed = self.is_nullable or len(present) == len(values)
        if has_only_allowed and kinds <= self.plain and self.is_fine(present):
            return values
        return self._each(values)

    def _each(self, values: Sequence[Value]) -> list[Value]:
        done: list[Value] = []
        try:
            for value in values:
                done.append(self._one(value))
        except Exception as error:  # a method of the value may raise anything
            raise BadValue(len(done), self.column, str(error)) from error
        return done

    def _one(self, value: Value) -> Value:
        if value is not None:
            return self.one(value)
        if not self.is_nullable:
            raise ValueError("it is None, but the column is NOT NULL")
        return None


class BadValue(ValueError):
    """A value cannot be written; ``row`` is its index in the column."""

    def __init__(self, row: int, column: Column, reason: str) -> None:
        super().__init__(f"the value of column {column.name!r} cannot be written: {reason}")
        self.row = row


def values_of(column: Column, dialect: Dialect, limits: Limits) -> Values:
    """Return how the values of a column are written to a database."""
    if column.holds is ColumnType.ARRAY and column.items is not None:
        of_items = replace(limits, is_nullable=True)
        return array_values(column, limits, values_of(column.items, dialect, of_items))
    if column.enum is not None:
        return _values(column, limits, (), always, _enum(column, column.enum, limits, dialect))
    build = _STORED[dialect.stores].get(column.holds)
    plain, is_fine, one = (build or CHECKS[column.holds])(limits)
    return _values(column, limits, plain, is_fine, one)


def array_values(column: Column, limits: Limits, items: Values) -> Values:
    """Return how lists are written to an array, given how its items are."""

    def one(value: Value) -> list[Value]:
        if not isinstance(value, list | tuple | set | frozenset):
            raise expected(value, "a list")
        try:
            return list(items.converted(list(value)))
        except BadValue as error:
            raise ValueError(f"its item {error.row}: {error.__cause__}") from error

    return _values(column, limits, (), never, one)


def _values(
    column: Column, limits: Limits, plain: Iterable[type], is_fine: IsFine, one: One
) -> Values:
    is_nullable = column.is_nullable and limits.is_nullable
    return Values(column, is_nullable, frozenset(plain), is_fine, one)


def _enum(column: Column, enum: type[Enum], limits: Limits, dialect: Dialect) -> One:
    plain = Column(column.name, column.field, column.holds)
    inner = values_of(plain, dialect, limits)

    def one(value: Value) -> Value:
        if not isinstance(value, enum):
            raise expected(value, f"a {enum.__name__}")
        return inner.converted([value.value])[0]

    return one


_STORED: Final[dict[str, dict[ColumnType, Callable[[Limits], Checks]]]] = {
    "native": {},
    "sqlite": SQLITE_CHECKS,
    "portable": PORTABLE_CHECKS,
    "mysql": MYSQL_CHECKS,
}
