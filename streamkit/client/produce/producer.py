"""The producer: chooses a partition for each record, and waits for what became of it."""

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
from streamkit.client.cluster import Cluster, retrying
from streamkit.client.options import ProducerMetrics, ProducerOptions
from streamkit.client.produce.accumulator import check_alone, check_sizes
from streamkit.client.produce.handles import RecordHandle, RecordsHandle
from streamkit.client.produce.partition_sender import PartitionSender
from streamkit.client.produce.partitions import UNKNOWN, Partitions
from streamkit.client.produce.topic_requirements import codec_for_topic, within_segment
from streamkit.errors import NotFlushed, RecordTooLarge, UsageError
from streamkit.protocol import codec
from streamkit.protocol.batch import Columns
from streamkit.protocol.compression import Codec

logger = logging.getLogger("streamkit.client")

_ROWS_PER_TURN = 8_192


class Producer:
    """Writes to one topic. Made by `Client.producer`; use it with ``async with``.

    One producer may be used from many tasks of one event loop.
    """

    def __init__(self, cluster: Cluster, topic: str, options: ProducerOptions) -> None:
        self.topic = topic
        self._cluster = cluster
        self._options = options
        self._metadata = cluster.metadata
        self._wall_ms = cluster.clock.wall_ms
        self._codec = options.compression or Codec.NONE
        self._places = Partitions(topic, options, cluster.metadata, self._new_sender)
        self._senders = self._places.senders
        self._is_open = False
        self._is_closed = False
        self._is_stopped = False
        # Calls that were let in and are not done: they wait for room, or for a turn of the loop.
        self._inside = 0
        self._left = Broadcast()
        self.metrics = ProducerMetrics()
        self.close_timeout_s = options.close_timeout_s

    async def open(self) -> None:
        """Look the topic up and check the options against it.

        Raises:
            TopicNotFound: There is no such topic.
            UsageError: The topic asks for another compression, or the producer was closed.
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
            raise UsageError(f"the producer for {self.topic!r} was closed while it opened")
        self._codec = codec_for_topic(self.topic, self._metadata, self._options)
        self._options = within_segment(
            self._options, self._codec, self._metadata.segment_bytes(self.topic)
        )
        self._places.grow(count)
        self._is_open = True
        self._cluster.must_close(self)
        self._places.learn()

    async def send(
        self,
        value: bytes | str,
        key: bytes | str | None = None,
        *,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> RecordHandle:
        """Take a record; wait only if the queue of its partition is full.

        Args:
            value: Its content; text goes out as UTF-8.
            key: Its key; records with one key share a partition. None is not the empty key.
            timestamp_ms: When it was made, in ms since the epoch; now, if left out.
            partition: Where to put it whatever its key.

        Returns:
            A handle to await for partition and offset.

        Raises:
            RecordTooLarge: It could not be sent even alone.
        """
        if type(value) is not bytes:
            value = checks.as_bytes("value", value)
        if key is not None and type(key) is not bytes:
            key = checks.as_bytes("key", key)
        timestamp_ms = self._wall_ms() if timestamp_ms is None else checks.stamp(timestamp_ms)
        places = self._places
        if places.layout != self._metadata.layout:
            await self.open()
            places.learn()
        sender = self._senders[places.choose(key) if partition is None else places.named(partition)]
        if sender.is_full:
            with self._let_in():
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
        """Take many records as columns of equal length: the fast way.

        The columns may be any iterables; they are copied before this waits for anything.

        Args:
            values: Their contents.
            keys: Their keys; none has one, if left out.
            timestamps_ms: When they were made; now, if left out.

        Returns:
            One handle for all, to await for columns of partitions and offsets.

        Raises:
            RecordTooLarge: One of them could not be sent even alone. None is sent.
            UsageError: The columns differ in length, hold something else, or the producer is
                closed. None is sent.
            NotFlushed: Closing did not wait any longer; the text says how many are taken. That
                is not known where this is cancelled while it waits for room.
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
                f"{error}; of {len(columns.values)} records {handle.taken} were taken before "
                "that, and some of these may be stored"
            ) from error
        return handle

    async def send_columns(self, columns: Columns, handle: RecordsHandle) -> None:
        """Take records that `checks.columns` has looked at; the handle learns where each goes.

        Raises:
            UsageError: The producer is closed; the handle knows the records taken before.
        """
        await self.open()
        if self._places.layout != self._metadata.layout:
            self._places.learn()
        total = len(columns.values)
        chosen = self._places.chosen(columns.keys)
        with self._let_in():
            for start, stop in _turns(columns.values, self._options.queue_bytes_max):
                part = Columns(
                    columns.values[start:stop],
                    columns.keys[start:stop],
                    columns.timestamps_ms[start:stop],
                )
                await self._send_columns(part, start, handle, chosen and chosen[start:stop])
                if stop < total:
                    # What is on its way goes on only while this gives the loop a turn.
                    await anyio.lowlevel.checkpoint()

    def fits(self, value: bytes | str, key: bytes | str | None = None) -> bool:
        """Tell whether a record could be sent, if only alone in its batch."""
        try:
            self.check_fits(value, key)
        except RecordTooLarge:
            return False
        return True

    def check_fits(self, value: bytes | str, key: bytes | str | None = None) -> None:
        """Refuse what `send` would refuse for its size.

        Raises:
            RecordTooLarge: The record could not be sent even alone.
        """
        sent = checks.as_bytes("value", value)
        sent_key = None if key is None else checks.as_bytes("key", key)
        check_alone(codec.record_bytes(0, 0, sent_key, sent), self._options.max_request_size_bytes)

    def check_sizes(self, columns: Columns, largest_bytes: int) -> None:
        """Refuse columns of which `send` would refuse a record for its size.

        ``largest_bytes`` are those of the largest key and value together.

        Raises:
            RecordTooLarge: The text has the row.
        """
        check_sizes(columns, largest_bytes, self._options.max_request_size_bytes)

    async def flush(self) -> None:
        """Send what is held and wait until every record's outcome is known.

        Raises:
            StreamKitError: The first refusal since the last flush; the records it concerns
                are not stored, the others are.
        """
        await self.checkpoint()()

    def send_now(self) -> None:
        """Let what is held go without waiting for its linger; do not wait for it."""
        for sender in self._senders:
            sender.flush_soon()

    def checkpoint(self) -> Callable[[], Awaitable[None]]:
        """Mark everything taken so far; the function returned waits until it is stored.

        The function raises the first refusal since the last flush or checkpoint.
        """
        marks = [(sender, sender.taken) for sender in self._senders]
        self.send_now()

        async def wait() -> None:
            for sender, mark in marks:
                await sender.wait_until_settled(mark)
            self._raise_refusal()

        return wait

    def shut(self) -> None:
        """Let no more records in. Calls of `send` and `send_many` that wait are let finish."""
        self._is_open, self._is_closed = False, True
        self._places.layout = UNKNOWN  # so that `send` looks again

    def stop(self) -> None:
        """Stop at once; what is not stored yet is not sent again."""
        self.shut()
        self._is_stopped = True
        for sender in self._senders:
            sender.stop()
        self._cluster.is_done(self)

    async def close(self, *, deadline_s: float | None = None) -> None:
        """Let no more records in, flush, then stop. Does nothing once that is done.

        Whoever sends meanwhile is refused, or his record is flushed as well. Where this is
        cancelled, the records are sent on; closing the producer again, or its client, waits for
        them.

        Args:
            deadline_s: How long flushing may take; the producer's ``close_timeout``, if left
                out.

        Raises:
            NotFlushed: The deadline passed; the text says how many records are open, and of
                which partitions.
            StreamKitError: As for `flush`.
        """
        limit_s = self.close_timeout_s
        if deadline_s is not None:
            limit_s = checks.seconds("deadline_s", deadline_s)
        if self._is_stopped:
            return
        self.shut()
        try:
            with anyio.fail_after(limit_s):
                await self._until_all_have_left()
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
        """Close at the end of a block, which ``error`` may have ended.

        Args:
            error: What ended the block; it gets a note of what was not delivered.
            is_last: Whether nobody is left who could close the producer again.

        Raises:
            StreamKitError: As for `close`, unless the block has an error of its own.
        """
        if error is None or isinstance(error, Exception):
            try:
                await self.close()
            except Exception as problem:
                if error is None:
                    raise
                error.add_note(str(problem))  # the block's own error goes first
            except BaseException:
                if is_last:
                    self._abandon()
                raise
        else:  # cancelled, and whoever cancels does not want to wait
            self._abandon()

    def _abandon(self) -> None:
        """Stop at once, and log how many records are open."""
        if self.unacknowledged and not self._is_stopped:
            logger.warning(
                "%d records for %r were not acknowledged when their block was cancelled",
                self.unacknowledged,
                self.topic,
            )
        self.stop()

    async def _until_all_have_left(self) -> None:
        while self._inside:
            self.send_now()
            await self._left.wait()

    @contextmanager
    def _let_in(self) -> Iterator[None]:
        """Count a call that was let in: closing waits for it."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._left.notify()

    def _not_flushed(self, limit_s: float | None) -> NotFlushed:
        waiting = {s.partition: s.unacknowledged for s in self._senders if s.unacknowledged}
        where = ", ".join(f"{count} of partition {n}" for n, count in waiting.items())
        return NotFlushed(
            f"{self.unacknowledged} records for {self.topic!r} were not acknowledged within "
            f"{limit_s:g} s: {where}",
            hint="their handles say which are not stored, and of which that is not known; raise "
            "close_timeout where brokers may be away for longer",
        )

    def __repr__(self) -> str:
        return f"Producer({self.topic!r}, unacknowledged={self.unacknowledged})"

    @property
    def unacknowledged(self) -> int:
        """Records taken whose outcome is not known yet."""
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

    # --- inside ------------------------------------------------------------------

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
        if self._places.count == 1 or self._options.partition is not None:
            sender = self._senders[self._options.partition or 0]
            rows: Sequence[int] = range(first_row, first_row + count)
            await self._add_rows(sender, columns, rows, handle)
            return
        by_partition: dict[int, list[int]] = {}
        for row, partition in enumerate(chosen or self._places.choose_rows(columns.keys)):
            by_partition.setdefault(partition, []).append(row)
        # Those with room first: a partition that is slow or away shall not hold up the others.
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


def _turns(values: Sequence[bytes], bytes_max: int) -> Iterator[tuple[int, int]]:
    """Cut a column where its rows, or their bytes, are too many to be taken at once."""
    start, total = 0, len(values)
    while start < total:
        stop = min(start + _ROWS_PER_TURN, total)
        if sum(map(len, values[start:stop])) > bytes_max:
            ends = list(accumulate(map(len, values[start:stop])))
            stop = start + max(1, bisect_right(ends, bytes_max))
        yield start, stop
        start = stop
