"""What of a partition is kept when it is opened again. Only the journal decides.

| first invalid byte | what it is | what is done |
|---|---|---|
| at or behind the journal's end | a torn tail, nobody was told of it | cut, synced, counted |
| before the journal's end | acknowledged data are damaged | kept as is, served below, no appends |
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
    """What opening a partition found, for the log of the broker."""

    end: LogEnd
    torn_bytes: int = 0
    records_found: int = 0
    damage: str = ""


def open_partition(
    disk: Disk, log: PartitionLog, known: LogEnd | None, files: OpenFiles
) -> Recovered:
    """Find the segments of a partition, verify what is behind the known end, cut the torn rest.

    Args:
        disk: Where it lies.
        log: The log to fill; has no segments yet.
        known: The end the journal vouches for; None where the journal lost it, then the
            whole active segment is verified and its end believed.
        files: Descriptors for writing.
    """
    paths = segment_files(log.folder) if log.folder.is_dir() else []
    log.segments = _without_empty_ones(
        disk, [Segment.found(path, path.stat().st_size) for path in paths]
    )
    if not log.segments:
        return _nothing_left(log, known, files)
    trusted = known or LogEnd(log.segments[-1].base_offset, log.segments[-1].base_offset, 0)
    row = _row_of(log.segments, trusted.segment)
    if row is None or log.segments[row].size_bytes < trusted.position:
        return _shortened(disk, log, trusted, row, files)
    end = _scan(disk, log, row, trusted, files)
    torn = _cut_behind(disk, log, end, files)
    log.end = end.offset
    log.synced(end)
    return Recovered(end, torn, end.offset - trusted.offset)


def _without_empty_ones(disk: Disk, segments: list[Segment]) -> list[Segment]:
    """Remove files that a failed roll left behind, for they would hide records from readers."""
    for empty in [each for each in segments[:-1] if not each.size_bytes]:
        disk.unlink(empty.path)
        segments.remove(empty)
    return segments


def _nothing_left(log: PartitionLog, known: LogEnd | None, files: OpenFiles) -> Recovered:
    log.make_first_segment(files)
    if known is None or known.offset == 0:
        return Recovered(LogEnd(0, 0, 0))
    return _refuse(log, LogEnd(0, 0, 0), "its segment files are gone")


def _row_of(segments: list[Segment], base_offset: int) -> int | None:
    rows = [row for row, each in enumerate(segments) if each.base_offset == base_offset]
    return rows[0] if rows else None


def _shortened(
    disk: Disk, log: PartitionLog, known: LogEnd, row: int | None, files: OpenFiles
) -> Recovered:
    """Acknowledged bytes are missing: serve what is whole, take nothing new."""
    last = len(log.segments) - 1 if row is None else row
    base = log.segments[last].base_offset
    end = _scan(disk, log, last, LogEnd(base, base, 0), files)
    log.end = end.offset
    log.synced(end)
    return _refuse(log, end, f"it ends at offset {end.offset}, acknowledged was {known.offset}")


def _refuse(log: PartitionLog, end: LogEnd, damage: str) -> Recovered:
    log.refusal = ErrorCode(Code.PARTITION_SHORT_CIRCUITED)
    return Recovered(end, damage=damage)


def _scan(disk: Disk, log: PartitionLog, row: int, start: LogEnd, files: OpenFiles) -> LogEnd:
    """Walk whole, valid batches from ``start`` on, over segment ends that chain."""
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
    """Return size and record count of a sound batch at ``position``, else None."""
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


def _cut_behind(disk: Disk, log: PartitionLog, end: LogEnd, files: OpenFiles) -> int:
    """Remove what lies behind ``end``; return how many bytes that was."""
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
    """Where a partition lies. The incarnation keeps a topic apart from an older namesake."""
    return root / "logs" / incarnation / str(partition)
