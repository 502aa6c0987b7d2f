"""What is written and read: rows that anyone can make again, and their checksums.

Needs nothing but the standard library, so that a baseline in another environment can load it.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence

VALUE_BYTES = 100
_KEYS = 10_000


def values_of(count: int) -> list[bytes]:
    """Return values of 100 bytes, no two alike."""
    filler = b"abcdefghijklmnopqrstuvwxyz0123456789" * 3
    return [(b"%012d" % row + filler)[:VALUE_BYTES] for row in range(count)]


def keys_of(count: int) -> list[bytes]:
    """Return keys of 9 bytes, 10,000 different ones."""
    return [b"key-%05d" % (row * 7 % _KEYS) for row in range(count)]


def checksum(
    values: Sequence[bytes],
    keys: Sequence[bytes | None],
    offsets: Sequence[int],
    stamps_ms: Sequence[int],
) -> list[int]:
    """Return a number for each column; two columns that differ have different ones."""
    return [
        zlib.crc32(b"".join(values)),
        zlib.crc32(b"".join(key or b"" for key in keys)),
        zlib.crc32(array("q", offsets).tobytes()),
        zlib.crc32(array("q", stamps_ms).tobytes()),
    ]
