"""Parquet files: the rows of their row groups, read as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from streamkit.connectors.file_sink.content import Content
from streamkit.connectors.files.formats import FileFormat, RowReader, Rows
from streamkit.connectors.files.lines import Mark
from streamkit.dataflow.contracts import Decoder
from streamkit.errors import ConfigError, DataError, RowError, TopologyError, UsageError
from streamkit.frames.column_rows import ColumnRows
from streamkit.limits import COLUMNS_BYTES_MAX, COLUMNS_RECORDS_MAX
from streamkit.record import Kind, Value
from streamkit.serde.kinds import in_record

if TYPE_CHECKING:  # Python 3.11 does not have it
    import pyarrow
    from pyarrow import parquet as pq
    from typing_extensions import TypeForm

    from streamkit.frames.rows import Reading

T = TypeVar("T")
_MAGIC: Final = b"PAR1"
_COMPRESSIONS: Final = ("zstd", "snappy", "gzip", "brotli", "lz4", "none")
# How many bytes of a column are read from the file at a time.
_BUFFER_BYTES: Final = 1 << 20
_ROWS_MEASURED: Final = 64


@dataclass(frozen=True)
class Parquet(FileFormat[T]):
    """Parquet: rows in columns. It needs ``pip install 'fluvio-streamkit[arrow]'``.

    Of a type with fields, only the columns of its fields are read. A file without a column that
    the type needs, or with one of another type, stops the job. A row that is not valid fails alone.

    Attributes:
        type: The type of the values: a class with fields, or ``dict`` for the values by column.
        columns: With ``dict``: the columns to read; by default all.
        compression: How the columns of a file that is written are compressed: ``"zstd"``,
            ``"snappy"``, ``"gzip"``, ``"brotli"``, ``"lz4"`` or ``"none"``.
    """

    type: TypeForm[T] | None = None
    columns: Sequence[str] | None = None
    compression: str = "zstd"
    unit = "row"
    grows = False
    gives_columns = True
    compresses_itself = True

    def __post_init__(self) -> None:
        if isinstance(self.columns, str) or (self.columns is not None and not self.columns):
            raise UsageError(f"columns={self.columns!r} is not a list of names")
        if self.compression not in _COMPRESSIONS:
            raise UsageError(
                f"compression={self.compression!r} is not possible in Parquet",
                hint=f"use one of {', '.join(_COMPRESSIONS)}",
            )

    @property
    def kind(self) -> Kind:
        return self.type

    def for_type(self, kind: Kind) -> Parquet[Any]:
        found = in_record(kind)
        return self if found is None else replace(self, type=found)

    def decoder(self, kind: Kind) -> Decoder:
        _require_pyarrow()
        from streamkit.frames.rows import Reading, batch_maker
        from streamkit.frames.untyped import is_untyped

        try:
            is_free = is_untyped(kind)
            batch_maker(kind)
        except TopologyError as error:
            raise TopologyError(f"rows of Parquet: {error}", hint=error.hint) from None
        if self.columns is not None and not is_free:
            raise TopologyError("columns= is for rows that are dicts; a class names its columns")
        rows = _Decoding(Reading(kind))
        return Decoder(rows.one, rows.many)

    def encoded(self, value: Value, kind: Kind) -> Value:
        from streamkit.frames.rows import batch_maker

        return ParquetRow(batch_maker(kind)([value]))

    def rows_of(self, file: BinaryIO, start: Mark, reopen: Callable[[], BinaryIO]) -> RowReader:
        return _ParquetReader(file, start, self.type, self.columns)

    def content(self, kind: Kind) -> Content:
        _require_pyarrow()
        from streamkit.connectors.file_sink.parquet import parquet_content

        return parquet_content(kind, self.compression)


def _require_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"Parquet files need the library pyarrow, which cannot be imported: {error}",
            hint="it needs `pip install 'fluvio-streamkit[arrow]'`",
        ) from None


# --- rows as they are read -----------------------------------------------------------

# The kind of `ColumnRows` that are not decoded says whether their columns have exactly the types of
# the fields, and only valid values.
_EXACT: Final = "exact"
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True, repr=False)
class ParquetRow:
    """One row that is not decoded: a batch with this row."""

    batch: pyarrow.RecordBatch

    def __repr__(self) -> str:
        try:
            return repr(self.batch.to_pylist()[0])
        except Exception:  # a value that Python does not have
            return str(self.batch)


def _divided(batch: pyarrow.RecordBatch) -> list[Value]:
    return [ParquetRow(batch.slice(row, 1)) for row in range(batch.num_rows)]


class _Decoding:
    """Makes values of a type from rows that were read."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def many(self, values: Sequence[Value]) -> Sequence[Value]:
        if type(values) is ColumnRows:
            if values.kind is _EXACT:
                return self._reading.of_exact(values.batch)
            return self._reading.rows(values.batch)
        import pyarrow

        table = pyarrow.Table.from_batches([each.batch for each in values])
        return self._reading.rows(table)

    def one(self, value: ParquetRow) -> Value:
        try:
            return self._reading.rows(value.batch)[0]
        except RowError as error:
            text = str(error).removeprefix("row 0: ")
            raise DataError(text, hint=error.hint) from None


