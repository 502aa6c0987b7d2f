"""Variable-length numbers outside batches: in error payloads, SmartModule records and wasm.

Source: docs/protocol/types.md, "Varints". Inside batches the compiled `codec` reads them.
"""

from __future__ import annotations

from streamkit.errors import LocalProtocolError, RemoteProtocolError
from streamkit.protocol.schema import BOOL, Reader

_BITS = 64


def read_unsigned(reader: Reader) -> int:
    """Read an unsigned number of up to 64 bits, seven bits per byte, the lowest first (LEB128).

    Raises:
        RemoteProtocolError: The number has more than 64 bits, or the bytes end inside it.
    """
    bits = shift = 0
    while True:
        at = reader.skip(1)
        byte = reader.data[at]
        if shift == _BITS - 1 and byte > 1:
            raise RemoteProtocolError("number of more than 64 bits", at=at)
        bits |= (byte & 0x7F) << shift
        if byte < 0x80:
            return bits
        shift += 7


def read_varint(reader: Reader) -> int:
    """Read a signed number: zigzag encoded, then LEB128 as in `read_unsigned`.

    Raises:
        RemoteProtocolError: See `read_unsigned`.
    """
    bits = read_unsigned(reader)
    return (bits >> 1) ^ -(bits & 1)


def write_varint(out: bytearray, value: int) -> None:
    """Append a number in the format of `read_varint`.

    Raises:
        LocalProtocolError: The number needs more than 32 bits; stock servers misread those.
    """
    if not -(2**31) <= value < 2**31:
        raise LocalProtocolError(f"{value} does not fit a varint of 32 bits")
    bits = (value << 1) ^ (value >> 63)
    while bits > 0x7F:
        out.append((bits & 0x7F) | 0x80)
        bits >>= 7
    out.append(bits)


class _Varint:
    def read(self, reader: Reader, version: int) -> int:
        return read_varint(reader)

    def write(self, out: bytearray, value: int, version: int) -> None:
        write_varint(out, value)


class _RecordData:
    def read(self, reader: Reader, version: int) -> bytes:
        return reader.take(read_varint(reader))

    def write(self, out: bytearray, value: bytes, version: int) -> None:
        write_varint(out, len(value))
        out += value


class _OptionalRecordData:
    def read(self, reader: Reader, version: int) -> bytes | None:
        return RECORD_DATA.read(reader, version) if BOOL.read(reader, version) else None

    def write(self, out: bytearray, value: bytes | None, version: int) -> None:
        BOOL.write(out, value is not None, version)
        if value is not None:
            RECORD_DATA.write(out, value, version)


VARINT = _Varint()
RECORD_DATA = _RecordData()
OPTIONAL_RECORD_DATA = _OptionalRecordData()
