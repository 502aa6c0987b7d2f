"""A small Fluvio cluster, one SC and one SPU, that follows a script.

A test says in advance how each Produce request and each response of a stream goes wrong. The
server keeps what it stored and what it received, so the test can compare that with what the
client reports. `Write` describes one Produce request and `Read` one response. When a script is
used up, everything succeeds. Example: the first request is stored, but its response is lost.

    server = Scripted()
    server.writes.append(Write(answers=False))
    async with server.running(), Client(server.address) as client:
        async with client.producer("t") as producer:
            await producer.send(b"once")
    assert server.logs[0].values == [b"once", b"once"]  # the client sent it again

The server uses streamkit's own `ServerConnection`. Apart from the script it behaves as a stock
server: it cuts a response at ``max_bytes``, even in the middle of a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import anyio
from anyio.abc import SocketStream

from streamkit.protocol import apis, specs, topic_specs
from streamkit.protocol.batch import decode_batch, whole_batches, with_base_offset
from streamkit.protocol.connection import IncomingRequest, encode_response
from streamkit.protocol.control_plane import Metadata, WatchResponse
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
    PartitionProduceResponse,
    ProduceResponse,
    StreamFetchResponse,
    TopicProduceResponse,
    UpdateConsumerOffsetResponse,
    UpdateOffsetsResponse,
)
from streamkit.protocol.error_codes import (
    NO_ERROR,
    ErrorCode,
    ReplicaPayload,
    TimeoutPayload,
    evicted,
)
from tests.client.serving import listen, requests_of, versions

SPU_ID: Final = 5_001
TOPIC: Final = "t"
KEEPER: Final = "consumer-offset"
REFUSED: Final = 10
UNKNOWN_SESSION: Final = 3_002
TIMED_OUT: Final = 7
# A server permanently refuses an entry with this record.
BAD: Final = b"bad"


@dataclass(frozen=True, slots=True)
class Write:
    """The script for one Produce request: its error code, and whether it is stored and answered."""

    code: int = 0
    stores: bool = True
    answers: bool = True

    def __str__(self) -> str:
        what = "stored" if self.stores else "not stored"
        return f"code {self.code}, {what}" if self.answers else f"lost, {what}"


@dataclass(frozen=True, slots=True)
class Read:
    """The script for one response of a stream. The byte at ``size`` is cut or flipped."""

    kind: Literal["whole", "cut", "lost", "empty", "twice", "flipped", "refused"] = "whole"
    size: int = 0
    code: int = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """One received entry of a Produce request. ``base`` is -1 if it is not stored."""

    partition: int
    batches: tuple[tuple[bytes, ...], ...]
    base: int
    code: int
    answered: bool

    @property
    def values(self) -> tuple[bytes, ...]:
        return tuple(value for batch in self.batches for value in batch)


@dataclass
class Log:
    """One partition: its batches as received, and the first offset that is still stored."""

    batches: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    start: int = 0

    @property
    def end(self) -> int:
        return len(self.values)

    def append(self, records: bytes) -> int:
        base = self.end
        for header, at in whole_batches(records):
            self.batches.append(
                with_base_offset(records[at : at + header.size_bytes], len(self.values))
            )
            self.values += decode_batch(records, at, header).values
        return base

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Return what a stock server sends: from the batch with the offset, cut at any byte."""
        data = b"".join(self.batches)
        for header, at in whole_batches(data):
            if header.end_offset > offset:
                return data[at : at + max_bytes]
        return b""


@dataclass(eq=False)
class Stream:
    """One stream of one connection, and its latest acknowledgement."""

    request: IncomingRequest
    id: int
    acknowledged: int | None = None


