"""The consumer: the partitions of one topic, merged into chunks or single records."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Final, TypeVar

import anyio
from anyio.abc import TaskGroup

from streamkit.client import checks
from streamkit.client.channel import Channel
from streamkit.client.cluster import Cluster
from streamkit.client.consume.chunk_cursor import ChunkCursor
from streamkit.client.consume.fetch_buffer import FetchBuffer
from streamkit.client.consume.offsets import OffsetClient
from streamkit.client.consume.partition_reader import PartitionReader, Reading
from streamkit.client.options import BEGINNING, ConsumerMetrics, ConsumerOptions
from streamkit.client.retrying import retrying
from streamkit.errors import RequestTimedOut, StreamKitError, UsageError
from streamkit.limits import STREAMS_PER_CONNECTION_MAX
from streamkit.record import Chunk, Offset, Origin, Record

T = TypeVar("T")
_LAST_COMMIT_S: Final = 5.0
# A stream cannot be cancelled, so half of the streams are kept for reopening.
_STREAMS_PER_CHANNEL: Final = STREAMS_PER_CONNECTION_MAX // 2


class Consumer:
    """Reads one topic. Create it with `Client.consumer`.

    ``async for record in consumer`` yields single records. ``async for chunk in
    consumer.chunks()`` yields whole columns, which is several times faster. Within a partition
    offsets ascend; between partitions there is no order. A loop ends only with ``until_end``.

    Iterating again after a ``break`` resumes after the last record. A loop that reaches its end
    closes the consumer. Several tasks may share a consumer: each record goes to one of them.
    """

    def __init__(self, cluster: Cluster, topic: str, options: ConsumerOptions) -> None:
        if options.offset_strategy != "none" and options.consumer_id is None:
            raise UsageError("offset_strategy needs a consumer_id")
        if options.partitions is not None and not options.partitions:
            raise UsageError("partitions is empty; leave it out to read all partitions")
        self.topic = topic
        self._cluster = cluster
        self._options = options
        self._offsets = OffsetClient(cluster)
        self.metrics = ConsumerMetrics()
        self._readers: dict[int, PartitionReader] = {}
        self._channels: dict[tuple[str, int], Channel] = {}
        self._opening = anyio.Lock()
        self._fetch_buffer = FetchBuffer(options.prefetch_bytes)
        self._reading = Reading(
            topic,
            cluster,
            options,
            self._offsets,
            self._fetch_buffer,
            self.metrics,
            self._connection,
            self._fail,
        )
        # The keys are partition numbers; a failure of the topic itself has the topic's name.
        self._failures: dict[int | str, StreamKitError] = {}
        self._scope: anyio.CancelScope | None = None
        self._is_closed = False
        self._given: dict[int, int] = {}
        self._yielded: dict[int, int] = {}
        self._processed: dict[int, int] = {}
        self._stored: dict[int, int] = {}
        # Partitions of which nothing has been given out since a seek.
        self._seeked: set[int] = set()
        self._loops: list[AsyncGenerator[Any, None]] = []
        # The chunks whose records are being given out one by one: one chunk per running loop.
        self._cursors: deque[ChunkCursor] = deque()
        self._is_open = False
        self._has_ended = False

    def __repr__(self) -> str:
        return f"Consumer({self.topic!r})"

    # --- lifecycle -----------------------------------------------------------------

    async def open(self) -> None:
        """Resolve the positions and start reading.

        Raises:
            TopicNotFound: The topic does not exist.
            UsageError: A partition does not exist, or the consumer was closed.
        """
        self._check_not_closed()
        if self._is_open:
            return
        count = await self._retrying(lambda: self._cluster.partition_count(self.topic))
        wanted = self._options.partitions
        chosen = range(count) if wanted is None else wanted
        for number in chosen:
            if not 0 <= number < count:
                raise UsageError(
                    f"topic {self.topic!r} has no partition {number} (partition count: {count})"
                )
        stored = await self._retrying(self._stored_next)
        # All or none, because opening may be cancelled in the middle and then repeated.
        readers = [
            await self._new_reader(number, stored.get(number), self._options.start)
            for number in chosen
        ]
        self._check_not_closed()
        if self._is_open:
            return  # another task was faster
        for reader in readers:
            self._add(reader)
        self._is_open = True
        self._scope = anyio.CancelScope()
        self._cluster.start(self._run)

    async def close(self) -> None:
        """Stop reading and end the streams, without a commit."""
        self._is_closed = True
        if self._scope is not None:
            self._scope.cancel()
        for channel in self._channels.values():
            await channel.close()
        self._fetch_buffer.wake()

    async def __aenter__(self) -> Consumer:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            try:
                if kind is None and self._options.offset_strategy == "auto":
                    await self._commit_at_the_end()
            finally:
                await self._end_loops()
                await self.close()

    async def _commit_at_the_end(self) -> None:
        with anyio.move_on_after(_LAST_COMMIT_S) as scope:
            await self.commit()
        if scope.cancelled_caught:
            raise RequestTimedOut(
                f"the offsets of {self._options.consumer_id!r} in {self.topic!r} were not "
                f"committed within {_LAST_COMMIT_S:g} s",
                sent=True,
                hint="the next consumer with that id reads the uncommitted records again",
            )

    async def _end_loops(self) -> None:
        for loop in self._loops:
            try:
                await loop.aclose()
            except RuntimeError:
                pass  # another task runs this loop; the loop ends with the consumer

    def _check_not_closed(self) -> None:
        if self._is_closed:
            raise UsageError(f"the consumer of {self.topic!r} is closed")

    # --- reading -------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Record[bytes]]:
        return self._begin(self._records())

    async def _records(self) -> AsyncGenerator[Record[bytes], None]:
        auto = self._options.offset_strategy == "auto"
        await self.open()
        try:
            while (cursor := await self._next_cursor()) is not None:
                chunk = cursor.chunk
                for record in cursor.records:
                    self._yielded[chunk.partition] = record.offset
                    yield record
                    if chunk.partition in self._seeked:
                        break  # the rest of the chunk was prefetched before the seek
                    # The application asks for the next record, so it has processed this one.
                    self._processed[chunk.partition] = record.offset
                if auto:
                    await self.commit()
        finally:
            with anyio.CancelScope(shield=True):
                await self.close()

    async def _next_cursor(self) -> ChunkCursor | None:
        """Return a chunk that an earlier loop did not finish, otherwise the next one."""
        if (cursor := self._unfinished_cursor()) is not None:
            return cursor
        chunk = await self._next_arrived()
        if chunk is None:
            return None
        cursor = ChunkCursor(chunk)
        self._cursors.append(cursor)
        return cursor

    def _unfinished_cursor(self) -> ChunkCursor | None:
        while self._cursors and not self._cursors[0].left:
            self._cursors.popleft()
        return self._cursors[0] if self._cursors else None

    def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Iterate over chunks: columns of values, keys, timestamps in ms, and offsets."""
        return self._begin(self._chunks())

    def _begin(self, loop: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        # A loop that ends early, as by `break`, is kept so that `_end_loops` can close it.
        self._loops.append(loop)
        return loop

    async def _chunks(self) -> AsyncGenerator[Chunk, None]:
        await self.open()
        try:
            while (chunk := await self.next_chunk()) is not None:
                last = chunk.offsets[-1]
                self._yielded[chunk.partition] = last
                yield chunk
                if chunk.partition not in self._seeked:
                    self._processed[chunk.partition] = last
                if self._options.offset_strategy == "auto":
                    await self.commit()
        finally:
            with anyio.CancelScope(shield=True):
                await self.close()

    async def next_chunk(self) -> Chunk | None:
        """Wait for the next chunk; return None when every partition has reached its end.

        Unlike `chunks`, this does not close the consumer at the end.

        Raises:
            UsageError: The client was closed.
            StreamKitError: A permanent failure; for example, the topic was deleted.
        """
        cursor = self._unfinished_cursor()
        return await self._next_arrived() if cursor is None else cursor.take_rest()

    async def _next_arrived(self) -> Chunk | None:
        while (chunk := self._fetch_buffer.take()) is None:
            for failure in self._failures.values():
                raise failure
            if self._is_closed:
                return None
            if self._has_ended:
                raise UsageError(f"the client was closed while reading {self.topic!r}")
            if self._readers and all(reader.is_done for reader in self._readers.values()):
                return None
            await self._fetch_buffer.wait()
        self._given[chunk.partition] = chunk.offsets[-1] + 1
        self._seeked.discard(chunk.partition)
        return chunk

    # --- positions -----------------------------------------------------------------

    def ends(self) -> dict[int, int]:
        """Return the offset after the last record of each partition, for ``until_end``."""
        return {
            number: reader.end for number, reader in self._readers.items() if reader.end is not None
        }

    def start_offsets(self) -> dict[int, int]:
        """Return the offset at which each partition was opened."""
        return {number: reader.started_at for number, reader in self._readers.items()}

    def next_offsets(self) -> dict[int, int]:
        """Return the next offset to be read from each partition."""
        return {number: reader.position.next_offset for number, reader in self._readers.items()}

    def high_watermarks(self) -> dict[int, int]:
        """Return the end offset of each partition from its last response."""
        return {number: reader.high_watermark for number, reader in self._readers.items()}

    async def end_offsets(self) -> dict[int, int]:
        """Request the end offset of each partition: the offset of its next record."""
        return {number: (await self._bounds(number))[1] for number in sorted(self._readers)}

    async def lag(self) -> dict[int, int]:
        """Return, per partition, how many offsets are between the application and the end offset.

        Records that are prefetched but not given out yet count as lag.
        """
        await self.open()
        ends = await self.end_offsets()
        return {
            number: max(0, end - self._next_of_application(number)) for number, end in ends.items()
        }

    async def seek(self, partition: int, offset: Offset | str | int) -> int:
        """Continue at another offset of a partition, and drop its prefetched records.

        The application keeps the chunk or record that it is processing, but it no longer counts
        as processed: the next commit covers only records read after the seek. If an error ended
        the iteration of the partition, reading continues.

        Args:
            partition: A partition that this consumer reads.
            offset: See the consumer's ``start``; stored offsets do not count.

        Returns:
            The next offset to be read.

        Raises:
            UsageError: The consumer is closed, or does not read the partition.
        """
        wanted = Offset.parse(offset)
        partition = checks.whole("partition", partition, 0, checks.U32_MAX)
        await self.open()
        reader = self._reader(partition)
        first, end = await self._bounds(partition)
        at = await self._resolved(wanted, partition, first, end, None)
        reader.seek(at)
        self._fetch_buffer.drop(partition)
        self._cursors = deque(
            cursor for cursor in self._cursors if cursor.chunk.partition != partition
        )
        self._seeked.add(partition)
        self._given[partition] = at
        self._yielded.pop(partition, None)
        self._processed.pop(partition, None)
        self._stored.pop(partition, None)
        self._failures.pop(partition, None)
        return at

    async def commit(self, record: Record[Any] | None = None) -> None:
        """Store the offsets of the processed records under the consumer's id.

        Args:
            record: The last processed record of its partition: only its offset is stored.
                Without it, all records count as processed except the one (or the chunk) that
                was yielded last.

        Raises:
            UsageError: The consumer has no id, or does not read the partition.
            StreamKitError: The broker did not store an offset.
        """
        self._check_id()
        processed = dict(self._processed)
        if record is not None:
            checks.instance("record", record, Record)
            checks.whole("record.partition", record.partition, 0, checks.U32_MAX)
            checks.whole("record.offset", record.offset, 0, checks.I64_MAX)
            self._reader(record.partition)
            self._processed[record.partition] = record.offset
            processed = {record.partition: record.offset}
        for number, offset in processed.items():
            if self._stored.get(number) != offset:
                await self._readers[number].store(offset)
                self._stored[number] = offset

    async def store(self, partition: int, offset: int) -> None:
        """Store an offset of one partition: that of the last processed record.

        Raises:
            UsageError: The consumer has no id, or does not read the partition.
            StreamKitError: The broker did not store the offset.
        """
        self._check_id()
        partition = checks.whole("partition", partition, 0, checks.U32_MAX)
        offset = checks.whole("offset", offset, 0, checks.I64_MAX)
        await self._reader(partition).store(offset)
        self._stored[partition] = offset

    async def commit_yielded(self) -> None:
        """Store the offsets of all records yielded so far."""
        self._processed.update(self._yielded)
        await self.commit()

    def _check_id(self) -> None:
        if self._options.consumer_id is None:
            raise UsageError("commit needs a consumer_id")

    def _reader(self, partition: int) -> PartitionReader:
        if partition not in self._readers:
            raise UsageError(f"this consumer of {self.topic!r} does not read partition {partition}")
        return self._readers[partition]

    async def _stored_next(self) -> dict[int, int]:
        """Return the offset after the stored one, for each partition that has one."""
        if self._options.consumer_id is None or not self._options.resumes:
            return {}
        found = await self._offsets.stored(self._options.consumer_id, self.topic)
        return {held.partition: held.offset + 1 for held in found}

    async def _new_reader(
        self, number: int, stored_next: int | None, start: Offset
    ) -> PartitionReader:
        first, end = await self._bounds(number)
        at = (self._options.start_offsets or {}).get(number)
        if at is None:
            at = await self._resolved(start, number, first, end, stored_next)
        reader = PartitionReader(
            self._reading, number, at, end if self._options.until_end else None
        )
        reader.high_watermark = end
        return reader

    def _add(self, reader: PartitionReader) -> None:
        self._fetch_buffer.add_partition(reader.partition)
        self._readers[reader.partition] = reader

    async def _resolved(
        self, start: Offset, number: int, first: int, end: int, stored_next: int | None
    ) -> int:
        if start.origin is not Origin.TIME:
            return start.resolve(first, end, stored_next)
        if stored_next is not None:
            return BEGINNING.resolve(first, end, stored_next)
        return await self._retrying(
            lambda: self._offsets.at_time(self.topic, number, start.count, first, end)
        )

    async def _bounds(self, number: int) -> tuple[int, int]:
        return await self._retrying(lambda: self._offsets.bounds(self.topic, number))

    def _next_of_application(self, number: int) -> int:
        """Return the offset after the last record given out, or the start offset if none was."""
        for cursor in self._cursors:
            if cursor.chunk.partition == number and cursor.left:
                return cursor.next_offset
        if self._options.smartmodules and not self._fetch_buffer.holds(number):
            # The application never gets records that SmartModules dropped, so they are not lag.
            return self._readers[number].position.next_offset
        return self._given.get(number, self._readers[number].started_at)

    async def _retrying(self, attempt: Callable[[], Awaitable[T]]) -> T:
        options = self._options
        return await retrying(
            self._cluster,
            attempt,
            self.topic,
            open_timeout_s=options.open_timeout_s,
            on_retry=options.on_retry,
        )

    # --- the tasks -------------------------------------------------------------------

    async def _run(self) -> None:
        assert self._scope is not None, "created by `open`, which starts this"
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    for reader in self._readers.values():
                        tasks.start_soon(reader.run)
                    if self._options.partitions is None and not self._options.until_end:
                        await self._follow_growth(tasks)
        finally:  # after `close`, or when the client ends
            self._has_ended = True
            self._fetch_buffer.wake()

    async def _follow_growth(self, tasks: TaskGroup) -> None:
        """Read partitions that are added to the topic, from their first record."""
        try:
            while True:
                count = await retrying(
                    self._cluster,
                    lambda: self._cluster.partition_count(self.topic),
                    self.topic,
                    open_timeout_s=None,
                    on_retry=self._options.on_retry,
                )
                added = range(len(self._readers), count)
                for number in added:
                    reader = await self._new_reader(number, None, BEGINNING)
                    self._add(reader)
                    tasks.start_soon(reader.run)
                if not added:  # otherwise check again: more may have been added meanwhile
                    await self._cluster.metadata_changed()
        except StreamKitError as error:
            self._fail(self.topic, error)

    def _fail(self, failed: int | str, error: StreamKitError) -> None:
        """Let the iteration raise an error after it yielded everything that arrived before."""
        self._failures.setdefault(failed, error)
        self._fetch_buffer.wake()

    async def _connection(self, address: str, partition: int) -> Channel:
        """Return this consumer's connection to an SPU: closing it ends the streams on it.

        Partitions share a connection, up to the limit of streams per connection.
        """
        group = (address, partition // _STREAMS_PER_CHANNEL)
        async with self._opening:
            channel = self._channels.get(group)
            if channel is not None and channel.streams_opened >= STREAMS_PER_CONNECTION_MAX:
                await channel.close()
            if channel is None or not channel.is_open:
                channel = self._channels[group] = await self._cluster.connect(address)
            return channel
