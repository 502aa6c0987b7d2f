"""The log of one partition: append on the writer's thread, read on the event loop.

An append exists for readers when it is synced: `durable_end` is the high watermark, the end
of the log and what is acknowledged, all in one.
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
# The first two fields of a batch: its offset, and its length behind them.
_PLACE = struct.Struct(">qi")
_BASE_OFFSET = struct.Struct(">q")


@dataclass(frozen=True, slots=True)
class LogEnd:
    """How far a log reaches, and where on disk."""

    offset: int
    segment: int
    position: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Whole batches from the log; ``next_offset`` follows the last of them."""

    records: bytes
    next_offset: int


class PartitionLog:
    """Segments in order, the last of them active.

    Attributes changed by `append` belong to the writer's thread; `durable` is published on
    the event loop by `synced`, and readers look at nothing behind it.
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
        """What tells the topic from an older one of the same name."""
        return self.folder.parent.name

    @property
    def durable_end(self) -> int:
        return self.durable.offset

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self.segments)

    def written_end(self) -> LogEnd:
        """Where the next batch will go. For the writer's thread."""
        active = self.segments[-1]
        return LogEnd(self.end, active.base_offset, active.size_bytes)

    # --- writing, on the writer's thread ---------------------------------------

    def make_first_segment(self, files: OpenFiles) -> None:
        """Make the file of a new partition, durably."""
        make_folders(self._disk, self.folder)
        segment = Segment(Segment.path_in(self.folder, 0), 0)
        self._disk.sync(files.get(segment.path))
        self._disk.sync_folder(self.folder)
        self.segments.append(segment)

    def append(self, entry: Entry, files: OpenFiles) -> int:
        """Write the batches of an entry at the end and return the first one's offset.

        Raises:
            OSError: Nothing of the entry is left in the log. If even the cut back fails, the
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
        """Give each batch its offset, and write all that go into one file at once."""
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
            self.segments[-1].written.note(self.end, held_bytes)
            at += size_bytes
            self.end += count
        self._write(view[start:at], files)

    def _write(self, data: memoryview, files: OpenFiles) -> None:
        segment = self.segments[-1]
        self._disk.write_at(files.get(segment.path), data, segment.size_bytes)
        segment.size_bytes += len(data)

    def _roll(self, files: OpenFiles) -> None:
        """Sync the old segment, make the new one, sync the folder; only then accept."""
        self._sync_active(files)
        segment = Segment(Segment.path_in(self.folder, self.end), self.end)
        files.get(segment.path)
        self.segments.append(segment)  # so that a failure behind this removes the file again
        self._disk.sync_folder(self.folder)

    def _cut_back(self, to: LogEnd, segments: int, files: OpenFiles) -> None:
        # In memory first: whatever the disk still does, what is published next is this end.
        extras = self.segments[segments:]
        del self.segments[segments:]
        active = self.segments[-1]
        active.cut(to.position)
        self.end = to.offset
        try:
            for extra in extras:
                files.forget(extra.path)
                self._disk.unlink(extra.path)
            if extras:
                # Else a crash brings a name back that is taken for the end of the log.
                self._disk.sync_folder(self.folder)
            self._disk.truncate(files.get(active.path), to.position)
        except OSError:
            self.refusal = ErrorCode(Code.PARTITION_SHORT_CIRCUITED)
            raise

    def sync(self, files: OpenFiles) -> LogEnd:
        """Put everything appended on disk and return how far that is."""
        end = self.written_end()
        self._sync_active(files)
        return end

    def _sync_active(self, files: OpenFiles) -> None:
        try:
            self._disk.sync(files.get(self.segments[-1].path))
        except OSError:
            # What the kernel held is in doubt for good: a second sync would lie.
            self.has_failed_sync = True
            self.refusal = ErrorCode(Code.PARTITION_SHORT_CIRCUITED)
            raise

    # --- reading, on the event loop --------------------------------------------

    def synced(self, end: LogEnd) -> None:
        """Learn that everything below ``end`` is on disk."""
        assert end.offset >= self.durable.offset, "the durable end moved back"
        self.durable = end

    def read(self, offset: int, max_bytes: int, files: OpenFiles) -> Slice | ErrorCode:
        """Read whole batches from the one that holds ``offset`` on.

        Args:
            offset: The first one wanted; older records of its batch come along.
            max_bytes: How much at the most; the first batch comes whatever its size.
                Negative means no limit of its own.
            files: Where to get descriptors.

        Returns:
            The batches, none at the end of the log; or the error to answer with.

        Raises:
            CorruptBatch: A batch is not what its checksum says.
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
                raise self._corrupt(f"no batch holds offset {offset}", offset)

    def _index(self, segment: Segment, files: OpenFiles) -> SparseIndex:
        """Note where the batches of a file start, reading it in pieces."""
        index = SparseIndex()
        position = 0
        while position < segment.found_bytes:
            wanted = min(_SCAN_BYTES, segment.found_bytes - position)
            data = self._disk.read_at(files.get(segment.path), wanted, position)
            at = 0
            while len(data) - at >= HEADER_BYTES:
                base_offset, length = _PLACE.unpack_from(data, at)
                if length < HEADER_BYTES - BYTES_BEFORE_LENGTH:
                    raise self._corrupt(
                        f"batch length {length} in {segment.path.name}", base_offset
                    )
                index.note(base_offset, position + at)
                at += BYTES_BEFORE_LENGTH + length
            if not at:
                return index  # less than a header is left, which no reader is sent to
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
        wanted = _SCAN_BYTES if max_bytes < 0 else min(max_bytes, FETCH_BYTES_MAX)
        size = min(max(wanted, first.size_bytes), stop - position)
        data = self._disk.read_at(files.get(segment.path), size, position)
        expected = first.base_offset
        end = 0
        for header, at in self._sound_headers(data, expected):
            if header.base_offset != expected:
                raise self._corrupt(
                    f"offset {header.base_offset} where {expected} was due", expected
                )
            try:
                check_crc(data, at, header)
            except CorruptBatch as error:
                if at:  # what is sound goes out first; the next read meets the damage
                    break
                raise self._corrupt(error.reason, expected) from error
            expected = header.end_offset
            end = at + header.size_bytes
        if not end:
            raise self._corrupt("a batch is cut short on disk", expected)
        segment.note_next(expected, position + end)
        return Slice(data if end == len(data) else data[:end], expected)

    def _sound_headers(self, data: bytes, offset: int) -> Iterator[tuple[BatchHeader, int]]:
        """Walk the batches up to one whose header means nothing; the first must be sound."""
        read_any = False
        try:
            for header, at in whole_batches(data):
                yield header, at
                read_any = True
        except RemoteProtocolError as error:
            if not read_any:
                raise self._corrupt(str(error), offset) from error

    def _corrupt(self, reason: str, offset: int) -> CorruptBatch:
        return CorruptBatch(reason, topic=self.topic, partition=self.partition, offset=offset)
