"""Records on their way from threads to the loop: taken under a lock, handed over in parcels."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from typing import Final

import anyio

from streamkit.client import ManyHandle, ManyMetadata
from streamkit.client.produce.producer import Producer as AsyncProducer
from streamkit.errors import NotFlushed, UsageError
from streamkit.protocol.batch import Columns
from streamkit.sync import handles
from streamkit.sync.forwarding import Handing
from streamkit.sync.loop_thread import LoopThread, write_left
from streamkit.sync.send_batch import Parcel, parcels_of

# What may wait to be handed over. The async producer has a queue of its own behind this one.
OUTBOX_BYTES_MAX: Final = 1 << 20
# After a hand-over records gather so long before the next one, unless somebody waits: a thread
# that sends now and then would else wake the loop for each.
_GATHER_S: Final = 0.001
_LOOK_AGAIN_S: Final = 0.05


class Outbox:
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
        queue_bytes: int = OUTBOX_BYTES_MAX,
        gathers: bool = True,
    ) -> None:
        self._loop = loop
        self._producer = producer
        self._bytes_max = min(queue_bytes, OUTBOX_BYTES_MAX)
        self._gather_s = _GATHER_S if gathers else 0.0
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._open = Parcel(self)
        self._closed: deque[Parcel] = deque()
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
        self._moved = asyncio.Event()
        self._closed_count = 0
        self._handed_count = 0
        self._in_hand: Parcel | None = None
        self._handing = Handing(producer)
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
            parcel = self._open
            row = len(parcel.timestamps_ms)
            if parcel.bytes >= self._entrance_bytes or row != len(parcel.values):
                parcel = self._let_in()
                row = len(parcel)
            # Ctrl-C may come between any two of these; the last one makes it a record.
            parcel.values.append(value)
            parcel.keys.append(key)
            if partition is not None:
                parcel.partitions[row] = partition
            parcel.timestamps_ms.append(timestamp_ms)
            parcel.bytes += size_bytes
            if not self._is_awake:
                self._wake_up()
        return handles.RecordHandle(parcel, row)

    def add_columns(self, columns: Columns) -> list[Parcel]:
        """Take many records; wait while there is no room.

        Raises:
            UsageError: The producer is closed.
            NotFlushed: Its closing did not wait any longer; the text says how many are taken.
        """
        parcels: list[Parcel] = []
        visit = _Visit()
        try:
            with self._lock:
                self._check_entrance()
                self._inside.add(visit)
            self._add_parcels(columns, parcels)
        finally:
            with self._lock:
                self._leave(visit)
        return parcels

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

    def watch(self, parcel: Parcel, row: int, known: threading.Event) -> None:
        """Set an event once the outcome of a record is known; cut its linger short."""
        self._loop.check()
        self._loop.post(self._watch, parcel, row, known)

    def outcome_of(self, parcel: Parcel) -> ManyMetadata:
        """Wait for all records of a parcel."""
        return self._loop.call(self._outcome_of(parcel))

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
        if self._handing.refusal is not None:
            said.append(f"records for {topic!r} were refused: {self._handing.refusal}")
        return "; ".join(said)

    # --- on the loop -------------------------------------------------------------------

    async def flush(self) -> None:
        """Wait until the outcome of everything added so far is known.

        Raises:
            StreamKitError: The first refusal since the last flush.
        """
        await self._all_handed_over()
        await self._producer.checkpoint()()
        refusal = self._handing.take_refusal()
        if refusal is not None:
            raise refusal

    async def hurry(self) -> None:
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
            self._handing.refusal = error

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
        for parcel in lost:
            parcel.lose(self._handing.gone())
        self._producer.stop()
        self._tell_moved()

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

    def _let_in(self) -> Parcel:
        """Wait for room, with the lock held; closing waits for whoever was let in before."""
        self._check_entrance()
        visit = _Visit()
        self._inside.add(visit)
        try:
            return self._parcel_with_room()
        finally:
            self._leave(visit)

    def _leave(self, visit: _Visit) -> None:
        self._inside.discard(visit)
        if self._closers:
            self._loop.post(self._tell_moved)

    async def _until_all_have_left(self) -> None:
        self._urgent.set()
        while True:
            moved = self._moved
            with self._lock:
                if not self._inside:
                    return
            # An interrupted thread leaves without a word.
            with anyio.move_on_after(_LOOK_AGAIN_S):
                await moved.wait()

    def _add_parcels(self, columns: Columns, parcels: list[Parcel]) -> None:
        for parcel in parcels_of(columns, self._bytes_max, self):
            with self._lock:
                try:
                    self._parcel_with_room()
                except UsageError as error:
                    if not parcels:
                        raise
                    raise NotFlushed(
                        f"{error}; of {len(columns.values)} records {sum(map(len, parcels))} were "
                        "taken before that, and some of these may be stored"
                    ) from error
                self._close_open()
                self._close(parcel)
                self._wake_up()
            parcels.append(parcel)

    def _parcel_with_room(self) -> Parcel:
        """Wait for room, with the lock held; return the parcel that has it."""
        while True:
            if self._is_closed:
                raise self._closed_error()
            parcel = self._open
            parcel.cut_even()
            if parcel.bytes < self._room_bytes:
                return parcel
            if self._room_bytes > 0:
                self._close_open()
                continue
            self._loop.post(self._urgent.set)
            self._wake_up()
            self._room.wait()

    def _close_open(self) -> None:
        parcel = self._open
        parcel.cut_even()
        if len(parcel):
            self._close(parcel)
            self._open = Parcel(self)

    def _close(self, parcel: Parcel) -> None:
        self._closed.append(parcel)
        self._closed_count += 1
        self._set_room(self._room_bytes - parcel.bytes)

    def _wake_up(self) -> None:
        # In this order: interrupted between the two, the loop is woken once too often.
        self._loop.post(self._has_work.set)
        self._is_awake = True

    def _take(self) -> Parcel | None:
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
            parcel = self._take()
            if parcel is None:
                self._urgent.clear()
                self._has_work.clear()
                await self._has_work.wait()
                continue
            await self._handing.hand_over(parcel)
            self._handed_count += 1
            with self._lock:
                self._in_hand = None
                self._set_room(self._room_bytes + parcel.bytes)
                self._room.notify_all()
            self._tell_moved()
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
                raise self._handing.gone()
            await self._moved.wait()

    async def _end_alone(self) -> None:
        if self.is_stopped:
            return  # whoever did that was told
        await self.finish()
        if left := self.left():
            write_left(left)
        self.stop()

    def _watch(self, parcel: Parcel, row: int, known: threading.Event) -> None:
        self._urgent.set()
        parcel.watch(row, known)

    async def _outcome_of(self, parcel: Parcel) -> ManyMetadata:
        partitions: list[int] = []
        offsets: list[int] = []
        self._urgent.set()
        while not parcel.is_settled:
            await self._moved.wait()
        for handle in parcel.handles():
            assert isinstance(handle, ManyHandle), "columns have no partition of their own"
            found = await handle
            partitions += found.partitions
            offsets += found.offsets
        return ManyMetadata(partitions, offsets)

    def _tell_moved(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


class _Visit:
    """A call that was let in and has not left."""

    __slots__ = ("__weakref__",)
