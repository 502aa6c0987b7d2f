"""Where the reader of one partition is, and what a response means for it. Pure.

A server may cut a response inside a batch. What is cut is dropped and read again: only whole
batches are taken and acknowledged, and where not even one came whole, a larger response is
asked for. Source: data plane reference, 9.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamkit.errors import CorruptBatch, RemoteProtocolError
from streamkit.protocol.batch import (
    BatchHeader,
    Columns,
    cut_batch_bytes,
    decode_batch,
    whole_batches,
)
from streamkit.protocol.data_plane import FetchablePartition
from streamkit.record import Chunk

_GROWTH = 2


@dataclass(frozen=True, slots=True)
class Seen:
    """What the headers in a response tell before anything is decoded.

    ``next_offset`` is what to acknowledge, None if there is nothing. ``is_cut`` says that the
    server cut the last batch, which is read again; where not even the first one came whole,
    ``reopen_bytes`` is the room to ask for then.
    """

    answer: FetchablePartition
    batches: tuple[tuple[BatchHeader, int], ...] = ()
    next_offset: int | None = None
    is_cut: bool = False
    reopen_bytes: int | None = None


class Position:
    """The next offset wanted of one partition."""

    def __init__(self, topic: str, partition: int, next_offset: int) -> None:
        self.topic = topic
        self.partition = partition
        self.next_offset = next_offset

    def look(self, answer: FetchablePartition) -> Seen:
        """Walk the headers of a response's records; the position stays where it is.

        Raises:
            CorruptBatch: A length in a header cannot be.
        """
        data = answer.records
        try:
            batches = tuple(whole_batches(data))
            end = batches[-1][1] + batches[-1][0].size_bytes if batches else 0
            cut = cut_batch_bytes(data, end, len(data))
        except RemoteProtocolError as error:
            raise CorruptBatch(
                str(error), topic=self.topic, partition=self.partition, offset=self.next_offset
            ) from error
        if batches:
            wanted = max(self.next_offset, *(header.end_offset for header, _ in batches))
            return Seen(answer, batches, max(wanted, answer.next_filter_offset), cut > 0)
        if cut:
            return Seen(answer, is_cut=True, reopen_bytes=max(cut, len(data) * _GROWTH))
        is_behind = answer.next_filter_offset > self.next_offset
        return Seen(answer, (), answer.next_filter_offset if is_behind else None)

    def take(self, seen: Seen) -> Chunk | None:
        """Decode what was seen and move behind it; None where no record is new.

        Raises:
            CorruptBatch: A whole batch is not what its checksum or its counts say. The
                position is where it was, in front of everything the response brought.
        """
        if seen.next_offset is None:
            return None
        data = seen.answer.records
        values: list[bytes] = []
        keys: list[bytes | None] = []
        stamps: list[int] = []
        offsets: list[int] | range = range(0)
        wanted = self.next_offset
        for header, at in seen.batches:
            columns = self._decoded(data, at, header)
            base, count = header.base_offset, len(columns.values)
            skip = max(0, wanted - base)
            if skip:
                columns = _behind(columns, skip)
            values += columns.values
            keys += columns.keys
            stamps += columns.timestamps_ms
            if count > skip:
                offsets = _joined(offsets, range(base + skip, base + count))
            wanted = max(wanted, header.end_offset)
        self.next_offset = seen.next_offset
        if not values:
            return None
        return Chunk(values, keys, stamps, offsets, self.topic, self.partition)

    def _decoded(self, data: bytes, at: int, header: BatchHeader) -> Columns:
        try:
            return decode_batch(data, at, header)
        except CorruptBatch as error:
            raise CorruptBatch(
                error.reason,
                topic=self.topic,
                partition=self.partition,
                offset=header.base_offset,
            ) from error


def records_from(
    topic: str, partition: int, offset: int, answer: FetchablePartition
) -> Chunk | None:
    """Decode what a one-shot read from ``offset`` on brought; None if that is no whole batch.

    Raises:
        CorruptBatch: As for `Position.take`.
    """
    position = Position(topic, partition, offset)
    return position.take(position.look(answer))


def _behind(columns: Columns, skip: int) -> Columns:
    return Columns(columns.values[skip:], columns.keys[skip:], columns.timestamps_ms[skip:])


def _joined(first: list[int] | range, second: range) -> list[int] | range:
    """Join offsets; they stay a range as long as there is no gap."""
    if not first:
        return second
    if isinstance(first, range):
        if first.stop == second.start:
            return range(first.start, second.stop)
        first = list(first)
    first.extend(second)
    return first
