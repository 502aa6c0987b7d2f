"""The producer: records go into batches, batches go out in order, outcomes come back.

| a batch is | until |
|---|---|
| open | it is full, its linger is over, or somebody waits for it |
| ready | the sender of its partition takes it |
| out | the answer comes; a lost connection or a retryable code sends it again, in order |
| stored, or refused | its handles and `flush` tell |
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import TracebackType
from typing import Any

import anyio

from streamkit.client.accumulator import Accumulator, Outcome, Place, ReadyBatch
from streamkit.client.backoff import Backoff
from streamkit.client.cluster import Cluster, retrying
from streamkit.errors import (
    NotFlushed,
    ProtocolError,
    RequestTimedOut,
    StreamKitError,
    TransportError,
    UsageError,
)
from streamkit.limits import BATCH_BYTES_DEFAULT, REQUEST_BYTES_DEFAULT
from streamkit.protocol import codec
from streamkit.protocol.apis import PRODUCE
from streamkit.protocol.batch import OVERHEAD_BYTES, Columns
from streamkit.protocol.compression import Codec
from streamkit.protocol.data_plane import (
    ACKS_LEADER,
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from streamkit.protocol.error_codes import ErrorCode, as_exception

# Nobody can tell whether these were carried out.
_UNKNOWN_CODES = frozenset({7, 56, 72, 73})
# Those, or they pass: at least once means again.
_SEND_AGAIN_CODES = _UNKNOWN_CODES | {6, 3000, 3001}
_ROWS_PER_TURN = 8_192
Partitioner = Callable[[Sequence[bytes | None], int], Sequence[int]]


@dataclass(frozen=True, slots=True)
class RecordMetadata:
    """Where a record is stored."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class ManyMetadata:
    """Where the records of one `send_many` are stored, row by row."""

    partitions: Sequence[int]
    offsets: Sequence[int]


@dataclass(frozen=True, slots=True)
class ProducerOptions:
    """How a producer batches and sends; durations in seconds."""

    batch_size_bytes: int = BATCH_BYTES_DEFAULT
    max_request_size_bytes: int = REQUEST_BYTES_DEFAULT
    linger_s: float = 0.1
    compression: Codec | None = None
    acks: int = ACKS_LEADER
    timeout_ms: int = 1_500
    queue_bytes_max: int = 8 << 20
    delivery_timeout_s: float | None = 300.0
    partitioner: Partitioner | None = None
    partition: int | None = None
    on_retry: Callable[[Exception, int], None] | None = None


class RecordHandle:
    """A record on its way. Await it for its `RecordMetadata`, any number of times."""

    __slots__ = ("_lane", "_outcome", "_row")

    def __init__(self, lane: _Lane, outcome: Outcome, row: int) -> None:
        self._lane = lane
        self._outcome = outcome
        self._row = row

    def __await__(self) -> Generator[Any, Any, RecordMetadata]:
        return self._wait().__await__()

    async def _wait(self) -> RecordMetadata:
        await self._lane.wait_for(self._outcome)
        if self._outcome.error is not None:
            raise self._outcome.error
        return RecordMetadata(self._lane.partition, self._outcome.base_offset + self._row)


class ManyHandle:
    """The records of one `send_many`. Await it for their `ManyMetadata`."""

    __slots__ = ("_count", "_parts")

    def __init__(self, count: int) -> None:
        self._count = count
        self._parts: list[tuple[_Lane, Sequence[int], list[Place]]] = []

    def add(self, lane: _Lane, rows: Sequence[int], places: list[Place]) -> None:
        self._parts.append((lane, rows, places))

    @property
    def is_known(self) -> bool:
        """Whether the outcome of every record is known, so that nothing has to be waited for."""
        return all(place.outcome.is_known for _, _, places in self._parts for place in places)

    async def refusals(self) -> list[tuple[Sequence[int], Exception]]:
        """Wait for all outcomes; return the rows that are not stored, and why."""
        refused = []
        for lane, rows, places in self._parts:
            at = 0
            for place in places:
                await lane.wait_for(place.outcome)
                if place.outcome.error is not None:
                    refused.append((rows[at : at + place.count], place.outcome.error))
                at += place.count
        return refused

    def __await__(self) -> Generator[Any, Any, ManyMetadata]:
        return self._wait().__await__()

    async def _wait(self) -> ManyMetadata:
        partitions = [-1] * self._count
        offsets = [-1] * self._count
        for lane, rows, places in self._parts:
            at = 0
            for place in places:
                await lane.wait_for(place.outcome)
                if place.outcome.error is not None:
                    raise place.outcome.error
                first = place.outcome.base_offset + place.first_row
                for row, offset in zip(
                    rows[at : at + place.count],
                    range(first, first + place.count),
                    strict=True,
                ):
                    partitions[row] = lane.partition
                    offsets[row] = offset
                at += place.count
        return ManyMetadata(partitions, offsets)


