"""Reads the rows of some keys with one query."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from streamkit.connectors.sql.columns import PYTHON_TYPES, RowType
from streamkit.connectors.sql.columns import ColumnType as T
from streamkit.connectors.sql.decoding import RowDecoder, row_decoder
from streamkit.connectors.sql.dialects import Dialect
from streamkit.connectors.sql.queries import Statement
from streamkit.connectors.sql.session import Session
from streamkit.connectors.sql.tables import Limits
from streamkit.connectors.sql.values import BadValue, Values, values_of
from streamkit.errors import ConfigError, DataError, shown
from streamkit.record import Value

# SQLite allows 1,000 levels of an expression, and each key of several columns is one.
KEYS_MAX: Final = 500
_CHECKED_ROWS: Final = 100
_STORED_AS_TEXT: Final = (T.TIMESTAMP, T.LOCAL_TIMESTAMP, T.DATE, T.TIME, T.INTERVAL, T.UUID)

Key = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class KeyedReader:
    """How the rows of keys are read from one table."""

    dialect: Dialect
    table: str
    rows: RowType
    key: tuple[Values, ...]
    decoder: RowDecoder
    keys_max: int = KEYS_MAX

    def encoded(self, key: Value) -> Key:
        """Return a key as the database has it; a key of several columns is a tuple.

        Raises:
            ValueError: It is not a key of the table.
        """
        return self.encoded_all([key])[0]

    def encoded_all(self, keys: Sequence[Value]) -> list[Key]:
        """Return many keys as the database has them.

        Raises:
            ValueError: One of them is not a key of the table.
        """
        if len(self.key) == 1:
            columns: Sequence[Sequence[Value]] = [keys]
        else:
            for key in keys:
                self._check_parts(key)
            columns = list(zip(*keys, strict=True))
        pairs = zip(self.key, columns, strict=False)  # without keys there are no columns
        return list(zip(*(values.converted(column) for values, column in pairs), strict=True))

    def _check_parts(self, key: Value) -> None:
        if not isinstance(key, tuple | list) or len(key) != len(self.key):
            names = ", ".join(each.column.name for each in self.key)
            raise ValueError(f"{key!r} is not a key of ({names}): it needs one value for each")

    def refuse_other_texts(self, session: Session) -> None:
        """Refuse keys that SQLite has as other texts than those that are looked for.

        Raises:
            ConfigError: Such a text was found, in the first rows of the table.
        """
        if self.dialect.stores != "sqlite":
            return
        names = self.dialect.quoted_all(each.column.name for each in self.key)
        first = f"SELECT {names} FROM {self.dialect.table(self.table)} LIMIT {_CHECKED_ROWS}"
        for row in session.query(Statement(first)).rows:
            for values, stored in zip(self.key, row, strict=True):
                wanted = _wanted(values, stored)
                if wanted != stored:
                    raise ConfigError(
                        f"{self.table} has the key {values.column.name}={shown(stored)}, but a "
                        f"lookup of {values.column.holds.value} looks for {shown(wanted)}",
                        hint="give the field the type of what is stored, such as str, and let on= "
                        "return the key in that form",
                    )

    def read(self, keys: Sequence[Key], session: Session) -> Mapping[Key, Mapping[str, Value]]:
        """Return the rows of some keys, at most ``keys_max``, by their keys.

        Raises:
            DataError: The key does not identify a row, or the database finds a row by another key.
        """
        found = session.query(self._statement(keys))
        rows = [dict(zip(self.rows.names, row, strict=True)) for row in found.rows]
        of_rows = self._keys_of(rows)
        by_key = dict(zip(of_rows, rows, strict=True))
        if len(by_key) < len(rows):
            (key, count), *_ = Counter(of_rows).most_common(1)
            raise DataError(
                f"{count} rows of {self.table} have the key {self._shown(key)}",
                hint="look up rows by columns that identify a row",
            )
        if other := next(iter(by_key.keys() - set(keys)), None):
            raise DataError(
                f"{self.table} has a row with the key {self._shown(other)}, which the database "
                "takes for an equal one",
                hint="it ignores case or spaces at the end; let on= return the key as it is stored",
            )
        return by_key

    def _keys_of(self, rows: Sequence[Mapping[str, Value]]) -> list[Key]:
        """Return the keys of rows as `encoded` does, since drivers read some types differently."""
        columns = [_as_encoded(each, [row[each.column.name] for row in rows]) for each in self.key]
        return list(zip(*columns, strict=True))

    def _shown(self, key: Key) -> str:
        names = (each.column.name for each in self.key)
        return ", ".join(f"{n}={shown(v)}" for n, v in zip(names, key, strict=True))

    def decoded(self, row: Mapping[str, Value] | None) -> Value:
        """Return a row as a value of its type; None for no row.

        Raises:
            ValueError: It is not of the type.
        """
        return None if row is None else self.decoder.one(row)

    def _statement(self, keys: Sequence[Key]) -> Statement:
        quoted = [self.dialect.quoted(each.column.name) for each in self.key]
        mark = self.dialect.placeholder
        if len(quoted) == 1:
            where = f"{quoted[0]} IN {self.dialect.placeholders(len(keys))}"
        else:
            one = " AND ".join(f"{name} = {mark}" for name in quoted)
            where = " OR ".join([f"({one})"] * len(keys))
        names = self.dialect.quoted_all(self.rows.names)
        return Statement(
            f"SELECT {names} FROM {self.dialect.table(self.table)} WHERE {where}",
            tuple(part for key in keys for part in key),
        )


def keyed_reader(
    dialect: Dialect, table: str, rows: RowType, key: Sequence[str], limits: Sequence[Limits]
) -> KeyedReader:
    """Return how the rows of keys are read from an existing table."""
    found = {
        column.name: values_of(column, dialect, limit)
        for column, limit in zip(rows.columns, limits, strict=True)
    }
    return KeyedReader(dialect, table, rows, tuple(found[name] for name in key), row_decoder(rows))


def _wanted(values: Values, stored: Value) -> Value:
    """Return what is looked for to find a stored value; the value itself if it is not of the type,
    which is an error of its record."""
    holds = values.column.holds
    if holds not in _STORED_AS_TEXT or values.column.enum is not None:
        return stored
    try:
        return values.one(msgspec.convert(stored, PYTHON_TYPES[holds], strict=False))
    except (ValueError, TypeError):
        return stored


def _as_encoded(values: Values, column: Sequence[Value]) -> Sequence[Value]:
    try:
        return values.converted(column)
    except BadValue:  # they are read as they are sent, such as a UUID that is text
        return column
