"""The SPU port: produce and fetch records, store consumer offsets.

Source: docs/protocol/produce-and-fetch.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from streamkit.broker.batch_validation import check_entry
from streamkit.broker.catalog import Catalog
from streamkit.broker.connection import PLATFORM_VERSION, Connection
from streamkit.broker.consumer_offsets import ConsumerOffsets, ConsumerPosition
from streamkit.broker.fetch_stream import FetchStream, Streams, read_partition
from streamkit.broker.files import OpenFiles
from streamkit.broker.log_writer import Appended, LogWriter
from streamkit.broker.smartmodules import NOT_RUN
from streamkit.env import Clock
from streamkit.errors import RemoteProtocolError
from streamkit.limits import FETCH_RESPONSE_BYTES_MAX, STREAMS_PER_CONNECTION_MAX
from streamkit.protocol import apis
from streamkit.protocol.connection import IncomingRequest
from streamkit.protocol.control_plane import ApiRange, ApiVersionsResponse
from streamkit.protocol.data_plane import (
    READ_COMMITTED,
    ConsumerOffset,
    DeleteConsumerOffsetRequest,
    DeleteConsumerOffsetResponse,
    FetchablePartition,
    FetchConsumerOffsetsRequest,
    FetchConsumerOffsetsResponse,
    FetchedOffsetsTopic,
    FetchedTopic,
    FetchOffsetsRequest,
    FetchOffsetsResponse,
    FetchRequest,
    FetchResponse,
    OffsetUpdateStatus,
    PartitionOffsets,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    ReplicaKey,
    StreamFetchRequest,
    StreamFetchResponse,
    TopicProduceResponse,
    UpdateConsumerOffsetRequest,
    UpdateConsumerOffsetResponse,
    UpdateOffsetsRequest,
    UpdateOffsetsResponse,
)
from streamkit.protocol.error_codes import NO_ERROR, Code, ErrorCode, other

HELLO = ApiVersionsResponse(
    NO_ERROR,
    (
        ApiRange(apis.PRODUCE.key, 0, apis.SPU_VERSION),
        ApiRange(apis.FETCH.key, 0, apis.SPU_VERSION),
        ApiRange(apis.FETCH_OFFSETS.key, apis.SPU_VERSION, apis.SPU_VERSION),
        ApiRange(apis.STREAM_FETCH.key, 0, apis.SPU_VERSION),
        ApiRange(apis.UPDATE_OFFSETS.key, 0, 0),
    ),
    PLATFORM_VERSION,
)


@dataclass(frozen=True, slots=True)
class SpuParts:
    """The parts of the broker that all connections to the SPU port share."""

    catalog: Catalog
    writer: LogWriter
    offsets: ConsumerOffsets
    reads: OpenFiles
    clock: Clock
    streams: Streams


class SpuSession:
    """Handles the requests of one connection to the SPU port."""

    def __init__(self, connection: Connection, parts: SpuParts) -> None:
        self._connection = connection
        self._parts = parts
        self._streams: dict[int, FetchStream] = {}

    def respond(self, request: IncomingRequest) -> Any:
        body = request.body
        match request.api.key:
            case apis.PRODUCE.key:
                return self._produce(body)
            case apis.UPDATE_OFFSETS.key:
                return self._update_offsets(body)
            case apis.STREAM_FETCH.key:
                return self._stream_fetch(request, body)
            case apis.FETCH.key:
                return self._fetch(body)
            case apis.FETCH_OFFSETS.key:
                return self._fetch_offsets(body)
            case apis.UPDATE_CONSUMER_OFFSET.key:
                return asyncio.ensure_future(self._update_consumer_offset(body))
            case apis.DELETE_CONSUMER_OFFSET.key:
                return asyncio.ensure_future(self._delete_consumer_offset(body))
            case apis.FETCH_CONSUMER_OFFSETS.key:
                return self._fetch_consumer_offsets(body)
            case apis.API_VERSIONS.key:
                return self._hello(body.client_version)
        raise AssertionError(f"no case for {request.api.name}")

    def close(self) -> None:
        for stream in self._streams.values():
            self._parts.streams.discard(stream)

    def _hello(self, client_version: str) -> ApiVersionsResponse:
        if client_version:
            return HELLO
        # A client that does not send its version is too old for newer versions of streams.
        ranges = [
            replace(each, max_version=15) if each.api_key == apis.STREAM_FETCH.key else each
            for each in HELLO.api_keys
        ]
        return replace(HELLO, api_keys=tuple(ranges))

    # --- Produce -----------------------------------------------------------------

    def _produce(self, body: ProduceRequest) -> Any:
        if body.timeout_ms < 0:
            raise RemoteProtocolError(f"invalid timeout of {body.timeout_ms} ms", at=0)
        refusal = other(NOT_RUN) if body.smartmodules else None
        outcomes = [
            [self._append(topic.topic, entry, refusal) for entry in topic.partitions]
            for topic in body.topics
        ]
        flat = [each for row in outcomes for each in row if isinstance(each, asyncio.Future)]
        if not flat:
            return _produce_response(body, outcomes)
        return asyncio.ensure_future(_when_stored(body, outcomes, flat))

    def _append(
        self, topic: str, data: PartitionProduceData, refusal: ErrorCode | None
    ) -> Appended | asyncio.Future[Appended]:
        if refusal is not None:
            return Appended(0, refusal)
        log = self._parts.catalog.log(topic, data.partition)
        if log is None:
            return Appended(0, ErrorCode(Code.NOT_LEADER_FOR_PARTITION))
        if not data.records:
            return Appended(0)
        spec = self._parts.catalog.topics[topic].spec
        entry = check_entry(data.records, spec.compression.codec, log.segment_bytes)
        if isinstance(entry, ErrorCode):
            return Appended(0, entry)
        if log.refusal is not None:
            return Appended(0, log.refusal)
        return self._parts.writer.append(log, entry)

    # --- streams -----------------------------------------------------------------

    def _stream_fetch(self, request: IncomingRequest, body: StreamFetchRequest) -> None:
        if body.isolation > READ_COMMITTED:
            raise RemoteProtocolError(f"unknown isolation {body.isolation}", at=0)
        log = self._parts.catalog.log(body.topic, body.partition)
        if log is None:
            response = FetchablePartition(body.partition, ErrorCode(Code.NOT_LEADER_FOR_PARTITION))
            self._connection.push(request, StreamFetchResponse(body.topic, 0, response))
            return
        number = len(self._streams) + 1
        if number > STREAMS_PER_CONNECTION_MAX:
            raise RemoteProtocolError(f"more than {STREAMS_PER_CONNECTION_MAX} streams", at=0)
        stream = FetchStream(
            self._connection, request, log, number, self._parts.reads, self._parts.streams
        )
        self._streams[number] = stream
        self._connection.streams += 1
        self._parts.streams.add(stream)
        if body.smartmodules or body.smartmodule is not None:
            stream.fail(other(NOT_RUN))
        else:
            stream.send_from(body.fetch_offset)

    def _update_offsets(self, body: UpdateOffsetsRequest) -> UpdateOffsetsResponse:
        statuses = []
        for update in body.offsets:
            stream = self._streams.get(update.session_id)
            statuses.append(
                OffsetUpdateStatus(
                    update.session_id,
                    NO_ERROR if stream else ErrorCode(Code.FETCH_SESSION_NOT_FOUND),
                )
            )
            if stream is not None:
                stream.acknowledge_soon(update.offset)
        return UpdateOffsetsResponse(tuple(statuses))

    # --- one-shot reads ------------------------------------------------------------

    def _fetch(self, body: FetchRequest) -> FetchResponse:
        if body.isolation > READ_COMMITTED:
            raise RemoteProtocolError(f"unknown isolation {body.isolation}", at=0)
        topics = []
        left = FETCH_RESPONSE_BYTES_MAX
        for topic in body.topics:
            found = []
            for each in topic.partitions:
                # If the response is full, the other partitions get no records: the client
                # requests them again.
                max_bytes = body.max_bytes if left > 0 else 0
                response = self._read(topic.topic, each.partition, each.fetch_offset, max_bytes)
                left -= len(response.records)
                found.append(response)
            topics.append(FetchedTopic(topic.topic, tuple(found)))
        return FetchResponse(topics=tuple(topics))

    def _read(self, topic: str, partition: int, offset: int, max_bytes: int) -> FetchablePartition:
        log = self._parts.catalog.log(topic, partition)
        if log is None:
            return FetchablePartition(partition, ErrorCode(Code.NOT_LEADER_FOR_PARTITION))
        return read_partition(log, offset, max_bytes, self._parts.reads)[0]

    def _fetch_offsets(self, body: FetchOffsetsRequest) -> FetchOffsetsResponse:
        return FetchOffsetsResponse(
            tuple(
                FetchedOffsetsTopic(
                    topic.topic,
                    tuple(
                        self._offsets_of(topic.topic, each.partition, body.consumer_id)
                        for each in topic.partitions
                    ),
                )
                for topic in body.topics
            )
        )

    def _offsets_of(self, topic: str, partition: int, consumer: str | None) -> PartitionOffsets:
        log = self._parts.catalog.log(topic, partition)
        if log is None:
            return PartitionOffsets(ErrorCode(Code.PARTITION_NOT_LEADER), partition)
        start = log.start_offset
        if consumer is not None:
            stored = self._parts.offsets.table.get((consumer, topic, partition))
            if stored is not None and stored.incarnation == log.incarnation:
                start = stored.offset + 1
        return PartitionOffsets(NO_ERROR, partition, start, log.durable_end)

    # --- consumer offsets ------------------------------------------------------------

    async def _update_consumer_offset(
        self, body: UpdateConsumerOffsetRequest
    ) -> UpdateConsumerOffsetResponse:
        stream = self._streams.get(body.session_id)
        if stream is None:
            return UpdateConsumerOffsetResponse(0, ErrorCode(Code.FETCH_SESSION_NOT_FOUND))
        if stream.consumer_id is None:
            return UpdateConsumerOffsetResponse(0, other("stream without consumer id"))
        if stream.log is not self._parts.catalog.log(stream.log.topic, stream.log.partition):
            return UpdateConsumerOffsetResponse(0, ErrorCode(Code.TOPIC_DELETED))
        key = (stream.consumer_id, stream.log.topic, stream.log.partition)
        position = ConsumerPosition(
            body.offset, self._parts.clock.wall_ms() // 1_000, stream.log.incarnation
        )
        try:
            await self._parts.writer.run(lambda: self._parts.offsets.store(key, position))
        except OSError as error:
            return UpdateConsumerOffsetResponse(0, other(str(error)))
        return UpdateConsumerOffsetResponse(body.offset)

    async def _delete_consumer_offset(
        self, body: DeleteConsumerOffsetRequest
    ) -> DeleteConsumerOffsetResponse:
        key = (body.consumer_id, body.replica.topic, body.replica.partition)
        try:
            await self._parts.writer.run(lambda: self._parts.offsets.drop([key]))
        except OSError as error:
            return DeleteConsumerOffsetResponse(other(str(error)))
        return DeleteConsumerOffsetResponse()

    def _fetch_consumer_offsets(
        self, body: FetchConsumerOffsetsRequest
    ) -> FetchConsumerOffsetsResponse:
        only = body.filter
        found = []
        for (consumer, topic, partition), held in sorted(self._parts.offsets.table.items()):
            replica = ReplicaKey(topic, partition)
            if only and only.replica and only.replica != replica:
                continue
            if only and only.consumer_id is not None and only.consumer_id != consumer:
                continue
            log = self._parts.catalog.log(topic, partition)
            if log is None or log.incarnation != held.incarnation:
                continue
            found.append(ConsumerOffset(consumer, replica, held.offset, held.time_s))
        return FetchConsumerOffsetsResponse(consumers=tuple(found))


async def _when_stored(
    body: ProduceRequest, outcomes: list[list[Any]], waiting: list[asyncio.Future[Appended]]
) -> ProduceResponse:
    for each in waiting:
        await each
    return _produce_response(body, outcomes)


def _produce_response(body: ProduceRequest, outcomes: list[list[Any]]) -> ProduceResponse:
    """Return the results in the order of the request: clients match them by position."""
    topics = []
    for topic, row in zip(body.topics, outcomes, strict=True):
        entries = []
        for data, each in zip(topic.partitions, row, strict=True):
            outcome: Appended = each.result() if isinstance(each, asyncio.Future) else each
            entries.append(
                PartitionProduceResponse(
                    data.partition, outcome.error or NO_ERROR, outcome.base_offset
                )
            )
        topics.append(TopicProduceResponse(topic.topic, tuple(entries)))
    return ProduceResponse(tuple(topics))
