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

# After Ctrl-C a block is left within so many seconds, whatever is still open.
_INTERRUPTED_S_MAX: Final = 2.0
# Records up to this are not measured one by one where one of this size can be sent.
_SMALL_BYTES: Final = 4_096
_WALL_MS: Final = SystemClock().wall_ms


class Producer:
    """Writes to one topic. Made by `Client.producer`; use it with ``with``.

    May be used from many threads: the records of each keep their order. One that is neither
    closed nor left is flushed when it is dropped, or when the interpreter ends; what cannot be
    delivered then is told on standard error.
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
        """Look the topic up and check the options against it; the first `send` does it as well.

        Raises:
            TopicNotFound: There is no such topic.
            UsageError: The topic asks for another compression, or the producer was closed.
        """
        self._open_outbox()

    def send(
        self,
        value: bytes | str,
        key: bytes | str | None = None,
        *,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> RecordHandle:
        """Take a record; wait only if too much waits already.

        Args:
            value: Its content; text goes out as UTF-8.
            key: Its key; records with one key share a partition. None is not the empty key.
            timestamp_ms: When it was made, in ms since the epoch; now, if left out.
            partition: Where to put it whatever its key.

        Returns:
            A handle whose ``wait()`` gives partition and offset.

        Raises:
            RecordTooLarge: It could not be sent even alone.
            UsageError: A value means nothing, or the producer is closed.
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
        send_queue = self._send_queue or self._open_outbox()
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
        """Take many records as columns of equal length: the fast way.

        The columns may be any iterables; they are copied.

        Args:
            values: Their contents.
            keys: Their keys; none has one, if left out.
            timestamps_ms: When they were made; now, if left out.

        Returns:
            One handle for all, whose ``wait()`` gives columns of partitions and offsets.

        Raises:
            RecordTooLarge: One of them could not be sent even alone. None is sent.
            UsageError: The columns differ in length, or hold something else. None is sent.
        """
        self._loop.check()
        columns, largest_bytes = checks.columns(values, keys, timestamps_ms, _WALL_MS)
        self._producer.check_sizes(columns, largest_bytes)
        send_queue = self._send_queue or self._open_outbox()
        return RecordsHandle(list(send_queue.add_columns(columns)))

    def fits(self, value: bytes | str, key: bytes | str | None = None) -> bool:
        """Tell whether a record could be sent, if only alone in its batch."""
        return self._producer.fits(value, key)

    def check_fits(self, value: bytes | str, key: bytes | str | None = None) -> None:
        """Refuse what `send` would refuse for its size.

        Raises:
            RecordTooLarge: The record could not be sent even alone.
        """
        self._producer.check_fits(value, key)

    def flush(self) -> None:
        """Send what is held and wait until every record's outcome is known.

        Raises:
            StreamKitError: The first refusal since the last flush; the records it concerns
                are not stored, the others are.
        """
        self._loop.check()
        if self._send_queue is not None:
            self._loop.call(self._send_queue.flush())

    def send_now(self) -> None:
        """Let what is held go without waiting for its linger; do not wait for it."""
        if self._send_queue is not None:
            self._loop.call(self._send_queue.flush_soon())

    def stop(self) -> None:
        """Stop at once; what is not stored yet is not sent again."""
        self._loop.check_not_forked()
        with self._state:
            self._is_closed = True
            send_queue = self._send_queue
        if send_queue is not None:
            self._loop.ask(send_queue.stop)

    def close(self, *, deadline_s: float | None = None) -> None:
        """Let no more records in, flush, then stop. Does nothing the second time.

        Threads that send meanwhile are refused, or their records are flushed as well.
        Interrupted by Ctrl-C, the producer stays as it is, and can be closed again.

        Args:
            deadline_s: How long flushing may take; the producer's ``close_timeout``, if left
                out.

        Raises:
            NotFlushed: The deadline passed; the text says how many records are open.
            StreamKitError: As for `flush`.
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
                    send_queue.reopen()  # interrupted, or called where it cannot wait
                raise
            finally:
                self._is_closed = send_queue.is_stopped

    @property
    def metrics(self) -> ProducerMetrics:
        """What the producer has done since it was made."""
        return self._producer.metrics

    @property
    def unacknowledged(self) -> int:
        """Records taken whose outcome is not known yet; none in a process that was forked off."""
        if self._send_queue is None or self._loop.is_forked:
            return 0
        return self._send_queue.unacknowledged

    def __enter__(self) -> Producer:
        self._open_outbox()
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
            error.add_note(str(problem))  # the block's own error goes first

    # --- inside ------------------------------------------------------------------------

    def _open_outbox(self) -> SendQueue:
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
                self._give(send_queue)
            assert self._send_queue is not None, "just given"
            return self._send_queue

    def _give(self, send_queue: SendQueue) -> None:
        """Begin to use an outbox, unless another thread has closed something meanwhile."""
        try:
            self._runner.opened(send_queue)
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
            raise UsageError(f"topic {self.topic!r} has no partition {number}, it has {count}")
        return number


def closing_deadline_s(error: BaseException | None) -> float | None:
    """Return how long the end of a block may take that ``error`` has ended."""
    is_interrupted = isinstance(error, KeyboardInterrupt)
    return _INTERRUPTED_S_MAX if is_interrupted else None
