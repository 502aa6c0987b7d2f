"""A cursor over a chunk whose records are given to the application one by one. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from operator import length_hint

from streamkit.record import Chunk, Record


class ChunkCursor:
    """A chunk, and how many of its records have been given out.

    It has no counter: the iterator over the offsets, which `records` uses, has a length.

    Args:
        chunk: A chunk that is not empty.
        number: A number that the owner uses to identify the chunk.
    """

    __slots__ = ("_offsets", "_whole_from", "chunk", "number", "records")

    def __init__(self, chunk: Chunk, number: int = 0) -> None:
        self.number = number
        self.chunk = chunk
        self._offsets = iter(chunk.offsets)
        self._whole_from = -1
        self.records: Iterator[Record[bytes]] = map(
            Record,
            chunk.values,
            chunk.keys,
            chunk.timestamps_ms,
            self._offsets,
            repeat(chunk.partition),
            repeat(chunk.topic),
        )

    @property
    def left(self) -> int:
        """The number of rows that are not given out yet."""
        return length_hint(self._offsets)

    @property
    def given(self) -> int:
        """The number of rows given out, including the one that the application is processing."""
        return len(self.chunk) - self.left

    @property
    def done(self) -> int:
        """The number of rows that the application has finished processing."""
        return max(0, self.given - 1) if self._whole_from < 0 else self._whole_from

    @property
    def next_offset(self) -> int:
        """The offset of the first row that is not given out yet."""
        return self.chunk.offsets[self.given]

    def take_rest(self) -> Chunk:
        """Give out all remaining rows as one chunk."""
        given = self.given
        rest = self.chunk.slice(given, len(self.chunk))
        self._whole_from = given
        self.drop_rest()
        return rest

    def drop_rest(self) -> None:
        """Give out no more rows."""
        for _ in self._offsets:
            pass
