"""Rows and deletions of a sink as bytes, with the columns that they were made for.

The file of a commit may be read by a later run whose type of rows has changed, so the first block
says which columns the rows have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, Final

import msgspec

from streamkit.connectors.sql.columns import PYTHON_TYPES, RowType
from streamkit.connectors.sql.columns import ColumnType as T
from streamkit.connectors.sql.dialects import Dialect
from streamkit.connectors.sql.rows import Row
from streamkit.connectors.sql.statements import Target
from streamkit.connectors.sql.tables import ARRAY_MARK
from streamkit.record import Kind, Value

_MERGED_ROWS: Final = 100_000
# A decimal number is text in some columns only, and databases accept both.
_IN_FEW_DATABASES: Final = frozenset({T.INTERVAL, T.DECIMAL, T.UUID})
_AS_TEXT: Final[dict[str, frozenset[T]]] = {
    "native": frozenset(),
    "sqlite": frozenset(T) - {T.INT, T.FLOAT, T.BOOL, T.TEXT, T.BYTES},
    "portable": _IN_FEW_DATABASES,
    "mysql": _IN_FEW_DATABASES,
}

_encode = msgspec.msgpack.Encoder().encode


class Head(msgspec.Struct, frozen=True):
    """The first block of a file: the table and its columns."""

    table: str
    names: tuple[str, ...]
    types: tuple[str, ...]
    key: tuple[str, ...]
    replaces: bool

    def key_of(self) -> Callable[[Row], Value] | None:
        """Return a function from a row to its key, if rows with the same key replace each other.

        The key is a value for one column, and a tuple for several.
        """
        return itemgetter(*map(self.names.index, self.key)) if self.replaces else None

    def target(self, dialect: Dialect) -> Target:
        """Return the table that the rows are for."""
        return Target(dialect, self.table, self.names, self.key, self.replaces)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows to write, and keys whose rows are to be deleted.

    With a key whose rows are replaced, no key occurs twice.
    """

    rows: Iterable[Row]
    keys: Sequence[Row] = ()


def head_of(table: str, rows: RowType, key: tuple[str, ...], *, replaces: bool) -> Head:
    """Return the first block for rows of a type."""
    types = tuple(
        f"{each.items.holds.name}{ARRAY_MARK}"
        if each.holds is T.ARRAY and each.items is not None
        else each.holds.name
        for each in rows.columns
    )
    return Head(table, rows.names, types, key, replaces)


def encode_head(head: Head) -> bytes:
    return _encode(head)


def decode_head(data: bytes) -> Head:
    return msgspec.msgpack.decode(data, type=Head)


def encode_block(block: Block) -> bytes:
    return _encode((block.rows, block.keys))


class BlockDecoder:
    """Reads the blocks after a head."""

    def __init__(self, head: Head, dialect: Dialect) -> None:
        kinds: dict[str, Kind] = {
            name: _kind(holds, dialect) for name, holds in zip(head.names, head.types, strict=True)
        }
        row = _tuple_of(kinds[name] | None for name in head.names)
        key = _tuple_of(kinds[name] for name in head.key)
        both: Kind = tuple[list[row], list[key]]  # type: ignore[valid-type]  # known at run time
        self._decoder = msgspec.msgpack.Decoder(both)

    def decode(self, data: bytes) -> Block:
        rows, keys = self._decoder.decode(data)
        return Block(rows, keys)


def merged(head: Head, blocks: Iterable[Block]) -> Iterator[Block]:
    """Return fewer and larger blocks, since each block costs a database several statements."""
    key_of = head.key_of()
    if key_of is None:
        yield Block(chain.from_iterable(block.rows for block in blocks))
        return
    latest: dict[Value, Row | None] = {}
    for block in blocks:
        for key in block.keys:
            latest[tuple(key) if len(key) > 1 else key[0]] = None
        keep_latest(latest, [(key_of(row), row) for row in block.rows])
        if len(latest) >= _MERGED_ROWS:
            yield latest_of_keys(latest)
            latest = {}
    if latest:
        yield latest_of_keys(latest)


def keep_latest(
    latest: dict[Value, Row | None], written: Sequence[tuple[Value, Row | None]]
) -> None:
    """Add rows by their keys, in the order in which each key was written last.

    A database may take keys for the same that are different here, for example because it ignores
    their case. So the last one of them must come last.
    """
    before = len(latest)
    latest.update(written)
    if len(latest) - before < len(written):
        for key, row in written:
            del latest[key]
            latest[key] = row


def latest_of_keys(latest: Mapping[Value, Row | None]) -> Block:
    """Return the rows of some keys; a key without a row is one to delete."""
    rows = [row for row in latest.values() if row is not None]
    if len(rows) == len(latest):
        return Block(rows)
    deleted = (key for key, row in latest.items() if row is None)
    return Block(rows, [key if isinstance(key, tuple) else (key,) for key in deleted])


def _tuple_of(kinds: Iterable[Kind]) -> Kind:
    return tuple.__class_getitem__(tuple(kinds))


def _kind(name: str, dialect: Dialect) -> Kind:
    """Return the type of the values of a column from the name of what it holds."""
    if name.endswith(ARRAY_MARK):
        item = _kind(name.removesuffix(ARRAY_MARK), dialect)
        return list[item | None]  # type: ignore[valid-type]  # known at run time
    holds = T[name]
    if holds is T.ANY:
        return Any
    return str if holds in _AS_TEXT[dialect.stores] else PYTHON_TYPES[holds]
