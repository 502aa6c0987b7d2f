"""Parquet: rows become columns when they come, and are kept as a stream of Arrow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, Final

import pyarrow
from pyarrow import parquet

from streamkit.connectors.file_sink.content import Content, decoded
from streamkit.connectors.file_sink.rows import dict_encoder
from streamkit.errors import RowError, StreamKitError
from streamkit.frames.rows import batch_maker
from streamkit.frames.untyped import is_untyped
from streamkit.record import Kind, Value
from streamkit.serde.kinds import bare
from streamkit.serde.values import ValueEncoder

_GROUP_ROWS: Final = 1 << 17


class ParquetRows(Content):
    """Rows of a type. The spool has one Arrow stream for each call of `spooled`.

    Raises:
        TopologyError: Values of the type cannot be columns.
    """

    def __init__(self, kind: Kind, compression: str) -> None:
        self.encoder = ValueEncoder(_unchanged)
        self._batch = batch_maker(kind)
        self.columns = str(self._batch([]).schema)
        self._compression = compression

    def checked(self, rows: Sequence[Value]) -> Any:
        return self._batch(rows)

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
        writer: Any = None
        waiting: list[Any] = []
        count = 0
        size_bytes = spool.seek(0, os.SEEK_END)
        spool.seek(0)
        source = pyarrow.PythonFile(spool, mode="r")
        while source.tell() < size_bytes:
            for batch in pyarrow.ipc.open_stream(source):
                if writer is None:
                    writer = parquet.ParquetWriter(out, batch.schema, compression=self._compression)
                waiting.append(batch)
                count += len(batch)
                if count >= _GROUP_ROWS:
                    writer.write_table(pyarrow.Table.from_batches(waiting))
                    waiting, count = [], 0
        if waiting:
            writer.write_table(pyarrow.Table.from_batches(waiting))
        writer.close()


class ParquetOfDicts(Content):
    """Rows without a type: their columns are known when all rows of a file are there."""

    def __init__(self, compression: str) -> None:
        self.encoder = dict_encoder()
        self._compression = compression

    def finish(self, spool: BinaryIO, out: BinaryIO) -> None:
        schema = pyarrow.schema([])
        try:
            for batch in _batches(spool):
                both = [schema, batch.schema]
                schema = pyarrow.unify_schemas(both, promote_options="permissive")
        except (RowError, pyarrow.ArrowException) as error:
            raise StreamKitError(
                f"the rows do not fit into one table: {error}",
                hint="declare the type of the values, so that each row is checked when it comes",
            ) from error
        spool.seek(0)
        with parquet.ParquetWriter(out, schema, compression=self._compression) as writer:
            for batch in _batches(spool):
                writer.write_batch(_with_all_columns(batch, schema))


def _batches(spool: BinaryIO) -> Iterator[Any]:
    make = batch_maker(None)
    rows = decoded(spool)
    while part := list(islice(rows, _GROUP_ROWS)):
        yield make(part)


def _with_all_columns(batch: Any, schema: Any) -> Any:
    given = set(batch.schema.names)
    columns = [
        batch.column(field.name).cast(field.type)
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
        return ParquetOfDicts(compression)
    return ParquetRows(kind, compression)


def _unchanged(value: Value) -> Value:
    return value
