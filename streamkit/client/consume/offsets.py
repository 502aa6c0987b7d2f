"""Single requests for the offsets of partitions and of consumers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anyio

from streamkit.client.cluster import Cluster
from streamkit.client.consume.positions import records_from
from streamkit.errors import BrokerError, OffsetOutOfRange, ProtocolError, RequestTimedOut
from streamkit.protocol.apis import (
    DELETE_CONSUMER_OFFSET,
    FETCH,
    FETCH_CONSUMER_OFFSETS,
    FETCH_OFFSETS,
    STREAM_FETCH,
    UPDATE_CONSUMER_OFFSET,
    Api,
)
from streamkit.protocol.batch import HEADER_BYTES, read_batch_header, whole_batches
from streamkit.protocol.data_plane import (
    READ_UNCOMMITTED,
    ConsumerOffset,
    ConsumerOffsetsFilter,
    DeleteConsumerOffsetRequest,
    FetchablePartition,
    FetchConsumerOffsetsRequest,
    FetchOffsetsRequest,
    FetchOffsetsResponse,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    OffsetsTopic,
    PartitionIndex,
    PartitionOffsets,
    ReplicaKey,
    StreamFetchRequest,
    UpdateConsumerOffsetRequest,
)
from streamkit.protocol.server_errors import as_exception
from streamkit.record import Chunk

_OFFSETS_TOPIC = "consumer-offset"
_PROBE_BYTES = 64 * 1024
_PROBE_HEADER_BYTES = 1024
# A read that is not full ends at the current end of the log, or at the end of one segment file.
# On a busy topic every read finds new records, so the number of such reads is limited.
_SMALL_STEPS_MAX = 3
_STORE_S = 10.0


@dataclass(frozen=True, slots=True)
class StoredOffset:
    """A consumer's committed offset: that of the last record it has processed."""

    consumer_id: str
    topic: str
    partition: int
    offset: int
    modified_time_s: int