class Scripted:
    """The cluster. ``writes`` and ``reads`` are used in order; after them, everything succeeds."""

    def __init__(self, partitions: int = 1) -> None:
        self.logs = [Log() for _ in range(partitions)]
        self.writes: deque[Write] = deque()
        self.reads: deque[Read] = deque()
        self.entries: list[Entry] = []
        self.requests = 0
        self.stored: dict[int, int] = {}
        self.fired: dict[str, int] = {}
        self.address = ""
        self._spu_port = 0
        self._changed = anyio.Event()
        self._sc_streams: list[SocketStream] = []
        self._watchers: list[tuple[IncomingRequest, Callable[[bytes], Any]]] = []

    def append(self, partition: int, records: bytes) -> None:
        """Append one or more batches to a log."""
        self.logs[partition].append(records)
        self._notify_change()

    async def grow(self) -> None:
        """Add a partition, and notify all watches."""
        self.logs.append(Log())
        for request, send in self._watchers:
            try:
                await send(self._watched(request))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # the client has closed its connection

    async def lose_the_sc(self) -> None:
        """Close every connection to the SC."""
        streams, self._sc_streams = self._sc_streams, []
        self._watchers = []
        for stream in streams:
            await stream.aclose()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Scripted]:
        """Listen on free ports until the block ends."""
        failure: Exception | None = None
        async with AsyncExitStack() as listeners, anyio.create_task_group() as tasks:
            self._spu_port = await listen(tasks, listeners, self._serve_spu)
            sc_port = await listen(tasks, listeners, self._serve_sc)
            self.address = f"127.0.0.1:{sc_port}"
            try:
                yield self
            except Exception as error:
                failure = error  # raised unchanged below; a task group would wrap it
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _count(self, what: str) -> None:
        self.fired[what] = self.fired.get(what, 0) + 1

    def _notify_change(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    # --- the SC ----------------------------------------------------------------------

    async def _serve_sc(self, stream: SocketStream) -> None:
        send = _sender(stream)
        self._sc_streams.append(stream)
        async with stream:
            async for request in requests_of(stream, apis.SC_APIS):
                if request.api is apis.API_VERSIONS:
                    answer = bytes(encode_response(request, versions(apis.SC_APIS)))
                else:
                    assert request.api is apis.WATCH, f"{request.api.name} is not served here"
                    self._watchers.append((request, send))
                    answer = self._watched(request)
                try:
                    await send(answer)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return  # the connection was lost

    def _watched(self, request: IncomingRequest) -> bytes:
        kind = request.body.kind
        return bytes(encode_response(request, WatchResponse(kind, 1, (), self._objects(kind.name))))

    def _objects(self, kind: str) -> tuple[Metadata, ...]:
        counts = {TOPIC: len(self.logs), KEEPER: 1}
        if kind == "SPU":
            ingress = specs.IngressPort(self._spu_port, (specs.Ingress("127.0.0.1"),))
            spu = specs.SpuSpec(SPU_ID, 0, ingress, specs.Endpoint(self._spu_port, "127.0.0.1"))
            return (Metadata("main", spu, specs.SpuStatus(specs.SpuResolution.ONLINE)),)
        if kind == "Partition":
            status = specs.PartitionStatus(
                specs.PartitionResolution.ONLINE, specs.ReplicaStatus(SPU_ID, 0, 0)
            )
            return tuple(
                Metadata(f"{name}-{number}", specs.PartitionSpec(SPU_ID, (SPU_ID,)), status)
                for name, count in counts.items()
                for number in range(count)
            )
        return tuple(
            Metadata(
                name,
                topic_specs.TopicSpec(topic_specs.ComputedReplicas(count, 1, False)),
                topic_specs.TopicStatus(
                    topic_specs.TopicResolution.PROVISIONED, {n: (SPU_ID,) for n in range(count)}
                ),
            )
            for name, count in counts.items()
        )

    # --- the SPU -----------------------------------------------------------------------

    async def _serve_spu(self, stream: SocketStream) -> None:
        streams: dict[int, Stream] = {}
        send = _sender(stream)
        async with stream, anyio.create_task_group() as running:
            async for request in requests_of(stream, apis.SPU_APIS):
                if request.api is apis.STREAM_FETCH:
                    opened = streams[len(streams) + 1] = Stream(request, len(streams) + 1)
                    running.start_soon(self._run_stream, opened, send, stream)
                    continue
                if request.api is apis.PRODUCE:
                    body = self._produced(request)
                else:
                    body = self._body(request, streams)
                if body is None:
                    break
                try:
                    await send(bytes(encode_response(request, body)))
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    break  # the connection was lost
            running.cancel_scope.cancel()

    def _produced(self, request: IncomingRequest) -> ProduceResponse | None:
        """Follow the script; return the response, or None if there is none."""
        self.requests += 1
        write = self.writes.popleft() if self.writes else Write()
        self._count(str(write))
        topics = []
        for topic in request.body.topics:
            answers = []
            for data in topic.partitions:
                code, base = self._written(data.partition, bytes(data.records), write)
                answers.append(PartitionProduceResponse(data.partition, _error(code), base))
            topics.append(TopicProduceResponse(topic.topic, tuple(answers)))
        return ProduceResponse(tuple(topics)) if write.answers else None

    def _written(self, partition: int, records: bytes, write: Write) -> tuple[int, int]:
        batches = tuple(
            tuple(decode_batch(records, at, header).values) for header, at in whole_batches(records)
        )
        values = [value for batch in batches for value in batch]
        code, base = write.code, -1
        if any(value.startswith(BAD) for value in values) and write.stores:
            code = REFUSED
        elif write.stores:
            base = self.logs[partition].append(records)
            self._notify_change()
        self.entries.append(Entry(partition, batches, base, code, write.answers))
        return code, base if not code else -1

    async def _run_stream(
        self, stream: Stream, send: Callable[[bytes], Any], connection: SocketStream
    ) -> None:
        """Send, wait for the acknowledgement, and continue at its offset."""
        try:
            offset: int | None = stream.request.body.fetch_offset
            while offset is not None:
                while offset == self._log(stream).end and stream.acknowledged is None:
                    await self._changed.wait()
                if not await self._respond(stream, offset, send, connection):
                    return
                while stream.acknowledged is None:
                    await self._changed.wait()
                offset, stream.acknowledged = stream.acknowledged, None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the client has closed its connection

    def _log(self, stream: Stream) -> Log:
        number: int = stream.request.body.partition
        return self.logs[number]

    async def _respond(
        self,
        stream: Stream,
        offset: int,
        send: Callable[[bytes], Any],
        connection: SocketStream,
    ) -> bool:
        """Send one response according to the script; return whether the stream continues."""
        log, body = self._log(stream), stream.request.body

        async def answer(error: ErrorCode, records: bytes) -> None:
            end = log.end if not error else 0
            partition = FetchablePartition(body.partition, error, end, 0, 0, None, records)
            reply = StreamFetchResponse(TOPIC, stream.id, partition)
            await send(bytes(encode_response(stream.request, reply)))

        if offset < log.start:
            self._count("evicted")
            await answer(evicted(offset, log.start), b"")
            return False
        if offset > log.end:
            # A damaged header was acknowledged; a stock server then sends nothing more.
            return False
        read = self.reads.popleft() if self.reads else Read()
        records = log.read(offset, body.max_bytes)
        self._count(read.kind)
        match read.kind:
            case "cut":
                records = records[: 1 + read.size % len(records)] if records else records
            case "flipped":
                at = 21 + read.size % (len(records) - 21) if len(records) > 21 else 0
                records = records[:at] + bytes([records[at] ^ 1]) + records[at + 1 :]
            case "lost":
                await connection.aclose()
                return False
            case "refused":
                await answer(ErrorCode(read.code), b"")
                return False
            case "empty":
                await answer(NO_ERROR, b"")
            case "twice":
                await answer(NO_ERROR, records)
        await answer(NO_ERROR, records)
        return True

    def _body(self, request: IncomingRequest, streams: dict[int, Stream]) -> Any:
        body = request.body
        if request.api is apis.API_VERSIONS:
            return versions(apis.SPU_APIS)
        if request.api is apis.FETCH_OFFSETS:
            number = body.topics[0].partitions[0].partition
            log = self.logs[number]
            found = PartitionOffsets(NO_ERROR, number, log.start, log.end)
            return FetchOffsetsResponse((FetchedOffsetsTopic(TOPIC, (found,)),))
        if request.api is apis.FETCH:
            wanted = body.topics[0].partitions[0]
            log = self.logs[wanted.partition]
            records = log.read(wanted.fetch_offset, body.max_bytes)
            part = FetchablePartition(wanted.partition, high_watermark=log.end, records=records)
            return FetchResponse(topics=(FetchedTopic(TOPIC, (part,)),))
        if request.api is apis.FETCH_CONSUMER_OFFSETS:
            held = [
                ConsumerOffset("me", ReplicaPayload(TOPIC, number), offset, 0)
                for number, offset in self.stored.items()
            ]
            return FetchConsumerOffsetsResponse(NO_ERROR, tuple(held))
        if request.api is apis.UPDATE_CONSUMER_OFFSET:
            known = streams.get(body.session_id)
            if known is None:
                return UpdateConsumerOffsetResponse(body.offset, ErrorCode(UNKNOWN_SESSION))
            self.stored[known.request.body.partition] = body.offset
            return UpdateConsumerOffsetResponse(body.offset)
        assert request.api is apis.UPDATE_OFFSETS, f"{request.api.name} is not served here"
        statuses = []
        for each in body.offsets:
            known = streams.get(each.session_id)
            if known is not None:
                known.acknowledged = each.offset
            error = NO_ERROR if known is not None else ErrorCode(UNKNOWN_SESSION)
            statuses.append(OffsetUpdateStatus(each.session_id, error))
        self._notify_change()
        return UpdateOffsetsResponse(tuple(statuses))


def _sender(stream: SocketStream) -> Callable[[bytes], Any]:
    writing = anyio.Lock()

    async def send(data: bytes) -> None:
        async with writing:
            await stream.send(data)

    return send


def _error(code: int) -> ErrorCode:
    match code:
        case 7:
            return ErrorCode(code, TimeoutPayload(1_500, 0))
        case 72:
            return ErrorCode(code, ReplicaPayload(TOPIC, 0))
    return ErrorCode(code)
