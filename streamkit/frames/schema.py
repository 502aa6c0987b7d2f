"""Rows of a declared type as columns, and back: the types of the columns are derived once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from streamkit.frames.column import pyarrow
from streamkit.frames.objects import Objects
from streamkit.frames.types import objects_of
from streamkit.record import Kind, Record, Value
from streamkit.serde.kinds import bare


def arrow_schema(kind: Kind) -> pyarrow.Schema:
    """Return the columns of rows of a type.

    A column has the name that the field has in JSON. It is nullable if the field may be None, is
    unset or may be missing.

    Args:
        kind: A Struct, a dataclass, a TypedDict or a NamedTuple.

    Raises:
        TopologyError: A field of the type cannot be a column, or it has no fields.
        UsageError: pyarrow is not installed.
    """
    return rows_of(kind).schema


def rows_to_arrow(values: Sequence[Value], kind: Kind) -> pyarrow.RecordBatch:
    """Return rows of a type as columns.

    Raises:
        RowError: A row does not fit into the columns; the message names the field.
        TopologyError: A field of the type cannot be a column, or it has no fields.
    """
    return rows_of(kind).batch(values)


def arrow_to_rows(table: pyarrow.Table | pyarrow.RecordBatch, kind: Kind) -> list[Value]:
    """Return columns as rows of a type.

    Columns may be in any order. Those of fields with a default may be absent.

    Raises:
        DataError: The table has other columns, or columns with other types of values.
        RowError: A value does not fit into its field; the message names it.
        TopologyError: A field of the type cannot be a column, or it has no fields.
    """
    return rows_of(kind).rows(table)


def rows_of(kind: Kind) -> Objects:
    """Return how rows of a type are columns.

    Raises:
        TopologyError: A field of the type cannot be a column, or it has no fields.
    """
    kind = bare(kind)
    try:
        return _known_rows(kind)
    except TypeError:  # a type with metadata that has no hash
        return objects_of(kind)


@lru_cache(maxsize=256)
def _known_rows(kind: Kind) -> Objects:
    # The values of a stream of plain records are bytes.
    return objects_of(Record[bytes] if kind is Record else kind)
