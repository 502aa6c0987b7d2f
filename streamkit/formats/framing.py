"""How a value is stored with the id of its schema.

| bytes | content |
|---|---|
| 1 | the magic byte, 0 |
| 4 | the id of the schema, big-endian |
| 1 or more | only Protobuf: the indexes of the message in its file |
| the rest | the value |

Message indexes are a count and as many numbers, each a zigzag varint; ``[0]``, the first message of
a file, is the single byte 0. Source: "Wire format" in the documentation of Confluent Schema
Registry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

FRAME_BYTES: Final = 5
ID_MAX: Final = 2**32 - 1
_INDEXES_MAX: Final = 100
_VARINT_BYTES_MAX: Final = 5


class InvalidFrame(ValueError):
    """Bytes do not begin with the id of a schema."""


def frame(schema_id: int) -> bytes:
    """Return the bytes before a value."""
    return b"\0" + schema_id.to_bytes(4, "big")


def schema_id(data: bytes) -> int:
    """Return the id of the schema of a value.

    Raises:
        InvalidFrame: The bytes do not begin with one.
    """
    if not data:
        raise InvalidFrame("it is empty")
    if data[0]:
        raise InvalidFrame(
            f"wrong magic byte {data[0]} instead of 0: it was not written with a schema registry"
        )
    if len(data) < FRAME_BYTES:
        raise InvalidFrame(f"truncated: {len(data)} bytes, the id of the schema needs 5")
    return int.from_bytes(data[1:FRAME_BYTES], "big")


def indexes(numbers: Iterable[int]) -> bytes:
    """Return message indexes as bytes."""
    listed = list(numbers)
    if listed == [0]:
        return b"\0"
    return b"".join(map(_varint, (len(listed), *listed)))


def read_indexes(data: bytes, start: int = FRAME_BYTES) -> tuple[list[int], int]:
    """Return the message indexes at a position, and the position after them.

    Raises:
        InvalidFrame: They are truncated or not valid.
    """
    count, end = _read_varint(data, start)
    if count == 0:
        return [0], end
    if not 0 < count <= _INDEXES_MAX:
        raise InvalidFrame(f"{count} message indexes")
    found = []
    for _ in range(count):
        number, end = _read_varint(data, end)
        if number < 0:
            raise InvalidFrame(f"the message index {number} is negative")
        found.append(number)
    return found, end


def _varint(number: int) -> bytes:
    rest = number << 1  # zigzag, and the number is not negative
    found = bytearray()
    while rest > 0x7F:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)


def _read_varint(data: bytes, start: int) -> tuple[int, int]:
    found = 0
    for number, byte in enumerate(data[start : start + _VARINT_BYTES_MAX]):
        found |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            return (found >> 1) ^ -(found & 1), start + number + 1
    raise InvalidFrame("the message indexes are truncated")
