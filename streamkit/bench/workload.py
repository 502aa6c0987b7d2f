"""The records that benchmarks write and read: reproducible rows, and their checksums.

Uses only the standard library, so that a baseline in another environment can load it.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator, Sequence

VALUE_BYTES = 100
_KEYS = 10_000


def values_of(count: int) -> list[bytes]:
    """Return distinct values of 100 bytes."""
    filler = b"abcdefghijklmnopqrstuvwxyz0123456789" * 3
    return [(b"%012d" % row + filler)[:VALUE_BYTES] for row in range(count)]


def keys_of(count: int) -> list[bytes]:
    """Return keys of 9 bytes, with 10,000 distinct ones."""
    return [b"key-%05d" % (row * 7 % _KEYS) for row in range(count)]


def skewed(count: int, keys: int) -> Iterator[int]:
    """Yield reproducible key numbers below ``keys``: a hundredth of them has a tenth of the rows.

    The square of a uniform number from 0 to 1 is small more often than large. The uniform numbers
    come from a linear congruential generator, which is the same in every version of Python.
    """
    state = 1
    for _ in range(count):
        state = (state * 6_364_136_223_846_793_005 + 1) & 0xFFFF_FFFF_FFFF_FFFF
        yield int(keys * (state / 2**64) ** 2)


class Totals:
    """The sums that a timed reader computes, which show that it read every column."""

    def __init__(self) -> None:
        self.records = 0
        self.value_bytes = 0
        self.key_bytes = 0
        self.offsets = 0
        self.stamps_ms = 0

    def add(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None],
        offsets: Sequence[int],
        stamps_ms: Sequence[int],
    ) -> None:
        """Add columns of equal length."""
        self.records += len(values)
        self.value_bytes += sum(map(len, values))
        self.key_bytes += sum(len(key) for key in keys if key is not None)
        self.offsets += sum(offsets)
        self.stamps_ms += sum(stamps_ms)

    def add_record(self, value: bytes, key: bytes | None, offset: int, stamp_ms: int) -> None:
        """Add one record."""
        self.records += 1
        self.value_bytes += len(value)
        self.key_bytes += len(key or b"")
        self.offsets += offset
        self.stamps_ms += stamp_ms

    def as_list(self) -> list[int]:
        return [self.records, self.value_bytes, self.key_bytes, self.offsets, self.stamps_ms]


class Columns:
    """The columns that a reader kept, to compare their checksums with those of the written ones."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.keys: list[bytes | None] = []
        self.offsets: list[int] = []
        self.stamps_ms: list[int] = []

    def add(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None],
        offsets: Sequence[int],
        stamps_ms: Sequence[int],
    ) -> None:
        """Add columns of equal length."""
        self.values += values
        self.keys += keys
        self.offsets += offsets
        self.stamps_ms += stamps_ms

    def add_record(self, value: bytes, key: bytes | None, offset: int, stamp_ms: int) -> None:
        """Add one record."""
        self.values.append(value)
        self.keys.append(key)
        self.offsets.append(offset)
        self.stamps_ms.append(stamp_ms)

    def as_list(self) -> list[int]:
        return checksum(self.values, self.keys, self.offsets, self.stamps_ms)


def checksum(
    values: Sequence[bytes],
    keys: Sequence[bytes | None],
    offsets: Sequence[int],
    stamps_ms: Sequence[int],
) -> list[int]:
    """Return a CRC-32 for each column."""
    return [
        zlib.crc32(b"".join(values)),
        zlib.crc32(b"".join(key or b"" for key in keys)),
        zlib.crc32(array("q", offsets).tobytes()),
        zlib.crc32(array("q", stamps_ms).tobytes()),
    ]
