"""Turns values of a row type into rows for a database, a whole chunk at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamkit.connectors.sql.columns import RowType
from streamkit.connectors.sql.dialects import Dialect
from streamkit.connectors.sql.tables import Limits
from streamkit.connectors.sql.values import BadValue, Values, values_of
from streamkit.record import Value

Row = Sequence[Value]


@dataclass(frozen=True, slots=True)
class RowEncoder:
    """Checks values and turns them into rows: one item for each column of their type.

    ``refuse`` raises ValueError for a value that has other columns than the type.
    """

    rows: RowType
    dialect: Dialect
    getters: tuple[Callable[[Value], Value], ...]
    columns: tuple[Values, ...]
    refuse: Callable[[Value], None] | None = None

    def encode(self, values: Sequence[Value]) -> list[Row]:
        """Return the rows of some values.

        Raises:
            BadRow: A value is not of the type, or a column cannot hold it; it names the first such
                value. Those before it can be written.
        """
        if self.refuse is not None:
            self._refuse_each(values, self.refuse)
        columns = self._columns(values)
        try:
            done = [
                each.converted(column) for each, column in zip(self.columns, columns, strict=True)
            ]
        except BadValue:
            raise self._first_bad(columns) from None
        return list(zip(*done, strict=True))

    def _refuse_each(self, values: Sequence[Value], refuse: Callable[[Value], None]) -> None:
        for row, value in enumerate(values):
            try:
                refuse(value)
            except ValueError as error:
                self.encode(values[:row])  # raises if a value before it is bad
                raise BadRow(row, str(error)) from error

    def _columns(self, values: Sequence[Value]) -> list[Row]:
        try:
            return [list(map(getter, values)) for getter in self.getters]
        except Exception:
            pass  # the row is found below, where it raises again
        for row, value in enumerate(values):
            try:
                for getter in self.getters:
                    getter(value)
            except Exception as error:
                raise BadRow(
                    row,
                    f"the value is {type(value).__name__}, which has not all columns of "
                    f"{self.rows}",
                ) from error
        raise AssertionError("a row that raises once raises again")

    def _first_bad(self, columns: Sequence[Row]) -> BadRow:
        """Find the first row with a bad value: each column reports only its own first one."""
        found: list[BadValue] = []
        for each, column in zip(self.columns, columns, strict=True):
            try:
                each.converted(column)
            except BadValue as error:
                found.append(error)
        first = min(found, key=lambda error: error.row)
        bad = BadRow(first.row, str(first))
        bad.__cause__ = first
        return bad


class BadRow(ValueError):
    """A value cannot be written as a row; ``row`` is its index."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row


def row_encoder(rows: RowType, dialect: Dialect, limits: Sequence[Limits] = ()) -> RowEncoder:
    """Return how values of a type become rows of a database.

    Args:
        rows: The type of the values.
        dialect: The database system.
        limits: What the columns of an existing table can hold, in the order of the type.
    """
    limits = limits or [Limits()] * len(rows.columns)
    columns = tuple(
        values_of(column, dialect, limit)
        for column, limit in zip(rows.columns, limits, strict=True)
    )
    return RowEncoder(rows, dialect, rows.getters(), columns)
