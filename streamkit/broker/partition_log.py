"""The log of one partition: append on the writer's thread, read on the event loop.

Readers see an append after it is synced: `durable_end` is the high watermark, the end of the log
and the acknowledged end at the same time.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamkit.broker.batch_validation import Entry
from streamkit.broker.files import OpenFiles, make_folders
from streamkit.broker.segment import Segment, SparseIndex
from streamkit.env import Disk
from streamkit.errors import CorruptBatch, RemoteProtocolError
from streamkit.limits import FETCH_BYTES_MAX, SEGMENT_BYTES_DEFAULT
from streamkit.protocol.batch import (
    BYTES_BEFORE_LENGTH,
    HEADER_BYTES,
    BatchHeader,
    check_crc,
    read_batch_header,
    whole_batches,
)
from streamkit.protocol.error_codes import Code, ErrorCode, evicted, other

_SCAN_BYTES = 1 << 20
# The first two fields of a batch: base offset and length.
_OFFSET_AND_LENGTH = struct.Struct(">qi")
_BASE_OFFSET = struct.Struct(">q")


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of a log: its offset, and its position on disk."""

    offset: int
    segment: int
    position: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Complete batches from the log; ``next_offset`` is the offset after the last batch."""

    records: bytes
    next_offset: int


class PartitionLog:
    """Segments in order; the last one is active.

    Attributes changed by `append` belong to the writer's thread. `synced` publishes `durable` on
    the event loop, and readers read nothing after it.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        *,
        topic: str,
        partition: int,
        segment_bytes: int = SEGMENT_BYTES_DEFAULT,
    ) -> None:
        self._disk = disk
        self.folder = folder
        self.topic = topic
        self.partition = partition
        self.segment_bytes = segment_bytes
        self.segments: list[Segment] = []
        self.end = 0
        self.durable = LogEnd(0, 0, 0)
        self.refusal: ErrorCode | None = None
        self.has_failed_sync = False

    # --- facts ---------------------------------------------------------------

    @property
    def start_offset(self) -> int:
        return self.segments[0].base_offset

    @property
    def incarnation(self) -> str:
        """The id that distinguishes the topic from an earlier one of the same name."""
        return self.folder.parent.name

    @property
    def durable_end(self) -> int:
        return self.durable.offset

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self.segments)

    def written_end(self) -> LogEnd:
        """The position of the next batch. Only the writer's thread may use it."""
        active = self.segments[-1]
        return LogEnd(self.end, active.base_offset, active.size_bytes)

    # --- writing, on the writer's thread ---------------------------------------

    def create_first_segment(self, files: OpenFiles) -> None:
        """Create the file of a new partition, durably."""
        make_folders(self._disk, self.folder)
        segment = Segment(Segment.path_in(self.folder, 0), 0)
        self._disk.sync(files.get(segment.path))
        self._disk.sync_folder(self.folder)
        self.segments.append(segment)

    def append(self, entry: Entry, files: OpenFiles) -> int:
        """Write the batches of an entry at the end and return the offset of the first.

        Raises:
            OSError: The entry was removed from the log again. If even the removal fails, the
                log refuses all further writes.
        """
        first_offset = self.end
        before = self.written_end()
        segments_before = len(self.segments)
        try:
            self._write_entry(entry, files)
        except OSError:
            self._cut_back(before, segments_before, files)
            raise
        return first_offset

    def _write_entry(self, entry: Entry, files: OpenFiles) -> None:
        """Set the offset of each batch, and write the batches of a segment in one call."""
        data = bytearray(entry.records)
        view = memoryview(data)
        start = at = 0
        for size_bytes, count in zip(entry.sizes, entry.counts, strict=True):
            held_bytes = self.segments[-1].size_bytes + at - start
            if held_bytes > 0 and held_bytes + size_bytes > self.segment_bytes:
                self._write(view[start:at], files)
                self._roll(files)
                start, held_bytes = at, 0
            _BASE_OFFSET.pack_into(data, at, self.end)
            self.segments[-1].written.add(self.end, held_bytes)
            at += size_bytes
            self.end += count
        self._write(view[start:at], files)

    def _write(self, data: memoryview, files: OpenFiles) -> None:
        segment = self.segments[-1]
        self._disk.write_at(files.get(segment.path), data, segment.size_bytes)
        segment.size_bytes += len(data)

    def _roll(self, files: OpenFiles) -> None:
        """Sync the old segment, create the new one, sync the folder."""
        self._sync_active(files)
        segment = Segment(Segment.path_in(self.folder, self.end), self.end)
        files.get(segment.path)
        self.segments.append(segment)  # added now, so that a later failure removes the file again
        self._disk.sync_folder(self.folder)

    def _cut_back(self, to: LogEnd, segments: int, files: OpenFiles) -> None:
        # In memory first: this end is published next, even if the disk fails again.
        new_segments = self.segments[segments:]
        del self.segments[segments:]
        active = self.segments[-1]
        active.cut(to.position)
        self.end = to.offset
        try:
            for segment in new_segments:
                files.forget(segment.path)
                self._disk.unlink(segment.path)
            if new_segments:
                # Otherwise a removed segment could reappear after a crash as the end of the log.
                self._disk.sync_folder(self.folder)
            self._disk.truncate(files.get(active.path), to.position)
        except OSError:
            self.refusal = ErrorCode(Code.PARTITION_SHORT_CIRCUITED)
            raise

    def sync(self, files: OpenFiles) -> LogEnd:
        """Sync everything appended so far and return its end."""
        end = self.written_end()
        self._sync_active(files)
        return end

    def _sync_active(self, files: OpenFiles) -> None:
        try:
            self._disk.sync(files.get(self.segments[-1].path))
        except OSError:
            # The kernel may have dropped the data: a second sync could wrongly succeed.
            self.has_failed_sync = True
            self.refusal = ErrorCode(Code.PARTITION_SHORT_CIRCUITED)
            raise

    # --- reading, on the event loop --------------------------------------------

    def synced(self, end: LogEnd) -> None:
        """Publish that everything before ``end`` is on disk."""
        assert end.offset >= self.durable.offset, "the durable end moved back"
        self.durable = end

    def read(self, offset: int, max_bytes: int, files: OpenFiles) -> Slice | ErrorCode:
        """Read complete batches, beginning with the one that contains ``offset``.

        Args:
            offset: The first offset to read; earlier records of its batch are included.
            max_bytes: Maximum size; the first batch is returned whatever its size. Negative
                means no limit except that of the broker.
            files: The cache of descriptors.

        Returns:
            The batches, none at the end of the log; or the error for the response.

        Raises:
            CorruptBatch: A batch is damaged.
        """
        if offset > self.durable_end:
            return other(f"start offset: {offset} is greater than leo: {self.durable_end}")
        if offset < self.start_offset:
            return evicted(offset, self.start_offset)
        if offset == self.durable_end or max_bytes == 0:
            return Slice(b"", offset)
        bases = [segment.base_offset for segment in self.segments]
        row = bisect_right(bases, offset) - 1
        segment = self.segments[row]
        stop = self._readable_bytes(segment)
        position = self._position_of(segment, offset, stop, files)
        return self._read_whole(segment, position, stop, max_bytes, files)

    def _readable_bytes(self, segment: Segment) -> int:
        if segment.base_offset == self.durable.segment:
            return self.durable.position
        return segment.size_bytes

    def _position_of(self, segment: Segment, offset: int, stop: int, files: OpenFiles) -> int:
        if segment.older is None:
            segment.older = self._index(segment, files)
        position = segment.position_before(offset)
        while True:
            header = self._header_at(segment, position, files)
            if header.end_offset > offset:
                return position
            position += header.size_bytes
            if position >= stop:
                raise self._corrupt(f"no batch contains offset {offset}", offset)

    def _index(self, segment: Segment, files: OpenFiles) -> SparseIndex:
        """Build an index of where batches start, reading the file in pieces."""
        index = SparseIndex()
        position = 0
        while position < segment.found_bytes:
            bytes_max = min(_SCAN_BYTES, segment.found_bytes - position)
            data = self._disk.read_at(files.get(segment.path), bytes_max, position)
            at = 0
            while len(data) - at >= HEADER_BYTES:
                base_offset, length = _OFFSET_AND_LENGTH.unpack_from(data, at)
                if length < HEADER_BYTES - BYTES_BEFORE_LENGTH:
                    raise self._corrupt(
                        f"invalid batch length {length} in {segment.path.name}", base_offset
                    )
                index.add(base_offset, position + at)
                at += BYTES_BEFORE_LENGTH + length
            if not at:
                return index  # the rest is shorter than a header and is never read
            position += at
        return index

    def _header_at(self, segment: Segment, position: int, files: OpenFiles) -> BatchHeader:
        fd = files.get(segment.path)
        head = self._disk.read_at(fd, HEADER_BYTES, position)
        try:
            return read_batch_header(head, 0)
        except Exception as error:
            raise self._corrupt(f"{error} in {segment.path.name} at {position}", -1) from error

    def _read_whole(
        self, segment: Segment, position: int, stop: int, max_bytes: int, files: OpenFiles
    ) -> Slice:
        first = self._header_at(segment, position, files)
        bytes_max = _SCAN_BYTES if max_bytes < 0 else min(max_bytes, FETCH_BYTES_MAX)
        size = min(max(bytes_max, first.size_bytes), stop - position)
        data = self._disk.read_at(files.get(segment.path), size, position)
        expected = first.base_offset
        end = 0
        for header, at in self._valid_headers(data, expected):
            if header.base_offset != expected:
                raise self._corrupt(
                    f"a batch has offset {header.base_offset} instead of {expected}", expected
                )
            try:
                check_crc(data, at, header)
            except CorruptBatch as error:
                if at:  # return the valid batches first; the next read reports the damage
                    break
                raise self._corrupt(error.reason, expected) from error
            expected = header.end_offset
            end = at + header.size_bytes
        if not end:
            raise self._corrupt("a batch on disk is incomplete", expected)
        segment.remember_next(expected, position + end)
        return Slice(data if end == len(data) else data[:end], expected)

    def _valid_headers(self, data: bytes, offset: int) -> Iterator[tuple[BatchHeader, int]]:
        """Yield batches up to one with an invalid header; the first header must be valid."""
        has_valid_batch = False
        try:
            for header, at in whole_batches(data):
                yield header, at
                has_valid_batch = True
        except RemoteProtocolError as error:
            if not has_valid_batch:
                raise self._corrupt(str(error), offset) from error

    def _corrupt(self, reason: str, offset: int) -> CorruptBatch:
        return CorruptBatch(reason, topic=self.topic, partition=self.partition, offset=offset)
