"""The producer without an event loop."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import Final

from streamkit.client import checks
from streamkit.client.options import ProducerMetrics
from streamkit.client.produce.producer import Producer as AsyncProducer
from streamkit.env import SystemClock
from streamkit.errors import StreamKitError, UsageError
from streamkit.sync.client_runner import ClientRunner
from streamkit.sync.handles import RecordHandle, RecordsHandle
from streamkit.sync.send_batch import RECORD_BYTES
from streamkit.sync.send_queue import SEND_QUEUE_BYTES_MAX, SendQueue

# After Ctrl-C a block ends within this time, even if records are not acknowledged.
_INTERRUPTED_S_MAX: Final = 2.0
# If a record of this size can be sent, smaller records are not measured one by one.
_SMALL_BYTES: Final = 4_096
_WALL_MS: Final = SystemClock().wall_ms


class Producer:
    """Writes to one topic. Create it with `Client.producer` and use it with ``with``.

    Many threads may share it; the records of each thread keep their order. A producer that was
    not closed is flushed when it is garbage-collected, or when the interpreter ends; undelivered
    records are then reported on standard error.
    """

    def __init__(
        self,
        runner: ClientRunner,
        producer: AsyncProducer,
        *,
        queue_bytes: int = SEND_QUEUE_BYTES_MAX,
        lingers: bool = True,
    ) -> None:
        self.topic = producer.topic
        self.close_timeout_s = producer.close_timeout_s
        self._runner = runner
        self._loop = runner.loop
        self._producer = producer
        self._queue_bytes = queue_bytes
        self._lingers = lingers
        self._small_bytes = _SMALL_BYTES if producer.fits(bytes(_SMALL_BYTES)) else -1
        self._opening = threading.Lock()
        self._state = threading.Lock()
        self._send_queue: SendQueue | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"Producer({self.topic!r})"

    def open(self) -> None:
        """Look up the topic and check the options against it. The first `send` also does this.

        Raises:
            TopicNotFound: The topic does not exist.
            UsageError: The topic requires another compression, or the producer was closed.
        """
        self._open_queue()

    def send(
        self,
        value: bytes | str,
        key: bytes | str | None = None,
        *,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> RecordHandle:
        """Queue a record; wait only if the queue is full.

        Args:
            value: The content; text is sent as UTF-8.
            key: The key; records with the same key go to the same partition. None means no key,
                which differs from an empty key.
            timestamp_ms: The time of the record, in ms since the epoch; by default now.
            partition: The partition to use, regardless of the key.

        Returns:
            A handle whose ``wait()`` returns partition and offset.

        Raises:
            RecordTooLarge: The record is too large even for a batch of its own.
            UsageError: A value is not valid, or the producer is closed.
        """
        if self._loop.problem:
            self._loop.check()
        if type(value) is not bytes:
            value = checks.as_bytes("value", value)
        size_bytes = RECORD_BYTES + len(value)
        if key is not None:
            if type(key) is not bytes:
                key = checks.as_bytes("key", key)
            size_bytes += len(key)
        if size_bytes > self._small_bytes:
            self._producer.check_fits(value, key)
        timestamp_ms = _WALL_MS() if timestamp_ms is None else checks.stamp(timestamp_ms)
        send_queue = self._send_queue or self._open_queue()
        if partition is not None:
            partition = self._checked_partition(partition)
        return send_queue.add(value, key, timestamp_ms, partition, size_bytes)

    def send_many(
        self,
        values: Iterable[bytes],
        keys: Iterable[bytes | None] | None = None,
        *,
        timestamps_ms: Iterable[int] | None = None,
    ) -> RecordsHandle:
        """Queue many records as columns of equal length: much faster than single records.

        The columns may be any iterables; they are copied.

        Args:
            values: The contents.
            keys: The keys; by default no record has a key.
            timestamps_ms: The times of the records; by default now.

        Returns:
            One handle for all records, whose ``wait()`` returns columns of partitions and
            offsets.

        Raises:
            RecordTooLarge: A record is too large even for a batch of its own. None is sent.
            UsageError: The columns differ in length, or a value is not valid. None is sent.
        """
        self._loop.check()
        columns, largest_bytes = checks.columns(values, keys, timestamps_ms, _WALL_MS)
        self._producer.check_sizes(columns, largest_bytes)
        send_queue = self._send_queue or self._open_queue()
        return RecordsHandle(list(send_queue.add_columns(columns)))

    def fits(self, value: bytes | str, key: bytes | str | None = None) -> bool:
        """Whether a record is small enough to be sent, at least in a batch of its own."""
        return self._producer.fits(value, key)

    def check_fits(self, value: bytes | str, key: bytes | str | None = None) -> None:
        """Raise the error that `send` would raise for the size of a record.

        Raises:
            RecordTooLarge: The record is too large even for a batch of its own.
        """
        self._producer.check_fits(value, key)

    def flush(self) -> None:
        """Send all queued records and wait until the outcome of each is known.

        Raises:
            StreamKitError: The first refusal since the last flush. The refused records are not
                stored; the others are.
        """
        self._loop.check()
        if self._send_queue is not None:
            self._loop.call(self._send_queue.flush())

    def send_now(self) -> None:
        """Start sending all queued records without waiting for their linger, and return."""
        if self._send_queue is not None:
            self._loop.call(self._send_queue.flush_soon())

    def stop(self) -> None:
        """Stop immediately; records that are not stored yet are not sent again."""
        self._loop.check_not_forked()
        with self._state:
            self._is_closed = True
            send_queue = self._send_queue
        if send_queue is not None:
            self._loop.ask(send_queue.stop)

    def close(self, *, deadline_s: float | None = None) -> None:
        """Accept no more records, flush, then stop. A second call does nothing.

        A concurrent `send` is refused, or its record is flushed as well. If Ctrl-C interrupts
        this, the producer stays open and can be closed again.

        Args:
            deadline_s: How long flushing may take; by default the producer's ``close_timeout``.

        Raises:
            NotFlushed: The deadline passed; the message shows the number of unacknowledged records.
            StreamKitError: See `flush`.
        """
        checks.optional(checks.seconds, "deadline_s", deadline_s)
        self._loop.check_not_forked()
        with self._state:
            if self._is_closed:
                return
            send_queue = self._send_queue
            self._is_closed = send_queue is None
        if send_queue is not None:
            try:
                send_queue.shut()
                self._loop.call(send_queue.close(deadline_s))
            except BaseException:
                if not send_queue.is_stopped:
                    send_queue.reopen()  # interrupted, or called on the event loop
                raise
            finally:
                self._is_closed = send_queue.is_stopped

    @property
    def metrics(self) -> ProducerMetrics:
        """Counters of the producer since it was created."""
        return self._producer.metrics

    @property
    def unacknowledged(self) -> int:
        """The number of records whose outcome is not known yet; 0 in a forked child process."""
        if self._send_queue is None or self._loop.is_forked:
            return 0
        return self._send_queue.unacknowledged

    def __enter__(self) -> Producer:
        self._open_queue()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close(deadline_s=closing_deadline_s(error))
        except StreamKitError as problem:
            if error is None:
                raise
            error.add_note(str(problem))  # the block's own error is more important

    # --- internals ---------------------------------------------------------------------

    def _open_queue(self) -> SendQueue:
        self._loop.check()
        with self._opening:
            if self._is_closed:
                raise self._closed()
            if self._send_queue is None:
                self._runner.call(self._producer.open())
                send_queue = SendQueue(
                    self._loop,
                    self._producer,
                    queue_bytes=self._queue_bytes,
                    gathers=self._lingers,
                )
                self._use(send_queue)
            assert self._send_queue is not None, "set by `_use`"
            return self._send_queue

    def _use(self, send_queue: SendQueue) -> None:
        """Use a new send queue, unless another thread has closed the producer or the client."""
        try:
            self._runner.add_send_queue(send_queue)
            with self._state:
                if self._is_closed:
                    raise self._closed()
                self._send_queue = send_queue
        except BaseException:
            self._loop.ask(send_queue.stop)
            raise
        weakref.finalize(self, send_queue.abandon).atexit = False

    def _closed(self) -> UsageError:
        return UsageError(f"the producer for {self.topic!r} is closed")

    def _checked_partition(self, given: object) -> int:
        number = checks.whole("partition", given, -checks.I64_MAX, checks.I64_MAX)
        count = self._runner.partition_count(self.topic)
        if count is not None and not 0 <= number < count:
            raise UsageError(
                f"topic {self.topic!r} has no partition {number} (partition count: {count})"
            )
        return number


def closing_deadline_s(error: BaseException | None) -> float | None:
    """Return the limit for closing after a block that ``error`` ended; None means the default."""
    is_interrupted = isinstance(error, KeyboardInterrupt)
    return _INTERRUPTED_S_MAX if is_interrupted else None
