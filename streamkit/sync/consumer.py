"""The consumer without an event loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Any

from streamkit.client.consume.chunk_cursor import ChunkCursor
from streamkit.client.consume.consumer import Consumer as AsyncConsumer
from streamkit.client.options import ConsumerMetrics
from streamkit.errors import UsageError
from streamkit.record import Chunk, Offset, Record
from streamkit.sync.client_runner import ClientRunner


class Consumer:
    """Reads one topic. Made by `Client.consumer`.

    ``for record in consumer`` gives single records, ``for chunk in consumer.chunks()`` whole
    columns, which is faster. Within a partition offsets ascend; between partitions there is no
    order. It ends only with ``until_end``.

    Opened by ``with``, it stays open until the block ends: a loop that is left, also by Ctrl-C,
    goes on with the next record when another one begins. A loop over a consumer that was not
    opened opens it, and closes it when it ends.
    """

    def __init__(
        self, runner: ClientRunner, consumer: AsyncConsumer, *, is_auto: bool = False
    ) -> None:
        self.topic = consumer.topic
        self._runner = runner
        self._loop = runner.loop
        self._consumer = consumer
        self._is_auto = is_auto
        self._iterator = runner.iterate(self._fetch)
        self._taken = 0
        self._in_turn = threading.Lock()
        self._done: dict[int, int] = {}
        self._seeks: dict[int, int] = {}
        self._opening = threading.Lock()
        self._is_open = False
        self._is_kept_open = False
        self._is_closed = False
        self._cursor: ChunkCursor | None = None

    # --- life ----------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"Consumer({self.topic!r})"

    def open(self) -> None:
        """Resolve the positions and start reading.

        Raises:
            TopicNotFound: There is no such topic.
            UsageError: There is no such partition, or the consumer was closed.
        """
        self._loop.check()
        with self._opening:
            if self._is_closed:
                raise self._closed()
            if not self._is_open:
                self._runner.call(self._consumer.open())
                self._is_open = True

    def close(self) -> None:
        """Stop reading and end the streams. Nothing is committed by this."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._is_open:
            self._iterator.close()
            self._loop.call(self._consumer.close())

    def __enter__(self) -> Consumer:
        self.open()
        self._is_kept_open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._is_auto and not self._is_closed:
                self.commit()
        finally:
            self.close()

    # --- reading -------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Record[bytes]]:
        return chain.from_iterable(self._record_runs())

    def chunks(self) -> Iterator[Chunk]:
        """Read whole columns: values, keys, timestamps in ms, offsets."""
        try:
            while (cursor := self._next_cursor()) is not None:
                yield cursor.take_rest()
        finally:
            self._end_of_loop()

    def next_chunk(self) -> Chunk | None:
        """Wait for the next chunk; None when every partition has reached its end.

        For loops that end the consumer themselves: unlike `chunks` this closes nothing.
        """
        cursor = self._next_cursor()
        return None if cursor is None else cursor.take_rest()

    def _record_runs(self) -> Iterator[Iterator[Record[bytes]]]:
        try:
            while (cursor := self._next_cursor()) is not None:
                yield cursor.records
        finally:
            self._end_of_loop()

    def _next_cursor(self) -> ChunkCursor | None:
        """Return what is left of the chunk in hand, else the next chunk."""
        self._loop.check()
        with self._in_turn:
            if self._is_closed:
                raise self._closed()
            cursor = self._cursor
            if cursor is not None and cursor.left:
                return cursor
            if cursor is not None:
                # Whoever comes back for more is done with all of it.
                self._done[cursor.chunk.partition] = cursor.chunk.offsets[-1]
                self._put_away(cursor)
                if self._is_auto:
                    self.commit()
            if not self._is_open:
                self.open()
            self._take_next_in_hand()
            return self._cursor

    def _take_next_in_hand(self) -> None:
        while True:
            brought = self._iterator.after(self._taken)
            fetched = brought.thing
            if fetched is not None and self._is_current(fetched):
                # In one step, so that an interrupt comes before it is taken or after.
                self._cursor = ChunkCursor(fetched.chunk, brought.number)
                return
            self._taken = brought.number
            if brought.error is not None:
                raise brought.error
            if fetched is None:
                return

    def _is_current(self, fetched: _Fetched) -> bool:
        """Tell whether nothing was sought since: an interrupted wait may have asked long ago."""
        return fetched.seeks == self._seeks.get(fetched.chunk.partition, 0)

    def _put_away(self, cursor: ChunkCursor) -> None:
        self._taken = cursor.number
        self._cursor = None

    def _closed(self) -> UsageError:
        return UsageError(f"the consumer of {self.topic!r} is closed")

    async def _fetch(self) -> _Fetched | None:
        chunk = await self._consumer.next_chunk()
        return None if chunk is None else _Fetched(chunk, self._seeks.get(chunk.partition, 0))

    def _end_of_loop(self) -> None:
        if not self._is_kept_open and not self._is_closed:
            self._is_closed = True
            self._iterator.close()
            self._loop.spawn(self._consumer.close)

    # --- positions -----------------------------------------------------------------------

    @property
    def metrics(self) -> ConsumerMetrics:
        """What the consumer has done since it was made."""
        return self._consumer.metrics

    def ends(self) -> dict[int, int]:
        """Return, for ``until_end``, the offset behind the last record per partition."""
        return self._loop.ask(self._consumer.ends)

    def start_offsets(self) -> dict[int, int]:
        """Return the offset each partition was opened at."""
        return self._loop.ask(self._consumer.start_offsets)

    def next_offsets(self) -> dict[int, int]:
        """Return the next offset each partition's reader will bring."""
        return self._loop.ask(self._consumer.next_offsets)

    def high_watermarks(self) -> dict[int, int]:
        """Return the end of each partition as its last response named it."""
        return self._loop.ask(self._consumer.high_watermarks)

    def end_offsets(self) -> dict[int, int]:
        """Ask for the end of each partition read: the offset that its next record will get."""
        self.open()
        return self._loop.call(self._consumer.end_offsets())

    def lag(self) -> dict[int, int]:
        """Return, per partition, how many offsets lie between the application and the end.

        What has been prefetched but not been given out yet counts as lag.
        """
        self.open()
        lag = self._loop.call(self._consumer.lag())
        cursor = self._cursor
        if cursor is not None and cursor.left:
            lag[cursor.chunk.partition] += cursor.chunk.offsets[-1] + 1 - cursor.next_offset
        return lag

    def seek(self, partition: int, offset: Offset | str | int) -> int:
        """Go on elsewhere in a partition; what was fetched of it and not given out is dropped.

        A loop that is under way goes on there. After an error that ended the iteration of a
        partition, reading goes on.

        Args:
            partition: One that this consumer reads.
            offset: As for the consumer's ``start``; stored offsets do not count.

        Returns:
            The offset that is read next.

        Raises:
            UsageError: The consumer is closed, or does not read the partition.
        """

        async def seek() -> int:
            at = await self._consumer.seek(partition, offset)
            self._seeks[partition] = self._seeks.get(partition, 0) + 1
            return at

        self.open()
        at = self._loop.call(seek())
        cursor = self._cursor
        if cursor is not None and cursor.chunk.partition == partition:
            self._put_away(cursor)
            cursor.drop_rest()
        self._done.pop(partition, None)
        return at

    def commit(self, record: Record[Any] | None = None) -> None:
        """Store how far the application has processed, under the consumer's id.

        Args:
            record: The last record processed of its partition: only that one is stored.
                Without it, everything that was given out before the last pull counts.

        Raises:
            UsageError: The consumer has no id, or does not read the partition.
            StreamKitError: The broker did not store it.
        """
        self.open()
        if record is None:
            self._loop.call(self._store_all(self._processed()))
        else:
            self._loop.call(self._consumer.commit(record))
            self._done[record.partition] = record.offset

    def commit_yielded(self) -> None:
        """Store everything given out so far as processed."""
        self.open()
        done = self._processed()
        cursor = self._cursor
        if cursor is not None and cursor.given:
            done[cursor.chunk.partition] = cursor.chunk.offsets[cursor.given - 1]
        self._loop.call(self._store_all(done))
        self._done |= done

    def store(self, partition: int, offset: int) -> None:
        """Store an offset of one partition: that of the last record processed.

        Raises:
            UsageError: The consumer has no id, or does not read the partition.
            StreamKitError: The broker did not store it.
        """
        self.open()
        self._loop.call(self._consumer.store(partition, offset))

    def _processed(self) -> dict[int, int]:
        """Return the last offset per partition that the application is done with."""
        done = dict(self._done)
        cursor = self._cursor
        if cursor is not None and cursor.done:
            number, offset = cursor.chunk.partition, cursor.chunk.offsets[cursor.done - 1]
            # It may have said more by itself: `commit` with the record it was given last.
            done[number] = max(offset, done.get(number, -1))
        return done

    async def _store_all(self, done: dict[int, int]) -> None:
        await self._consumer.commit()
        for partition, offset in done.items():
            await self._consumer.commit(Record(b"", offset=offset, partition=partition))


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A chunk, and how often its partition had been sought in when it was fetched."""

    chunk: Chunk
    seeks: int
