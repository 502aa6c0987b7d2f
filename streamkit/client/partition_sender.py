"""One partition's way out: records go into batches, batches go out in order.

| a batch is | until |
|---|---|
| open | it is full, its linger is over, or somebody waits for it |
| ready | the sender of its partition takes it |
| out | the answer comes; a lost connection or a retryable code sends it again, in order |
| stored, or refused | its handles, `flush` and the callback tell |

With at-most-once delivery a batch that has been written to a connection is never sent again,
and the next one does not wait for its answer.

| then a batch is | until |
|---|---|
| waiting for a connection | there is one; what has not been written may be tried again |
| out | the answer comes, or the connection is lost: then nobody knows |
| stored, refused, or unknown | its handles, `flush` and the callback tell |
"""

from __future__ import annotations

import logging
from collections import deque

import anyio

from streamkit.client.accumulator import Accumulator, Outcome, Place, ReadyBatch
from streamkit.client.backoff import Backoff
from streamkit.client.channel import Answer
from streamkit.client.cluster import Cluster, pause_before_retry
from streamkit.client.new_modules import NewModules
from streamkit.client.options import BatchReport, ProducerMetrics, ProducerOptions
from streamkit.client.smartmodules import check_carried
from streamkit.errors import (
    BrokerError,
    NotFlushed,
    NotLeader,
    ProtocolError,
    RequestTimedOut,
    StreamKitError,
    TransportError,
    UsageError,
)
from streamkit.limits import BATCH_BYTES_HARD_MAX
from streamkit.protocol.apis import PRODUCE
from streamkit.protocol.batch import Columns
from streamkit.protocol.compression import Codec
from streamkit.protocol.data_plane import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from streamkit.protocol.error_codes import ErrorCode, as_exception

logger = logging.getLogger("streamkit.client")

# Nobody can tell whether these were carried out.
UNKNOWN_CODES = frozenset({7, 56, 72, 73})
# These were not.
NOT_STORED_CODES = frozenset({6, 2001, 3001})
# Those, or they pass: at least once means again.
_SEND_AGAIN_CODES = UNKNOWN_CODES | {6, 3000, 3001}
_MODULE_NOT_FOUND = 6001
# Of these a refused attempt leaves it open; after the others nothing of it is stored.
_DOUBTFUL_CODES = frozenset({7, 56})
_PARTITION_FULL = 72
_MESSAGE_TOO_LARGE = 10
# How streamkit's own server names itself; it stores an entry whole or not at all.
OUR_MARK = "+streamkit."
# What one request may take of what waits: a server syncs once for all of it. The first batch
# goes whatever its size.
_REQUEST_BYTES = 4 << 20


