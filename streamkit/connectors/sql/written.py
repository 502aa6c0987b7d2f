"""What a sink writes: checked rows and deletions, each key at most once in a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import cast

from streamkit.connectors.sql.blocks import Block, Head, head_of, keep_latest, latest_of_keys
from streamkit.connectors.sql.columns import RowType
from streamkit.connectors.sql.deletions import Deletion, KeyReader, key_reader
from streamkit.connectors.sql.dialects import Dialect
from streamkit.connectors.sql.options import names_of
from streamkit.connectors.sql.queries import Statement
from streamkit.connectors.sql.rows import BadRow, Row, RowEncoder, row_encoder
from streamkit.connectors.sql.session import Session
from streamkit.connectors.sql.sinks import SqlSink
from streamkit.connectors.sql.tables import (
    Table,
    check_names,
    create_table,
    existing_columns,
    key_columns,
    limits_of,
    refuse_absent,
    refuse_mismatches,
    with_arrays,
)
from streamkit.connectors.sql.untyped import keys_check, lenient, untyped_rows
from streamkit.dataflow.steps import RowFailed
from streamkit.errors import ConfigError
from streamkit.record import Chunk, Value

Written = Row | Deletion


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Turns values into rows of an existing table.

    ``key_of`` returns the key of a row; it is None if rows cannot have the same key, or if the
    database ignores all but the first. ``keys`` reads the keys of deletions.
    """

    head: Head
    encoder: RowEncoder
    key_of: Callable[[Row], Value] | None
    keys: KeyReader | None

    def on_chunk(self, chunk: Chunk) -> Chunk:
        """Return a chunk of rows and deletions.

        Raises:
            RowFailed: A value cannot be written; it names the first one.
        """
        has_none = type(None) in set(map(type, chunk.values))
        groups = groupby(chunk.values, key=_is_none) if has_none else [(False, chunk.values)]
        done: list[Written] = []
        for is_none, group in groups:
            values = list(group)
            try:
                if is_none:
                    self._add_deletions(done, chunk.keys, len(values))
                else:
                    done += self.encoder.encode(values)
            except BadRow as error:
                if not is_none:
                    done += self.encoder.encode(values[: error.row])
                before = chunk.slice(0, len(done)).with_values(done)
                raise RowFailed(len(done), before) from error
        return chunk.with_values(done)

    def block(self, written: Sequence[Written]) -> Block:
        """Return rows and deletions of which only the last one of each key is left."""
        if self.key_of is None:
            return Block(cast("Sequence[Row]", written))  # without keys nothing is deleted
        latest: dict[Value, Row | None] = {}
        if Deletion not in set(map(type, written)):
            rows = cast("Sequence[Row]", written)
            keep_latest(latest, list(zip(map(self.key_of, rows), rows, strict=True)))
            return latest_of_keys(latest)
        for each in written:
            if isinstance(each, Deletion):
                latest[tuple(each.key) if len(each.key) > 1 else each.key[0]] = None
            else:
                latest[self.key_of(each)] = each
        return latest_of_keys(latest)

    def _add_deletions(self, done: list[Written], keys: Sequence[bytes | None], count: int) -> None:
        for key in keys[len(done) : len(done) + count]:
            if self.keys is None:
                raise BadRow(0, "the value is None, and this sink deletes no rows")
            try:
                done.append(self.keys.read(key))
            except ValueError as error:
                raise BadRow(0, str(error)) from error


def table_of(session: Session, sink: SqlSink, rows: RowType | None) -> Table:
    """Return the table of a sink, which is created if it is missing.

    Args:
        session: The database.
        sink: The sink.
        rows: The type of the rows; None if they are dicts, for which no table can be created.

    Raises:
        ConfigError: The table is missing or does not match the type.
    """
    if sink.key and session.dialect.upserts is None:
        raise ConfigError(
            f"{sink}: mode={sink.mode!r} is not possible with {session.dialect.name}",
            hint='use mode="insert"',
        )
    table = session.describe(sink.table)
    if rows is None:
        return refuse_absent(sink, table, "create it, since the rows are of no declared type")
    key = key_columns(rows, names_of(sink.key))
    check_names(rows, session.dialect)
    if table is None and sink.create:
        session.execute(Statement(create_table(session.dialect, sink.table, rows, key)))
        table = session.describe(sink.table)
    table = refuse_absent(sink, table, "create=True creates it")
    refuse_mismatches(session.dialect, sink.table, table, rows, key)
    return table


def row_maker(dialect: Dialect, sink: SqlSink, table: Table, rows: RowType) -> RowMaker:
    """Return how values of a type become rows of an existing table."""
    rows = with_arrays(dialect, table, rows)
    return _row_maker(sink, row_encoder(rows, dialect, limits_of(dialect, table, rows)))


def untyped_row_maker(
    dialect: Dialect, sink: SqlSink, table: Table, values: Sequence[Value]
) -> RowMaker:
    """Return how dicts become rows of an existing table, from the first ones."""
    key = existing_columns(sink, dialect, names_of(sink.key), table)
    rows = untyped_rows(dialect, table, values, key)
    limits = limits_of(dialect, table, rows)
    encoder = row_encoder(rows, dialect, limits)
    columns = [lenient(*each, dialect) for each in zip(encoder.columns, limits, strict=True)]
    refuse = keys_check(table, rows)
    return _row_maker(sink, replace(encoder, columns=tuple(columns), refuse=refuse))


def _row_maker(sink: SqlSink, encoder: RowEncoder) -> RowMaker:
    is_upsert = sink.mode == "upsert"
    key = names_of(sink.key)
    head = head_of(sink.table, encoder.rows, key, replaces=is_upsert)
    deletes = is_upsert and sink.deletes
    return RowMaker(head, encoder, head.key_of(), key_reader(encoder, key) if deletes else None)


def _is_none(value: Value) -> bool:
    return value is None
