"""The position of one partition's reader, and how a response changes it. Pure.

A server may cut a response inside a batch. The incomplete batch is dropped and read again: only
complete batches are decoded and acknowledged. If not even one batch is complete, the reader
requests a larger response. Source: docs/protocol/limits.md, "Cut batches".

The output of SmartModules arrives as a batch that covers the offsets of its input, with gaps.
See `output_offsets`; docs/protocol/smartmodules.md, "Offsets of output records".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from streamkit.errors import CorruptBatch, RemoteProtocolError
from streamkit.protocol.batch import (
    BatchHeader,
    Columns,
    cut_batch_bytes,
    decode_batch,
    decode_output_batch,
    whole_batches,
)
from streamkit.protocol.data_plane import FetchablePartition
from streamkit.record import Chunk

_GROWTH = 2


@dataclass(frozen=True, slots=True)
class ResponseHeaders:
    """The batch headers of a response, read before anything is decoded.

    ``next_offset`` is the offset to acknowledge, or None. ``is_cut`` means that the server cut
    the last batch, which is read again. If not even the first batch is complete,
    ``reopen_bytes`` is the size to request next.
    """

    response: FetchablePartition
    batches: tuple[tuple[BatchHeader, int], ...] = ()
    next_offset: int | None = None
    is_cut: bool = False
    reopen_bytes: int | None = None


class Position:
    """The next offset to read from one partition.

    ``reliable_end`` is the result of `stored_batches.reliable_end` for a start with
    SmartModules. ``may_multiply`` means that a SmartModule may produce several records from one.
    """

    def __init__(
        self, topic: str, partition: int, next_offset: int, *, may_multiply: bool = False
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.next_offset = next_offset
        self._may_multiply = may_multiply
        self._boundary = -1  # the last known boundary between two batches
        self._unexpected: tuple[int, int] | None = None
        self.reliable_end: int | None = None

    def inspect(self, response: FetchablePartition) -> ResponseHeaders:
        """Read the batch headers of a response; the position does not change.

        The checksum does not cover offsets, but the batches of a log are consecutive. If a batch
        does not follow the one before it, only the batches before it are used, and it is
        requested again.

        Raises:
            CorruptBatch: A length in a header is impossible, or the first batch does not contain
                the requested offset. If the same batch arrives a second time, it is accepted:
                    then the log itself has this error.
        """
        data = response.records
        try:
            batches = tuple(whole_batches(data))
            if response.next_filter_offset <= 0:
                batches = self._following(batches)
            end = batches[-1][1] + batches[-1][0].size_bytes if batches else 0
            cut = cut_batch_bytes(data, end, len(data))
        except RemoteProtocolError as error:
            raise CorruptBatch(
                str(error), topic=self.topic, partition=self.partition, offset=self.next_offset
            ) from error
        if batches:
            wanted = max(self.next_offset, *(header.end_offset for header, _ in batches))
            return ResponseHeaders(
                response, batches, max(wanted, response.next_filter_offset), cut > 0
            )
        if cut:
            return ResponseHeaders(
                response, is_cut=True, reopen_bytes=max(cut, len(data) * _GROWTH)
            )
        is_later = response.next_filter_offset > self.next_offset
        return ResponseHeaders(response, (), response.next_filter_offset if is_later else None)

    def _following(
        self, batches: tuple[tuple[BatchHeader, int], ...]
    ) -> tuple[tuple[BatchHeader, int], ...]:
        """Return the consecutive batches, up to the first gap."""
        if not batches:
            return batches
        first, wanted = batches[0][0], self.next_offset
        follows = len(batches) < 2 or batches[1][0].base_offset == first.end_offset
        if wanted == self._boundary:
            is_expected = first.base_offset == wanted
        else:
            is_expected = first.base_offset <= wanted < first.end_offset and follows
        span = (first.base_offset, first.end_offset)
        if not is_expected and span != self._unexpected:
            self._unexpected = span
            raise RemoteProtocolError(
                f"offset {wanted} was requested, but the batch covers offsets {span[0]} to "
                f"{span[1] - 1}",
                at=0,
            )
        end = first.end_offset
        for row, (header, _) in enumerate(batches[1:], 1):
            if header.base_offset != end:
                return batches[:row]
            end = header.end_offset
        return batches

    def decode(self, headers: ResponseHeaders) -> Chunk | None:
        """Decode the batches and move the position after them; None if no record is new.

        Raises:
            CorruptBatch: A batch does not match its checksum or its counts. The position then
                does not change.
        """
        if headers.next_offset is None:
            return None
        if headers.response.next_filter_offset > 0:
            return self._decode_output(headers)
        data = headers.response.records
        values: list[bytes] = []
        keys: list[bytes | None] = []
        stamps: list[int] = []
        offsets: list[int] | range = range(0)
        wanted = self.next_offset
        for header, at in headers.batches:
            columns = self._decoded(data, at, header)
            base, count = header.base_offset, len(columns.values)
            skip = max(0, wanted - base)
            if skip:
                columns = _without_first(columns, skip)
            values += columns.values
            keys += columns.keys
            stamps += columns.timestamps_ms
            if count > skip:
                offsets = _joined(offsets, range(base + skip, base + count))
            wanted = max(wanted, header.end_offset)
        self.next_offset = self._boundary = headers.next_offset
        if not values:
            return None
        return Chunk(values, keys, stamps, offsets, self.topic, self.partition)

    def _decode_output(self, headers: ResponseHeaders) -> Chunk | None:
        """Decode the output of SmartModules, and move the position after their input."""
        assert headers.next_offset is not None, "checked by the caller"
        values: list[bytes] = []
        keys: list[bytes | None] = []
        stamps: list[int] = []
        offsets: list[int] = []
        wanted = self.next_offset
        for header, at in headers.batches:
            columns, deltas = self._decoded_output(headers.response.records, at, header)
            reliable_end = self.reliable_end
            found, before = output_offsets(
                header,
                deltas,
                wanted,
                may_multiply=self._may_multiply,
                is_reliable=reliable_end is None or header.end_offset <= reliable_end,
            )
            columns = _without_first(columns, before)
            values += columns.values
            keys += columns.keys
            stamps += columns.timestamps_ms
            offsets += found[before:]
            wanted = max(wanted, header.end_offset)
        self.next_offset = headers.next_offset
        if not values:
            return None
        return Chunk(values, keys, stamps, offsets, self.topic, self.partition)

    def _decoded(self, data: bytes, at: int, header: BatchHeader) -> Columns:
        try:
            return decode_batch(data, at, header)
        except CorruptBatch as error:
            raise self._located(error, header) from error

    def _decoded_output(
        self, data: bytes, at: int, header: BatchHeader
    ) -> tuple[Columns, list[int]]:
        try:
            return decode_output_batch(data, at, header)
        except CorruptBatch as error:
            raise self._located(error, header) from error

    def _located(self, error: CorruptBatch, header: BatchHeader) -> CorruptBatch:
        return CorruptBatch(
            error.reason, topic=self.topic, partition=self.partition, offset=header.base_offset
        )


def output_offsets(
    header: BatchHeader,
    deltas: Sequence[int],
    wanted: int,
    *,
    may_multiply: bool,
    is_reliable: bool = True,
) -> tuple[list[int], int]:
    """Return the offsets of SmartModule output, and how many records are before ``wanted``.

    As long as the deltas ascend, they are correct, and so are the offsets. Stock servers write
    wrong deltas for all but the first of the stored batches that a response covers; then a
    record gets the lowest offset that is possible for it. So an offset is exact or too low,
    never too high, and a consumer that commits it and resumes after it skips nothing.

    Args:
        header: The header of the batch, which covers the offsets of the input records.
        deltas: The offset delta of each record.
        wanted: The requested offset. It may be inside the first stored batch, because servers
            start with that whole batch.
        may_multiply: Whether several records may come from one, and so share an offset.
        is_reliable: Whether no record of a later stored batch can look like one before the start.
            If not, only the first record certainly belongs to the first batch, and all others are
            kept.

    Source: docs/protocol/smartmodules.md, "Offsets of output records".
    """
    base, last = header.base_offset, max(0, header.last_offset_delta)
    ascending = _ascending(deltas, last)
    before = 0
    # A single record at the start of a batch may also be the first of several from one input.
    if base < wanted and (not may_multiply or ascending > 1 or (deltas and deltas[0] > 0)):
        before = bisect_left(deltas, wanted - base, 0, ascending if is_reliable else 1)
    offsets = [base + delta for delta in deltas[:ascending]]
    step = 0 if may_multiply else 1
    lowest = max(wanted - step, offsets[-1] if offsets else base - step)
    for delta in deltas[ascending:]:
        # A negative delta is the distance of the two base offsets, minus the row in the batch.
        lowest = max(lowest + step, base + abs(delta))
        offsets.append(lowest := min(lowest, base + last))
    offsets[before:ascending] = [max(wanted, offset) for offset in offsets[before:ascending]]
    return offsets, before


def _ascending(deltas: Sequence[int], last: int) -> int:
    """Count the leading deltas that ascend from 0 and are inside the batch."""
    previous = -1
    for row, delta in enumerate(deltas):
        if not previous < delta <= last:
            return row
        previous = delta
    return len(deltas)


def records_from(
    topic: str, partition: int, offset: int, response: FetchablePartition
) -> Chunk | None:
    """Decode the response of a single read from ``offset``; None without a complete batch.

    Raises:
        CorruptBatch: See `Position.decode`.
    """
    position = Position(topic, partition, offset)
    return position.decode(position.inspect(response))


def _without_first(columns: Columns, skip: int) -> Columns:
    return Columns(columns.values[skip:], columns.keys[skip:], columns.timestamps_ms[skip:])


def _joined(first: list[int] | range, second: range) -> list[int] | range:
    """Join offsets; the result stays a range as long as there is no gap."""
    if not first:
        return second
    if isinstance(first, range):
        if first.stop == second.start:
            return range(first.start, second.stop)
        first = list(first)
    first.extend(second)
    return first