# --- reading -------------------------------------------------------------------------


class _ParquetReader:
    """Reads the rows of one file from one of them on; the first one has the number 1."""

    def __init__(
        self, file: BinaryIO, start: Mark, kind: Kind, columns: Sequence[str] | None
    ) -> None:
        self._file = file
        self._kind = kind
        self._columns = columns
        self._next = start.line
        self._size_bytes = 0
        self._batches: Iterator[pyarrow.RecordBatch] | None = None
        self._rest: ColumnRows | None = None
        self._rows = 0

    def read(self, rows_max: int, *, is_complete: bool) -> Rows | None:
        """Return the next rows; see `RowReader`."""
        if self._batches is None and not self._open(is_complete=is_complete):
            return None
        left = self._rest or self._next_batch()
        if left is None:
            return None
        # Rows that are columns cost less than others.
        count = max(1, min(COLUMNS_RECORDS_MAX, COLUMNS_BYTES_MAX // left.mean_bytes))
        found, self._rest = left.part(0, count), left.part(count, len(left))
        first, self._next = self._next, self._next + len(found)
        # The byte shows the end of the file, after which there is nothing to read.
        end_byte = self._size_bytes if self._next > self._rows else 0
        return Rows(found, range(first, self._next), Mark(end_byte, self._next))

    def _open(self, *, is_complete: bool) -> bool:
        """Read the end of the file; return False if it is not completely written yet."""
        _require_pyarrow()
        if not self._file.seekable():
            raise DataError(
                "a Parquet file cannot be read while it is compressed as a whole",
                hint="decompress it first; Parquet compresses its columns itself",
            )
        self._size_bytes = self._file.seek(0, 2)
        self._file.seek(max(0, self._size_bytes - len(_MAGIC)))
        if self._file.read(len(_MAGIC)) != _MAGIC:
            if not is_complete:
                return False
            raise DataError(
                f"this is not a Parquet file: it does not end with {_MAGIC.decode()}",
                hint="it may have another format, or is not completely written yet",
            )
        self._file.seek(0)
        self._batches = self._opened()
        return True

    def _next_batch(self) -> ColumnRows | None:
        assert self._batches is not None, "the file is open"
        import pyarrow

        try:
            batch = next(self._batches, None)
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(
                f"the file cannot be read after row {self._next - 1}: {error}",
                hint="the file may be damaged",
            ) from None
        if batch is None:
            return None
        exact = self._reading.exact_batch(batch)
        if exact is not None:
            return ColumnRows(exact, _EXACT, _divided)
        return ColumnRows(batch, _UNKNOWN, _divided)

    def _opened(self) -> Iterator[pyarrow.RecordBatch]:
        """Yield the batches of rows from the next one on."""
        from pyarrow import parquet

        from streamkit.frames.rows import Reading

        self._reading = Reading(self._kind)
        found = parquet.ParquetFile(self._file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        names = self._reading.columns_of(found.schema_arrow, self._columns)
        self._rows = found.metadata.num_rows
        skip = self._next - 1
        for group in range(found.num_row_groups):
            facts = found.metadata.row_group(group)
            if skip >= facts.num_rows:
                skip -= facts.num_rows
                continue
            mean_bytes = _mean_bytes(found, group, names)
            size = max(1, min(COLUMNS_RECORDS_MAX, COLUMNS_BYTES_MAX // mean_bytes))
            for batch in found.iter_batches(size, row_groups=[group], columns=names):
                left = batch.slice(skip)
                skip = max(0, skip - batch.num_rows)
                if left.num_rows:
                    yield left.select(names)


def _mean_bytes(file: pq.ParquetFile, group: int, names: Sequence[str]) -> int:
    """Return about how many bytes a row of a row group has in memory.

    In the file, a text that occurs often is stored once. So the first rows are read of the columns
    whose values have no fixed size.
    """
    bits = {name: _bits_of(file.schema_arrow.field(name).type) for name in names}
    varying = [name for name, size in bits.items() if not size]
    fixed_bytes = sum(bits.values()) // 8
    if not varying:
        return max(1, fixed_bytes)
    facts = file.metadata.row_group(group)
    columns = map(facts.column, range(facts.num_columns))
    stored = sum(
        each.total_uncompressed_size
        for each in columns
        if any(f"{each.path_in_schema}.".startswith(f"{name}.") for name in varying)
    )
    first = next(file.iter_batches(_ROWS_MEASURED, row_groups=[group], columns=varying))
    measured = int(first.nbytes) // max(1, int(first.num_rows))
    return fixed_bytes + max(int(stored) // int(facts.num_rows), measured, 1)


def _bits_of(kind: pyarrow.DataType) -> int:
    """Return the size of a value; 0 if values have different sizes."""
    try:
        return int(kind.bit_width)
    except ValueError:
        return 0
