"""Avro files (object container files): the records of their blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar
from uuid import UUID

import msgspec

from streamkit.connectors.file_sink.avro import CODECS, AvroRows
from streamkit.connectors.file_sink.content import Content
from streamkit.connectors.files.formats import FileFormat, RowReader, Rows
from streamkit.connectors.files.lines import Mark
from streamkit.dataflow.contracts import Decoder
from streamkit.errors import ConfigError, DataError, UsageError
from streamkit.formats.avro import Avro
from streamkit.formats.avro_types import Schema
from streamkit.limits import CHUNK_BYTES_MAX
from streamkit.record import Kind, Value
from streamkit.serde.kinds import bare

if TYPE_CHECKING:  # Python 3.11 does not have it
    from typing_extensions import TypeForm

T = TypeVar("T")
_HEADER_BYTES_MAX: Final = 1 << 24
_BLOCK_BYTES_MAX: Final = 1 << 28
# What fastavro makes of logical types.
_READ: Final = (bytes, datetime, date, time, Decimal, UUID)


@dataclass(frozen=True)
class AvroFile(FileFormat[T]):
    """Avro files. They need ``pip install 'fluvio-streamkit[avro]'``.

    The schema is in the file. For single Avro records, such as those of a topic, there is
    `streamkit.formats.Avro`.

    Attributes:
        type: The type of the values: a class with fields, or ``dict`` for the values by field.
        schema: The schema of files that are written, as a text or as the objects of its JSON; by
            default that of the type.
        codec: The compression of files that are written: ``"deflate"`` or ``"null"``.
    """

    type: TypeForm[T] | None = None
    schema: Schema = None
    codec: str = "deflate"
    unit = "row"
    compresses_itself = True

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise UsageError(
                f"codec={self.codec!r} is not possible", hint=f"use {' or '.join(CODECS)}"
            )

    @property
    def kind(self) -> Kind:
        return self.type

    def decoder(self, kind: Kind) -> Decoder | None:
        _require_fastavro()
        if bare(kind) in (None, Any, dict, dict[str, Any]):
            return None

        def one(row: Value) -> Value:
            return msgspec.convert(row, kind, builtin_types=_READ, str_keys=True)

        def many(rows: Any) -> list[Value]:
            return msgspec.convert(rows, list[kind], builtin_types=_READ, str_keys=True)

        return Decoder(one, many)

    def encoded(self, value: Value, kind: Kind) -> Value:
        return msgspec.to_builtins(value, builtin_types=_READ)

    def rows_of(self, file: BinaryIO, start: Mark, reopen: Callable[[], BinaryIO]) -> RowReader:
        return _AvroReader(file, start, reopen)

    def content(self, kind: Kind) -> Content:
        _require_fastavro()
        return AvroRows(kind, Avro(schema=self.schema), self.codec)


def _require_fastavro() -> None:
    try:
        import fastavro  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"Avro files need the library fastavro, which cannot be imported: {error}",
            hint="it needs `pip install 'fluvio-streamkit[avro]'`",
        ) from None


class _AvroReader:
    """Reads the rows of one file; each block of the file gives one part, or several."""

    def __init__(self, file: BinaryIO, start: Mark, reopen: Callable[[], BinaryIO]) -> None:
        self._file = file
        self._reopen = reopen
        self._next = start
        self._stream: _AfterHeader | None = None
        self._blocks: Iterator[Any] | None = None
        # The rows of a block that are not given yet, and where the next block begins.
        self._rest: list[Value] = []
        self._block_end = start.byte
        self._bytes_per_row = 1

    def read(self, rows_max: int, *, is_complete: bool) -> Rows | None:
        """Return the next rows; see `RowReader`."""
        try:
            if not self._rest and not self._next_block():
                return None
        except (DataError, ConfigError):
            raise
        except Exception as error:  # fastavro has no common class
            if isinstance(error, OSError) and error.errno is not None:
                raise
            is_cut = self._stream is None or self._stream.is_cut
            if is_cut and not is_complete:
                return None  # more of the block may follow
            raise self._damaged("it ends early" if is_cut else _text(error)) from None
        count = max(1, min(rows_max, CHUNK_BYTES_MAX // self._bytes_per_row))
        rows, self._rest = self._rest[:count], self._rest[count:]
        first = self._next.line
        end = first + len(rows)
        # Reading can only begin at the beginning of a block.
        self._next = (
            Mark(self._next.byte, end, self._next.within + len(rows))
            if self._rest
            else Mark(self._block_end, end)
        )
        return Rows(rows, range(first, end), self._next)

    def _next_block(self) -> bool:
        """Read the next block that has rows; return False at the end of the file."""
        if self._blocks is None:
            self._blocks = self._opened()
        skip = self._next.within
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                assert self._stream is not None, "it was opened"
                if self._stream.tell() > self._block_end:
                    raise EOFError
                return False
            self._block_end = block.offset + block.size
            self._bytes_per_row = max(1, len(block.bytes_.getvalue()) // max(1, block.num_records))
            self._rest = list(block)[skip:]
            if not self._rest:
                self._next = Mark(self._block_end, self._next.line)
        return True

    def _opened(self) -> Iterator[Any]:
        """Return the blocks from the next one on."""
        _require_fastavro()
        from streamkit.formats import avro_coding

        start = self._next.byte
        header = b""
        if start:
            with self._reopen() as beginning:
                read = _AfterHeader(beginning)
                avro_coding.blocks_of(read)
                header = read.header()
        self._stream = _AfterHeader(self._file, header, start)
        blocks: Iterator[Any] = avro_coding.blocks_of(self._stream)
        self._block_end = self._stream.tell()
        return blocks

    def _damaged(self, text: str) -> DataError:
        return DataError(
            f"the file cannot be read after row {self._next.line - 1}: {text}",
            hint="the file may be damaged, have another format, or not be completely written",
        )


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


class _AfterHeader:
    """A file whose header comes first, although the file stands at a block.

    Args:
        file: The file.
        header: The bytes that are read before those of the file.
        start: The byte where the file stands.
    """

    def __init__(self, file: BinaryIO, header: bytes = b"", start: int = 0) -> None:
        self._file = file
        self._header = header
        self._header_bytes = 0
        self._byte = start
        self._all: list[bytes] = []
        # Whether the file ended where more bytes were expected.
        self.is_cut = False

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end."""
        if not 0 <= size <= _BLOCK_BYTES_MAX:
            raise DataError(f"a block of the file would have {size} bytes, which is not possible")
        if self._header_bytes < len(self._header):
            part = self._header[self._header_bytes : self._header_bytes + size]
            self._header_bytes += len(part)
            return part
        parts = []
        left = size
        while left and (part := self._file.read(left)):
            parts.append(part)
            left -= len(part)
        self._byte += size - left
        self.is_cut = self.is_cut or left > 0
        found = b"".join(parts)
        if self._byte <= _HEADER_BYTES_MAX:
            self._all.append(found)
        return found

    def tell(self) -> int:
        """Return the place in the file."""
        return self._byte

    def header(self) -> bytes:
        """Return what was read."""
        return b"".join(self._all)
