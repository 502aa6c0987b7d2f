"""A small Fluvio cluster that handles SmartModules exactly as a stock one does.

Our embedded broker stores SmartModules but does not run them, so tests need another server. A stock
server sends wrong offset deltas, sends no response if a module drops every record, and ends a
stream with a segment of the log. `StockSpu` reproduces these faults. A module is a
Python function from value and key to rows. Example: a filter that keeps one of three records.

    spu = StockSpu(batch_of(b"a", b"b", b"c"), only(b"b"))
    async with stock_cluster(spu) as address, Client.connect(address) as client:
        consumer = client.consumer(TOPIC, smartmodules=[SmartModule("any")], until_end=True)
        assert [(record.offset, record.value) async for record in consumer] == [(1, b"b")]
    assert spu.bodies(apis.STREAM_FETCH.key)  # the requests that it received

Source: docs/protocol/produce-and-fetch.md, "Flow control", and docs/protocol/smartmodules.md,
"Batches made by SmartModules".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import anyio
import google_crc32c
from anyio.abc import SocketStream

from streamkit.protocol import apis, specs, topic_specs
from streamkit.protocol.batch import BatchHeader, Columns, decode_batch, whole_batches
from streamkit.protocol.connection import IncomingRequest, encode_response
from streamkit.protocol.control_plane import (
    ListRequest,
    ListResponse,
    Metadata,
    WatchRequest,
    WatchResponse,
)
from streamkit.protocol.data_plane import (
    ConsumerOffset,
    FetchablePartition,
    FetchConsumerOffsetsResponse,
    FetchedOffsetsTopic,
    FetchedTopic,
    FetchOffsetsResponse,
    FetchResponse,
    OffsetUpdateStatus,
    PartitionOffsets,
    StreamFetchRequest,
    StreamFetchResponse,
    UpdateConsumerOffsetRequest,
    UpdateConsumerOffsetResponse,
    UpdateOffsetsRequest,
    UpdateOffsetsResponse,
)
from streamkit.protocol.error_codes import NO_ERROR, ErrorCode, ReplicaPayload, evicted
from streamkit.protocol.varint import write_varint
from tests.client.serving import listen, requests_of, versions

SPU_ID: Final = 5_001
TOPIC: Final = "t"
NEWEST: Final = 25
UNKNOWN_SESSION: Final = 3_002

Row = tuple[bytes, bytes | None]
# The output of a module for one record; `Failed` means that the module fails on it.
Module = Callable[[bytes, bytes | None], Sequence[Row]]
PendingResponse = Callable[[IncomingRequest], Any]


@dataclass
class Failed(Exception):
    """Raised by a module that fails on a record."""

    error: ErrorCode


def only(*values: bytes) -> Module:
    """Return a filter that keeps these values."""
    return lambda value, key: [(value, key)] if value in values else []


def output_batch(rows: Sequence[tuple[int, Row]], base_offset: int, span: int) -> bytes:
    """Encode the output of a chain: rows with offset deltas, and the covered offsets."""
    records = bytearray(len(rows).to_bytes(4, "big"))
    for delta, (value, key) in rows:
        body = bytearray(b"\0\0")  # no attributes, no timestamp
        write_varint(body, delta)
        if key is None:
            body.append(0)
        else:
            body.append(1)
            write_varint(body, len(key))
            body += key
        write_varint(body, len(value))
        body += value
        body.append(0)
        write_varint(records, len(body))
        records += body
    covered = (
        (0).to_bytes(2, "big")
        + (span - 1).to_bytes(4, "big", signed=True)
        + b"\xff" * 30  # two timestamps, and the producer: all -1
        + bytes(records)
    )
    crc: int = google_crc32c.value(covered)
    head = base_offset.to_bytes(8, "big") + (9 + len(covered)).to_bytes(4, "big")
    return head + b"\xff" * 4 + b"\x02" + crc.to_bytes(4, "big") + covered


@dataclass
class Stream:
    """One stream of one connection: its request, and its latest acknowledgement."""

    request: IncomingRequest
    id: int
    latest: int | None = None
    changed: anyio.Event = field(default_factory=anyio.Event)

    def acknowledge(self, offset: int) -> None:
        self.latest = offset
        self.changed.set()


@dataclass
class StockSpu:
    """The log of partition 0 of TOPIC, and its server.

    ``version`` is the newest supported version of Produce and StreamFetch. ``answers`` may have a
    function that answers one kind of request instead. ``requests`` keeps every request.
    ``modules`` are those of the SC; ``stored`` has the committed offset of each consumer.
    ``segments`` are the offsets at which segments of the log begin, except the first.
    """

    log: bytes = b""
    module: Module | None = None
    version: int = NEWEST
    answers: dict[int, PendingResponse] = field(default_factory=dict)
    requests: list[IncomingRequest] = field(default_factory=list)
    modules: tuple[str, ...] = ()
    stored: dict[str, int] = field(default_factory=dict)
    segments: tuple[int, ...] = ()

    def batches(self) -> list[tuple[BatchHeader, int]]:
        return list(whole_batches(self.log))

    @property
    def end(self) -> int:
        batches = self.batches()
        return batches[-1][0].end_offset if batches else 0

    def segment_end(self, offset: int) -> int:
        return min((start for start in self.segments if start > offset), default=self.end)

    def raw(self, offset: int, max_bytes: int) -> bytes:
        """Return part of the log: from a batch's start to its segment's end, cut anywhere."""
        stop = self.segment_end(offset)
        held = [
            (at, at + header.size_bytes)
            for header, at in self.batches()
            if header.end_offset > offset and header.base_offset < stop
        ]
        return self.log[held[0][0] : held[-1][1]][:max_bytes] if held else b""

    def bodies(self, key: int) -> list[Any]:
        return [request.body for request in self.requests if request.api.key == key]

    # --- streams -------------------------------------------------------------------

    async def run_stream(self, stream: Stream, send: Callable[[bytes], Any]) -> None:
        """Send with the flow control of a stock SPU; this log never grows."""
        body: StreamFetchRequest = stream.request.body
        last = await self._send(stream, body.fetch_offset, send)
        while last is not None:
            await self.until_acknowledged(stream)
            offset, stream.latest = stream.latest, None
            if offset is not None and offset != -1 and offset < last:
                last = await self._send(stream, offset, send)

    async def until_acknowledged(self, stream: Stream) -> None:
        await stream.changed.wait()
        stream.changed = anyio.Event()

    async def _send(self, stream: Stream, offset: int, send: Callable[[bytes], Any]) -> int | None:
        """Send the batches from an offset; return the end offset, or None if the stream ended."""
        body: StreamFetchRequest = stream.request.body

        async def answer(partition: FetchablePartition) -> None:
            reply = StreamFetchResponse(body.topic, stream.id, partition)
            await send(bytes(encode_response(stream.request, reply)))

        if offset < 0:
            await answer(FetchablePartition(0, evicted(offset, 0)))
            return None
        if offset >= self.end:
            return self.end
        if not body.smartmodules:
            records = self.raw(offset, body.max_bytes)
            await answer(FetchablePartition(0, high_watermark=self.end, records=records))
            return self.end
        records, next_offset, error = self.transformed(offset, body.max_bytes)
        if records or error:
            await answer(FetchablePartition(0, error, self.end, next_offset, 0, None, records))
        return self.end

    def transformed(self, offset: int, max_bytes: int) -> tuple[bytes, int, ErrorCode]:
        """Make one batch of all remaining rows, as a stock SPU does."""
        assert self.module is not None, "the request names a module"
        rows: list[tuple[int, Row]] = []
        base, span, size, error = -1, 0, 0, NO_ERROR
        for header, at in self.batches():
            if header.end_offset <= offset:
                continue
            if header.base_offset >= self.segment_end(offset):
                break
            made, error = self._made(decode_batch(self.log, at, header))
            made_bytes = sum(len(value) for _, (value, _) in made)
            if size + made_bytes > max_bytes:
                break
            if made and base < 0:
                base = header.base_offset
            if base >= 0:
                span += header.record_count
                size += made_bytes
                rows += [(own + base - header.base_offset, row) for own, row in made]
            if error:
                break
        if not rows:
            return b"", self.end, error
        return output_batch(rows, base, span), base + span, error

    def _made(self, columns: Columns) -> tuple[list[tuple[int, Row]], ErrorCode]:
        assert self.module is not None
        made: list[tuple[int, Row]] = []
        for own, (value, key) in enumerate(zip(columns.values, columns.keys, strict=True)):
            try:
                found = self.module(value, key)
            except Failed as failed:
                return made, failed.error
            # A module does not report which of several output records came from one input.
            made += [(own if len(found) == 1 else 0, row) for row in found]
        return made, NO_ERROR


# --- The servers ---------------------------------------------------------------------------


@asynccontextmanager
async def stock_cluster(spu: StockSpu) -> AsyncIterator[str]:
    """Run an SC and the SPU on free ports; yield the SC's address."""
    failure: Exception | None = None
    async with AsyncExitStack() as listeners, anyio.create_task_group() as tasks:
        spu_port = await listen(tasks, listeners, partial(_serve_spu, spu))
        sc_port = await listen(tasks, listeners, partial(_serve_sc, spu, spu_port))
        try:
            yield f"127.0.0.1:{sc_port}"
        except Exception as error:
            failure = error  # raised unchanged below; a task group would wrap it
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _serve_sc(spu: StockSpu, spu_port: int, stream: SocketStream) -> None:
    async with stream:
        async for request in requests_of(stream, apis.SC_APIS):
            if request.api is apis.API_VERSIONS:
                body: Any = versions(apis.SC_APIS, NEWEST)
            elif request.api is apis.LIST:
                body = _listed(spu, spu_port, request.body)
            else:
                watch: WatchRequest = request.body
                body = WatchResponse(watch.kind, 1, (), _objects(spu, spu_port)[watch.kind.name])
            await stream.send(bytes(encode_response(request, body)))