class PartitionSender:
    """One partition's way out: its accumulator and the task that sends."""

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        partition: int,
        options: ProducerOptions,
        codec_used: Codec,
        metrics: ProducerMetrics,
    ) -> None:
        self.partition = partition
        self._cluster = cluster
        self._topic = topic
        self._options = options
        self._codec = codec_used
        self._metrics = metrics
        self._modules = NewModules(cluster)
        self._accumulator: Accumulator | None = None
        self._out: list[ReadyBatch] = []
        self._unanswered: deque[tuple[list[ReadyBatch], float, Answer[ProduceResponse]]] = deque()
        self._wake = anyio.Event()
        self._moved = anyio.Event()
        self._hurried = False
        self._is_stopped = False
        self._undoes_writes = False
        self._refusal: Exception | None = None
        self.taken = 0
        self.is_full = False
        self._settled = 0

    # --- the producer's side ---------------------------------------------------------

    @property
    def unacknowledged(self) -> int:
        return self.taken - self._settled

    def add(self, value: bytes, key: bytes | None, timestamp_ms: int) -> tuple[Outcome, int]:
        accumulator = self._accumulator or self._start()
        if self._is_stopped:
            raise self._closed()
        added = accumulator.add(value, key, timestamp_ms)
        self.taken += 1
        return added

    def add_rows(self, columns: Columns) -> list[Place]:
        accumulator = self._accumulator or self._start()
        if self._is_stopped:
            raise self._closed()
        places = accumulator.add_rows(columns)
        self.taken += len(columns.values)
        return places

    async def wait_for_room(self) -> None:
        """Wait until there is room; nothing held waits for its linger meanwhile."""
        self.hurry()
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
        """Send nothing more, and tell whoever waits what is known of each record."""
        self._is_stopped = True
        self._wake.set()
        self._tell_moved()
        if self._accumulator is None:
            return
        self._accumulator.close_batch()
        gone = NotFlushed(f"{self._name}: not stored: the producer was closed before it was sent")
        unknown = RequestTimedOut(
            f"{self._name}: it is not known whether the record is stored: the producer was closed "
            "before the answer was here",
            sent=True,
        )
        for batch in (*self._out, *self._accumulator.ready):
            if not batch.outcome.is_known:
                batch.outcome.settle(-1, unknown if batch.may_be_stored else gone)

    def _closed(self) -> UsageError:
        return UsageError(f"the producer for {self._topic!r} is closed")

    def _start(self) -> Accumulator:
        if self._is_stopped:
            raise self._closed()
        options = self._options
        self._accumulator = Accumulator(
            batch_bytes=options.batch_size_bytes,
            request_bytes=options.max_request_size_bytes,
            codec_used=self._codec,
            now_s=self._cluster.clock.monotonic_s,
            on_change=self._batches_changed,
        )
        self._cluster.start(self._run)
        return self._accumulator

    def _batches_changed(self) -> None:
        """Learn that a batch was opened or is ready; both the task and `send` want to know."""
        self._wake.set()
        self._look_for_room()

    def _look_for_room(self) -> None:
        held = self._accumulator
        assert held is not None, "nobody else calls this"
        batches_max = self._options.queue_batches_max
        self.is_full = held.held_bytes >= self._options.queue_bytes_max or (
            batches_max is not None and len(held.ready) >= batches_max
        )

    # --- the task --------------------------------------------------------------------

    async def _run(self) -> None:
        assert self._accumulator is not None
        deliver = self._deliver if self._options.delivery == "at-least-once" else self._deliver_once
        try:
            while True:
                await self._until_ready(self._accumulator)
                if self._is_stopped:
                    return
                batches = self._accumulator.take(_REQUEST_BYTES)
                self._look_for_room()
                self._out += batches
                if batches[0].error is not None:
                    now_s = self._cluster.clock.monotonic_s()
                    self._settle(batches, -1, batches[0].error, now_s)
                    continue
                await deliver(batches, self._cluster.clock.monotonic_s())
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

    # --- at least once -----------------------------------------------------------------

    async def _deliver(self, batches: list[ReadyBatch], sent_s: float) -> None:
        """Send batches in one entry, which is stored whole or not at all, until that stands.

        Where the broker refuses it for good, each batch is tried alone: only the records
        concerned are refused then.
        """
        try:
            code, base_offset = await self._answer_that_stands(batches)
        except Exception as error:  # whatever it is must reach whoever waits for the records
            self._settle(batches, -1, error, sent_s)
            return
        if not code:
            self._settle(batches, base_offset, None, sent_s)
        elif len(batches) == 1:
            self._settle(batches, -1, self._refused(code, batches[0]), sent_s)
        else:
            for batch in batches:
                await self._deliver([batch], sent_s)

    async def _answer_that_stands(self, batches: list[ReadyBatch]) -> tuple[ErrorCode, int]:
        """Send until there is an answer that another try would not change.

        A live connection is not given up on by a timer: its answer comes in order.

        Raises:
            StreamKitError: Not retryable, or the policy or the delivery timeout ends it.
        """
        backoff = Backoff(self._options.retry)
        started_s = self._cluster.clock.monotonic_s()
        may_be_stored = False
        while True:
            try:
                ((code, base_offset),) = self._read(await (await self._post(batches)), 1)
                if not await self._is_worth_a_try(code):
                    _mark(batches, may_be_stored=may_be_stored)
                    return code, base_offset
                problem: StreamKitError = as_exception(code, about=self._name)
                may_be_stored = may_be_stored or self._leaves_doubt(code, batches)
            except StreamKitError as error:
                if not error.retryable:
                    raise
                problem = error
                may_be_stored = may_be_stored or (isinstance(error, TransportError) and error.sent)
            _mark(batches, may_be_stored=may_be_stored)
            if self._is_over(backoff, started_s):
                raise self._given_up(problem, may_be_stored) from problem
            await self._pause(backoff, problem)

    async def _is_worth_a_try(self, code: ErrorCode) -> bool:
        if code.code == _MODULE_NOT_FOUND:
            return await self._modules.is_on_its_way(code.payload.text)
        return code.code in _SEND_AGAIN_CODES

    def _leaves_doubt(self, code: ErrorCode, batches: list[ReadyBatch]) -> bool:
        """Whether something may be stored although the answer is a refusal.

        A stock server whose disk is full keeps the batches that it wrote before the failing one.
        """
        if code.code == _PARTITION_FULL:
            return len(batches) > 1 and not self._undoes_writes
        return code.code in _DOUBTFUL_CODES

    def _given_up(self, problem: StreamKitError, may_be_stored: bool) -> StreamKitError:
        """Return the error for the last problem; what an earlier attempt may have done counts."""
        if may_be_stored and not (isinstance(problem, TransportError) and problem.sent):
            return RequestTimedOut(
                f"{self._name}: it is not known whether the records are stored: {problem}",
                sent=True,
            )
        if type(problem) is not BrokerError and type(problem) is not NotLeader:
            return problem
        return type(problem)(
            problem.code,
            f"{problem}; the server refused every attempt, so the records are not stored",
            hint=problem.hint,
            retryable=problem.retryable,
        )

    def _refused(self, code: ErrorCode, batch: ReadyBatch) -> BrokerError:
        if code.code != _MESSAGE_TOO_LARGE:
            return as_exception(code, about=self._name)
        segment = self._cluster.metadata.segment_bytes(self._topic)
        most = f"up to {min(segment or BATCH_BYTES_HARD_MAX, BATCH_BYTES_HARD_MAX):,} bytes"
        return BrokerError(
            code.code,
            f"{self._name}: the batch is too large for the server: {batch.record_count} records, "
            f"{len(batch.data):,} bytes, {batch.plain_bytes:,} before compression; it accepts "
            f"{most}{' here, the size of a segment of the topic' if segment else ''}",
            hint="make the record smaller, or lower batch_size",
        )

    # --- at most once ------------------------------------------------------------------

    async def _deliver_once(self, batches: list[ReadyBatch], sent_s: float) -> None:
        """Write batches to a connection once; what the answer says is learned later."""
        backoff = Backoff(self._options.retry)
        started_s = self._cluster.clock.monotonic_s()
        while True:
            try:
                # An entry for each: one that is refused takes no other with it, and nothing
                # can be sent again to find out which it was.
                answer = await self._post(batches, entry_each=True)
                break
            except StreamKitError as error:
                may_be_stored = isinstance(error, TransportError) and error.sent
                if may_be_stored or not error.retryable or self._is_over(backoff, started_s):
                    self._settle(batches, -1, error, sent_s)
                    return
                _mark(batches, may_be_stored=False)
                await self._pause(backoff, error)
            except Exception as error:  # whatever it is must reach whoever waits for the records
                self._settle(batches, -1, error, sent_s)
                return
        self._unanswered.append((batches, sent_s, answer))
        if len(self._unanswered) == 1:
            self._cluster.start(self._take_answers)

    async def _take_answers(self) -> None:
        while self._unanswered:
            batches, sent_s, answer = self._unanswered[0]
            try:
                answers = self._read(await answer, len(batches))
            except Exception as lost:  # as above
                self._settle(batches, -1, lost, sent_s)
            else:
                for batch, (code, base_offset) in zip(batches, answers, strict=True):
                    error = self._refused(code, batch) if code else None
                    self._settle([batch], -1 if code else base_offset, error, sent_s)
            self._unanswered.popleft()

    # --- requests ----------------------------------------------------------------------

    async def _post(
        self, batches: list[ReadyBatch], *, entry_each: bool = False
    ) -> Answer[ProduceResponse]:
        """Write one request to the leader's connection; its answer is to be awaited.

        The batches make one entry, or an entry each.

        Raises:
            TransportError: ``sent`` tells whether it may have been carried out.
            NotFlushed: The producer has been stopped meanwhile.
            StreamKitError: Nobody leads the partition.
        """
        address = await self._cluster.leader(self._topic, self.partition)
        channel = await self._cluster.spu(address)
        if self._is_stopped:
            raise NotFlushed(f"{self._name}: the producer was closed before it was sent again")
        chain = self._options.smartmodules
        if chain:
            check_carried(chain, "Produce", channel.version_of(PRODUCE), address)
        self._undoes_writes = OUR_MARK in channel.platform_version
        entries = [batch.data for batch in batches]
        if not entry_each:
            entries = [b"".join(entries)]
        data = tuple(PartitionProduceData(self.partition, entry) for entry in entries)
        request = ProduceRequest(
            acks=self._options.acks,
            timeout_ms=self._options.timeout_ms,
            topics=(TopicProduceData(self._topic, data),),
            smartmodules=chain,
        )
        self._metrics.requests += 1
        _mark(batches, may_be_stored=True)  # from now on, until an answer says otherwise
        return await channel.post(PRODUCE, request)

    def _read(self, response: ProduceResponse, entries: int) -> list[tuple[ErrorCode, int]]:
        answers = [answer for each in response.topics for answer in each.partitions]
        if len(answers) != entries:
            raise ProtocolError(f"{len(answers)} answers to {entries} entries for {self._name}")
        names = {
            f"{each.topic}-{part.partition}" for each in response.topics for part in each.partitions
        }
        if names != {self._name}:
            raise ProtocolError(f"an answer for {sorted(names)} to what was sent to {self._name}")
        return [(answer.error, answer.base_offset) for answer in answers]

    def _is_over(self, backoff: Backoff, started_s: float) -> bool:
        limit_s = self._options.delivery_timeout_s
        waited_s = self._cluster.clock.monotonic_s() - started_s
        return backoff.is_exhausted or (limit_s is not None and waited_s > limit_s)

    async def _pause(self, backoff: Backoff, problem: StreamKitError) -> None:
        self._metrics.retries += 1
        await pause_before_retry(
            self._cluster, backoff, problem, self._name, self._options.on_retry
        )

    # --- outcomes ----------------------------------------------------------------------

    def _settle(
        self, batches: list[ReadyBatch], base_offset: int, error: Exception | None, sent_s: float
    ) -> None:
        assert self._accumulator is not None, "batches come from there"
        if self._is_stopped:
            return  # `stop` has told whoever waits
        if error is not None and self._refusal is None:
            self._refusal = error
        now_s = self._cluster.clock.monotonic_s()
        if self._options.smartmodules:
            base_offset = -1  # what is stored are other records, more or fewer
        for batch in batches:
            self._settled += batch.record_count
            self._count(batch, error)
            batch.outcome.settle(base_offset, error)
            if self._options.on_batch is not None:
                self._report(batch, base_offset, error, sent_s, now_s)
            if base_offset >= 0:
                base_offset += batch.record_count
        settled = set(map(id, batches))
        self._out = [batch for batch in self._out if id(batch) not in settled]
        self._accumulator.settled(batches)
        self._look_for_room()
        self._tell_moved()

    def _count(self, batch: ReadyBatch, error: Exception | None) -> None:
        if error is not None:
            self._metrics.failed_records += batch.record_count
            return
        self._metrics.records += batch.record_count
        self._metrics.batches += 1
        self._metrics.wire_bytes += len(batch.data)

    def _report(
        self,
        batch: ReadyBatch,
        base_offset: int,
        error: Exception | None,
        sent_s: float,
        now_s: float,
    ) -> None:
        assert self._options.on_batch is not None
        report = BatchReport(
            self._topic,
            self.partition,
            base_offset,
            batch.record_count,
            len(batch.data),
            sent_s - batch.since_s,
            now_s - batch.since_s,
            error,
        )
        try:
            self._options.on_batch(report)
        except Exception:  # the records are stored all the same
            logger.exception("on_batch failed for %s", self._name)

    @property
    def _name(self) -> str:
        return f"{self._topic}-{self.partition}"

    def _tell_moved(self) -> None:
        moved, self._moved = self._moved, anyio.Event()
        moved.set()


def _mark(batches: list[ReadyBatch], *, may_be_stored: bool) -> None:
    for batch in batches:
        batch.may_be_stored = may_be_stored
