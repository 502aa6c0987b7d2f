"""The sender of one partition: it puts records into batches and sends the batches in order.

With at-least-once delivery:

| state of a batch | it ends when |
|---|---|
| open | the batch is full, its linger is over, or a caller waits for it |
| ready | the sender takes the batch |
| in flight | a response arrives; after a lost connection or a retryable code it is sent again |
| stored or refused | never: handles, `flush` and the callback report it |

With at-most-once delivery a batch that was written to a connection is never sent again, and the
next batch does not wait for its response.

| state of a batch | it ends when |
|---|---|
| waiting for a connection | a connection is open; until the batch is written, retries are safe |
| in flight | a response arrives, or the connection is lost: then the outcome is unknown |
| stored, refused, or unknown | never: handles, `flush` and the callback report it |
"""

from __future__ import annotations

import logging
from collections import deque

import anyio

from streamkit.broadcast import Broadcast
from streamkit.client.backoff import Backoff
from streamkit.client.channel import PendingResponse
from streamkit.client.cluster import Cluster
from streamkit.client.options import BatchReport, ProducerMetrics, ProducerOptions
from streamkit.client.produce.accumulator import Accumulator, BatchOutcome, ReadyBatch, RowRange
from streamkit.client.produce.produce_requests import UNKNOWN_CODES, ProduceRequests, mark
from streamkit.client.retrying import pause_before_retry
from streamkit.client.smartmodules.propagation import SmartModulePropagation
from streamkit.errors import (
    NotFlushed,
    RequestTimedOut,
    StreamKitError,
    TransportError,
    UsageError,
)
from streamkit.protocol.batch import Columns
from streamkit.protocol.compression import Codec
from streamkit.protocol.data_plane import (
    ProduceResponse,
)
from streamkit.protocol.error_codes import Code, ErrorCode
from streamkit.protocol.server_errors import as_exception

logger = logging.getLogger("streamkit.client")

# The outcome is unknown or the error is transient: at-least-once delivery sends the batch again.
_SEND_AGAIN_CODES = UNKNOWN_CODES | {
    Code.NOT_LEADER_FOR_PARTITION,
    Code.PARTITION_PENDING_INITIALIZATION,
    Code.PARTITION_NOT_LEADER,
}
# How much one request may contain: a server syncs once per request. A larger first batch is
# still sent.
_REQUEST_BYTES = 4 << 20


