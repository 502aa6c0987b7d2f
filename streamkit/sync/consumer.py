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
    """Reads one topic. Create it with `Client.consumer`.

    ``for record in consumer`` yields single records, ``for chunk in consumer.chunks()`` yields
    whole columns, which is faster. Within a partition offsets ascend; between partitions there is
    no order. A loop ends only with ``until_end``.

    In a ``with`` block the consumer stays open until the end of the block: after a ``break`` or
    Ctrl-C, iterating again resumes with the next record. Without ``with``, a loop opens the
    consumer and closes it at the end of the loop.
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
        self._last_number = 0
        self._turn = threading.Lock()
        self._done: dict[int, int] = {}
        self._seeks: dict[int, int] = {}
        self._opening = threading.Lock()
        self._is_open = False
        self._is_kept_open = False
        self._is_closed = False
        self._cursor: ChunkCursor | None = None

    # --- lifecycle -----------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"Consumer({self.topic!r})"

    def open(self) -> None:
        """Resolve the positions and start reading.

        Raises:
            TopicNotFound: The topic does not exist.
            UsageError: A partition does not exist, or the consumer was closed.
        """
        self._loop.check()
        with self._opening:
            if self._is_closed:
                raise self._closed()
            if not self._is_open:
                self._runner.call(self._consumer.open())
                self._is_open = True

    def close(self) -> None:
        """Stop reading and end the streams, without a commit."""
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
        """Iterate over chunks: columns of values, keys, timestamps in ms, and offsets."""
        try:
            while (cursor := self._next_cursor()) is not None:
                yield cursor.take_rest()
        finally:
            self._end_of_loop()

    def next_chunk(self) -> Chunk | None:
        """Wait for the next chunk; return None when every partition has reached its end.

        Unlike `chunks`, this does not close the consumer at the end.
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
        """Return the rest of the current chunk, otherwise the next chunk."""
        self._loop.check()
        with self._turn:
            if self._is_closed:
                raise self._closed()
            cursor = self._cursor
            if cursor is not None and cursor.left:
                return cursor
            if cursor is not None:
                # The application asks for more, so it has processed the whole chunk.
                self._done[cursor.chunk.partition] = cursor.chunk.offsets[-1]
                self._finish_cursor(cursor)
                if self._is_auto:
                    self.commit()
            if not self._is_open:
                self.open()
            self._fetch_next_cursor()
            return self._cursor

    def _fetch_next_cursor(self) -> None:
        while True:
            item = self._iterator.after(self._last_number)
            fetched = item.value
            if fetched is not None and self._is_current(fetched):
                # A single assignment, so that an interrupt cannot lose the chunk.
                self._cursor = ChunkCursor(fetched.chunk, item.number)
                return
            self._last_number = item.number
            if item.error is not None:
                raise item.error
            if fetched is None:
                return

    def _is_current(self, fetched: _Fetched) -> bool:
        """Whether there was no seek since the fetch began, possibly in an earlier call."""
        return fetched.seeks == self._seeks.get(fetched.chunk.partition, 0)

    def _finish_cursor(self, cursor: ChunkCursor) -> None:
        self._last_number = cursor.number
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
        """Counters of the consumer since it was created."""
        return self._consumer.metrics

    def ends(self) -> dict[int, int]:
        """Return the offset after the last record of each partition, for ``until_end``."""
        return self._loop.ask(self._consumer.ends)

    def start_offsets(self) -> dict[int, int]:
        """Return the offset at which each partition was opened."""
        return self._loop.ask(self._consumer.start_offsets)

    def next_offsets(self) -> dict[int, int]:
        """Return the next offset to be read from each partition."""
        return self._loop.ask(self._consumer.next_offsets)

    def high_watermarks(self) -> dict[int, int]:
        """Return the end offset of each partition from its last response."""
        return self._loop.ask(self._consumer.high_watermarks)

    def end_offsets(self) -> dict[int, int]:
        """Request the end offset of each partition: the offset of its next record."""
        self.open()
        return self._loop.call(self._consumer.end_offsets())

    def lag(self) -> dict[int, int]:
        """Return, per partition, how many offsets are between the application and the end offset.

        Records that are prefetched but not given out yet count as lag.
        """
        self.open()
        lag = self._loop.call(self._consumer.lag())
        cursor = self._cursor
        if cursor is not None and cursor.left:
            lag[cursor.chunk.partition] += cursor.chunk.offsets[-1] + 1 - cursor.next_offset
        return lag

    def seek(self, partition: int, offset: Offset | str | int) -> int:
        """Continue at another offset of a partition, and drop its prefetched records.

        A running loop continues at that offset. If an error ended the iteration of the partition,
        reading continues.

        Args:
            partition: A partition that this consumer reads.
            offset: See the consumer's ``start``; stored offsets do not count.

        Returns:
            The next offset to be read.

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
            self._finish_cursor(cursor)
            cursor.drop_rest()
        self._done.pop(partition, None)
        return at

    def commit(self, record: Record[Any] | None = None) -> None:
        """Store the offsets of the processed records under the consumer's id.

        Args:
            record: The last processed record of its partition: only its offset is stored.
                Without it, all records count as processed except the one (or the chunk) that
                was given out last.

        Raises:
            UsageError: The consumer has no id, or does not read the partition.
            StreamKitError: The broker did not store an offset.
        """
        self.open()
        if record is None:
            self._loop.call(self._store_all(self._processed()))
        else:
            self._loop.call(self._consumer.commit(record))
            self._done[record.partition] = record.offset

    def commit_yielded(self) -> None:
        """Store the offsets of all records given out so far."""
        self.open()
        done = self._processed()
        cursor = self._cursor
        if cursor is not None and cursor.given:
            done[cursor.chunk.partition] = cursor.chunk.offsets[cursor.given - 1]
        self._loop.call(self._store_all(done))
        self._done |= done

    def store(self, partition: int, offset: int) -> None:
        """Store an offset of one partition: that of the last processed record.

        Raises:
            UsageError: The consumer has no id, or does not read the partition.
            StreamKitError: The broker did not store the offset.
        """
        self.open()
        self._loop.call(self._consumer.store(partition, offset))

    def _processed(self) -> dict[int, int]:
        """Return, per partition, the offset of the last record that the application processed."""
        done = dict(self._done)
        cursor = self._cursor
        if cursor is not None and cursor.done:
            number, offset = cursor.chunk.partition, cursor.chunk.offsets[cursor.done - 1]
            # A `commit` with the record that was given out last may have stored a later offset.
            done[number] = max(offset, done.get(number, -1))
        return done

    async def _store_all(self, done: dict[int, int]) -> None:
        await self._consumer.commit()
        for partition, offset in done.items():
            await self._consumer.commit(Record(b"", offset=offset, partition=partition))


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A chunk, and the number of seeks in its partition when it was fetched."""

    chunk: Chunk
    seeks: int
