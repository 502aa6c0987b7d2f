"""Remembers a checksum of what was read of a file, to recognise the file later."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

import msgspec

_READ_BYTES = 1 << 20


class Prefix(msgspec.Struct, frozen=True):
    """The first bytes of a file, without its compression: how many, and their CRC-32."""

    size: int = 0
    crc: int = 0

    def is_in(self, file: BinaryIO) -> bool:
        """Return whether a file begins with these bytes; the file is read from its beginning."""
        left, crc = self.size, 0
        while left and (data := file.read(min(left, _READ_BYTES))):
            left -= len(data)
            crc = zlib.crc32(data, crc)
        return left == 0 and crc == self.crc


class PrefixFile(io.RawIOBase, BinaryIO):
    """A file that is read from ``start_byte`` on.

    ``prefix`` grows with what is read. It may be longer than ``start_byte`` at the beginning, if
    that much was read before.
    """

    def __init__(self, file: BinaryIO, start_byte: int, prefix: Prefix) -> None:
        assert start_byte <= prefix.size, "bytes that nobody has read are not in a checksum"
        self.inner = file
        self.prefix = prefix
        self._at = start_byte

    def read(self, size: int = -1, /) -> bytes:
        data = self.inner.read(size)
        prefix = self.prefix
        known = max(0, prefix.size - self._at)
        self._at += len(data)
        if self._at > prefix.size:
            self.prefix = Prefix(self._at, zlib.crc32(memoryview(data)[known:], prefix.crc))
        return data

    def close(self) -> None:
        if not self.closed:
            self.inner.close()
        super().close()
