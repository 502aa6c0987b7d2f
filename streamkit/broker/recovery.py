"""Recovery of a partition. The end in the journal decides what is kept.

| first invalid byte | cause | action |
|---|---|---|
| at or after the end in the journal | an incomplete, unacknowledged write | cut, synced, logged |
| before the end in the journal | damaged acknowledged data | kept, valid part served, no appends |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streamkit.broker.files import OpenFiles
from streamkit.broker.partition_log import LogEnd, PartitionLog
from streamkit.broker.segment import Segment, segment_files
from streamkit.env import Disk
from streamkit.errors import CorruptBatch, RemoteProtocolError
from streamkit.protocol.batch import HEADER_BYTES, MAGIC, check_crc, read_batch_header
from streamkit.protocol.error_codes import Code, ErrorCode


@dataclass(frozen=True, slots=True)
class Recovered:
    """The result of opening a partition, which the broker logs."""

    end: LogEnd
    torn_bytes: int = 0
    records_found: int = 0
    damage: str = ""


def open_partition(
    disk: Disk, log: PartitionLog, known: LogEnd | None, files: OpenFiles
) -> Recovered:
    """Find the segments of a partition, verify the data after the known end, cut invalid data.

    Args:
        disk: The disk with the files.
        log: The log to fill; has no segments yet.
        known: The end in the journal; None if the journal lost it. Then the whole active
            segment is verified, and its last valid batch is the end.
        files: Descriptors for writing.
    """
    paths = segment_files(log.folder) if log.folder.is_dir() else []
    log.segments = _without_empty_ones(
        disk, [Segment.found(path, path.stat().st_size) for path in paths]
    )
    if not log.segments:
        return _no_segments(log, known, files)
    known_end = known or LogEnd(log.segments[-1].base_offset, log.segments[-1].base_offset, 0)
    row = _row_of(log.segments, known_end.segment)
    if row is None or log.segments[row].size_bytes < known_end.position:
        return _shortened(disk, log, known_end, row, files)
    end = _scan(disk, log, row, known_end, files)
    torn = _cut_after(disk, log, end, files)
    log.end = end.offset
    log.synced(end)
    return Recovered(end, torn, end.offset - known_end.offset)


def _without_empty_ones(disk: Disk, segments: list[Segment]) -> list[Segment]:
    """Remove empty files left by a failed roll, which would hide records from readers."""
    for empty in [each for each in segments[:-1] if not each.size_bytes]:
        disk.unlink(empty.path)
        segments.remove(empty)
    return segments


def _no_segments(log: PartitionLog, known: LogEnd | None, files: OpenFiles) -> Recovered:
    log.create_first_segment(files)
    if known is None or known.offset == 0:
        return Recovered(LogEnd(0, 0, 0))
    return _refuse(log, LogEnd(0, 0, 0), "its segment files are missing")


def _row_of(segments: list[Segment], base_offset: int) -> int | None:
    rows = [row for row, each in enumerate(segments) if each.base_offset == base_offset]
    return rows[0] if rows else None


def _shortened(
    disk: Disk, log: PartitionLog, known: LogEnd, row: int | None, files: OpenFiles
) -> Recovered:
    """Handle missing acknowledged bytes: serve the valid batches, refuse new ones."""
    last = len(log.segments) - 1 if row is None else row
    base = log.segments[last].base_offset
    end = _scan(disk, log, last, LogEnd(base, base, 0), files)
    log.end = end.offset
    log.synced(end)
    damage = f"the log ends at offset {end.offset}, its acknowledged end is {known.offset}"
    return _refuse(log, end, damage)


def _refuse(log: PartitionLog, end: LogEnd, damage: str) -> Recovered:
    log.refusal = ErrorCode(Code.PARTITION_SHORT_CIRCUITED)
    return Recovered(end, damage=damage)


def _scan(disk: Disk, log: PartitionLog, row: int, start: LogEnd, files: OpenFiles) -> LogEnd:
    """Return the end of the valid batches that begin at ``start``, across contiguous segments."""
    offset, position = start.offset, start.position
    while True:
        segment = log.segments[row]
        fd = files.get(segment.path)
        while (size := _valid_batch(disk, fd, position, segment.size_bytes, offset)) is not None:
            position, offset = position + size[0], offset + size[1]
        following = log.segments[row + 1] if row + 1 < len(log.segments) else None
        if position < segment.size_bytes or following is None or following.base_offset != offset:
            return LogEnd(offset, segment.base_offset, position)
        row, position = row + 1, 0


def _valid_batch(
    disk: Disk, fd: int, position: int, stop: int, expected: int
) -> tuple[int, int] | None:
    """Return size and record count of the batch at ``position``; None if it is not valid."""
    try:
        header = read_batch_header(disk.read_at(fd, HEADER_BYTES, position))
        if header.size_bytes > stop - position or header.magic != MAGIC:
            return None
        if header.base_offset != expected or header.last_offset_delta < 0:
            return None
        check_crc(disk.read_at(fd, header.size_bytes, position), 0, header)
    except (RemoteProtocolError, CorruptBatch):
        return None
    return header.size_bytes, header.record_count


def _cut_after(disk: Disk, log: PartitionLog, end: LogEnd, files: OpenFiles) -> int:
    """Remove all data after ``end``; return how many bytes were removed."""
    torn = 0
    while log.segments[-1].base_offset != end.segment:
        extra = log.segments.pop()
        torn += extra.size_bytes
        files.forget(extra.path)
        disk.unlink(extra.path)
        disk.sync_folder(log.folder)
    active = log.segments[-1]
    if active.size_bytes > end.position:
        torn += active.size_bytes - end.position
        fd = files.get(active.path)
        disk.truncate(fd, end.position)
        disk.sync(fd)
        active.cut(end.position)
    return torn


def folder_of(root: Path, incarnation: str, partition: int) -> Path:
    """Return the folder of a partition. Topics of the same name differ in the incarnation."""
    return root / "logs" / incarnation / str(partition)
