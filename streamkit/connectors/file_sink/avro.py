"""Avro files (object container files): a header with the schema, then blocks of records.

Source: the section "Object Container Files" of the specification of Avro 1.12.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from streamkit.connectors.file_sink.content import Content
from streamkit.formats.avro import Avro, written_schema
from streamkit.record import Kind, Value
from streamkit.serde.binding import Usage
from streamkit.serde.values import ValueEncoder

CODECS: Final = ("deflate", "null")
_MAGIC: Final = b"Obj\x01"
_LENGTH: Final = struct.Struct("<I")
_BLOCK_BYTES: Final = 1 << 16
_SYNC_BYTES: Final = 16


class AvroRows(Content):
    """Records of one schema. The spool has each after its length.

    Raises:
        TopologyError: There is no schema, or values of the type do not fit into it.
    """

    def __init__(self, kind: Kind, form: Avro, codec: str) -> None:
        usage = Usage(kind, is_written=True)
        bound = form.for_use(usage)
        self.encoder = ValueEncoder(bound.dumps, bound.fault)
        self._schema = written_schema(form, usage).encode()
        self._codec = codec

    def spooled(self, rows: Sequence[Value]) -> bytes:
        return b"".join([_LENGTH.pack(len(row)) + row for row in rows])

    def finish(self, spool: BinaryIO, out: BinaryIO) -> None:
        metadata = {b"avro.schema": self._schema, b"avro.codec": self._codec.encode()}
        # It only has to be improbable in the blocks, so that readers can find their limits.
        sync = hashlib.sha256(self._schema).digest()[:_SYNC_BYTES]
        pairs = b"".join(_text(key) + _text(value) for key, value in metadata.items())
        out.write(_MAGIC + _long(len(metadata)) + pairs + _long(0) + sync)
        rows: list[bytes] = []
        size = 0
        for row in _rows_in(spool):
            rows.append(row)
            size += len(row)
            if size >= _BLOCK_BYTES:
                self._write_block(out, rows, sync)
                rows, size = [], 0
        if rows:
            self._write_block(out, rows, sync)

    def _write_block(self, out: BinaryIO, rows: list[bytes], sync: bytes) -> None:
        data = b"".join(rows)
        if self._codec == "deflate":
            data = zlib.compress(data, wbits=-zlib.MAX_WBITS)
        out.write(_long(len(rows)) + _long(len(data)) + data + sync)


def _rows_in(spool: BinaryIO) -> Iterator[bytes]:
    while head := spool.read(_LENGTH.size):
        yield spool.read(_LENGTH.unpack(head)[0])


def _text(data: bytes) -> bytes:
    return _long(len(data)) + data


def _long(value: int) -> bytes:
    """Return a number that is not negative as Avro writes it: 7 bits in a byte, zigzag."""
    value <<= 1
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
