"""Records on their way from threads to the loop: taken under a lock, handed over in parcels."""

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
from streamkit.protocol.batch import Columns
from streamkit.sync import handles
from streamkit.sync.forwarding import Forwarder
from streamkit.sync.loop_thread import LoopThread, write_left
from streamkit.sync.send_batch import SendBatch, send_batches_of

# What may wait to be handed over. The async producer has a queue of its own behind this one.
SEND_QUEUE_BYTES_MAX: Final = 1 << 20
# After a hand-over records gather so long before the next one, unless somebody waits: a thread
# that sends now and then would else wake the loop for each.
_GATHER_S: Final = 0.001
_LOOK_AGAIN_S: Final = 0.05


class SendQueue:
    """The records that threads have sent and the loop has not taken.

    Args:
        loop: Where the async producer lives.
        producer: It is open.
        queue_bytes: What may wait here before senders do.
        gathers: Whether a record may wait a moment for others when nobody waits for it.
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
        # What the open parcel may hold; the second is what `add` looks at, and lets nobody in
        # while the outbox is being closed.
        self._room_bytes = self._entrance_bytes = self._bytes_max
        self._closers = 0
        # Threads that were let in and wait for room. Weak: an interrupt may come anywhere.
        self._inside: weakref.WeakSet[_Visit] = weakref.WeakSet()
        self._is_closed = self._has_stopped = False
        self._is_awake = False
        self._has_work = asyncio.Event()
        self._urgent = asyncio.Event()
        self._moved = Broadcast()
        self._closed_count = 0
        self._handed_count = 0
        self._in_hand: SendBatch | None = None
        self._forwarder = Forwarder(producer)
        loop.must_finish(self)
        self._pumping = loop.start(self._pump())

    # --- from any thread ---------------------------------------------------------------

    def add(
        self,
        value: bytes,
        key: bytes | None,
        timestamp_ms: int,
        partition: int | None,
        size_bytes: int,
    ) -> handles.RecordHandle:
        """Take a record; wait while there is no room.

        Raises:
            UsageError: The producer is closed.
        """
        with self._lock:
            batch = self._open
            row = len(batch.timestamps_ms)
            if batch.bytes >= self._entrance_bytes or row != len(batch.values):
                batch = self._let_in()
                row = len(batch)
            # Ctrl-C may come between any two of these; the last one makes it a record.
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
        """Take many records; wait while there is no room.

        Raises:
            UsageError: The producer is closed.
            NotFlushed: Its closing did not wait any longer; the text says how many are taken.
        """
        batches: list[SendBatch] = []
        visit = _Visit()
        try:
            with self._lock:
                self._check_entrance()
                self._inside.add(visit)
            self._add_batches(columns, batches)
        finally:
            with self._lock:
                self._leave(visit)
        return batches

    def shut(self) -> None:
        """Let no more records in; threads that wait for room are let finish."""
        with self._lock:
            self._closers += 1
            self._entrance_bytes = -1

    def reopen(self) -> None:
        """Take a `shut` back."""
        with self._lock:
            self._closers -= 1
            self._set_room(self._room_bytes)

    def watch(self, batch: SendBatch, row: int, known: threading.Event) -> None:
        """Set an event once the outcome of a record is known; cut its linger short."""
        self._loop.check()
        self._loop.post(self._watch, batch, row, known)

    def outcome_of(self, batch: SendBatch) -> RecordsMetadata:
        """Wait for all records of a parcel."""
        return self._loop.call(self._outcome_of(batch))

    def abandon(self) -> None:
        """Flush and close in the background: nobody has the producer any more."""
        self._loop.spawn(self._end_alone)

    @property
    def is_stopped(self) -> bool:
        return self._is_closed

    @property
    def unhanded(self) -> int:
        """Records that the async producer has not taken yet."""
        with self._lock:
            in_hand = 0 if self._in_hand is None else len(self._in_hand)
            return in_hand + sum(map(len, self._closed)) + len(self._open)

    @property
    def unacknowledged(self) -> int:
        """Records whose outcome is not known yet."""
        return self.unhanded + self._producer.unacknowledged

    def left(self) -> str:
        """Say what is not delivered; nothing, if nothing is left."""
        topic = self._producer.topic
        said = []
        if count := self.unacknowledged:
            said.append(f"{count} records for {topic!r} were not delivered before the end")
        if self._forwarder.refusal is not None:
            said.append(f"records for {topic!r} were refused: {self._forwarder.refusal}")
        return "; ".join(said)

    # --- on the loop -------------------------------------------------------------------

    async def flush(self) -> None:
        """Wait until the outcome of everything added so far is known.

        Raises:
            StreamKitError: The first refusal since the last flush.
        """
        await self._all_handed_over()
        await self._producer.checkpoint()()
        refusal = self._forwarder.take_refusal()
        if refusal is not None:
            raise refusal

    async def flush_soon(self) -> None:
        """Let what is held go without waiting for its linger."""
        await self._all_handed_over()
        self._producer.send_now()

    async def close(self, deadline_s: float | None = None) -> None:
        """Flush, then stop; to be called after `shut`. Does nothing once that is done.

        Threads that wait for room are let finish, and their records flushed as well. Where this
        is interrupted, whoever called `shut` calls `reopen`.

        Raises:
            NotFlushed: The deadline passed.
            StreamKitError: As for `flush`.
        """
        if self.is_stopped:
            return
        error: Exception | None = None
        limit_s = self._producer.close_timeout_s if deadline_s is None else deadline_s
        try:
            with anyio.fail_after(limit_s):
                await self._until_all_have_left()
                await self.flush()
        except TimeoutError:
            error = NotFlushed(
                f"{self.unacknowledged} records for {self._producer.topic!r} "
                f"were not acknowledged within {limit_s:g} s",
                hint="their handles say which are not stored, and of which that is not known; "
                "raise close_timeout where brokers may be away for longer",
            )
        except Exception as refusal:
            error = refusal
        with self._lock:
            if not self._closers:
                return  # interrupted just now: the records are still wanted
            self._entrance_bytes, self._is_closed = -1, True
        self.stop()
        if error is not None:
            raise error

    async def finish(self) -> None:
        """Flush at the end of the interpreter; `left` says what is not delivered then."""
        self.shut()
        try:
            await self._until_all_have_left()
            await self.flush()
        except Exception as error:  # told by `left`
            self._forwarder.refusal = error

    def stop(self) -> None:
        """Stop at once; what is not stored yet is not sent again."""
        if self._has_stopped:
            return
        self._has_stopped = True
        self._pumping.cancel()
        self._loop.is_finished(self)
        with self._lock:
            self._is_closed = True
            self._entrance_bytes = -1
            self._close_open()
            lost = list(self._closed)
            self._closed.clear()
            self._room.notify_all()
        for batch in lost:
            batch.lose(self._forwarder.gone())
        self._producer.stop()
        self._moved.notify()

    # --- inside ------------------------------------------------------------------------

    def _closed_error(self) -> UsageError:
        return UsageError(f"the producer for {self._producer.topic!r} is closed")

    def _set_room(self, room_bytes: int) -> None:
        self._room_bytes = room_bytes
        is_open = not self._closers and not self._is_closed
        self._entrance_bytes = room_bytes if is_open else -1

    def _check_entrance(self) -> None:
        if self._closers or self._is_closed:
            raise self._closed_error()

    def _let_in(self) -> SendBatch:
        """Wait for room, with the lock held; closing waits for whoever was let in before."""
        self._check_entrance()
        visit = _Visit()
        self._inside.add(visit)
        try:
            return self._batch_with_room()
        finally:
            self._leave(visit)

    def _leave(self, visit: _Visit) -> None:
        self._inside.discard(visit)
        if self._closers:
            self._loop.post(self._moved.notify)

    async def _until_all_have_left(self) -> None:
        self._urgent.set()
        while True:
            with self._lock:
                if not self._inside:
                    return
            # An interrupted thread leaves without a word.
            with anyio.move_on_after(_LOOK_AGAIN_S):
                await self._moved.wait()

    def _add_batches(self, columns: Columns, batches: list[SendBatch]) -> None:
        for batch in send_batches_of(columns, self._bytes_max, self):
            with self._lock:
                try:
                    self._batch_with_room()
                except UsageError as error:
                    if not batches:
                        raise
                    raise NotFlushed(
                        f"{error}; of {len(columns.values)} records {sum(map(len, batches))} were "
                        "taken before that, and some of these may be stored"
                    ) from error
                self._close_open()
                self._close(batch)
                self._wake_up()
            batches.append(batch)

    def _batch_with_room(self) -> SendBatch:
        """Wait for room, with the lock held; return the parcel that has it."""
        while True:
            if self._is_closed:
                raise self._closed_error()
            batch = self._open
            batch.cut_even()
            if batch.bytes < self._room_bytes:
                return batch
            if self._room_bytes > 0:
                self._close_open()
                continue
            self._loop.post(self._urgent.set)
            self._wake_up()
            self._room.wait()

    def _close_open(self) -> None:
        batch = self._open
        batch.cut_even()
        if len(batch):
            self._close(batch)
            self._open = SendBatch(self)

    def _close(self, batch: SendBatch) -> None:
        self._closed.append(batch)
        self._closed_count += 1
        self._set_room(self._room_bytes - batch.bytes)

    def _wake_up(self) -> None:
        # In this order: interrupted between the two, the loop is woken once too often.
        self._loop.post(self._has_work.set)
        self._is_awake = True

    def _take(self) -> SendBatch | None:
        with self._lock:
            if not self._closed:
                self._close_open()
            if not self._closed:
                self._is_awake = False
                return None
            self._in_hand = self._closed.popleft()
            return self._in_hand

    async def _pump(self) -> None:
        """Hand over what is added, for as long as the producer is open."""
        while True:
            batch = self._take()
            if batch is None:
                self._urgent.clear()
                self._has_work.clear()
                await self._has_work.wait()
                continue
            await self._forwarder.forward(batch)
            self._handed_count += 1
            with self._lock:
                self._in_hand = None
                self._set_room(self._room_bytes + batch.bytes)
                self._room.notify_all()
            self._moved.notify()
            await asyncio.sleep(0)  # answers come in by the same loop
            if not self._closed:
                with anyio.move_on_after(self._gather_s):
                    await self._urgent.wait()

    async def _all_handed_over(self) -> None:
        with self._lock:
            self._close_open()
            mark = self._closed_count
        self._urgent.set()
        self._has_work.set()
        while self._handed_count < mark:
            if self._is_closed:
                raise self._forwarder.gone()
            await self._moved.wait()

    async def _end_alone(self) -> None:
        if self.is_stopped:
            return  # whoever did that was told
        await self.finish()
        if left := self.left():
            write_left(left)
        self.stop()

    def _watch(self, batch: SendBatch, row: int, known: threading.Event) -> None:
        self._urgent.set()
        batch.watch(row, known)

    async def _outcome_of(self, batch: SendBatch) -> RecordsMetadata:
        partitions: list[int] = []
        offsets: list[int] = []
        self._urgent.set()
        while not batch.is_settled:
            await self._moved.wait()
        for handle in batch.handles():
            assert isinstance(handle, RecordsHandle), "columns have no partition of their own"
            found = await handle
            partitions += found.partitions
            offsets += found.offsets
        return RecordsMetadata(partitions, offsets)


class _Visit:
    """A call that was let in and has not left."""

    __slots__ = ("__weakref__",)