class OffsetClient:
    """Sends requests to the leaders of partitions, and to the leader of the offsets topic."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the first stored offset and the end offset of a partition.

        The end offset is where a read finds nothing, not the reported high watermark: after a
        crash a stock server reports a high watermark below records that it has acknowledged.

        Raises:
            NotLeader: The server does not serve the partition, or not yet.
            ProtocolError: The response does not match the request.
            TransportError: The connection failed.
        """
        found = await self._reported(topic, partition)
        end, small_steps, is_second_request = found.last_stable_offset, 0, False
        while small_steps < _SMALL_STEPS_MAX:
            read_end, is_full = await self._read_to_end(topic, partition, end)
            if read_end < end and not is_second_request:
                # The log ends before the reported end: the response may have been corrupted.
                found, is_second_request = await self._reported(topic, partition), True
                end = found.last_stable_offset
                continue
            if read_end <= end:
                break
            end, small_steps = read_end, 0 if is_full else small_steps + 1
        if not 0 <= found.start_offset <= end:
            raise ProtocolError(
                f"the server reports that {topic}-{partition} has the start offset "
                f"{found.start_offset}, but the end offset {end}"
            )
        return found.start_offset, end

    async def _reported(self, topic: str, partition: int) -> PartitionOffsets:
        """Return the bounds that the leader reports."""
        address = await self._cluster.leader(topic, partition)
        channel = await self._cluster.spu(address)
        request = FetchOffsetsRequest((OffsetsTopic(topic, (PartitionIndex(partition),)),))
        response = await channel.call(FETCH_OFFSETS, request)
        found: PartitionOffsets = _only(response, topic, partition)
        if found.error:
            raise as_exception(found.error, about=f"{topic}-{partition}")
        return found

    async def fetch(
        self,
        topic: str,
        partition: int,
        offset: int,
        max_bytes: int,
        isolation: int = READ_UNCOMMITTED,
    ) -> FetchablePartition:
        """Read once from an offset.

        Raises:
            BrokerError: The broker cannot serve it.
            ProtocolError: The response does not match the request.
            TransportError: The connection failed.
        """
        address = await self._cluster.leader(topic, partition)
        channel = await self._cluster.spu(address)
        wanted = FetchPartition(partition, fetch_offset=offset)
        request = FetchRequest(
            max_bytes=max_bytes, isolation=isolation, topics=(FetchTopic(topic, (wanted,)),)
        )
        response = await channel.call(FETCH, request)
        found: FetchablePartition = _only(response, topic, partition)
        if found.error:
            raise as_exception(found.error, about=f"{topic}-{partition}")
        return found

    async def at_time(self, topic: str, partition: int, time_ms: int, first: int, end: int) -> int:
        """Return the offset of the first record with a timestamp of at least ``time_ms``.

        It returns ``end`` if there is none. This is a binary search over batch headers, with one
        small read per step, then one read of the batch that holds the record. A batch without
        timestamps counts as older than any time.

        Args:
            topic: The topic.
            partition: The partition.
            time_ms: Milliseconds since the epoch.
            first: The first stored offset.
            end: The end offset.

        Raises:
            BrokerError: The broker cannot serve it.
            TransportError: The connection failed.
        """
        low, high, candidate = first, end, None
        while low < high:
            middle = (low + high) // 2
            found = await self.fetch(topic, partition, middle, _PROBE_HEADER_BYTES)
            if len(found.records) < HEADER_BYTES:
                high = middle  # nothing to read here: the reported end may be too high
                continue
            header = read_batch_header(found.records)
            if header.first_timestamp_ms > 0 and header.max_timestamp_ms >= time_ms:
                candidate, high = header, header.base_offset
            else:
                low = max(header.end_offset, middle + 1)
        if candidate is None:
            return high
        found = await self.fetch(topic, partition, candidate.base_offset, candidate.size_bytes)
        chunk = records_from(topic, partition, candidate.base_offset, found) or Chunk()
        for offset, stamp in zip(chunk.offsets, chunk.timestamps_ms, strict=True):
            if stamp >= time_ms and offset >= first:
                return offset
        return max(candidate.base_offset, first)

    async def stored(
        self, consumer_id: str | None = None, topic: str | None = None
    ) -> list[StoredOffset]:
        """Return stored offsets, all or those of one consumer or topic."""
        wanted = ConsumerOffsetsFilter(None, consumer_id) if consumer_id is not None else None
        response = await self._ask_offsets_leader(
            FETCH_CONSUMER_OFFSETS, FetchConsumerOffsetsRequest(wanted)
        )
        found: tuple[ConsumerOffset, ...] = response.consumers
        return [
            StoredOffset(
                each.consumer_id,
                each.replica.topic,
                each.replica.partition,
                each.offset,
                each.modified_time_s,
            )
            for each in found
            if (topic is None or each.replica.topic == topic)
            and (consumer_id is None or each.consumer_id == consumer_id)
        ]

    async def store(self, consumer_id: str, topic: str, partition: int, offset: int) -> None:
        """Store an offset through a short stream that begins at that offset.

        The protocol stores offsets only for a stream, and the id of a stream arrives with its
        first records.

        Raises:
            RequestTimedOut: There is no record at ``offset``, or the server does not respond.
            StreamKitError: The broker did not store the offset.
        """
        address = await self._cluster.leader(topic, partition)
        channel = await self._cluster.connect(address)
        try:
            with anyio.fail_after(_STORE_S):
                request = StreamFetchRequest(
                    topic, partition, offset, max_bytes=1, consumer_id=consumer_id
                )
                first = await (await channel.open_stream(STREAM_FETCH, request)).receive()
                update = UpdateConsumerOffsetRequest(offset, first.stream_id)
                response = await channel.call(UPDATE_CONSUMER_OFFSET, update)
        except TimeoutError:
            raise RequestTimedOut(
                f"offset {offset} of {topic}-{partition} was not stored within {_STORE_S:g} s",
                sent=True,
            ) from None
        finally:
            with anyio.CancelScope(shield=True):
                await channel.close()
        if response.error:
            raise as_exception(response.error, about=f"{topic}-{partition}")

    async def delete(self, stored: StoredOffset) -> None:
        """Delete a stored offset."""
        request = DeleteConsumerOffsetRequest(
            ReplicaKey(stored.topic, stored.partition), stored.consumer_id
        )
        await self._ask_offsets_leader(DELETE_CONSUMER_OFFSET, request)

    async def _read_to_end(self, topic: str, partition: int, offset: int) -> tuple[int, bool]:
        """Return the end offset that one more read finds, and whether that read was full.

        The end offset is -1 if the log ends before ``offset``.
        """
        try:
            found = await self.fetch(topic, partition, offset, _PROBE_BYTES)
        except OffsetOutOfRange:
            return -1, False
        except BrokerError as error:
            if error.retryable:
                raise
            return offset, False  # nothing can be read there, so the log ends there
        end, at = offset, 0
        for header, at in whole_batches(found.records):
            end, at = max(end, header.end_offset), at + header.size_bytes
        if len(found.records) - at >= HEADER_BYTES:  # a batch that the server cut also counts
            end = max(end, read_batch_header(found.records, at).end_offset)
        return end, len(found.records) >= _PROBE_BYTES // 2

    async def _ask_offsets_leader(self, api: Api[Any, Any], request: Any) -> Any:
        address = await self._cluster.leader(_OFFSETS_TOPIC, 0)
        channel = await self._cluster.spu(address)
        response = await channel.call(api, request)
        if response.error:
            raise as_exception(response.error, about="consumer offsets")
        return response


def _only(response: FetchOffsetsResponse | FetchResponse, topic: str, partition: int) -> Any:
    """Return the requested partition, which must be the only one in the response."""
    found = [(each.topic, part) for each in response.topics for part in each.partitions]
    if len(found) != 1 or (found[0][0], found[0][1].partition) != (topic, partition):
        names = [f"{name}-{part.partition}" for name, part in found]
        raise ProtocolError(f"the request was for {topic}-{partition}, the response for {names}")
    return found[0][1]
