"""One partition's way out: records go into batches, batches go out in order.

| a batch is | until |
|---|---|
| open | it is full, its linger is over, or somebody waits for it |
| ready | the sender of its partition takes it |
| out | the answer comes; a lost connection or a retryable code sends it again, in order |
| stored, or refused | its handles and `flush` tell |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio

from streamkit.client.accumulator import Accumulator, Outcome, Place, ReadyBatch
from streamkit.client.backoff import Backoff
from streamkit.client.cluster import Cluster
from streamkit.errors import (
    NotFlushed,
    ProtocolError,
    RequestTimedOut,
    StreamKitError,
    TransportError,
    UsageError,
)
from streamkit.limits import BATCH_BYTES_DEFAULT, REQUEST_BYTES_DEFAULT
from streamkit.protocol.apis import PRODUCE
from streamkit.protocol.batch import Columns
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
Partitioner = Callable[[Sequence[bytes | None], int], Sequence[int]]


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


class PartitionSender:
    """One partition's way out: its accumulator and the task that sends."""

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        partition: int,
        options: ProducerOptions,
        codec_used: Codec,
    ) -> None:
        self.partition = partition
        self._cluster = cluster
        self._topic = topic
        self._options = options
        self._codec = codec_used
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
        gone = NotFlushed(f"the producer for {self._topic!r} was closed")
        for batch in (*self._out, *self._accumulator.ready):
            if not batch.outcome.is_known:
                batch.outcome.settle(-1, gone)

    def _open_accumulator(self) -> Accumulator:
        if self._is_stopped:
            raise UsageError(f"the producer for {self._topic!r} is closed")
        return self._accumulator or self._start()

    def _start(self) -> Accumulator:
        options = self._options
        self._accumulator = Accumulator(
            batch_bytes=options.batch_size_bytes,
            request_bytes=options.max_request_size_bytes,
            codec_used=self._codec,
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
        topic = self._topic
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
        return f"{self._topic}-{self.partition}"

    def _tell_moved(self) -> None:
        moved, self._moved = self._moved, anyio.Event()
        moved.set()
