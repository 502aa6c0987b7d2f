"""The queue of records between threads and the event loop, forwarded in batches."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from typing import Final

import anyio

from streamkit.broadcast import Broadcast
from streamkit.client import RecordsHandle, RecordsMetadata
from streamkit.client.produce.producer import Producer as AsyncProducer
from streamkit.errors import NotFlushed, UsageError
from streamkit.limits import SIGNAL_WAIT_S_MAX
from streamkit.protocol.batch import Columns
from streamkit.sync import handles
from streamkit.sync.forwarding import Forwarder
from streamkit.sync.loop_thread import LoopThread, report_undelivered
from streamkit.sync.send_batch import SendBatch, send_batches_of

# The limit of this queue. The async producer has its own queue after it.
SEND_QUEUE_BYTES_MAX: Final = 1 << 20
# The pause between two batches, unless a caller waits. Without it, a thread that sends single
# records would wake the loop for each of them.
_GATHER_S: Final = 0.001
_LOOK_AGAIN_S: Final = 0.05


class SendQueue:
    """The records that threads have sent and the event loop has not taken yet.

    Args:
        loop: The event loop thread of the async producer.
        producer: The async producer, which is open.
        queue_bytes: How many bytes may be queued before senders must wait.
        gathers: Whether a record may wait briefly for others when no caller waits for it.
    """

    def __init__(
        self,
        loop: LoopThread,
        producer: AsyncProducer,
        *,
        queue_bytes: int = SEND_QUEUE_BYTES_MAX,
        gathers: bool = True,
    ) -> None:
        self._loop = loop
        self._producer = producer
        self._bytes_max = min(queue_bytes, SEND_QUEUE_BYTES_MAX)
        self._gather_s = _GATHER_S if gathers else 0.0
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._open = SendBatch(self)
        self._closed: deque[SendBatch] = deque()
        # How many bytes the open batch may have. `add` compares with the second value, which
        # refuses all records while the queue is being closed.
        self._room_bytes = self._add_limit_bytes = self._bytes_max
        self._closers = 0
        # Accepted calls that wait for room. Weak references, because an interrupt may end a call
        # at any point.
        self._active_calls: weakref.WeakSet[_Call] = weakref.WeakSet()
        self._is_closed = self._has_stopped = False
        self._is_awake = False
        self._has_work = asyncio.Event()
        self._urgent = asyncio.Event()
        self._progress = Broadcast()
        self._closed_count = 0
        self._forwarded_count = 0
        self._in_progress: SendBatch | None = None
        self._forwarder = Forwarder(producer)
        loop.add_unfinished(self)
        self._forwarding = loop.start(self._forward_all())

    # --- from any thread ---------------------------------------------------------------

    def add(
        self,
        value: bytes,
        key: bytes | None,
        timestamp_ms: int,
        partition: int | None,
        size_bytes: int,
    ) -> handles.RecordHandle:
        """Queue a record; wait until there is room.

        Raises:
            UsageError: The producer is closed.
        """
        with self._lock:
            batch = self._open
            row = len(batch.timestamps_ms)
            if batch.bytes >= self._add_limit_bytes or row != len(batch.values):
                batch = self._waited_for_room()
                row = len(batch)
            # Ctrl-C may interrupt between these lines; the timestamp completes the record.
            batch.values.append(value)
            batch.keys.append(key)
            if partition is not None:
                batch.partitions[row] = partition
            batch.timestamps_ms.append(timestamp_ms)
            batch.bytes += size_bytes
            if not self._is_awake:
                self._wake_up()
        return handles.RecordHandle(batch, row)

    def add_columns(self, columns: Columns) -> list[SendBatch]:
        """Queue many records; wait until there is room.

        Raises:
            UsageError: The producer is closed.
            NotFlushed: The producer was closed after some of the records were queued; the
                message says how many.
        """
        batches: list[SendBatch] = []
        call = _Call()
        try:
            with self._lock:
                self._check_not_closed()
                self._active_calls.add(call)
            self._add_batches(columns, batches)
        finally:
            with self._lock:
                self._end_call(call)
        return batches

    def shut(self) -> None:
        """Accept no more records. Threads that are waiting for room may finish."""
        with self._lock:
            self._closers += 1
            self._add_limit_bytes = -1

    def reopen(self) -> None:
        """Undo one call of `shut`."""
        with self._lock:
            self._closers -= 1
            self._set_room(self._room_bytes)

    def watch(self, batch: SendBatch, row: int, known: threading.Event) -> None:
        """Set an event when the outcome of a record is known, without waiting for the linger."""
        self._loop.check()
        self._loop.post(self._watch, batch, row, known)

    def outcome_of(self, batch: SendBatch) -> RecordsMetadata:
        """Wait for all records of a batch."""
        return self._loop.call(self._outcome_of(batch))

    def abandon(self) -> None:
        """Flush and close in the background, because the producer is no longer referenced."""
        self._loop.spawn(self._end_alone)

    @property
    def is_stopped(self) -> bool:
        return self._is_closed

    @property
    def unforwarded(self) -> int:
        """The number of records that the async producer has not accepted yet."""
        with self._lock:
            in_progress = 0 if self._in_progress is None else len(self._in_progress)
            return in_progress + sum(map(len, self._closed)) + len(self._open)

    @property
    def unacknowledged(self) -> int:
        """The number of records whose outcome is not known yet."""
        return self.unforwarded + self._producer.unacknowledged

    def unfinished_text(self) -> str:
        """Return a text about undelivered records; empty if all are delivered."""
        topic = self._producer.topic
        parts = []
        if count := self.unacknowledged:
            parts.append(f"{count} records for {topic!r} were not delivered before the end")
        if self._forwarder.refusal is not None:
            parts.append(f"records for {topic!r} were refused: {self._forwarder.refusal}")
        return "; ".join(parts)

    # --- on the loop -------------------------------------------------------------------

    async def flush(self) -> None:
        """Wait until the outcomes of all records queued so far are known.

        Raises:
            StreamKitError: The first refusal since the last flush.
        """
        await self._until_forwarded()
        await self._producer.checkpoint()()
        refusal = self._forwarder.take_refusal()
        if refusal is not None:
            raise refusal

    async def flush_soon(self) -> None:
        """Start sending all queued records without waiting for their linger."""
        await self._until_forwarded()
        self._producer.send_now()

    async def close(self, deadline_s: float | None = None) -> None:
        """Flush, then stop. Call `shut` before it. A second call does nothing.

        Threads that are waiting for room may finish, and their records are flushed as well. If
        this is interrupted, the caller must call `reopen`.

        Raises:
            NotFlushed: The deadline passed.
            StreamKitError: See `flush`.
        """
        if self.is_stopped:
            return
        error: Exception | None = None
        limit_s = self._producer.close_timeout_s if deadline_s is None else deadline_s
        try:
            with anyio.fail_after(limit_s):
                await self._until_calls_are_done()
                await self.flush()
        except TimeoutError:
            error = NotFlushed(
                f"{self.unacknowledged} records for {self._producer.topic!r} "
                f"were not acknowledged within {limit_s:g} s",
                hint="wait for their handles to see the outcome of each record; raise "
                "close_timeout if brokers may be unavailable for longer",
            )
        except Exception as refusal:
            error = refusal
        with self._lock:
            if not self._closers:
                return  # the caller was interrupted and called `reopen`: keep the records
            self._add_limit_bytes, self._is_closed = -1, True
        self.stop()
        if error is not None:
            raise error

    async def finish(self) -> None:
        """Flush at the end of the interpreter; `unfinished_text` reports undelivered records."""
        self.shut()
        try:
            await self._until_calls_are_done()
            await self.flush()
        except Exception as error:  # reported by `unfinished_text`
            self._forwarder.refusal = error

    def stop(self) -> None:
        """Stop immediately; records that are not stored yet are not sent again."""
        if self._has_stopped:
            return
        self._has_stopped = True
        self._forwarding.cancel()
        self._loop.remove_unfinished(self)
        with self._lock:
            self._is_closed = True
            self._add_limit_bytes = -1
            self._close_open()
            lost = list(self._closed)
            self._closed.clear()
            self._room.notify_all()
        for batch in lost:
            batch.lose(self._forwarder.not_forwarded())
        self._producer.stop()
        self._progress.notify()

    # --- internals ---------------------------------------------------------------------

    def _closed_error(self) -> UsageError:
        return UsageError(f"the producer for {self._producer.topic!r} is closed")

    def _set_room(self, room_bytes: int) -> None:
        assert room_bytes <= self._bytes_max, "the room of a batch is freed once"
        self._room_bytes = room_bytes
        is_open = not self._closers and not self._is_closed
        self._add_limit_bytes = room_bytes if is_open else -1

    def _check_not_closed(self) -> None:
        if self._closers or self._is_closed:
            raise self._closed_error()

    def _waited_for_room(self) -> SendBatch:
        """Wait for room, with the lock held; closing waits for calls that have already started."""
        self._check_not_closed()
        call = _Call()
        self._active_calls.add(call)
        try:
            return self._batch_with_room()
        finally:
            self._end_call(call)

    def _end_call(self, call: _Call) -> None:
        self._active_calls.discard(call)
        if self._closers:
            self._loop.post(self._progress.notify)

    async def _until_calls_are_done(self) -> None:
        self._urgent.set()
        while True:
            with self._lock:
                if not self._active_calls:
                    return
            # An interrupted thread ends its call without a notification, so check regularly.
            with anyio.move_on_after(_LOOK_AGAIN_S):
                await self._progress.wait()

    def _add_batches(self, columns: Columns, batches: list[SendBatch]) -> None:
        for batch in send_batches_of(columns, self._bytes_max, self):
            with self._lock:
                try:
                    self._batch_with_room()
                except UsageError as error:
                    if not batches:
                        raise
                    raise NotFlushed(
                        f"{error}; {sum(map(len, batches))} of {len(columns.values)} records were "
                        "queued before that, and some of these may be stored"
                    ) from error
                self._close_open()
                self._close(batch)
                self._wake_up()
            batches.append(batch)

    def _batch_with_room(self) -> SendBatch:
        """Wait for room, with the lock held; return the open batch."""
        while True:
            if self._is_closed:
                raise self._closed_error()
            batch = self._open
            batch.drop_incomplete_row()
            if batch.bytes < self._room_bytes:
                return batch
            if self._room_bytes > 0:
                self._close_open()
                continue
            self._loop.post(self._urgent.set)
            self._wake_up()
            self._room.wait(SIGNAL_WAIT_S_MAX)

    def _close_open(self) -> None:
        batch = self._open
        batch.drop_incomplete_row()
        if len(batch):
            self._close(batch)
            self._open = SendBatch(self)

    def _close(self, batch: SendBatch) -> None:
        self._closed.append(batch)
        self._closed_count += 1
        self._set_room(self._room_bytes - batch.bytes)

    def _wake_up(self) -> None:
        # In this order, an interrupt between the two calls only wakes the loop without need.
        self._loop.post(self._has_work.set)
        self._is_awake = True

    def _next_batch(self) -> SendBatch | None:
        with self._lock:
            if not self._closed:
                self._close_open()
            if not self._closed:
                self._is_awake = False
                return None
            self._in_progress = self._closed.popleft()
            return self._in_progress

    async def _forward_all(self) -> None:
        """Forward batches to the async producer until it is closed."""
        while True:
            batch = self._next_batch()
            if batch is None:
                self._urgent.clear()
                self._has_work.clear()
                await self._has_work.wait()
                continue
            await self._forwarder.forward(batch)
            self._forwarded_count += 1
            with self._lock:
                self._in_progress = None
                self._set_room(self._room_bytes + batch.bytes)
                self._room.notify_all()
            self._progress.notify()
            await asyncio.sleep(0)  # let the loop receive responses first
            if not self._closed:
                with anyio.move_on_after(self._gather_s):
                    await self._urgent.wait()

    async def _until_forwarded(self) -> None:
        with self._lock:
            self._close_open()
            mark = self._closed_count
        self._urgent.set()
        self._has_work.set()
        while self._forwarded_count < mark:
            if self._is_closed:
                raise self._forwarder.not_forwarded()
            await self._progress.wait()

    async def _end_alone(self) -> None:
        if self.is_stopped:
            return  # closed explicitly, so errors were already reported
        await self.finish()
        if text := self.unfinished_text():
            report_undelivered(text)
        self.stop()

    def _watch(self, batch: SendBatch, row: int, known: threading.Event) -> None:
        self._urgent.set()
        batch.watch(row, known)

    async def _outcome_of(self, batch: SendBatch) -> RecordsMetadata:
        partitions, offsets = list[int](), list[int]()
        self._urgent.set()
        while not batch.is_settled:
            await self._progress.wait()
        for handle in batch.handles():
            assert isinstance(handle, RecordsHandle), "columns have no partition of their own"
            found = await handle
            partitions += found.partitions
            offsets += found.offsets
        return RecordsMetadata(partitions, offsets)


class _Call:
    """An accepted call of `add` or `add_columns` that has not returned yet."""

    __slots__ = ("__weakref__",)
