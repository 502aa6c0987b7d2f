"""The reader of one partition: it opens a stream, reads, acknowledges, and reopens it.

| state | what happens |
|---|---|
| opening | the stream is opened; a lost connection or a retryable code causes a retry |
| reading | a response is buffered, and acknowledged once there is room for another one |
| reopening | after a lost connection, a cut response, or (once) a corrupt batch |
| at its end | `until_end` is reached; only `seek` starts the reader again |
| failed | the iteration raises a permanent error; `seek` starts the reader again |
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import anyio

from streamkit.broadcast import Broadcast
from streamkit.client.backoff import Backoff
from streamkit.client.channel import Channel, Responses
from streamkit.client.cluster import Cluster
from streamkit.client.consume.end_probe import END_PROBE_OFFSET, EndProbe
from streamkit.client.consume.fetch_buffer import FetchBuffer
from streamkit.client.consume.offsets import OffsetClient
from streamkit.client.consume.positions import Position, ResponseHeaders
from streamkit.client.consume.stored_batches import is_in_one_segment, reliable_end, segment_end
from streamkit.client.options import ConsumerMetrics, ConsumerOptions
from streamkit.client.retrying import pause_before_retry, retrying
from streamkit.client.smartmodules.propagation import SmartModulePropagation
from streamkit.client.smartmodules.smartmodule import check_carried, keeps_state, may_multiply
from streamkit.errors import CorruptBatch, OffsetEvicted, SmartModuleNotFound, StreamKitError
from streamkit.limits import BATCH_BYTES_HARD_MAX, MIB
from streamkit.protocol.apis import STREAM_FETCH, UPDATE_CONSUMER_OFFSET, UPDATE_OFFSETS
from streamkit.protocol.data_plane import (
    FetchablePartition,
    OffsetUpdate,
    StreamFetchRequest,
    StreamFetchResponse,
    UpdateConsumerOffsetRequest,
    UpdateOffsetsRequest,
)
from streamkit.protocol.server_errors import as_exception
from streamkit.record import Chunk

logger = logging.getLogger("streamkit.client")

# In smaller responses the headers would take more space than the records.
_RESPONSE_BYTES_MIN: Final = 64 * 1024
# A stock server silently drops the SmartModule output of a batch if it exceeds the requested
# size. So the reader requests the largest size of a batch, without its header.
OUTPUT_BYTES: Final = BATCH_BYTES_HARD_MAX - MIB
_STORE_S_MAX: Final = 30.0
# The first stream of a connection; a connection with an end probe has only this one.
_FIRST_STREAM: Final = 1


@dataclass(frozen=True, slots=True)
class Reading:
    """What the readers of one consumer share.

    ``connection`` returns the consumer's connection to an address for a partition; ``fail``
    reports an error that the application must see.
    """

    topic: str
    cluster: Cluster
    options: ConsumerOptions
    offsets: OffsetClient
    fetch_buffer: FetchBuffer
    metrics: ConsumerMetrics
    connection: Callable[[str, int], Awaitable[Channel]]
    fail: Callable[[int, StreamKitError], None]


class PartitionReader:
    """Reads one partition from ``start``, up to ``end`` if there is one."""

    def __init__(self, reading: Reading, partition: int, start: int, end: int | None) -> None:
        self._reading = reading
        self._topic = reading.topic
        self._cluster = reading.cluster
        self._options = reading.options
        self._fetch_buffer = reading.fetch_buffer
        self._metrics = reading.metrics
        self.partition = partition
        self._batch_bytes_min = 0
        self._channel: Channel | None = None
        self._session_id: int | None = None
        self._refetched_at = -1
        self._backoff = Backoff()
        self._scope = anyio.CancelScope()
        self._seeked = Broadcast()
        self._modules = SmartModulePropagation(reading.cluster)
        self._may_multiply = may_multiply(reading.options.smartmodules)
        needs_probe = end is not None and bool(reading.options.smartmodules)
        self._end_probe = EndProbe() if needs_probe else None
        self.position = self._position_at(start)
        self.started_at = start
        self.end = end
        self.high_watermark = 0
        # If the start is after the end, the server rejects it, as it does without an end.
        self.is_done = start == end

    async def run(self) -> None:
        """Read until the consumer closes. After a `seek`, continue from its offset."""
        while True:
            seeked = self._seeked.next
            with anyio.CancelScope() as self._scope:
                await self._read_to_the_end()
                self._fetch_buffer.wake()
                await seeked.wait()

    def seek(self, offset: int) -> None:
        """Drop responses that are in flight and continue at an offset."""
        self.position = self._position_at(offset)
        self.is_done = offset == self.end
        self._session_id = None
        self._refetched_at = -1
        self._backoff.reset()
        self._seeked.notify()
        self._scope.cancel()

    async def store(self, offset: int) -> None:
        """Store an offset of this partition, on the connection of its stream if possible."""
        await retrying(
            self._cluster,
            lambda: self._store_once(offset),
            self._name,
            open_timeout_s=_STORE_S_MAX,
            on_retry=self._options.on_retry,
        )

    async def _store_once(self, offset: int) -> None:
        channel, session = self._channel, self._session_id
        if channel is None or session is None or not channel.is_open:
            # The id of a stream arrives with its first records, and this one had none yet.
            consumer_id = self._options.consumer_id
            assert consumer_id is not None, "checked before anything is stored"
            topic = self._topic
            await self._reading.offsets.store(consumer_id, topic, self.partition, offset)
            return
        request = UpdateConsumerOffsetRequest(offset, session)
        fetched = await channel.call(UPDATE_CONSUMER_OFFSET, request)
        if fetched.error:
            raise as_exception(fetched.error, about=self._name)

    async def _read_to_the_end(self) -> None:
        """Read until the end or a permanent failure; reopen the stream if it breaks."""
        while not self.is_done:
            try:
                await self._read()
            except OffsetEvicted as error:
                try:
                    was_skipped = await self._skip_evicted(error)
                except StreamKitError as worse:
                    self._reading.fail(self.partition, worse)
                    return
                if not was_skipped:
                    self._reading.fail(self.partition, error)
                    return
            except CorruptBatch as error:
                if self._refetched_at == self.position.next_offset:
                    self._reading.fail(self.partition, error)
                    return
                logger.warning("%s: reading a batch again: %s", self._name, error)
                self._metrics.refetched += 1
                self._refetched_at = self.position.next_offset
                await self._reconnect()
            except SmartModuleNotFound as error:
                if not await self._modules.is_propagating(error.name):
                    self._reading.fail(self.partition, error)
                    return
                await self._pause(error)
            except StreamKitError as error:
                if not error.retryable:
                    self._reading.fail(self.partition, error)
                    return
                self._metrics.reopened += 1
                if keeps_state(self._options.smartmodules):
                    logger.warning("%s: the aggregate starts over: %s", self._name, error)
                await self._pause(error)

    async def _read(self) -> None:
        """Open the stream and read from it until it breaks, ends or must be reopened."""
        position = self.position
        address = await self._cluster.leader(self._topic, self.partition)
        if self._options.smartmodules:
            position.reliable_end = await reliable_end(
                self._reading.offsets, self._topic, self.partition, position.next_offset
            )
        channel = await self._connection(address)
        request = StreamFetchRequest(
            self._topic,
            self.partition,
            position.next_offset,
            self._response_bytes(),
            self._options.isolation,
            smartmodules=self._options.smartmodules,
            consumer_id=self._options.consumer_id,
        )
        responses = await channel.open_stream(STREAM_FETCH, request)
        self._channel = channel
        try:
            while not self.is_done:
                response = await self._next(responses, channel)
                # After a seek, the responses of this stream are not needed any more.
                if self.position is not position or await self._process(response, channel):
                    return
        finally:
            if not self.is_done:  # a stream read to its end stays open for the last commit
                self._session_id = None
            channel.forget(responses)
            if self._end_probe is not None:
                with anyio.CancelScope(shield=True):
                    await channel.close()

    def _position_at(self, offset: int) -> Position:
        return Position(self._topic, self.partition, offset, may_multiply=self._may_multiply)

    async def _connection(self, address: str) -> Channel:
        """Return the connection for the stream, after a check that the server supports the chain.

        Raises:
            UnsupportedServer: The server's version does not support the chain.
        """
        if self._end_probe is None:
            channel = await self._reading.connection(address, self.partition)
        else:
            channel = await self._cluster.connect(address)
            self._end_probe.record_open()
        chain = self._options.smartmodules
        if chain:
            check_carried(chain, "StreamFetch", channel.version_of(STREAM_FETCH), address)
        return channel

    def _response_bytes(self) -> int:
        if self._options.smartmodules:
            return OUTPUT_BYTES
        share_bytes = max(_RESPONSE_BYTES_MIN, self._fetch_buffer.share_bytes)
        return max(self._batch_bytes_min, min(self._options.max_bytes, share_bytes))

    async def _next(
        self, responses: Responses[StreamFetchResponse], channel: Channel
    ) -> StreamFetchResponse:
        """Wait for a response; send a probe if it is possible that none will come."""
        if self._end_probe is None:
            return await responses.receive()
        while True:
            with anyio.move_on_after(self._end_probe.patience_s):
                return await responses.receive()
            session_id = self._session_id or _FIRST_STREAM
            update = OffsetUpdate(END_PROBE_OFFSET, session_id)
            # The server ignores this while the stream is still opening; then it is sent again.
            await channel.call(UPDATE_OFFSETS, UpdateOffsetsRequest((update,)))

    async def _process(self, response: StreamFetchResponse, channel: Channel) -> bool:
        """Process one response; return whether the stream must be reopened."""
        fetched, position = response.partition, self.position
        if self._end_probe is not None and self._end_probe.is_refusal(fetched.error):
            if self._end_probe.proves_end():
                await self._skip_filtered()
            return True
        headers = self._inspect(response)
        if headers.reopen_bytes is not None:
            self._batch_bytes_min = max(self._batch_bytes_min, headers.reopen_bytes)
            return True
        wanted = self._offset_to_acknowledge(headers)
        is_early = wanted is not None and self._fetch_buffer.has_room(self.partition)
        if wanted is not None and is_early:
            # The server reads the next response while this one is decoded.
            await self._acknowledge(channel, response.stream_id, wanted)
            if self.position is not position:
                return True
        self._buffer(fetched, position.decode(headers))
        if fetched.error:
            raise as_exception(fetched.error, about=self._name)
        self._backoff.reset()
        self.is_done = self.end is not None and position.next_offset >= self.end
        if wanted is not None and not is_early:
            await self._fetch_buffer.wait_for_room(self.partition)
            await self._acknowledge(channel, response.stream_id, wanted)
        return False

    def _inspect(self, response: StreamFetchResponse) -> ResponseHeaders:
        """Count a response, check that it is for this reader, and read its batch headers."""
        fetched = response.partition
        self._session_id = response.stream_id
        self._metrics.responses += 1
        if self._end_probe is not None:
            self._end_probe.record_response()
        if not fetched.error:
            self._check_is_for_us(response)
        elif not fetched.records:
            return ResponseHeaders(fetched)
        headers = self.position.inspect(fetched)
        self._metrics.cut += headers.is_cut
        return headers

    def _offset_to_acknowledge(self, headers: ResponseHeaders) -> int | None:
        """Return the offset to acknowledge for the next response; None if none is needed."""
        wanted = None if headers.response.error else headers.next_offset
        is_end = wanted is not None and self.end is not None and wanted >= self.end
        return None if is_end else wanted

    async def _skip_filtered(self) -> None:
        """Skip a log segment of which the SmartModules dropped every record."""
        assert self.end is not None, "without an end there is no end probe"
        at = self.position.next_offset
        if is_in_one_segment(self._cluster.metadata.partition(self._topic, self.partition)):
            skipped_to = self.end
        else:
            offsets = self._reading.offsets
            skipped_to = await segment_end(offsets, self._topic, self.partition, at, self.end)
        self.position.next_offset = max(at, skipped_to)
        self.is_done = self.position.next_offset >= self.end

    def _check_is_for_us(self, response: StreamFetchResponse) -> None:
        """Refuse a response to another request: a network can corrupt requests and responses."""
        fetched = response.partition
        reason = ""
        if (response.topic, fetched.partition) != (self._topic, self.partition):
            reason = f"the response is for {response.topic}-{fetched.partition}"
        elif fetched.next_filter_offset > 0 and not self._options.smartmodules:
            reason = "the response is marked as SmartModule output, but none was requested"
        if reason:
            raise CorruptBatch(
                reason,
                topic=self._topic,
                partition=self.partition,
                offset=self.position.next_offset,
            )

    async def _acknowledge(self, channel: Channel, stream_id: int, wanted: int) -> None:
        update = OffsetUpdate(wanted, stream_id)
        await channel.post(UPDATE_OFFSETS, UpdateOffsetsRequest((update,)))

    def _buffer(self, fetched: FetchablePartition, chunk: Chunk | None) -> None:
        self.high_watermark = max(fetched.high_watermark, self.position.next_offset)
        if chunk is None:
            return
        if self.end is not None and chunk.offsets[-1] >= self.end:
            kept = sum(offset < self.end for offset in chunk.offsets)
            chunk = chunk.slice(0, kept)
        if len(chunk):
            self._metrics.records += len(chunk)
            self._metrics.wire_bytes += len(fetched.records)
            self._fetch_buffer.put(self.partition, chunk, len(fetched.records))

    async def _skip_evicted(self, error: OffsetEvicted) -> bool:
        """Skip the offsets that retention removed, if ``on_evicted`` allows it."""
        if self._options.on_evicted == "fail":
            return False
        before = self.position.next_offset
        if self._options.on_evicted == "earliest":
            self.position.next_offset = error.next_available
        else:
            _, self.position.next_offset = await retrying(
                self._cluster,
                lambda: self._reading.offsets.bounds(self._topic, self.partition),
                self._name,
                open_timeout_s=None,
                on_retry=self._options.on_retry,
            )
        self.is_done = self.end is not None and self.position.next_offset >= self.end
        skipped = max(0, self.position.next_offset - before)
        self._metrics.evicted += skipped
        logger.warning("%s: skipped %d offsets that retention had removed", self._name, skipped)
        return True

    async def _reconnect(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def _pause(self, error: StreamKitError) -> None:
        self._metrics.retries += 1
        await pause_before_retry(
            self._cluster, self._backoff, error, self._name, self._options.on_retry
        )

    @property
    def _name(self) -> str:
        return f"{self._topic}-{self.partition}"
