"""Whether the offset deltas of SmartModule output can be told apart at the start of a read.

A stock server writes wrong deltas for all but the first of the stored batches that a response
covers: ``own place - distance of the two bases``. So a record of a later batch can look like one of
the first batch, and be taken for one that lies before the start. But only a batch that is longer
than its distance from the first can have such a record, and whatever it is, it holds one of the
offsets at once, twice, four times, ... the length of the first batch. A look at the headers
there settles it.

Source: data plane reference, 8.7 and 9.7.
"""

from __future__ import annotations

from streamkit.client.offsets import OffsetClient
from streamkit.protocol.batch import HEADER_BYTES, BatchHeader, read_batch_header

_PROBE_BYTES = 1024


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


async def _header_at(
    offsets: OffsetClient, topic: str, partition: int, offset: int
) -> BatchHeader | None:
    found = await offsets.fetch(topic, partition, offset, _PROBE_BYTES)
    if len(found.records) < HEADER_BYTES:
        return None
    return read_batch_header(found.records)