class Producer:
    """Writes to one topic. Made by `Client.producer`; use it with ``async with``.

    One producer may be used from many tasks of one event loop.
    """

    def __init__(self, cluster: Cluster, topic: str, options: ProducerOptions) -> None:
        self.topic = topic
        self._cluster = cluster
        self._options = options
        self._codec = options.compression or Codec.NONE
        self._lanes: list[_Lane] = []
        self._partitions = 0
        self._turn = 0
        self._is_open = False
        self._is_closed = False

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
            give_up_s=self._options.delivery_timeout_s,
            on_retry=self._options.on_retry,
        )
        self._grow(count)
        self._codec = self._agreed_codec()
        self._is_open = True

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
        if type(value) is str:
            value = value.encode()
        if type(key) is str:
            key = key.encode()
        if not self._is_open:
            await self.open()
        self._notice_growth()
        if partition is None:
            partition = self._choose(key)  # type: ignore[arg-type]
        if not 0 <= partition < len(self._lanes):
            raise self._no_partition(partition)
        lane = self._lanes[partition]
        if lane.is_full:
            await lane.wait_for_room()
        clock = self._cluster.clock
        outcome, row = lane.add(
            value,  # type: ignore[arg-type]
            key,  # type: ignore[arg-type]
            clock.wall_ms() if timestamp_ms is None else timestamp_ms,
        )
        return RecordHandle(lane, outcome, row)

    async def send_many(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None = None,
        *,
        timestamps_ms: Sequence[int] | None = None,
    ) -> ManyHandle:
        """Take many records as columns of equal length: the fast way.

        Args:
            values: Their contents.
            keys: Their keys; none has one, if left out.
            timestamps_ms: When they were made; now, if left out.

        Returns:
            One handle for all, to await for columns of partitions and offsets.

        Raises:
            RecordTooLarge: One of them could not be sent even alone; those before it may be
                on their way.
            UsageError: The columns differ in length.
        """
        await self.open()
        self._notice_growth()
        total = len(values)
        for name, column in (("keys", keys), ("timestamps_ms", timestamps_ms)):
            if column is not None and len(column) != total:
                raise UsageError(f"{total} values, but {len(column)} {name}")
        handle = ManyHandle(total)
        for start, stop in _turns(values, self._options.queue_bytes_max):
            now_ms = self._cluster.clock.wall_ms()
            columns = Columns(
                list(values[start:stop]),
                [None] * (stop - start) if keys is None else list(keys[start:stop]),
                [now_ms] * (stop - start)
                if timestamps_ms is None
                else list(timestamps_ms[start:stop]),
            )
            await self._send_columns(columns, start, handle)
        return handle

    def fits(self, value: bytes, key: bytes | None = None) -> bool:
        """Tell whether a record could be sent, if only alone in its batch."""
        alone_bytes = OVERHEAD_BYTES + codec.record_bytes(0, 0, key, value)
        return alone_bytes <= self._options.max_request_size_bytes

    async def flush(self) -> None:
        """Send what is held and wait until every record's outcome is known.

        Raises:
            StreamKitError: The first refusal since the last flush; the records it concerns
                are not stored, the others are.
        """
        await self.checkpoint()()

    def send_now(self) -> None:
        """Let what is held go without waiting for its linger; do not wait for it."""
        for lane in self._lanes:
            lane.hurry()

    def checkpoint(self) -> Callable[[], Awaitable[None]]:
        """Mark everything taken so far; the function returned waits until it is stored.

        The function raises the first refusal since the last flush or checkpoint.
        """
        marks = [(lane, lane.taken) for lane in self._lanes]
        self.send_now()

        async def wait() -> None:
            for lane, mark in marks:
                await lane.wait_until_settled(mark)
            self._raise_refusal()

        return wait

    def stop(self) -> None:
        """Stop at once; what is not stored yet is not sent again."""
        for lane in self._lanes:
            lane.stop()
        self._is_open, self._is_closed = False, True

    async def close(self, *, deadline_s: float | None = None) -> None:
        """Flush, then stop. Nothing can be sent afterwards.

        Raises:
            NotFlushed: The deadline passed; the text says how many records are open.
            StreamKitError: As for `flush`.
        """
        try:
            with anyio.fail_after(deadline_s):
                await self.flush()
        except TimeoutError:
            open_records = sum(lane.unacknowledged for lane in self._lanes)
            raise NotFlushed(
                f"{open_records} records for {self.topic!r} were not acknowledged in time"
            ) from None
        finally:
            self.stop()

    @property
    def unacknowledged(self) -> int:
        """Records taken whose outcome is not known yet."""
        return sum(lane.unacknowledged for lane in self._lanes)

    async def __aenter__(self) -> Producer:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            try:
                await self.close()
            except StreamKitError:
                if kind is None:
                    raise  # else the block's own error goes first
        else:
            self.stop()

    # --- inside ------------------------------------------------------------------

    def _raise_refusal(self) -> None:
        refusals = [error for lane in self._lanes if (error := lane.take_refusal())]
        if refusals:
            raise refusals[0]

    def _agreed_codec(self) -> Codec:
        found = self._cluster.metadata.topic(self.topic)
        asked = None if found is None else found.spec.compression.codec
        chosen = self._options.compression
        if asked is None:
            return chosen or Codec.NONE
        if chosen is not None and chosen is not asked:
            raise UsageError(
                f"topic {self.topic!r} asks for {asked.name.lower()} compression, "
                f"the producer is set to {chosen.name.lower()}",
                hint="leave compression out: the topic's is taken",
            )
        return Codec(asked)

    def _notice_growth(self) -> None:
        count = self._cluster.metadata.partition_count(self.topic)
        if count != self._partitions:
            self._grow(count)

    def _grow(self, count: int) -> None:
        for number in range(len(self._lanes), count):
            self._lanes.append(_Lane(self, number))
        fixed = self._options.partition
        if fixed is not None and fixed >= count:
            raise self._no_partition(fixed)
        if count:  # a store that is being filled again knows nothing for a moment
            self._partitions = count

    def _no_partition(self, number: int) -> UsageError:
        return UsageError(
            f"topic {self.topic!r} has no partition {number}, it has {len(self._lanes)}"
        )

    def _choose(self, key: bytes | None) -> int:
        options = self._options
        if options.partition is not None:
            return options.partition
        if options.partitioner is not None:
            return options.partitioner((key,), self._partitions)[0]
        if self._partitions == 1:
            return 0
        if key is not None:
            return codec.siphash(key) % self._partitions
        chosen = self._turn % self._partitions
        self._turn = (self._turn + 1) & 0xFFFFFFFF
        return chosen

    async def _send_columns(self, columns: Columns, first_row: int, handle: ManyHandle) -> None:
        count = len(columns.values)
        if self._partitions == 1 or self._options.partition is not None:
            lane = self._lanes[self._options.partition or 0]
            rows: Sequence[int] = range(first_row, first_row + count)
            await self._add_rows(lane, columns, rows, handle)
            return
        chosen = self._choose_rows(columns.keys)
        by_lane: dict[int, list[int]] = {}
        for row, partition in enumerate(chosen):
            by_lane.setdefault(partition, []).append(row)
        for partition, picked in by_lane.items():
            if not 0 <= partition < len(self._lanes):
                raise self._no_partition(partition)
            part = Columns(
                [columns.values[row] for row in picked],
                [columns.keys[row] for row in picked],
                [columns.timestamps_ms[row] for row in picked],
            )
            rows = [first_row + row for row in picked]
            await self._add_rows(self._lanes[partition], part, rows, handle)

    def _choose_rows(self, keys: list[bytes | None]) -> Sequence[int]:
        if self._options.partitioner is not None:
            return self._options.partitioner(keys, self._partitions)
        chosen, self._turn = codec.partition_rows(keys, self._partitions, self._turn)
        return chosen

    async def _add_rows(
        self, lane: _Lane, columns: Columns, rows: Sequence[int], handle: ManyHandle
    ) -> None:
        if lane.is_full:
            await lane.wait_for_room()
        handle.add(lane, rows, lane.add_rows(columns))

    # --- what a lane needs ---------------------------------------------------------

    @property
    def cluster(self) -> Cluster:
        return self._cluster

    @property
    def options(self) -> ProducerOptions:
        return self._options

    @property
    def codec_used(self) -> Codec:
        return self._codec


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


