"""The queries of a source: pages of rows in the order of some columns, and ranges of a key.

The columns that order the rows are the incremental column, if there is one, and then the key, so
that each row has its own place. A page begins after the place of the last row that was read:

    WHERE (updated_at, id) > (?, ?) ORDER BY updated_at, id LIMIT ?

Rows with the same time are told apart by their key, so none is lost and none is read twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from streamkit.connectors.sql.dialects import Dialect
from streamkit.errors import UsageError, shown
from streamkit.record import Value

_ALIAS: Final = "source_rows"
_END: Final = re.compile(r"[\s;]+\Z")


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement and its parameters, in the order of its placeholders."""

    text: str
    parameters: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows that a source reads, and their order.

    ``relation`` is SQL. ``columns`` are the columns to read, empty for all. ``order`` are the
    columns that order the rows; together they are unique. ``as_text`` are those of them that are
    ordered as text, since the database orders them otherwise than it compares them.
    """

    dialect: Dialect
    relation: str
    order: tuple[str, ...]
    columns: tuple[str, ...] = ()
    as_text: frozenset[str] = frozenset()

    def page(
        self,
        limit: int,
        *,
        after: Sequence[Value] | None = None,
        until: Sequence[Value] | None = None,
    ) -> Statement:
        """Return the query of the next rows in order, at most ``limit``; see `rows`."""
        found = self.rows(after=after, until=until)
        return Statement(f"{found.text} LIMIT {limit:d}", found.parameters)

    def rows(
        self, *, after: Sequence[Value] | None = None, until: Sequence[Value] | None = None
    ) -> Statement:
        """Return the query of all rows between two places, in order.

        Args:
            after: The place of the last row that was read; None at the beginning.
            until: The place of the last row to read; None without an end.
        """
        conditions = [
            self._compared(sign, place)
            for sign, place in ((">", after), ("<=", until))
            if place is not None
        ]
        where = f" WHERE {' AND '.join(text for text, _ in conditions)}" if conditions else ""
        parameters = [value for _, values in conditions for value in values]
        text = f"SELECT {self._columns()} FROM {self.relation}{where} ORDER BY {self._ordered()}"
        return Statement(text, tuple(parameters))

    def last(self, until: Value = None) -> Statement:
        """Return the query of the place of the last row in order.

        Args:
            until: The highest value of the first column; None without a bound.
        """
        names = self._names()
        conditions = [f"{each} IS NOT NULL" for each in names]
        if until is not None:
            conditions.append(f"{names[0]} <= {self.dialect.placeholder}")
        descending = ", ".join(f"{each} DESC" for each in names)
        return Statement(
            f"SELECT {', '.join(names)} FROM {self.relation} WHERE {' AND '.join(conditions)} "
            f"ORDER BY {descending} LIMIT 1",
            () if until is None else (until,),
        )

    def at(self, place: Sequence[Value]) -> Statement:
        """Return the query of the rows at a place, at most two."""
        first, from_place = self._compared(">=", place)
        last, to_place = self._compared("<=", place)
        return Statement(
            f"SELECT 1 FROM {self.relation} WHERE {first} AND {last} LIMIT 2",
            (*from_place, *to_place),
        )

    def null_in(self, column: str) -> Statement:
        """Return the query that finds a row without a place: NULL in a column that orders."""
        name = self.dialect.quoted(column)
        return Statement(f"SELECT 1 FROM {self.relation} WHERE {name} IS NULL LIMIT 1")

    def key_range(self) -> Statement:
        """Return the query of the lowest and the highest value of the first ordering column."""
        name = self._names()[0]
        return Statement(f"SELECT MIN({name}), MAX({name}) FROM {self.relation}")

    def _columns(self) -> str:
        if not self.columns:
            return "*"
        missing = [each for each in self.order if each not in self.columns]
        return self.dialect.quoted_all([*self.columns, *missing])

    def _names(self) -> list[str]:
        return [
            f"CAST({self.dialect.quoted(each)} AS CHAR)"
            if each in self.as_text
            else self.dialect.quoted(each)
            for each in self.order
        ]

    def _ordered(self) -> str:
        return ", ".join(self._names())

    def _compared(self, sign: str, place: Sequence[Value]) -> tuple[str, list[Value]]:
        """Compare the place of a row; ``place`` may have only the first of the columns."""
        names, values = self._names()[: len(place)], list(place)
        if len(names) == 1:
            return f"{names[0]} {sign} {self.dialect.placeholder}", values
        if self.dialect.compares_rows:
            marks = self.dialect.placeholders(len(values))
            return f"({', '.join(names)}) {sign} {marks}", values
        return self._expanded(sign, names, values)

    def _expanded(
        self, sign: str, names: list[str], values: list[Value]
    ) -> tuple[str, list[Value]]:
        """Compare column by column, for databases that cannot compare rows."""
        mark = self.dialect.placeholder
        choices, parameters = [], []
        for count in range(1, len(names) + 1):
            # Only the comparison of all columns may find equal rows.
            own = sign if count == len(names) else sign[0]
            same = [f"{each} = {mark}" for each in names[: count - 1]]
            choices.append(" AND ".join([*same, f"{names[count - 1]} {own} {mark}"]))
            parameters += values[:count]
        return f"({' OR '.join(f'({each})' for each in choices)})", parameters


def query_relation(dialect: Dialect, query: str) -> str:
    """Return a query of the user as the relation of a `Selection`.

    Raises:
        UsageError: It is not a query.
    """
    text = _END.sub("", query)
    if not text.strip():
        raise UsageError("query= is empty", hint='for example "SELECT id, name FROM customers"')
    # A newline ends a comment in the last line of the query.
    return f"({dialect.literal(text)}\n) AS {_ALIAS}"


def split_range(low: Value, high: Value, count: int) -> list[Value]:
    """Return the last values of all ranges but the last, which divide a range of whole numbers.

    The ranges have about the same size. There are fewer than ``count`` if the range is small, and
    only one if its values are not whole numbers.
    """
    if type(low) is not int or type(high) is not int:
        return []
    size = high - low + 1
    parts = min(count, size)
    return [low + size * part // parts - 1 for part in range(1, parts)]


def check_rows(value: Value, name: str) -> int:
    """Return a number of rows.

    Raises:
        UsageError: It is not a whole number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name}={shown(value)} must be a whole number of at least 1")
    return value
