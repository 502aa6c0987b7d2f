"""A chunk that is given out as single records: where its application is. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from operator import length_hint

from streamkit.record import Chunk, Record


class ChunkCursor:
    """The chunk that is being given out, and how far that is.

    Counts nothing: the iterator that `records` draws offsets from knows what is left.

    Args:
        chunk: It has records.
        number: What its owner knows it by.
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
        """Rows that are not given out yet."""
        return length_hint(self._offsets)

    @property
    def given(self) -> int:
        """Rows that are given out, also the one in the application's hands."""
        return len(self.chunk) - self.left

    @property
    def done(self) -> int:
        """Rows that the application has come back from."""
        return max(0, self.given - 1) if self._whole_from < 0 else self._whole_from

    @property
    def next_offset(self) -> int:
        """The offset of the first row that is not given out."""
        return self.chunk.offsets[self.given]

    def take_rest(self) -> Chunk:
        """Give out all that is left as one chunk."""
        given = self.given
        rest = self.chunk.slice(given, len(self.chunk))
        self._whole_from = given
        self.drop_rest()
        return rest

    def drop_rest(self) -> None:
        """Give out nothing more."""
        for _ in self._offsets:
            pass