def _listed(spu: StockSpu, spu_port: int, wanted: ListRequest) -> ListResponse:
    if wanted.kind is not specs.SMARTMODULE:
        return ListResponse(wanted.kind, _objects(spu, spu_port)[wanted.kind.name])
    modules = [
        Metadata(name, specs.SmartModuleSpec(), specs.NoStatus())
        for name in spu.modules
        if name in wanted.filters
    ]
    return ListResponse(wanted.kind, tuple(modules))


async def _serve_spu(spu: StockSpu, stream: SocketStream) -> None:
    streams: dict[int, Stream] = {}
    writing = anyio.Lock()

    async def send(data: bytes) -> None:
        async with writing:
            await stream.send(data)

    async with stream, anyio.create_task_group() as running:
        async for request in requests_of(stream, apis.SPU_APIS):
            spu.requests.append(request)
            key = request.api.key
            if request.api is apis.API_VERSIONS:
                body: Any = versions(apis.SPU_APIS, spu.version)
            elif key in spu.answers:
                body = spu.answers[key](request)
            elif request.api is apis.STREAM_FETCH:
                opened = streams[len(streams) + 1] = Stream(request, len(streams) + 1)
                running.start_soon(spu.run_stream, opened, send)
                continue
            else:
                body = _body(spu, request, streams)
            await send(bytes(encode_response(request, body)))
        running.cancel_scope.cancel()


