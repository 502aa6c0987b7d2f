"""One-shot reads of a partition: what a stream is too much for."""

from __future__ import annotations

from dataclasses import dataclass

from streamkit.client.cluster import Cluster
from streamkit.client.consume.offsets import OffsetClient
from streamkit.client.consume.positions import Position
from streamkit.protocol.batch import Stamp
from streamkit.protocol.data_plane import READ_UNCOMMITTED
from streamkit.record import Chunk


@dataclass(frozen=True, slots=True)
class FetchedBatch:
    """One batch as it stands in the log.

    ``offset_count`` is how many offsets it takes, which may be more than its records: a fence
    takes one and has none. ``stamp`` tells who wrote it, -1 throughout where nobody says.
    """

    base_offset: int
    offset_count: int
    stamp: Stamp
    crc: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one read brought.

    ``batches`` are whole, and may begin before the offset asked for; ``chunk`` holds their
    records from there on. ``next_offset`` is where to read on; nothing was there where it is
    the offset asked for.
    """

    batches: tuple[FetchedBatch, ...]
    chunk: Chunk
    next_offset: int
    high_watermark: int
    log_start_offset: int


async def fetch(
    cluster: Cluster,
    topic: str,
    partition: int,
    offset: int,
    *,
    max_bytes: int,
    isolation: int = READ_UNCOMMITTED,
) -> Fetched:
    """Read once from an offset on; a batch that does not fit is read again with more room.

    Raises:
        OffsetEvicted: Retention has removed the offset.
        OffsetOutOfRange: It lies beyond the end.
        CorruptBatch: A batch is not what its checksum or its counts say.
        BrokerError: The broker cannot serve it.
        TransportError: The connection failed.
    """
    offsets = OffsetClient(cluster)
    while True:
        fetched = await offsets.fetch(topic, partition, offset, max_bytes, isolation)
        position = Position(topic, partition, offset)
        headers = position.inspect(fetched)
        if headers.reopen_bytes is not None:
            max_bytes = headers.reopen_bytes
            continue
        chunk = position.decode(headers) or Chunk(topic=topic, partition=partition)
        batches = tuple(
            FetchedBatch(
                header.base_offset,
                header.record_count,
                Stamp(header.producer_id, header.producer_epoch, header.first_sequence),
                header.crc,
            )
            for header, _ in headers.batches
        )
        return Fetched(
            batches, chunk, position.next_offset, fetched.high_watermark, fetched.log_start_offset
        )
