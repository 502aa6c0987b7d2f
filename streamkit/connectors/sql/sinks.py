"""Tables as sinks. Importable without any driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from streamkit.connectors.sql.columns import RowType, row_type
from streamkit.connectors.sql.decoding import is_untyped
from streamkit.connectors.sql.dialects import table_parts
from streamkit.connectors.sql.options import (
    NAME_CHARACTERS_MAX,
    Url,
    checked_url,
    database_at,
    names_of,
    node_name,
    place_of,
)
from streamkit.connectors.sql.tables import key_columns
from streamkit.connectors.sql.url import Database
from streamkit.dataflow.contracts import ConnectorEnv, Sink, SinkWriter
from streamkit.errors import TopologyError, UsageError, shown
from streamkit.record import Kind, Value
from streamkit.serde.binding import Serde
from streamkit.serde.kinds import in_record, members
from streamkit.serde.values import ValueEncoder

Mode = Literal["insert", "upsert", "ignore"]


@dataclass(frozen=True, slots=True, repr=False)
class SqlSink(Sink[Any]):
    """A table that rows are written to.

    Attributes:
        url: The URL of the database, as in `SqlTable`.
        table: The name of the table, exactly as the database has it; ``"schema.table"`` is allowed.
        mode: ``"insert"`` adds rows. ``"upsert"`` replaces the row with the same key. ``"ignore"``
            keeps the row that has the key already.
        key: The column or columns that identify a row; only with ``"upsert"`` and ``"ignore"``.
        create: Create the table if it is missing.
        deletes: With ``"upsert"``: a value that is None deletes the row with the key of the record.

    Raises:
        UsageError: An argument is not valid.
    """

    url: Url
    table: str
    mode: Mode = "insert"
    key: str | Sequence[str] | None = None
    create: bool = True
    deletes: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", checked_url(self.url))
        table_parts(self.table)
        object.__setattr__(self, "key", names_of(self.key))
        if self.mode not in get_args(Mode):
            raise UsageError(
                f"mode={shown(self.mode)} is not a valid mode",
                hint=f"use {', '.join(map(repr, get_args(Mode)))}",
            )
        if self.mode == "insert" and self.key:
            raise UsageError(
                'mode="insert" has no key=', hint='use mode="upsert" to replace rows by their key'
            )
        if self.mode != "insert" and not self.key:
            raise UsageError(f"mode={self.mode!r} needs key=", hint='for example key="id"')

    def __repr__(self) -> str:
        return f"SqlSink({place_of(self.url)}, {self.table!r}, mode={self.mode!r})"

    def __str__(self) -> str:
        return f"table {self.table} of {place_of(self.url)}"

    @property
    def name(self) -> str:
        """A name for the sink."""
        return f"to-{node_name(self.table)}"[:NAME_CHARACTERS_MAX]

    @property
    def database(self) -> Database:
        """The database; a function that gives its URL is called."""
        return database_at(self.url)

    def encoder(self, kind: Kind, serde: Serde | None) -> ValueEncoder:
        """Return an encoder that changes nothing: the writer checks whole columns.

        Raises:
            TopologyError: The type of the values is not known, or has no columns.
        """
        # `super()` knows only the class before `slots=True` made another one.
        Sink.encoder(self, kind, serde)
        self.rows(kind)
        return ValueEncoder(_same)

    def rows(self, kind: Kind) -> RowType | None:
        """Return the columns of the rows of a type; None in it stands for a deletion.

        For dicts, and values of any type, it returns None: the columns of the table decide.

        Raises:
            TopologyError: The type is not known, has no columns, or lacks those of the key.
        """
        written = in_record(kind) if kind is not None else None
        kinds = [each for each in members(written) if each not in (None, type(None))]
        if not kinds:
            raise TopologyError(
                f"{self}: the type of the rows is not known",
                hint="annotate the function before it, or give app.stream the type of its values",
            )
        if len(kinds) > 1:
            names = ", ".join(getattr(each, "__name__", str(each)) for each in kinds)
            raise TopologyError(
                f"{self}: the values are of several types, {names}",
                hint="write each type to its own table, with stream.only(Type)",
            )
        if is_untyped(kinds[0]):
            return None
        found = row_type(kinds[0])
        key_columns(found, names_of(self.key))
        return found

    def writer(self, env: ConnectorEnv) -> SinkWriter:
        # The writer needs this class, and its driver may be missing.
        from streamkit.connectors.sql.writer import SqlWriter

        return SqlWriter(self, self.rows(env.kind), env)


def _same(value: Value) -> Value:
    return value