def _body(spu: StockSpu, request: IncomingRequest, streams: dict[int, Stream]) -> Any:
    if request.api is apis.FETCH_OFFSETS:
        found = PartitionOffsets(NO_ERROR, 0, 0, spu.end)
        return FetchOffsetsResponse((FetchedOffsetsTopic(TOPIC, (found,)),))
    if request.api is apis.FETCH:
        wanted = request.body.topics[0].partitions[0].fetch_offset
        records = spu.raw(wanted, request.body.max_bytes)
        partition = FetchablePartition(0, high_watermark=spu.end, records=records)
        return FetchResponse(topics=(FetchedTopic(TOPIC, (partition,)),))
    if request.api is apis.FETCH_CONSUMER_OFFSETS:
        replica = ReplicaPayload(TOPIC, 0)
        held = [ConsumerOffset(name, replica, at, 0) for name, at in spu.stored.items()]
        return FetchConsumerOffsetsResponse(NO_ERROR, tuple(held))
    if request.api is apis.UPDATE_CONSUMER_OFFSET:
        store: UpdateConsumerOffsetRequest = request.body
        known = streams.get(store.session_id)
        if known is None:
            return UpdateConsumerOffsetResponse(store.offset, ErrorCode(UNKNOWN_SESSION))
        spu.stored[known.request.body.consumer_id] = store.offset
        return UpdateConsumerOffsetResponse(store.offset)
    assert request.api is apis.UPDATE_OFFSETS, f"{request.api.name} is not served here"
    update: UpdateOffsetsRequest = request.body
    statuses = []
    for each in update.offsets:
        known = streams.get(each.session_id)
        if known is not None:
            known.acknowledge(each.offset)
        error = NO_ERROR if known is not None else ErrorCode(UNKNOWN_SESSION)
        statuses.append(OffsetUpdateStatus(each.session_id, error))
    return UpdateOffsetsResponse(tuple(statuses))


def _objects(spu: StockSpu, spu_port: int) -> dict[str, tuple[Metadata, ...]]:
    ingress = specs.IngressPort(spu_port, (specs.Ingress("127.0.0.1"),))
    server = specs.SpuSpec(SPU_ID, 0, ingress, specs.Endpoint(spu_port, "127.0.0.1"))
    segment_bytes = max(1, len(spu.log) // (1 + len(spu.segments)))
    log = specs.PartitionSpec(
        SPU_ID,
        (SPU_ID,),
        storage=topic_specs.TopicStorage(segment_bytes) if spu.segments else None,
    )
    status = specs.PartitionStatus(
        specs.PartitionResolution.ONLINE,
        specs.ReplicaStatus(SPU_ID, 0, 0),
        size_bytes=len(spu.log),
    )
    topic = topic_specs.TopicStatus(topic_specs.TopicResolution.PROVISIONED, {0: (SPU_ID,)})
    names = (TOPIC, "consumer-offset")
    return {
        "SPU": (Metadata("main", server, specs.SpuStatus(specs.SpuResolution.ONLINE)),),
        "Partition": tuple(Metadata(f"{name}-0", log, status) for name in names),
        "Topic": tuple(Metadata(name, topic_specs.TopicSpec(), topic) for name in names),
    }
