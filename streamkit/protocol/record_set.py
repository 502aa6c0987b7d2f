"""A record set in a message: a length in bytes, then batches.

Source: docs/protocol/batches.md, "Record set".
"""

from __future__ import annotations

from typing import Annotated

from streamkit.protocol.schema import Fixed, Reader


class _RecordSet:
    """Kept as bytes: the user of the records decodes the batches. A negative length is empty."""

    _length = Fixed("i")

    def read(self, reader: Reader, version: int) -> bytes:
        return reader.take(max(0, self._length.read(reader, version)))

    def write(self, out: bytearray, value: bytes, version: int) -> None:
        self._length.write(out, len(value), version)
        out += value


RECORD_SET = _RecordSet()
RecordSet = Annotated[bytes, RECORD_SET]