class _Lane:
    """One partition's way out: its accumulator and the task that sends."""

    def __init__(self, producer: Producer, partition: int) -> None:
        self.partition = partition
        self._producer = producer
        self._cluster = producer.cluster
        self._options = producer.options
        self._accumulator: Accumulator | None = None
        self._out: list[ReadyBatch] = []
        self._wake = anyio.Event()
        self._moved = anyio.Event()
        self._hurried = False
        self._is_stopped = False
        self._refusal: Exception | None = None
        self.taken = 0
        self._settled = 0

    # --- the producer's side ---------------------------------------------------------

    @property
    def unacknowledged(self) -> int:
        return self.taken - self._settled

    @property
    def is_full(self) -> bool:
        held = self._accumulator
        return held is not None and held.held_bytes >= self._options.queue_bytes_max

    def add(self, value: bytes, key: bytes | None, timestamp_ms: int) -> tuple[Outcome, int]:
        accumulator = self._open_accumulator()
        added = accumulator.add(value, key, timestamp_ms, self._cluster.clock.monotonic_s())
        self.taken += 1
        if accumulator.ready or added[1] == 0:
            self._wake.set()
        return added

    def add_rows(self, columns: Columns) -> list[Place]:
        accumulator = self._open_accumulator()
        places = accumulator.add_rows(columns, self._cluster.clock.monotonic_s())
        self.taken += len(columns.values)
        self._wake.set()
        return places

    async def wait_for_room(self) -> None:
        while self.is_full and not self._is_stopped:
            await self._moved.wait()

    async def wait_until_settled(self, mark: int) -> None:
        """Wait until the outcome of the first ``mark`` records is known.

        Raises:
            NotFlushed: The producer was closed before.
        """
        while self._settled < mark:
            if self._is_stopped:
                raise NotFlushed(f"{self._name}: {mark - self._settled} records are not stored")
            await self._moved.wait()

    async def wait_for(self, outcome: Outcome) -> None:
        """Wait until an outcome is known, without waiting for the linger."""
        if outcome.is_known:
            return
        event = anyio.Event()
        outcome.wakes.append(event.set)
        self.hurry()
        await event.wait()

    def hurry(self) -> None:
        """Send what is held now, linger or not."""
        if self._accumulator is not None and self._accumulator.open_since_s is not None:
            self._hurried = True
            self._wake.set()

    def take_refusal(self) -> Exception | None:
        refusal, self._refusal = self._refusal, None
        return refusal

    def stop(self) -> None:
        """Send nothing more, and tell whoever waits that nobody will know."""
        self._is_stopped = True
        self._wake.set()
        self._tell_moved()
        if self._accumulator is None:
            return
        self._accumulator.close_batch()
        gone = NotFlushed(f"the producer for {self._producer.topic!r} was closed")
        for batch in (*self._out, *self._accumulator.ready):
            if not batch.outcome.is_known:
                batch.outcome.settle(-1, gone)

    def _open_accumulator(self) -> Accumulator:
        if self._is_stopped:
            raise UsageError(f"the producer for {self._producer.topic!r} is closed")
        return self._accumulator or self._start()

    def _start(self) -> Accumulator:
        options = self._options
        self._accumulator = Accumulator(
            batch_bytes=options.batch_size_bytes,
            request_bytes=options.max_request_size_bytes,
            codec_used=self._producer.codec_used,
        )
        self._cluster.start(self._run)
        return self._accumulator

    # --- the task --------------------------------------------------------------------

    async def _run(self) -> None:
        assert self._accumulator is not None
        try:
            while True:
                await self._until_ready(self._accumulator)
                if self._is_stopped:
                    return
                self._out = self._accumulator.take(self._options.max_request_size_bytes)
                await self._deliver(self._out)
                self._accumulator.settled(self._out)
                self._out = []
                self._tell_moved()
        finally:
            self.stop()

    async def _until_ready(self, accumulator: Accumulator) -> None:
        """Wait for a batch that may go: full, older than the linger, or wanted."""
        while not accumulator.ready and not self._is_stopped:
            since_s = accumulator.open_since_s
            if since_s is not None:
                now_s = self._cluster.clock.monotonic_s()
                left_s = since_s + self._options.linger_s - now_s
                if self._hurried or left_s <= 0:
                    self._hurried = False
                    accumulator.close_batch()
                    return
            self._wake = anyio.Event()
            if accumulator.ready:
                return
            with anyio.move_on_after(None if since_s is None else left_s):
                await self._wake.wait()
        if not self._is_stopped and self._hurried:
            self._hurried = False
            accumulator.close_batch()

    async def _deliver(self, batches: list[ReadyBatch]) -> None:
        """Send batches in one entry, which is stored whole or not at all, until that stands.

        Where the broker refuses it for good, each batch is tried alone: only the records
        concerned are refused then.
        """
        try:
            code, base_offset = await self._answer_that_stands(batches)
        except Exception as error:  # whatever it is must reach whoever waits for the records
            self._settle(batches, -1, error)
            return
        if not code:
            self._settle(batches, base_offset, None)
        elif len(batches) == 1:
            self._settle(batches, -1, as_exception(code, about=self._name))
        else:
            for batch in batches:
                await self._deliver([batch])

    async def _answer_that_stands(self, batches: list[ReadyBatch]) -> tuple[ErrorCode, int]:
        """Send until there is an answer that another try would not change.

        Raises:
            StreamKitError: Not retryable, or the delivery timeout has passed.
        """
        backoff = Backoff()
        started_s = self._cluster.clock.monotonic_s()
        may_be_stored = False
        while True:
            try:
                code, base_offset = await self._attempt(batches)
                if code.code not in _SEND_AGAIN_CODES:
                    return code, base_offset
                problem: StreamKitError = as_exception(code, about=self._name)
                may_be_stored = may_be_stored or code.code in _UNKNOWN_CODES
            except StreamKitError as error:
                if not error.retryable:
                    raise
                problem = error
                may_be_stored = may_be_stored or (isinstance(error, TransportError) and error.sent)
            waited_s = self._cluster.clock.monotonic_s() - started_s
            limit_s = self._options.delivery_timeout_s
            if limit_s is not None and waited_s > limit_s:
                raise self._given_up(problem, may_be_stored)
            pause_s = backoff.next_s()
            if self._options.on_retry is not None:
                self._options.on_retry(problem, backoff.attempt)
            await self._cluster.clock.sleep(pause_s)

    def _given_up(self, problem: StreamKitError, may_be_stored: bool) -> StreamKitError:
        """Return the error for the last problem; what an earlier attempt may have done counts."""
        if not may_be_stored or (isinstance(problem, TransportError) and problem.sent):
            return problem
        return RequestTimedOut(
            f"{self._name}: it is not known whether the records are stored: {problem}", sent=True
        )

    async def _attempt(self, batches: list[ReadyBatch]) -> tuple[ErrorCode, int]:
        """Send one request and return its answer.

        A live connection is not given up on by a timer: its answer comes in order.
        """
        topic = self._producer.topic
        address = await self._cluster.leader(topic, self.partition)
        channel = await self._cluster.spu(address)
        records = b"".join([batch.data for batch in batches])
        entry = PartitionProduceData(self.partition, records)
        request = ProduceRequest(
            acks=self._options.acks,
            timeout_ms=self._options.timeout_ms,
            topics=(TopicProduceData(topic, (entry,)),),
        )
        response = await channel.call(PRODUCE, request)
        answers = [answer for each in response.topics for answer in each.partitions]
        if len(answers) != 1:
            raise ProtocolError(f"{len(answers)} answers to one entry for {self._name}")
        return answers[0].error, answers[0].base_offset

    def _settle(self, batches: list[ReadyBatch], base_offset: int, error: Exception | None) -> None:
        if error is not None and self._refusal is None:
            self._refusal = error
        for batch in batches:
            self._settled += batch.record_count
            batch.outcome.settle(base_offset, error)
            base_offset += batch.record_count

    @property
    def _name(self) -> str:
        return f"{self._producer.topic}-{self.partition}"

    def _tell_moved(self) -> None:
        moved, self._moved = self._moved, anyio.Event()
        moved.set()
