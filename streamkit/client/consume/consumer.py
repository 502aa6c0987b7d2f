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
from streamkit.client.cluster import Cluster, retrying
from streamkit.client.consume.chunk_cursor import ChunkCursor
from streamkit.client.consume.fetch_buffer import FetchBuffer
from streamkit.client.consume.offsets import OffsetClient
from streamkit.client.consume.partition_reader import PartitionReader, Reading
from streamkit.client.options import BEGINNING, ConsumerMetrics, ConsumerOptions
from streamkit.errors import RequestTimedOut, StreamKitError, UsageError
from streamkit.limits import STREAMS_PER_CONNECTION_MAX
from streamkit.record import Chunk, Offset, Origin, Record

T = TypeVar("T")
_LAST_COMMIT_S: Final = 5.0
# A stream cannot be cancelled, so half of them are kept for those that are opened anew.
_STREAMS_PER_CHANNEL: Final = STREAMS_PER_CONNECTION_MAX // 2


class Consumer:
    """Reads one topic. Made by `Client.consumer`.

    ``async for record in consumer`` gives single records, ``async for chunk in
    consumer.chunks()`` whole columns, which is several times faster. Within a partition
    offsets ascend; between partitions there is no order. It ends only with ``until_end``.

    A loop that was left is gone on with by the next one, from the next record on; a loop that
    ends closes the consumer. Tasks may share it: each record reaches one of them.
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
        # By partition; of the topic itself under its name.
        self._failures: dict[int | str, StreamKitError] = {}
        self._scope: anyio.CancelScope | None = None
        self._is_closed = False
        self._given: dict[int, int] = {}
        self._yielded: dict[int, int] = {}
        self._processed: dict[int, int] = {}
        self._stored: dict[int, int] = {}
        # Partitions that nothing has been given out of since they were moved.
        self._seeked: set[int] = set()
        self._loops: list[AsyncGenerator[Any, None]] = []
        # Chunks of which single records are given out: one per loop that is under way.
        self._hands: deque[ChunkCursor] = deque()
        self._is_open = False
        self._has_ended = False

    def __repr__(self) -> str:
        return f"Consumer({self.topic!r})"

    # --- life ----------------------------------------------------------------------

    async def open(self) -> None:
        """Resolve the positions and start reading.

        Raises:
            TopicNotFound: There is no such topic.
            UsageError: There is no such partition, or the consumer was closed.
        """
        self._check_not_closed()
        if self._is_open:
            return
        count = await self._retrying(lambda: self._cluster.partition_count(self.topic))
        wanted = self._options.partitions
        chosen = range(count) if wanted is None else wanted
        for number in chosen:
            if not 0 <= number < count:
                raise UsageError(f"topic {self.topic!r} has no partition {number}, it has {count}")
        stored = await self._retrying(self._stored_next)
        # All or none: opening may be cancelled half way, and tried again.
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
        """Stop reading and end the streams. Nothing is committed by this."""
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
                f"how far {self._options.consumer_id!r} has read {self.topic!r} was not stored "
                f"within {_LAST_COMMIT_S:g} s",
                sent=True,
                hint="the next consumer of that id reads again what was not stored",
            )

    async def _end_loops(self) -> None:
        for loop in self._loops:
            try:
                await loop.aclose()
            except RuntimeError:
                pass  # another task is in it, and ends with the consumer

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
                        break  # the rest of the chunk was prefetched as well
                    # The application came back for more, so it is done with this one.
                    self._processed[chunk.partition] = record.offset
                if auto:
                    await self.commit()
        finally:
            with anyio.CancelScope(shield=True):
                await self.close()

    async def _next_cursor(self) -> ChunkCursor | None:
        """Return a chunk that a loop has left something of, else the next one."""
        if (cursor := self._hand_with_rest()) is not None:
            return cursor
        chunk = await self._next_arrived()
        if chunk is None:
            return None
        cursor = ChunkCursor(chunk)
        self._hands.append(cursor)
        return cursor

    def _hand_with_rest(self) -> ChunkCursor | None:
        while self._hands and not self._hands[0].left:
            self._hands.popleft()
        return self._hands[0] if self._hands else None

    def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Read whole columns: values, keys, timestamps in ms, offsets."""
        return self._begin(self._chunks())

    def _begin(self, loop: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        # A loop that is left early is not dropped here and now: nobody could await its end.
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
        """Wait for the next chunk; None when every partition has reached its end.

        For loops that end the consumer themselves: unlike `chunks` this closes nothing.

        Raises:
            UsageError: The client was closed meanwhile.
            StreamKitError: What will not pass: there is no such topic any more, for one.
        """
        cursor = self._hand_with_rest()
        return await self._next_arrived() if cursor is None else cursor.take_rest()

    async def _next_arrived(self) -> Chunk | None:
        while (chunk := self._fetch_buffer.take()) is None:
            for failure in self._failures.values():
                raise failure
            if self._is_closed:
                return None
            if self._has_ended:
                raise UsageError(f"the client was closed while {self.topic!r} was read")
            if self._readers and all(reader.is_done for reader in self._readers.values()):
                return None
            await self._fetch_buffer.wait()
        self._given[chunk.partition] = chunk.offsets[-1] + 1
        self._seeked.discard(chunk.partition)
        return chunk

    # --- positions -----------------------------------------------------------------

    def ends(self) -> dict[int, int]:
        """Return, for ``until_end``, the offset behind the last record per partition."""
        return {
            number: reader.end for number, reader in self._readers.items() if reader.end is not None
        }

    def start_offsets(self) -> dict[int, int]:
        """Return the offset each partition was opened at."""
        return {number: reader.started_at for number, reader in self._readers.items()}

    def next_offsets(self) -> dict[int, int]:
        """Return the next offset each partition's reader will bring."""
        return {number: reader.position.next_offset for number, reader in self._readers.items()}

    def high_watermarks(self) -> dict[int, int]:
        """Return the end of each partition as its last response named it."""
        return {number: reader.high_watermark for number, reader in self._readers.items()}

    async def end_offsets(self) -> dict[int, int]:
        """Ask for the end of each partition read: the offset that its next record will get."""
        return {number: (await self._bounds(number))[1] for number in sorted(self._readers)}

    async def lag(self) -> dict[int, int]:
        """Return, per partition, how many offsets lie between the application and the end.

        What has been prefetched but not been given out yet counts as lag.
        """
        await self.open()
        ends = await self.end_offsets()
        return {
            number: max(0, end - self._next_of_application(number)) for number, end in ends.items()
        }

    async def seek(self, partition: int, offset: Offset | str | int) -> int:
        """Go on elsewhere in a partition; what was prefetched of it is dropped.

        The chunk or record in hand stays what it is, but does not count as processed any more:
        what is committed next comes from behind the seek. After an error that ended the iteration
        of a partition, reading goes on.

        Args:
            partition: One that this consumer reads.
            offset: As for the consumer's ``start``; stored offsets do not count.

        Returns:
            The offset that is read next.

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
        self._hands = deque(cursor for cursor in self._hands if cursor.chunk.partition != partition)
        self._seeked.add(partition)
        self._given[partition] = at
        self._yielded.pop(partition, None)
        self._processed.pop(partition, None)
        self._stored.pop(partition, None)
        self._failures.pop(partition, None)
        return at

    async def commit(self, record: Record[Any] | None = None) -> None:
        """Store how far the application has processed, under the consumer's id.

        Args:
            record: The last record processed of its partition: only that one is stored.
                Without it, everything that was yielded before the last pull counts.

        Raises:
            UsageError: The consumer has no id, or does not read the partition.
            StreamKitError: The broker did not store it.
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
        """Store an offset of one partition: that of the last record processed.

        Raises:
            UsageError: The consumer has no id, or does not read the partition.
            StreamKitError: The broker did not store it.
        """
        self._check_id()
        partition = checks.whole("partition", partition, 0, checks.U32_MAX)
        offset = checks.whole("offset", offset, 0, checks.I64_MAX)
        await self._reader(partition).store(offset)

    async def commit_yielded(self) -> None:
        """Store everything yielded so far as processed."""
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
        """Return the offset behind the stored one, for each partition that has one."""
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
        """Return the offset behind what was given out last, else where reading is to begin."""
        for cursor in self._hands:
            if cursor.chunk.partition == number and cursor.left:
                return cursor.next_offset
        if self._options.smartmodules and not self._fetch_buffer.holds(number):
            # What SmartModules have left out is nothing that the application will ever get.
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
        assert self._scope is not None, "made by `open`, which starts this"
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    for reader in self._readers.values():
                        tasks.start_soon(reader.run)
                    if self._options.partitions is None and not self._options.until_end:
                        await self._follow_growth(tasks)
        finally:  # by `close`, or by the end of the client
            self._has_ended = True
            self._fetch_buffer.wake()

    async def _follow_growth(self, tasks: TaskGroup) -> None:
        """Read partitions that are added, from their first record on."""
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
                if not added:  # what changed while some were added has told nobody
                    await self._cluster.metadata_changed()
        except StreamKitError as error:
            self._fail(self.topic, error)

    def _fail(self, whose: int | str, error: StreamKitError) -> None:
        """Raise an error out of the iteration, behind what has arrived before it."""
        self._failures.setdefault(whose, error)
        self._fetch_buffer.wake()

    async def _connection(self, address: str, partition: int) -> Channel:
        """Return this consumer's connection to an SPU: closing it ends the streams on it.

        Partitions share one, up to what a connection may carry.
        """
        place = (address, partition // _STREAMS_PER_CHANNEL)
        async with self._opening:
            channel = self._channels.get(place)
            if channel is not None and channel.streams_opened >= STREAMS_PER_CONNECTION_MAX:
                await channel.close()
            if channel is None or not channel.is_open:
                channel = self._channels[place] = await self._cluster.connect(address)
            return channel
