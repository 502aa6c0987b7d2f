"""The producer: it chooses a partition for each record and waits for the outcomes."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from types import TracebackType

import anyio

from streamkit.broadcast import Broadcast
from streamkit.client import checks
from streamkit.client.cluster import Cluster
from streamkit.client.options import ProducerMetrics, ProducerOptions
from streamkit.client.produce.accumulator import check_alone, check_sizes
from streamkit.client.produce.handles import RecordHandle, RecordsHandle
from streamkit.client.produce.partition_sender import PartitionSender
from streamkit.client.produce.partitions import UNKNOWN, Partitions
from streamkit.client.produce.topic_requirements import codec_for_topic, within_segment
from streamkit.client.retrying import retrying
from streamkit.errors import NotFlushed, RecordTooLarge, UsageError
from streamkit.protocol import codec
from streamkit.protocol.batch import Columns
from streamkit.protocol.compression import Codec

logger = logging.getLogger("streamkit.client")

_ROWS_PER_PART = 8_192


class Producer:
    """Writes to one topic. Create it with `Client.producer` and use it with ``async with``.

    Many tasks of one event loop may share a producer.
    """

    def __init__(self, cluster: Cluster, topic: str, options: ProducerOptions) -> None:
        self.topic = topic
        self._cluster = cluster
        self._options = options
        self._metadata = cluster.metadata
        self._wall_ms = cluster.clock.wall_ms
        self._codec = options.compression or Codec.NONE
        self._partitions = Partitions(topic, options, cluster.metadata, self._new_sender)
        self._senders = self._partitions.senders
        self._is_open = False
        self._is_closed = False
        self._is_stopped = False
        # Accepted calls that have not returned yet: they wait for room or for the event loop.
        self._active_calls = 0
        self._calls_done = Broadcast()
        self.metrics = ProducerMetrics()
        self.close_timeout_s = options.close_timeout_s

    async def open(self) -> None:
        """Look up the topic and check the options against it.

        Raises:
            TopicNotFound: The topic does not exist.
            UsageError: The topic requires another compression, or the producer was closed.
        """
        if self._is_open:
            return
        if self._is_closed:
            raise UsageError(f"the producer for {self.topic!r} is closed")
        count = await retrying(
            self._cluster,
            lambda: self._cluster.partition_count(self.topic),
            self.topic,
            open_timeout_s=self._options.delivery_timeout_s,
            on_retry=self._options.on_retry,
        )
        if self._is_closed:
            raise UsageError(f"the producer for {self.topic!r} was closed while it was opening")
        self._codec = codec_for_topic(self.topic, self._metadata, self._options)
        self._options = within_segment(
            self._options, self._codec, self._metadata.segment_bytes(self.topic)
        )
        self._partitions.grow(count)
        self._is_open = True
        self._cluster.add_unfinished(self)
        self._partitions.refresh()

    async def send(
        self,
        value: bytes | str,
        key: bytes | str | None = None,
        *,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> RecordHandle:
        """Queue a record; wait only if the queue of its partition is full.

        Args:
            value: The content; text is sent as UTF-8.
            key: The key; records with the same key go to the same partition. None means no key,
                which differs from an empty key.
            timestamp_ms: The time of the record, in ms since the epoch; by default now.
            partition: The partition to use, regardless of the key.

        Returns:
            A handle to await for partition and offset.

        Raises:
            RecordTooLarge: The record is too large even for a batch of its own.
        """
        if type(value) is not bytes:
            value = checks.as_bytes("value", value)
        if key is not None and type(key) is not bytes:
            key = checks.as_bytes("key", key)
        timestamp_ms = self._wall_ms() if timestamp_ms is None else checks.stamp(timestamp_ms)
        partitions = self._partitions
        if partitions.layout != self._metadata.layout:
            await self.open()
            partitions.refresh()
        number = partitions.choose(key) if partition is None else partitions.named(partition)
        sender = self._senders[number]
        if sender.is_full:
            with self._counted_call():
                await sender.wait_for_room()
                outcome, row = sender.add(value, key, timestamp_ms)
        else:
            outcome, row = sender.add(value, key, timestamp_ms)
        return RecordHandle(sender, outcome, row)

    async def send_many(
        self,
        values: Iterable[bytes],
        keys: Iterable[bytes | None] | None = None,
        *,
        timestamps_ms: Iterable[int] | None = None,
    ) -> RecordsHandle:
        """Queue many records as columns of equal length: much faster than single records.

        The columns may be any iterables; they are copied before this waits for anything.

        Args:
            values: The contents.
            keys: The keys; by default no record has a key.
            timestamps_ms: The times of the records; by default now.

        Returns:
            One handle for all records, to await for columns of partitions and offsets.

        Raises:
            RecordTooLarge: A record is too large even for a batch of its own. None is sent.
            UsageError: The columns differ in length, a value is not valid, or the producer is
                closed. None is sent.
            NotFlushed: The producer was closed after some of the records were queued; the message
                says how many. After a cancellation while this waits for room, the number is not
                known.
        """
        columns, largest_bytes = checks.columns(values, keys, timestamps_ms, self._wall_ms)
        self.check_sizes(columns, largest_bytes)
        handle = RecordsHandle(len(columns.values))
        try:
            await self.send_columns(columns, handle)
        except UsageError as error:
            if not handle.taken:
                raise
            raise NotFlushed(
                f"{error}; {handle.taken} of {len(columns.values)} records were queued before "
                "that, and some of these may be stored"
            ) from error
        return handle

    async def send_columns(self, columns: Columns, handle: RecordsHandle) -> None:
        """Queue records that `checks.columns` has checked; the handle gets their batches and rows.

        Raises:
            UsageError: The producer is closed; the handle has the records queued before that.
        """
        await self.open()
        if self._partitions.layout != self._metadata.layout:
            self._partitions.refresh()
        total = len(columns.values)
        chosen = self._partitions.chosen(columns.keys)
        with self._counted_call():
            for start, stop in _parts(columns.values, self._options.queue_bytes_max):
                part = Columns(
                    columns.values[start:stop],
                    columns.keys[start:stop],
                    columns.timestamps_ms[start:stop],
                )
                await self._send_columns(part, start, handle, chosen and chosen[start:stop])
                if stop < total:
                    # Sending continues only when this yields to the event loop.
                    await anyio.lowlevel.checkpoint()

    def fits(self, value: bytes | str, key: bytes | str | None = None) -> bool:
        """Whether a record is small enough to be sent, at least in a batch of its own."""
        try:
            self.check_fits(value, key)
        except RecordTooLarge:
            return False
        return True

    def check_fits(self, value: bytes | str, key: bytes | str | None = None) -> None:
        """Raise the error that `send` would raise for the size of a record.

        Raises:
            RecordTooLarge: The record is too large even for a batch of its own.
        """
        sent = checks.as_bytes("value", value)
        sent_key = None if key is None else checks.as_bytes("key", key)
        check_alone(codec.record_bytes(0, 0, sent_key, sent), self._options.max_request_size_bytes)

    def check_sizes(self, columns: Columns, largest_bytes: int) -> None:
        """Raise the error that `send` would raise for the size of a record in columns.

        ``largest_bytes`` is the size of the largest record (key and value together).

        Raises:
            RecordTooLarge: A record is too large; the message shows its row.
        """
        check_sizes(columns, largest_bytes, self._options.max_request_size_bytes)

    async def flush(self) -> None:
        """Send all queued records and wait until the outcome of each is known.

        Raises:
            StreamKitError: The first refusal since the last flush. The refused records are not
                stored; the others are.
        """
        await self.checkpoint()()

    def send_now(self) -> None:
        """Start sending all queued records without waiting for their linger, and return."""
        for sender in self._senders:
            sender.flush_soon()

    def checkpoint(self) -> Callable[[], Awaitable[None]]:
        """Mark all records queued so far; return a function that waits until they are stored.

        The function raises the first refusal since the last flush or checkpoint.
        """
        marks = [(sender, sender.accepted) for sender in self._senders]
        self.send_now()

        async def wait() -> None:
            for sender, mark in marks:
                await sender.wait_until_settled(mark)
            self._raise_refusal()

        return wait

    def shut(self) -> None:
        """Accept no more records. Calls of `send` and `send_many` that are waiting may finish."""
        self._is_open, self._is_closed = False, True
        self._partitions.layout = UNKNOWN  # so that `send` calls `open`, which then raises

    def stop(self) -> None:
        """Stop immediately; records that are not stored yet are not sent again."""
        self.shut()
        self._is_stopped = True
        for sender in self._senders:
            sender.stop()
        self._cluster.remove_unfinished(self)

    async def close(self, *, deadline_s: float | None = None) -> None:
        """Accept no more records, flush, then stop. A second call does nothing.

        A concurrent `send` is refused, or its record is flushed as well. If this is cancelled,
        sending continues in the background; closing the producer again, or its client, waits for
        the records.

        Args:
            deadline_s: How long flushing may take; by default the producer's ``close_timeout``.

        Raises:
            NotFlushed: The deadline passed; the message shows how many records of each partition
                are unacknowledged.
            StreamKitError: See `flush`.
        """
        limit_s = self.close_timeout_s
        if deadline_s is not None:
            limit_s = checks.seconds("deadline_s", deadline_s)
        if self._is_stopped:
            return
        self.shut()
        try:
            with anyio.fail_after(limit_s):
                await self._until_calls_are_done()
                await self.flush()
        except TimeoutError:
            problem = self._not_flushed(limit_s)
            self.stop()
            raise problem from None
        except Exception:
            self.stop()
            raise
        self.stop()

    async def close_with(self, error: BaseException | None, *, is_last: bool = False) -> None:
        """Close at the end of a block.

        Args:
            error: The exception that ended the block. A note about records that were not
                delivered is added to it.
            is_last: Whether the producer cannot be closed again later.

        Raises:
            StreamKitError: See `close`; not raised if the block itself ended with an error.
        """
        if error is None or isinstance(error, Exception):
            try:
                await self.close()
            except Exception as problem:
                if error is None:
                    raise
                error.add_note(str(problem))  # the block's own error is more important
            except BaseException:
                if is_last:
                    self._abandon()
                raise
        else:  # cancelled: do not wait
            self._abandon()

    def _abandon(self) -> None:
        """Stop immediately, and log how many records are unacknowledged."""
        if self.unacknowledged and not self._is_stopped:
            logger.warning(
                "%d records for %r were not acknowledged when the producer's block was cancelled",
                self.unacknowledged,
                self.topic,
            )
        self.stop()

    async def _until_calls_are_done(self) -> None:
        while self._active_calls:
            self.send_now()
            await self._calls_done.wait()

    @contextmanager
    def _counted_call(self) -> Iterator[None]:
        """Count an active call, because closing waits for it."""
        self._active_calls += 1
        try:
            yield
        finally:
            self._active_calls -= 1
            if not self._active_calls:
                self._calls_done.notify()

    def _not_flushed(self, limit_s: float | None) -> NotFlushed:
        waiting = {s.partition: s.unacknowledged for s in self._senders if s.unacknowledged}
        where = ", ".join(f"{count} of partition {n}" for n, count in waiting.items())
        return NotFlushed(
            f"{self.unacknowledged} records for {self.topic!r} were not acknowledged within "
            f"{limit_s:g} s: {where}",
            hint="await their handles to see the outcome of each record; raise "
            "close_timeout if brokers may be unavailable for longer",
        )

    def __repr__(self) -> str:
        return f"Producer({self.topic!r}, unacknowledged={self.unacknowledged})"

    @property
    def unacknowledged(self) -> int:
        """The number of records whose outcome is not known yet."""
        return sum(sender.unacknowledged for sender in self._senders)

    async def __aenter__(self) -> Producer:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close_with(error)

    # --- internals ---------------------------------------------------------------

    def _raise_refusal(self) -> None:
        refusals = [error for sender in self._senders if (error := sender.take_refusal())]
        if refusals:
            raise refusals[0]

    def _new_sender(self, number: int) -> PartitionSender:
        return PartitionSender(
            self._cluster, self.topic, number, self._options, self._codec, self.metrics
        )

    async def _send_columns(
        self, columns: Columns, first_row: int, handle: RecordsHandle, chosen: list[int] | None
    ) -> None:
        count = len(columns.values)
        if self._partitions.count == 1 or self._options.partition is not None:
            sender = self._senders[self._options.partition or 0]
            rows: Sequence[int] = range(first_row, first_row + count)
            await self._add_rows(sender, columns, rows, handle)
            return
        by_partition: dict[int, list[int]] = {}
        for row, partition in enumerate(chosen or self._partitions.choose_rows(columns.keys)):
            by_partition.setdefault(partition, []).append(row)
        # Partitions with room first, so that a slow or unavailable one does not delay the others.
        for partition in sorted(by_partition, key=lambda each: self._senders[each].is_full):
            picked = by_partition[partition]
            part = Columns(
                [columns.values[row] for row in picked],
                [columns.keys[row] for row in picked],
                [columns.timestamps_ms[row] for row in picked],
            )
            rows = [first_row + row for row in picked]
            await self._add_rows(self._senders[partition], part, rows, handle)

    async def _add_rows(
        self, sender: PartitionSender, columns: Columns, rows: Sequence[int], handle: RecordsHandle
    ) -> None:
        if sender.is_full:
            await sender.wait_for_room()
        handle.add(sender, rows, sender.add_rows(columns))


def _parts(values: Sequence[bytes], bytes_max: int) -> Iterator[tuple[int, int]]:
    """Divide a column into parts with a limited number of rows and bytes."""
    start, total = 0, len(values)
    while start < total:
        stop = min(start + _ROWS_PER_PART, total)
        if sum(map(len, values[start:stop])) > bytes_max:
            ends = list(accumulate(map(len, values[start:stop])))
            stop = start + max(1, bisect_right(ends, bytes_max))
        yield start, stop
        start = stop
