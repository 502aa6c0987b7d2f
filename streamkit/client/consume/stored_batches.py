"""What a read with SmartModules must know of the stored batches themselves.

Where it starts: a stock server writes wrong deltas for all but the first of the stored batches
that a response covers, ``own place - distance of the two bases``. So a record of a later batch can
look like one of the first, and be taken for one that lies before the start. But only a batch that
is longer than its distance from the first can have such a record, and whatever it is, it holds
one of the offsets at once, twice, four times, ... the length of the first batch. A look at the
headers there settles it.

Where it goes on: a stock server works through one segment of its log at a time. Where nothing is
left of one it says nothing, and skips all that come after it. So the next one must be found: by
reading, where the log is long enough to have several.

Source: data plane reference, 5.4, 8.7, 9.7 and appendix A.
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


async def unmistakable_end(
    offsets: OffsetClient, topic: str, partition: int, wanted: int
) -> int | None:
    """Return up to where records of the first stored batch can be told by their deltas.

    None where ``wanted`` begins a batch, so that nothing lies before it; ``wanted`` itself where
    nothing can be told.

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
    """Tell whether a log is so short that it has one segment only.

    Another is begun with the batch that does not fit. What the SC says of the size is a little
    old, so twice the room is asked for.
    """
    if partition is None:
        return False
    storage, size_bytes = partition.spec.storage, int(partition.status.size_bytes)
    segment_bytes = None if storage is None else storage.segment_size_bytes
    return 0 <= size_bytes * 2 <= (segment_bytes or SEGMENT_BYTES_DEFAULT)


async def segment_end(
    offsets: OffsetClient, topic: str, partition: int, offset: int, end: int
) -> int:
    """Return where the segment that holds an offset ends; ``end`` if it is the last one.

    A read ends with the segment, so the first one that is not full shows where that is. Servers
    that end it earlier are asked again from there.

    Raises:
        BrokerError: The broker cannot serve it.
        CorruptBatch: A batch does not come whole, however much is asked for.
        TransportError: The connection failed.
    """
    wanted_bytes = _WALK_BYTES
    while offset < end:
        found = await offsets.fetch(topic, partition, offset, wanted_bytes)
        behind, at = offset, 0
        for header, start in whole_batches(found.records):
            behind, at = max(behind, header.end_offset), start + header.size_bytes
        if behind == offset:
            if not found.records:
                return end  # a broker may name an end that it cannot read
            if wanted_bytes >= BATCH_BYTES_HARD_MAX:
                raise CorruptBatch(
                    f"not even {wanted_bytes} bytes hold it",
                    topic=topic,
                    partition=partition,
                    offset=offset,
                )
            wanted_bytes = BATCH_BYTES_HARD_MAX
            continue
        offset = behind
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