class PartitionSender:
    """The accumulator of one partition and the task that sends its batches."""

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
        self._modules = SmartModulePropagation(cluster)
        self._requests = ProduceRequests(cluster, topic, partition, options, metrics)
        self._accumulator: Accumulator | None = None
        self._in_flight: list[ReadyBatch] = []
        self._pending_responses: deque[
            tuple[list[ReadyBatch], float, PendingResponse[ProduceResponse]]
        ] = deque()
        self._wake = anyio.Event()
        self._progress = Broadcast()
        self._is_flush_requested = False
        self._is_stopped = False
        self._refusal: Exception | None = None
        self.accepted = 0
        self.is_full = False
        self._settled = 0

    # --- the producer's side ---------------------------------------------------------

    @property
    def unacknowledged(self) -> int:
        return self.accepted - self._settled

    def add(self, value: bytes, key: bytes | None, timestamp_ms: int) -> tuple[BatchOutcome, int]:
        accumulator = self._accumulator or self._start()
        if self._is_stopped:
            raise self._closed()
        added = accumulator.add(value, key, timestamp_ms)
        self.accepted += 1
        return added

    def add_rows(self, columns: Columns) -> list[RowRange]:
        accumulator = self._accumulator or self._start()
        if self._is_stopped:
            raise self._closed()
        row_ranges = accumulator.add_rows(columns)
        self.accepted += len(columns.values)
        return row_ranges

    async def wait_for_room(self) -> None:
        """Wait until there is room. Meanwhile batches are sent without waiting for their linger."""
        self.flush_soon()
        while self.is_full and not self._is_stopped:
            await self._progress.wait()

    async def wait_until_settled(self, mark: int) -> None:
        """Wait until the outcome of the first ``mark`` records is known.

        Raises:
            NotFlushed: The producer was closed first.
        """
        while self._settled < mark:
            if self._is_stopped:
                raise NotFlushed(
                    f"{self._name}: {mark - self._settled} records were not acknowledged before "
                    "the producer was closed"
                )
            await self._progress.wait()

    async def wait_for(self, outcome: BatchOutcome) -> None:
        """Wait until an outcome is known, without waiting for the linger."""
        if outcome.is_known:
            return
        event = anyio.Event()
        outcome.wakes.append(event.set)
        self.flush_soon()
        await event.wait()

    def flush_soon(self) -> None:
        """Send the open batch without waiting for its linger."""
        if self._accumulator is not None and self._accumulator.open_since_s is not None:
            self._is_flush_requested = True
            self._wake.set()

    def take_refusal(self) -> Exception | None:
        refusal, self._refusal = self._refusal, None
        return refusal

    def stop(self) -> None:
        """Send no more, and settle all outcomes with what is known about each record."""
        self._is_stopped = self._requests.is_stopped = True
        self._wake.set()
        self._progress.notify()
        if self._accumulator is None:
            return
        self._accumulator.close_batch()
        not_stored = NotFlushed(
            f"{self._name}: the record is not stored: the producer was closed before it was sent"
        )
        unknown = RequestTimedOut(
            f"{self._name}: it is not known whether the record is stored: the producer was closed "
            "before the response arrived",
            sent=True,
        )
        for batch in (*self._in_flight, *self._accumulator.ready):
            if not batch.outcome.is_known:
                batch.outcome.settle(-1, unknown if batch.may_be_stored else not_stored)

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
        """Wake the task and update `is_full`, because a batch was opened or is ready."""
        self._wake.set()
        self._update_is_full()

    def _update_is_full(self) -> None:
        held = self._accumulator
        assert held is not None, "called only when there are batches"
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
                self._update_is_full()
                self._in_flight += batches
                if batches[0].error is not None:
                    now_s = self._cluster.clock.monotonic_s()
                    self._settle(batches, -1, batches[0].error, now_s)
                    continue
                await deliver(batches, self._cluster.clock.monotonic_s())
        finally:
            self.stop()

    async def _until_ready(self, accumulator: Accumulator) -> None:
        """Wait until a batch must be sent: it is full, its linger is over, or it is flushed."""
        while not accumulator.ready and not self._is_stopped:
            since_s = accumulator.open_since_s
            if since_s is not None:
                now_s = self._cluster.clock.monotonic_s()
                left_s = since_s + self._options.linger_s - now_s
                if self._is_flush_requested or left_s <= 0:
                    self._is_flush_requested = False
                    accumulator.close_batch()
                    return
            self._wake = anyio.Event()
            with anyio.move_on_after(None if since_s is None else left_s):
                await self._wake.wait()
        if not self._is_stopped and self._is_flush_requested:
            self._is_flush_requested = False
            accumulator.close_batch()

    # --- at least once -----------------------------------------------------------------

    async def _deliver(self, batches: list[ReadyBatch], sent_s: float) -> None:
        """Send batches in one entry until the outcome is final.

        A broker stores an entry completely or not at all. If it permanently refuses the entry,
        each batch is sent alone, so that only the invalid records are refused.
        """
        try:
            code, base_offset = await self._final_response(batches)
        except Exception as error:  # any error must reach the handles of the records
            self._settle(batches, -1, error, sent_s)
            return
        if not code:
            self._settle(batches, base_offset, None, sent_s)
        elif len(batches) == 1:
            self._settle(batches, -1, self._requests.refused(code, batches[0]), sent_s)
        else:
            for batch in batches:
                await self._deliver([batch], sent_s)

    async def _final_response(self, batches: list[ReadyBatch]) -> tuple[ErrorCode, int]:
        """Send until there is a response that a retry would not change.

        There is no timeout for a response while the connection is open: responses arrive in
        order.

        Raises:
            StreamKitError: Not retryable, or the retry policy or the delivery timeout is used up.
        """
        backoff = Backoff(self._options.retry)
        started_s = self._cluster.clock.monotonic_s()
        may_be_stored = False
        while True:
            try:
                ((code, base_offset),) = self._requests.read(
                    await (await self._requests.post(batches)), 1
                )
                if not await self._should_retry(code):
                    mark(batches, may_be_stored=may_be_stored)
                    return code, base_offset
                problem: StreamKitError = as_exception(code, about=self._name)
                may_be_stored = may_be_stored or self._requests.is_outcome_unknown(code, batches)
            except StreamKitError as error:
                if not error.retryable:
                    raise
                problem = error
                may_be_stored = may_be_stored or (isinstance(error, TransportError) and error.sent)
            mark(batches, may_be_stored=may_be_stored)
            if self._is_stopped or self._is_over(backoff, started_s):
                raise self._requests.final_error(problem, may_be_stored) from problem
            await self._pause(backoff, problem)

    async def _should_retry(self, code: ErrorCode) -> bool:
        if code.code == Code.SMARTMODULE_NOT_FOUND:
            return await self._modules.is_propagating(code.payload.text)
        return code.code in _SEND_AGAIN_CODES

    # --- at most once ------------------------------------------------------------------

    async def _deliver_once(self, batches: list[ReadyBatch], sent_s: float) -> None:
        """Write batches to a connection once, without waiting for the response."""
        backoff = Backoff(self._options.retry)
        started_s = self._cluster.clock.monotonic_s()
        while True:
            try:
                # One entry per batch, so that a refused batch does not affect the others. They
                # cannot be sent again to find out which batch was refused.
                response = await self._requests.post(batches, entry_each=True)
                break
            except StreamKitError as error:
                may_be_stored = isinstance(error, TransportError) and error.sent
                if may_be_stored or not error.retryable or self._is_over(backoff, started_s):
                    self._settle(batches, -1, error, sent_s)
                    return
                mark(batches, may_be_stored=False)
                await self._pause(backoff, error)
            except Exception as error:  # any error must reach the handles of the records
                self._settle(batches, -1, error, sent_s)
                return
        self._pending_responses.append((batches, sent_s, response))
        if len(self._pending_responses) == 1:
            self._cluster.start(self._settle_responses)

    async def _settle_responses(self) -> None:
        while self._pending_responses:
            batches, sent_s, response = self._pending_responses[0]
            try:
                entry_responses = self._requests.read(await response, len(batches))
            except Exception as lost:  # any error must reach the handles of the records
                self._settle(batches, -1, lost, sent_s)
            else:
                for batch, (code, base_offset) in zip(batches, entry_responses, strict=True):
                    error = self._requests.refused(code, batch) if code else None
                    self._settle([batch], -1 if code else base_offset, error, sent_s)
            self._pending_responses.popleft()

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
        assert self._accumulator is not None, "batches come from the accumulator"
        if self._is_stopped:
            return  # `stop` has already settled the outcomes
        if error is not None and self._refusal is None:
            self._refusal = error
        now_s = self._cluster.clock.monotonic_s()
        if self._options.smartmodules:
            base_offset = -1  # the stored records differ from the sent ones, even in number
        for batch in batches:
            self._settled += batch.record_count
            self._count(batch, error)
            batch.outcome.settle(base_offset, error)
            if self._options.on_batch is not None:
                self._report(batch, base_offset, error, sent_s, now_s)
            if base_offset >= 0:
                base_offset += batch.record_count
        settled = set(map(id, batches))
        self._in_flight = [batch for batch in self._in_flight if id(batch) not in settled]
        self._accumulator.settled(batches)
        self._update_is_full()
        self._progress.notify()

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
        except Exception:  # this does not change whether the records are stored
            logger.exception("on_batch failed for %s", self._name)

    @property
    def _name(self) -> str:
        return f"{self._topic}-{self.partition}"
