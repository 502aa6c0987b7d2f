"""Single reads of a partition, without a stream."""

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
    """One batch as it is stored in the log.

    ``offset_count`` is the number of offsets that the batch covers. It may be larger than the
    number of records: a fence covers one offset and has no record. ``stamp`` identifies the
    producer; its fields are -1 if the batch does not name one.
    """

    base_offset: int
    offset_count: int
    stamp: Stamp
    crc: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """The result of one read.

    ``batches`` are complete and may begin before the requested offset; ``chunk`` has only the
    records at and after that offset. ``next_offset`` is where to read next. If it equals the
    requested offset, there was nothing to read.
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
    """Read once from an offset; a batch larger than the limit is read again with a higher limit.

    Raises:
        OffsetEvicted: Retention has removed the offset.
        OffsetOutOfRange: The offset is after the end offset.
        CorruptBatch: A batch does not match its checksum or its counts.
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
