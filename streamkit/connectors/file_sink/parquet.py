"""Parquet: rows become columns when they come, and are kept as streams of Arrow."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final

import pyarrow
from pyarrow import parquet

from streamkit.connectors.file_sink.common_types import batch_of_dicts, converted, united
from streamkit.connectors.file_sink.content import Content
from streamkit.connectors.file_sink.rows import from_json
from streamkit.errors import DataError, RowError
from streamkit.frames.column_rows import ColumnRows
from streamkit.frames.rows import batch_maker, batch_of
from streamkit.frames.untyped import is_untyped
from streamkit.record import Kind, Value
from streamkit.serde.json_values import plain_values
from streamkit.serde.kinds import bare

_GROUP_ROWS: Final = 1 << 17


class _Columns(Content):
    """Rows as batches of Arrow. The spool has one stream for each call of `spooled`."""

    encoder = None

    def __init__(self, compression: str) -> None:
        self._compression = compression
        self.notes = []
        self._noted: set[str] = set()

    @abstractmethod
    def checked(self, rows: Sequence[Value]) -> pyarrow.RecordBatch: ...

    def picked(self, rows: Any, places: Sequence[int]) -> Any:
        if len(places) == len(rows):
            return rows
        return rows.take(pyarrow.array(places, pyarrow.int32()))

    def spooled(self, rows: Any) -> bytes:
        out = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(out, rows.schema) as stream:
            stream.write_batch(rows)
        return bytes(out.getvalue())

    def finish(self, spool: BinaryIO, out: BinaryIO) -> None:
        schema = self._schema_of(spool)
        try:
            with parquet.ParquetWriter(out, schema, compression=self._compression) as writer:
                for group in _groups(spool, schema):
                    writer.write_table(group)
        except pyarrow.ArrowException as error:
            raise DataError(f"the rows cannot be written as Parquet: {error}") from error

    @abstractmethod
    def _schema_of(self, spool: BinaryIO) -> pyarrow.Schema:
        """Return the columns of the file whose rows are in a spool."""


class ParquetRows(_Columns):
    """Rows of a type.

    Raises:
        TopologyError: Values of the type cannot be columns.
    """

    def __init__(self, kind: Kind, compression: str) -> None:
        super().__init__(compression)
        self._kind = kind
        self.columns = str(batch_maker(kind)([]).schema)

    def checked(self, rows: Sequence[Value]) -> pyarrow.RecordBatch:
        return batch_of(rows, self._kind)

    def _schema_of(self, spool: BinaryIO) -> pyarrow.Schema:
        return next(_batches(spool)).schema  # an earlier program may have begun the file


class ParquetOfValues(_Columns):
    """Rows without a type; a column has a type that all its values fit into."""

    def checked(self, rows: Sequence[Value]) -> pyarrow.RecordBatch:
        if type(rows) is ColumnRows:
            return rows.batch
        batch, mixed = batch_of_dicts(_dicts(rows))
        self._note_texts(mixed)
        return batch

    def _schema_of(self, spool: BinaryIO) -> pyarrow.Schema:
        schema, mixed = united(lambda: _batches(spool))
        self._note_texts(mixed)
        return schema

    def _note_texts(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._noted:
                self._noted.add(name)
                self.notes.append(
                    f"the values of the column {name!r} have no common type, so they become text"
                )


def _dicts(rows: Sequence[Value]) -> list[Value]:
    """Return rows as dicts of values that a column can have; bytes are JSON.

    Raises:
        RowError: A row is not a dict or an object.
    """
    found = []
    for number, row in enumerate(rows):
        try:
            plain = from_json(row) if type(row) is bytes else plain_values(row)
        except Exception as error:
            raise RowError(number, str(error)) from error
        if not isinstance(plain, dict):
            text = f"a row is {type(plain).__name__}, but columns need a dict or an object"
            raise RowError(number, text)
        if not plain:
            raise RowError(number, "the row has no fields")
        found.append(plain)
    return found


def _batches(spool: BinaryIO) -> Iterator[pyarrow.RecordBatch]:
    size_bytes = spool.seek(0, os.SEEK_END)
    spool.seek(0)
    source = pyarrow.PythonFile(spool, mode="r")
    while source.tell() < size_bytes:
        yield from pyarrow.ipc.open_stream(source)


def _groups(spool: BinaryIO, schema: pyarrow.Schema) -> Iterator[pyarrow.Table]:
    """Yield the rows of a spool with the columns of a file, many at once."""
    waiting: list[pyarrow.RecordBatch] = []
    count = 0
    for batch in _batches(spool):
        waiting.append(batch if batch.schema == schema else _with_columns(batch, schema))
        count += len(batch)
        if count >= _GROUP_ROWS:
            yield pyarrow.Table.from_batches(waiting, schema)
            waiting, count = [], 0
    if waiting:
        yield pyarrow.Table.from_batches(waiting, schema)


def _with_columns(batch: pyarrow.RecordBatch, schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    given = set(batch.schema.names)
    columns = [
        converted(batch.column(field.name), field.type)
        if field.name in given
        else pyarrow.nulls(len(batch), field.type)
        for field in schema
    ]
    return pyarrow.RecordBatch.from_arrays(columns, schema=schema)


def parquet_content(kind: Kind, compression: str) -> Content:
    """Return Parquet for values of a type.

    Raises:
        TopologyError: Values of the type cannot be columns.
    """
    if bare(kind) is bytes or is_untyped(kind):
        return ParquetOfValues(compression)
    return ParquetRows(kind, compression)
