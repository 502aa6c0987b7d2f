"""What a read with SmartModules must know about the stored batches.

At the start: a stock server writes wrong deltas for all but the first of the stored batches that
a response covers: ``row in its batch - distance of the two base offsets``. So a record of a later
batch can look like a record of the first batch that is before the start. Only a batch that is
longer than its distance from the first batch can have such a record. Such a batch always contains
one of these offsets: the base offset of the first batch plus 1, 2, 4, 8, ... times its length. So
it is enough to read the headers at these offsets.

At the end of a segment: a stock server processes one log segment at a time. If the SmartModules
drop every record of a segment, it sends no response and also skips all later segments. So the
client has to find the next segment itself: by reading, if the log is long enough to have several.

Source: docs/protocol/smartmodules.md, "Batches made by SmartModules" and
"Offsets of output records".
"""

from __future__ import annotations

from streamkit.client.consume.offsets import OffsetClient
from streamkit.errors import CorruptBatch
from streamkit.limits import BATCH_BYTES_HARD_MAX, MIB, SEGMENT_BYTES_DEFAULT
from streamkit.protocol.batch import (
    HEADER_BYTES,
    BatchHeader,
    read_batch_header,
    whole_batches,
)
from streamkit.protocol.control_plane import Metadata

_PROBE_BYTES = 1024
_WALK_BYTES = 4 * MIB


async def reliable_end(
    offsets: OffsetClient, topic: str, partition: int, wanted: int
) -> int | None:
    """Return the offset up to which deltas reliably identify records of the first stored batch.

    It is None if a batch starts at ``wanted``, because then no record is before it. It is
    ``wanted`` if no delta is reliable.

    Raises:
        BrokerError: The broker cannot serve it.
        TransportError: The connection failed.
    """
    _, end = await offsets.bounds(topic, partition)
    first = await _header_at(offsets, topic, partition, wanted) if wanted < end else None
    if first is None or first.base_offset >= wanted:
        return None
    base, distance = first.base_offset, first.record_count
    while base + distance < end:
        found = await _header_at(offsets, topic, partition, base + distance)
        if found is None or found.end_offset - base > 2 * (found.base_offset - base):
            return wanted
        distance *= 2
    return end


def is_in_one_segment(partition: Metadata | None) -> bool:
    """Whether a log is so short that it has only one segment.

    A server starts a new segment for a batch that does not fit in the current one. The size that
    the SC reports is a little old, so the reported size is doubled.
    """
    if partition is None:
        return False
    storage, size_bytes = partition.spec.storage, int(partition.status.size_bytes)
    segment_bytes = None if storage is None else storage.segment_size_bytes
    return 0 <= size_bytes * 2 <= (segment_bytes or SEGMENT_BYTES_DEFAULT)


async def segment_end(
    offsets: OffsetClient, topic: str, partition: int, offset: int, end: int
) -> int:
    """Return the end offset of the segment that holds an offset; ``end`` if it is the last one.

    A read stops at the end of the segment, so the first read that is not full shows it. If a
    server stops earlier, the next read starts there.

    Raises:
        BrokerError: The broker cannot serve it.
        CorruptBatch: A batch stays incomplete at the largest request size.
        TransportError: The connection failed.
    """
    wanted_bytes = _WALK_BYTES
    while offset < end:
        found = await offsets.fetch(topic, partition, offset, wanted_bytes)
        read_end, at = offset, 0
        for header, start in whole_batches(found.records):
            read_end, at = max(read_end, header.end_offset), start + header.size_bytes
        if read_end == offset:
            if not found.records:
                return end  # nothing to read there: the reported end may be too high
            if wanted_bytes >= BATCH_BYTES_HARD_MAX:
                raise CorruptBatch(
                    f"it is larger than {wanted_bytes:,} bytes",
                    topic=topic,
                    partition=partition,
                    offset=offset,
                )
            wanted_bytes = BATCH_BYTES_HARD_MAX
            continue
        offset = read_end
        if at == len(found.records) < wanted_bytes:
            return min(offset, end)
    return end


async def _header_at(
    offsets: OffsetClient, topic: str, partition: int, offset: int
) -> BatchHeader | None:
    found = await offsets.fetch(topic, partition, offset, _PROBE_BYTES)
    if len(found.records) < HEADER_BYTES:
        return None
    return read_batch_header(found.records)
