"""Deletions: a value that is None deletes the row that has the key of its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from streamkit.connectors.sql.columns import PYTHON_TYPES
from streamkit.connectors.sql.columns import ColumnType as T
from streamkit.connectors.sql.rows import Row, RowEncoder
from streamkit.connectors.sql.values import Values
from streamkit.record import Value


@dataclass(frozen=True, slots=True)
class Deletion:
    """The key of a row to delete, as the database driver gets it."""

    key: Row


@dataclass(frozen=True, slots=True)
class KeyReader:
    """Reads the keys of records: text or a number for one column, a JSON list for several."""

    columns: tuple[Values, ...]

    def read(self, key: bytes | None) -> Deletion:
        """Return the deletion that a record means.

        Raises:
            ValueError: The record has no key, or one that is not a key of the table.
        """
        if key is None:
            raise ValueError("the value is None, but the record has no key, so it deletes nothing")
        try:
            parts = self._parts(key)
            if len(parts) != len(self.columns):
                raise ValueError(f"it has {len(parts)} parts, not {len(self.columns)}")
            return Deletion(tuple(map(_one, self.columns, parts)))
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            names = ", ".join(each.column.name for each in self.columns)
            raise ValueError(f"{key!r} is not a key ({names}): {error}") from error

    def _parts(self, key: bytes) -> Sequence[Value]:
        if len(self.columns) > 1:
            found: Sequence[Value] = msgspec.json.decode(key, type=list[Value])
            return found
        return [key if self.columns[0].column.holds is T.BYTES else key.decode()]


def key_reader(encoder: RowEncoder, key: Sequence[str]) -> KeyReader:
    """Return how keys of records become keys of the rows of an encoder."""
    found = {each.column.name: each for each in encoder.columns}
    return KeyReader(tuple(found[name] for name in key))


def _one(values: Values, part: Value) -> Value:
    column = values.column
    kind = PYTHON_TYPES[column.holds]
    value = part if kind is bytes else msgspec.convert(part, kind, strict=False)
    member = value if column.enum is None else column.enum(value)
    return values.converted([member])[0]
