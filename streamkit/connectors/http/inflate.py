"""Bodies that are compressed with gzip."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final

PLAIN: Final = ("identity", "")
GZIP: Final = ("gzip", "x-gzip")


def encoding_of(headers: Mapping[str, str]) -> str:
    """Return how a body is encoded; names of headers are in lower case."""
    return headers.get("content-encoding", "").strip().lower()


class Inflate:
    """Decompresses gzip, without a result that is much larger than allowed."""

    def __init__(self) -> None:
        self._gzip = zlib.decompressobj(31)
        self._has_data = False

    @property
    def is_complete(self) -> bool:
        return self._gzip.eof or not self._has_data

    def feed(self, data: bytes, room: int) -> bytes:
        """Return the decompressed data, at most one byte more than there is room for.

        Raises:
            ValueError: The data is not valid gzip.
        """
        self._has_data = self._has_data or bool(data)
        parts: list[bytes] = []
        while data and room >= 0:
            if self._gzip.eof:  # another member follows
                self._gzip = zlib.decompressobj(31)
            try:
                part = self._gzip.decompress(data, room + 1)
            except zlib.error as error:
                raise ValueError(f"the body is not valid gzip: {error}") from error
            parts.append(part)
            room -= len(part)
            data = self._gzip.unused_data
        return b"".join(parts)
