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
class Taken:
    """What a response brought.

    ``acknowledge`` is the next offset wanted, None if there is nothing to acknowledge.
    ``reopen_bytes`` asks to read again with room for so many bytes.
    """

    chunk: Chunk | None
    acknowledge: int | None
    reopen_bytes: int | None = None


class Position:
    """The next offset wanted of one partition."""

    def __init__(self, topic: str, partition: int, next_offset: int) -> None:
        self.topic = topic
        self.partition = partition
        self.next_offset = next_offset

    def take(self, answer: FetchablePartition) -> Taken:
        """Take the records of a response that has no error.

        Raises:
            CorruptBatch: A whole batch is not what its checksum or its counts say. The
                position is where it was, in front of everything the response brought.
        """
        data = answer.records
        try:
            batches = list(whole_batches(data))
            end = batches[-1][1] + batches[-1][0].size_bytes if batches else 0
            cut = cut_batch_bytes(data, end, len(data))
        except RemoteProtocolError as error:
            raise CorruptBatch(
                str(error), topic=self.topic, partition=self.partition, offset=self.next_offset
            ) from error
        if not batches:
            if cut:
                return Taken(None, None, max(cut, len(data) * _GROWTH))
            if answer.next_filter_offset > self.next_offset:
                self.next_offset = answer.next_filter_offset
                return Taken(None, self.next_offset)
            return Taken(None, None)
        values: list[bytes] = []
        keys: list[bytes | None] = []
        stamps: list[int] = []
        offsets: list[int] | range = range(0)
        wanted = self.next_offset
        for header, at in batches:
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
        self.next_offset = max(wanted, answer.next_filter_offset)
        chunk = Chunk(values, keys, stamps, offsets, self.topic, self.partition)
        return Taken(chunk if values else None, self.next_offset)

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
