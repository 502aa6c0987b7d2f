"""Where the reader of one partition is, and what a response means for it. Pure.

A server may cut a response inside a batch. What is cut is dropped and read again: only whole
batches are taken and acknowledged, and where not even one came whole, a larger response is
asked for. Source: data plane reference, 9.1.

What SmartModules have made of the log comes as a batch that covers the offsets it was made of,
with gaps. See `output_offsets`; data plane reference, 8.7, 9.6 and 9.7.
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
    """What the headers in a response tell before anything is decoded.

    ``next_offset`` is what to acknowledge, None if there is nothing. ``is_cut`` says that the
    server cut the last batch, which is read again; where not even the first one came whole,
    ``reopen_bytes`` is the room to ask for then.
    """

    response: FetchablePartition
    batches: tuple[tuple[BatchHeader, int], ...] = ()
    next_offset: int | None = None
    is_cut: bool = False
    reopen_bytes: int | None = None


class Position:
    """The next offset wanted of one partition.

    ``unmistakable_end`` is what `stored_batches.unmistakable_end` says of a start with
    SmartModules. ``may_multiply`` says that a module on the way may make several records of one.
    """

    def __init__(
        self, topic: str, partition: int, next_offset: int, *, may_multiply: bool = False
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.next_offset = next_offset
        self._may_multiply = may_multiply
        self._border = -1  # between two batches, where it was last
        self._odd_place: tuple[int, int] | None = None
        self.unmistakable_end: int | None = None

    def inspect(self, response: FetchablePartition) -> ResponseHeaders:
        """Walk the headers of a response's records; the position stays where it is.

        Offsets stand outside the checksum, but the batches of a log follow one another. Where
        one does not, what is before it is taken, and it is asked for again.

        Raises:
            CorruptBatch: A length in a header cannot be, or the first batch does not hold the
                offset wanted. If it comes so a second time, that is how the log is.
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
        is_behind = response.next_filter_offset > self.next_offset
        return ResponseHeaders(response, (), response.next_filter_offset if is_behind else None)

    def _following(
        self, batches: tuple[tuple[BatchHeader, int], ...]
    ) -> tuple[tuple[BatchHeader, int], ...]:
        """Return the batches up to the first that does not follow the one before it."""
        if not batches:
            return batches
        first, wanted = batches[0][0], self.next_offset
        follows = len(batches) < 2 or batches[1][0].base_offset == first.end_offset
        if wanted == self._border:
            is_in_place = first.base_offset == wanted
        else:
            is_in_place = first.base_offset <= wanted < first.end_offset and follows
        place = (first.base_offset, first.end_offset)
        if not is_in_place and place != self._odd_place:
            self._odd_place = place
            raise RemoteProtocolError(f"a batch of the offsets {place} in answer to {wanted}", at=0)
        end = first.end_offset
        for row, (header, _) in enumerate(batches[1:], 1):
            if header.base_offset != end:
                return batches[:row]
            end = header.end_offset
        return batches

    def decode(self, headers: ResponseHeaders) -> Chunk | None:
        """Decode what was seen and move behind it; None where no record is new.

        Raises:
            CorruptBatch: A whole batch is not what its checksum or its counts say. The
                position is where it was, in front of everything the response brought.
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
                columns = _behind(columns, skip)
            values += columns.values
            keys += columns.keys
            stamps += columns.timestamps_ms
            if count > skip:
                offsets = _joined(offsets, range(base + skip, base + count))
            wanted = max(wanted, header.end_offset)
        self.next_offset = self._border = headers.next_offset
        if not values:
            return None
        return Chunk(values, keys, stamps, offsets, self.topic, self.partition)

    def _decode_output(self, headers: ResponseHeaders) -> Chunk | None:
        """Decode what SmartModules have made, and move behind what it was made of."""
        assert headers.next_offset is not None, "looked at by the caller"
        values: list[bytes] = []
        keys: list[bytes | None] = []
        stamps: list[int] = []
        offsets: list[int] = []
        wanted = self.next_offset
        for header, at in headers.batches:
            columns, deltas = self._decoded_output(headers.response.records, at, header)
            sure_end = self.unmistakable_end
            found, before = output_offsets(
                header,
                deltas,
                wanted,
                may_multiply=self._may_multiply,
                is_sure=sure_end is None or header.end_offset <= sure_end,
            )
            columns = _behind(columns, before)
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
    is_sure: bool = True,
) -> tuple[list[int], int]:
    """Return the offsets of records that SmartModules have made, and how many lie before the start.

    Where the deltas ascend they are right, and so are the offsets. Stock servers get them wrong
    in all but the first of the stored batches that one response covers; a record then has the
    lowest offset that can be its own. So an offset is exact or too low, never too high, and to
    store it and go on behind it skips nothing.

    Args:
        header: Of the batch: it spans the offsets that the records were made of.
        deltas: The offset delta of each record.
        wanted: The offset asked for, which may lie inside the first stored batch; servers
            begin with that whole batch.
        may_multiply: Several records may have been made of one, so they may share an offset.
        is_sure: No record of a later stored batch can look like one in front of the start. Else
            only the first is known to be of the first batch, and all others are kept.

    Source: data plane reference, 8.7 and 9.7.
    """
    base, last = header.base_offset, max(0, header.last_offset_delta)
    ascending = _ascending(deltas, last)
    before = 0
    # One record at the very start of a batch may also be the first of several made of another.
    if base < wanted and (not may_multiply or ascending > 1 or (deltas and deltas[0] > 0)):
        before = bisect_left(deltas, wanted - base, 0, ascending if is_sure else 1)
    offsets = [base + delta for delta in deltas[:ascending]]
    step = 0 if may_multiply else 1
    lowest = max(wanted - step, offsets[-1] if offsets else base - step)
    for delta in deltas[ascending:]:
        # A negative delta is the distance of the two bases, less the place in the batch.
        lowest = max(lowest + step, base + abs(delta))
        offsets.append(lowest := min(lowest, base + last))
    offsets[before:ascending] = [max(wanted, offset) for offset in offsets[before:ascending]]
    return offsets, before


def _ascending(deltas: Sequence[int], last: int) -> int:
    """Count the deltas at the front that ascend from 0 up and lie in the batch."""
    previous = -1
    for row, delta in enumerate(deltas):
        if not previous < delta <= last:
            return row
        previous = delta
    return len(deltas)


def records_from(
    topic: str, partition: int, offset: int, response: FetchablePartition
) -> Chunk | None:
    """Decode what a one-shot read from ``offset`` on brought; None if that is no whole batch.

    Raises:
        CorruptBatch: As for `Position.take`.
    """
    position = Position(topic, partition, offset)
    return position.decode(position.inspect(response))


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
