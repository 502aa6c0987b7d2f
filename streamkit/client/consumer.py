"""The consumer: one stream per partition, merged into chunks or single records.

| a partition's reader is | until |
|---|---|
| opening | the stream is open; a lost connection or a retryable code tries again |
| reading | a response is taken, handed on, and acknowledged once there is room for another |
| reopening | the connection is lost, the response was cut, or a batch was corrupt (once) |
| ended | its end is reached (``until_end``), or an error that will not pass is raised |
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

import anyio

from streamkit.client.backoff import Backoff
from streamkit.client.channel import Channel
from streamkit.client.cluster import Cluster, retrying
from streamkit.client.offsets import OffsetClient
from streamkit.client.positions import Position
from streamkit.errors import (
    CorruptBatch,
    OffsetEvicted,
    StreamKitError,
    UsageError,
)
from streamkit.limits import FETCH_BYTES_DEFAULT, STREAMS_PER_CONNECTION_MAX
from streamkit.protocol.apis import STREAM_FETCH, UPDATE_CONSUMER_OFFSET, UPDATE_OFFSETS
from streamkit.protocol.data_plane import (
    READ_UNCOMMITTED,
    FetchablePartition,
    OffsetUpdate,
    StreamFetchRequest,
    StreamFetchResponse,
    UpdateConsumerOffsetRequest,
    UpdateOffsetsRequest,
)
from streamkit.protocol.error_codes import as_exception
from streamkit.record import Chunk, Offset, Record

T = TypeVar("T")
OnEvicted = Literal["fail", "earliest", "latest"]
OffsetStrategy = Literal["none", "manual", "auto"]
BEGINNING: Final = Offset.beginning()
# A stream cannot be cancelled, so half of them are kept for those that are opened anew.
_STREAMS_PER_CHANNEL: Final = STREAMS_PER_CONNECTION_MAX // 2


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """What to read and how. ``starts`` gives the first offset of single partitions."""

    start: Offset = BEGINNING
    partitions: tuple[int, ...] | None = None
    starts: dict[int, int] | None = None
    until_end: bool = False
    isolation: int = READ_UNCOMMITTED
    max_bytes: int = FETCH_BYTES_DEFAULT
    prefetch_bytes: int = 4 << 20
    consumer_id: str | None = None
    offset_strategy: OffsetStrategy = "none"
    resumes: bool = True
    on_evicted: OnEvicted = "fail"
    give_up_s: float | None = None
    on_retry: Callable[[Exception, int], None] | None = None


class Consumer:
    """Reads one topic. Made by `Client.consumer`.

    ``async for record in consumer`` gives single records, ``async for chunk in
    consumer.chunks()`` whole columns, which is several times faster. Within a partition
    offsets ascend; between partitions there is no order. It ends only with ``until_end``.
    """

    def __init__(self, cluster: Cluster, topic: str, options: ConsumerOptions) -> None:
        if options.offset_strategy != "none" and options.consumer_id is None:
            raise UsageError("offset_strategy needs a consumer_id")
        if options.partitions is not None and not options.partitions:
            raise UsageError("no partition is named; leave partitions out to read all")
        self.topic = topic
        self._cluster = cluster
        self._options = options
        self._offsets = OffsetClient(cluster)
        self._readers: dict[int, _Reader] = {}
        self._channels: dict[tuple[str, int], Channel] = {}
        self._opening = anyio.Lock()
        self._held: deque[tuple[_Reader, Chunk, int]] = deque()
        self._held_bytes = 0
        self._arrived = anyio.Event()
        self._room = anyio.Event()
        self._failure: StreamKitError | None = None
        self._scope: anyio.CancelScope | None = None
        self._is_closed = False
        self._yielded: dict[int, int] = {}
        self._processed: dict[int, int] = {}
        self._stored: dict[int, int] = {}
        self._loops: list[AsyncGenerator[Any, None]] = []
        self._is_open = False

    # --- life ----------------------------------------------------------------------

    async def open(self) -> None:
        """Resolve the positions and start reading.

        Raises:
            TopicNotFound: There is no such topic.
            UsageError: There is no such partition.
        """
        if self._is_open:
            return
        count = await self._retrying(lambda: self._cluster.partition_count(self.topic))
        wanted = self._options.partitions
        chosen = range(count) if wanted is None else wanted
        for number in chosen:
            if not 0 <= number < count:
                raise UsageError(f"topic {self.topic!r} has no partition {number}, it has {count}")
        stored = await self._retrying(self._stored_next)
        for number in chosen:
            await self._add_reader(number, stored.get(number))
        self._is_open = True
        self._scope = anyio.CancelScope()
        self._cluster.start(self._run)

    async def close(self) -> None:
        """Stop reading and end the streams. Nothing is committed by this."""
        self._is_closed = True
        if self._scope is not None:
            self._scope.cancel()
        for channel in self._channels.values():
            await channel.close()
        self._wake_up()

    async def __aenter__(self) -> Consumer:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + 5):
            if kind is None and self._options.offset_strategy == "auto":
                await self.commit()
            for loop in self._loops:
                try:
                    await loop.aclose()
                except RuntimeError:
                    pass  # another task is in it, and ends with the consumer
            await self.close()

    # --- reading -------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Record[bytes]]:
        return self._begin(self._records())

    async def _records(self) -> AsyncGenerator[Record[bytes], None]:
        auto = self._options.offset_strategy == "auto"
        chunks = self._chunks(note_yielded=False)
        try:
            async for chunk in chunks:
                for record in chunk.records():
                    self._yielded[chunk.partition] = record.offset
                    yield record
                    # The application came back for more, so it is done with this one.
                    self._processed[chunk.partition] = record.offset
                if auto:
                    await self.commit()
        finally:
            await chunks.aclose()

    def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Read whole columns: values, keys, timestamps in ms, offsets."""
        return self._begin(self._chunks(note_yielded=True))

    def _begin(self, loop: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        # A loop that is left early is not dropped here and now: nobody could await its end.
        self._loops.append(loop)
        return loop

    async def _chunks(self, *, note_yielded: bool) -> AsyncGenerator[Chunk, None]:
        await self.open()
        try:
            while True:
                chunk = await self.next_chunk()
                if chunk is None:
                    return
                if not note_yielded:
                    yield chunk
                    continue
                last = chunk.offsets[-1]
                self._yielded[chunk.partition] = last
                yield chunk
                self._processed[chunk.partition] = last
                if self._options.offset_strategy == "auto":
                    await self.commit()
        finally:
            with anyio.CancelScope(shield=True):
                await self.close()

    async def next_chunk(self) -> Chunk | None:
        """Wait for the next chunk; None when every partition has reached its end.

        For loops that end the consumer themselves: unlike `chunks` this closes nothing.
        """
        while not self._held:
            if self._failure is not None:
                raise self._failure
            if self._is_closed:
                return None
            if self._readers and all(reader.is_done for reader in self._readers.values()):
                return None
            self._arrived = anyio.Event()
            await self._arrived.wait()
        _, chunk, size = self._held.popleft()
        self._held_bytes -= size
        room, self._room = self._room, anyio.Event()
        room.set()
        return chunk

    # --- positions -----------------------------------------------------------------

    def ends(self) -> dict[int, int]:
        """Return, for ``until_end``, the offset behind the last record per partition."""
        return {
            number: reader.end for number, reader in self._readers.items() if reader.end is not None
        }

    def starts(self) -> dict[int, int]:
        """Return the offset each partition was opened at."""
        return {number: reader.started_at for number, reader in self._readers.items()}

    def next_offsets(self) -> dict[int, int]:
        """Return the next offset each partition's reader will bring."""
        return {number: reader.position.next_offset for number, reader in self._readers.items()}

    def high_watermarks(self) -> dict[int, int]:
        """Return the end of each partition as its last response named it."""
        return {number: reader.high_watermark for number, reader in self._readers.items()}

    async def commit(self, record: Record[Any] | None = None) -> None:
        """Store how far the application has processed, under the consumer's id.

        Args:
            record: The last record processed of its partition; without it, everything that
                was yielded before the last pull counts.

        Raises:
            UsageError: The consumer has no id, or does not read the partition.
            StreamKitError: The broker did not store it.
        """
        self._check_id()
        if record is not None:
            self._reader(record.partition)
            self._processed[record.partition] = record.offset
        for number, offset in list(self._processed.items()):
            if self._stored.get(number) != offset:
                await self._readers[number].store(offset)
                self._stored[number] = offset

    async def store(self, partition: int, offset: int) -> None:
        """Store an offset of one partition: that of the last record processed.

        Raises:
            UsageError: The consumer has no id, or does not read the partition.
            StreamKitError: The broker did not store it.
        """
        self._check_id()
        await self._reader(partition).store(offset)

    async def commit_yielded(self) -> None:
        """Store everything yielded so far as processed."""
        self._processed.update(self._yielded)
        await self.commit()

    def _check_id(self) -> None:
        if self._options.consumer_id is None:
            raise UsageError("commit needs a consumer_id")

    def _reader(self, partition: int) -> _Reader:
        if partition not in self._readers:
            raise UsageError(f"this consumer of {self.topic!r} does not read partition {partition}")
        return self._readers[partition]

    async def _stored_next(self) -> dict[int, int]:
        """Return the offset behind the stored one, for each partition that has one."""
        if self._options.consumer_id is None or not self._options.resumes:
            return {}
        found = await self._offsets.stored(self._options.consumer_id, self.topic)
        return {held.partition: held.offset + 1 for held in found}

    async def _add_reader(self, number: int, stored_next: int | None) -> None:
        first, end = await self._retrying(lambda: self._offsets.bounds(self.topic, number))
        fixed = (self._options.starts or {}).get(number)
        start = fixed
        if start is None:
            start = self._options.start.resolve(first, end, stored_next)
        reader = _Reader(self, number, start, end if self._options.until_end else None)
        reader.high_watermark = end
        self._readers[number] = reader

    async def _retrying(self, attempt: Callable[[], Awaitable[T]]) -> T:
        options = self._options
        return await retrying(
            self._cluster, attempt, give_up_s=options.give_up_s, on_retry=options.on_retry
        )

    # --- the tasks -------------------------------------------------------------------

    async def _run(self) -> None:
        assert self._scope is not None, "made by `open`, which starts this"
        with self._scope:
            async with anyio.create_task_group() as tasks:
                for reader in self._readers.values():
                    tasks.start_soon(reader.run)
        self._wake_up()

    def fail(self, error: StreamKitError) -> None:
        """Raise an error out of the iteration, behind what has arrived before it."""
        self._failure = self._failure or error
        self._wake_up()

    def _wake_up(self) -> None:
        self._arrived.set()

    async def hand_on(self, reader: _Reader, chunk: Chunk, size_bytes: int) -> None:
        """Give a chunk to the application; return when there is room for another."""
        self._held.append((reader, chunk, size_bytes))
        self._held_bytes += size_bytes
        self._wake_up()
        while self._held_bytes >= self._options.prefetch_bytes:
            await self._room.wait()

    async def channel(self, address: str, partition: int) -> Channel:
        """Return this consumer's connection to an SPU: closing it ends the streams on it.

        Partitions share one, up to what a connection may carry.
        """
        place = (address, partition // _STREAMS_PER_CHANNEL)
        async with self._opening:
            channel = self._channels.get(place)
            if channel is None or not channel.is_open:
                channel = self._channels[place] = await self._cluster.connect(address)
            return channel

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def cluster(self) -> Cluster:
        return self._cluster

    @property
    def options(self) -> ConsumerOptions:
        return self._options

    @property
    def offsets(self) -> OffsetClient:
        return self._offsets

    def reader_done(self) -> None:
        self._wake_up()


class _Reader:
    """Reads one partition for a consumer."""

    def __init__(self, consumer: Consumer, partition: int, start: int, end: int | None) -> None:
        self._consumer = consumer
        self._cluster = consumer.cluster
        self._options = consumer.options
        self._partition = partition
        self._max_bytes = consumer.options.max_bytes
        self._channel: Channel | None = None
        self._session_id: int | None = None
        self._refetched_at = -1
        self._backoff = Backoff()
        self.position = Position(consumer.topic, partition, start)
        self.started_at = start
        self.end = end
        self.high_watermark = 0
        self.is_done = end is not None and start >= end

    async def run(self) -> None:
        """Read until the end, or for ever; reopen what breaks."""
        while not (self.is_done or self._consumer.is_closed):
            try:
                await self._read()
            except OffsetEvicted as error:
                try:
                    goes_on = await self._go_on_behind(error)
                except StreamKitError as worse:
                    self._consumer.fail(worse)
                    return
                if not goes_on:
                    self._consumer.fail(error)
                    return
            except CorruptBatch as error:
                if self._refetched_at == self.position.next_offset:
                    self._consumer.fail(error)
                    return
                self._refetched_at = self.position.next_offset
                await self._reconnect()
            except StreamKitError as error:
                if not error.retryable:
                    self._consumer.fail(error)
                    return
                await self._pause(error)
        self._consumer.reader_done()

    async def store(self, offset: int) -> None:
        """Store an offset for this partition, on the connection its stream runs on if it can."""
        await retrying(self._cluster, lambda: self._store_once(offset), give_up_s=30.0)

    async def _store_once(self, offset: int) -> None:
        channel, session = self._channel, self._session_id
        if channel is None or session is None or not channel.is_open:
            # A stream is known by the first records it brings; this one has brought none yet.
            consumer_id = self._options.consumer_id
            assert consumer_id is not None, "looked at before anything is stored"
            topic = self._consumer.topic
            await self._consumer.offsets.store(consumer_id, topic, self._partition, offset)
            return
        request = UpdateConsumerOffsetRequest(offset, session)
        answer = await channel.call(UPDATE_CONSUMER_OFFSET, request)
        if answer.error:
            raise as_exception(answer.error, about=self._name)

    async def _read(self) -> None:
        """Open the stream and read from it until it breaks, ends or must be opened anew."""
        topic = self._consumer.topic
        address = await self._cluster.leader(topic, self._partition)
        channel = await self._consumer.channel(address, self._partition)
        request = StreamFetchRequest(
            topic,
            self._partition,
            self.position.next_offset,
            self._max_bytes,
            self._options.isolation,
            consumer_id=self._options.consumer_id,
        )
        responses = await channel.open_stream(STREAM_FETCH, request)
        self._channel = channel
        try:
            while not self.is_done:
                reopen = await self._take(await responses.receive(), channel)
                if reopen:
                    return
        finally:
            if not self.is_done:  # one read to its end stays open, for what is committed then
                self._session_id = None
            channel.forget(responses)

    async def _take(self, response: StreamFetchResponse, channel: Channel) -> bool:
        """Take one response; tell whether the stream must be opened anew."""
        answer = response.partition
        self._session_id = response.stream_id
        taken = self.position.take(answer) if answer.records else None
        if taken is not None:
            if taken.reopen_bytes is not None:
                self._max_bytes = max(self._max_bytes, taken.reopen_bytes)
                return True
            await self._hand_on(answer, taken.chunk)
        if answer.error:
            raise as_exception(answer.error, about=self._name)
        self._backoff.reset()
        if self._options.until_end and self.end is not None:
            self.is_done = self.position.next_offset >= self.end
        if taken is not None and taken.acknowledge is not None and not self.is_done:
            update = OffsetUpdate(taken.acknowledge, response.stream_id)
            await channel.post(UPDATE_OFFSETS, UpdateOffsetsRequest((update,)))
        return False

    async def _hand_on(self, answer: FetchablePartition, chunk: Chunk | None) -> None:
        self.high_watermark = max(answer.high_watermark, self.position.next_offset)
        if chunk is None:
            return
        if self.end is not None and chunk.offsets[-1] >= self.end:
            kept = sum(offset < self.end for offset in chunk.offsets)
            chunk = chunk.slice(0, kept)
        if len(chunk):
            await self._consumer.hand_on(self, chunk, len(answer.records))

    async def _go_on_behind(self, error: OffsetEvicted) -> bool:
        """Skip what retention has removed, where that is what was asked for."""
        if self._options.on_evicted == "fail":
            return False
        if self._options.on_evicted == "earliest":
            self.position.next_offset = error.next_available
        else:
            _, self.position.next_offset = await retrying(
                self._cluster,
                lambda: self._consumer.offsets.bounds(self._consumer.topic, self._partition),
                give_up_s=None,
                on_retry=self._options.on_retry,
            )
        return True

    async def _reconnect(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def _pause(self, error: StreamKitError) -> None:
        if self._consumer.is_closed:
            return  # the connection was closed by ourselves; the scope ends this at once
        pause_s = self._backoff.next_s()
        if self._options.on_retry is not None:
            self._options.on_retry(error, self._backoff.attempt)
        await self._cluster.clock.sleep(pause_s)

    @property
    def _name(self) -> str:
        return f"{self._consumer.topic}-{self._partition}"
