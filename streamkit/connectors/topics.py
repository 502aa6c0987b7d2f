"""Fluvio topics as sources and sinks: connects the engine with the client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import anyio
import google_crc32c

from streamkit.client.backoff import OnRetry
from streamkit.client.client import Client
from streamkit.client.consume.consumer import Consumer
from streamkit.client.consume.offsets import OffsetClient, StoredOffset
from streamkit.client.consume.positions import records_from
from streamkit.client.produce.handles import RecordsHandle
from streamkit.client.produce.producer import Producer
from streamkit.client.retrying import retrying
from streamkit.connectors.broker_offsets import BrokerOffsets, Mark, decode_mark, encode_mark
from streamkit.dataflow.contracts import (
    AcknowledgedWriter,
    Positions,
    Prepared,
    SourceFacts,
    SourceReader,
)
from streamkit.dataflow.endpoints import TopicSink, TopicSource
from streamkit.dataflow.steps import RowFailed
from streamkit.errors import (
    OffsetEvicted,
    RecordTooLarge,
    StateMismatch,
    TopicAlreadyExists,
    TopicNotFound,
    UsageError,
)
from streamkit.limits import REQUEST_BYTES_DEFAULT
from streamkit.protocol import codec
from streamkit.protocol.batch import Columns
from streamkit.record import NO_TIMESTAMP_MS, Chunk

_STORE_S_MAX = 1.0
_COMPARED_BYTES = 4 << 20
_RECORD_BYTES_SPARE = 128  # more than the headers of a record and its batch


class TopicReader(SourceReader):
    """Reads a topic, all partitions merged.

    A position is a `Mark` per partition, for every partition from the start. After a commit the
    positions are also stored on the broker under the app's name, to show the lag.
    """

    def __init__(
        self,
        client: Client,
        source: TopicSource,
        *,
        name: str,
        offsets: BrokerOffsets,
        until_end: bool,
        resumes_from_broker: bool,
        starts_over: bool,
        on_retry: OnRetry,
    ) -> None:
        self._client = client
        self._source = source
        self._starts_over = starts_over
        self._name = name
        self._offsets = offsets
        self._app = offsets.app
        self._until_end = until_end
        self._resumes_from_broker = resumes_from_broker
        self._on_retry = on_retry
        self._consumer: Consumer | None = None
        self._next_offsets: dict[int, int] = {}

    async def open(self, committed: Positions) -> SourceFacts:
        origin = "committed offsets"
        if self._starts_over:
            await self._forget_broker_offsets()
        chosen = self._source.partitions
        saved = {
            int(number): decode_mark(mark)
            for number, mark in committed.items()
            if chosen is None or int(number) in chosen
        }
        starts = {number: mark.next_offset for number, mark in saved.items()}
        if not starts and self._resumes_from_broker:
            starts = await self._stored_by_broker()
            origin = "the offsets the broker has for this app (no local state was found)"
        if not starts:
            origin = str(self._source.start)
        await self._check(starts)
        await self._compare(saved)
        self._consumer = consumer = self._client.consumer(
            self._source.topic,
            # A partition added after the last commit is read from its beginning.
            start="beginning" if starts else self._source.start,
            start_offsets=starts,
            partitions=self._source.partitions,
            until_end=self._until_end,
            consumer_id=self._app,
            resume=False,  # the start offsets come from the job's state first
            on_retry=self._on_retry,
            **_given(isolation=self._source.isolation, max_bytes=self._source.max_bytes),
        )
        await consumer.open()
        self._next_offsets = consumer.start_offsets()
        ends = consumer.high_watermarks()
        waiting = sum(max(0, ends[number] - at) for number, at in self._next_offsets.items())
        at = ", ".join(f"{number}: {offset}" for number, offset in self._next_offsets.items())
        begun = {
            str(number): committed.get(str(number)) or encode_mark(Mark(offset)).decode()
            for number, offset in self._next_offsets.items()
        }
        self._offsets.update(self._name, self._source.topic, begun)
        return SourceFacts(
            f"topic {self._source.topic} from {origin} ({at})", waiting, start_offsets=begun
        )

    async def next(self) -> Chunk | None:
        assert self._consumer is not None, "open comes first"
        return await self._consumer.next_chunk()

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        after = chunk.offsets[-1] + 1
        self._next_offsets[chunk.partition] = after
        mark = Mark(after, chunk.timestamps_ms[-1], google_crc32c.value(chunk.values[-1]))
        return str(chunk.partition), encode_mark(mark).decode()

    async def committed(self, positions: Positions) -> None:
        assert self._consumer is not None, "open comes first"
        topic = self._source.topic
        self._offsets.update(self._name, topic, positions)
        with anyio.move_on_after(_STORE_S_MAX):
            await self._offsets.store(self._consumer, topic, positions)

    def lag(self) -> int | None:
        return None if self._consumer is None else sum(self.backlog().values())

    def backlog(self) -> Mapping[int, int]:
        if self._consumer is None:
            return {}
        ends = self._consumer.ends() if self._until_end else self._consumer.high_watermarks()
        return {number: max(0, ends[number] - at) for number, at in self._next_offsets.items()}

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.close()

    async def _stored_by_broker(self) -> dict[int, int]:
        return {each.partition: each.offset + 1 for each in await self._broker_offsets()}

    async def _forget_broker_offsets(self) -> None:
        """Delete the copies, so that a job that starts over does not resume from them later."""
        offsets = OffsetClient(self._client.cluster)
        for each in await self._broker_offsets():
            await self._retrying(partial(offsets.delete, each))

    async def _broker_offsets(self) -> list[StoredOffset]:
        found: list[StoredOffset] = await self._retrying(
            lambda: OffsetClient(self._client.cluster).stored(self._app, self._source.topic)
        )
        return found

    async def _check(self, starts: dict[int, int]) -> None:
        """Refuse positions outside the log, where the job would wait forever.

        Raises:
            StateMismatch: The log ends before a position.
            OffsetEvicted: Retention has removed the record at a position.
        """
        topic = self._source.topic
        count = await self._client.cluster.partition_count(topic)
        for number, offset in starts.items():
            if number >= count:
                raise StateMismatch(
                    f"offset {offset} of {topic}-{number} is committed, but the topic has only "
                    f"{count} partitions: it is another topic with the same name",
                    hint="start over with --fresh-state",
                )
            first, end = await self._retrying(
                lambda number=number: OffsetClient(self._client.cluster).bounds(topic, number)  # type: ignore[misc]
            )
            if offset > end:
                raise StateMismatch(
                    f"offset {offset} of {topic}-{number} is committed, but the log ends at "
                    f"{end}: it has lost data, or it is another topic with the same name",
                    hint="start over with --fresh-state",
                )
            if offset < first:
                raise OffsetEvicted(offset, first)

    async def _compare(self, saved: dict[int, Mark]) -> None:
        """Refuse a log if the record before a committed position is not the one that was read.

        A topic that was deleted and created again has the same offsets, but other records.

        Raises:
            StateMismatch: It is another log.
        """
        topic = self._source.topic
        for number, mark in saved.items():
            if mark.crc is None:
                continue  # nothing had been read yet
            stored = await self._retrying(partial(self._record_before, number, mark.next_offset))
            if stored is not None and stored != (mark.timestamp_ms, mark.crc):
                raise StateMismatch(
                    f"offset {mark.next_offset} of {topic}-{number} is committed, but the record "
                    "before it is not the one that was read: the topic was created again, or "
                    "its log has lost data",
                    hint="start over with --fresh-state",
                )

    async def _record_before(self, number: int, offset: int) -> tuple[int, int] | None:
        """Return timestamp and checksum of the record before an offset, or None."""
        offsets = OffsetClient(self._client.cluster)
        found = await offsets.fetch(self._source.topic, number, offset - 1, _COMPARED_BYTES)
        chunk = records_from(self._source.topic, number, offset - 1, found)
        if chunk is None or chunk.offsets[0] != offset - 1:
            return None  # its batch is larger than the fetch, or the offset is a gap
        return chunk.timestamps_ms[0], google_crc32c.value(chunk.values[0])

    async def _retrying(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        return await retrying(
            self._client.cluster,
            attempt,
            self._source.topic,
            open_timeout_s=None,
            on_retry=self._on_retry,
        )


class TopicWriter(AcknowledgedWriter):
    """Writes to a topic with a producer that retries forever and waits for every replica."""

    def __init__(self, client: Client, sink: TopicSink, *, on_retry: OnRetry) -> None:
        self._client = client
        self._sink = sink
        self._linger_s = sink.linger_s
        self._chosen: Iterator[int] = iter(())
        self._producer: Producer = client.producer(
            sink.topic,
            linger=0.0 if sink.linger_s is None else sink.linger_s,
            isolation="read_committed",
            partitioner=None if sink.partitioner is None else self._already_chosen,
            delivery_timeout=None,
            on_retry=on_retry,
            **_given(
                batch_size=sink.batch_size_bytes,
                max_request_size=sink.max_request_size_bytes,
                compression=sink.compression,
            ),
        )
        self.description = f"{sink} (at least once)"

    @property
    def unacknowledged(self) -> int:
        return self._producer.unacknowledged

    async def open(self, committed: Positions) -> None:
        await self._producer.open()

    def on_chunk(self, chunk: Chunk) -> Chunk:
        self._refuse_unsendable(chunk)
        if self._sink.partitioner is None:
            return chunk
        return chunk.with_values(list(zip(chunk.values, self._choose(chunk), strict=True)))

    async def write(self, chunk: Chunk) -> None:
        values: Sequence[Any] = chunk.values
        if self._sink.partitioner is not None:
            values, chosen = map(list, zip(*values, strict=True))
            self._chosen = iter(chosen)
        stamps = list(chunk.timestamps_ms)
        if NO_TIMESTAMP_MS in stamps:
            now_ms = self._client.cluster.clock.wall_ms()
            stamps = [now_ms if each < 0 else each for each in stamps]
        # `on_chunk` has already done the checks of `send_many`: it can refuse a single row.
        columns = Columns(list(values), list(chunk.keys), stamps)
        await self._producer.send_columns(columns, RecordsHandle(len(values)))
        if self._linger_s is None:
            self._producer.send_now()

    def prepare_commit(self, *, is_last: bool) -> Prepared:
        return Prepared(self._producer.checkpoint(), {})

    async def close(self) -> None:
        self._producer.stop()

    def _refuse_unsendable(self, chunk: Chunk) -> None:
        """Refuse the first row that the producer would refuse.

        Raises:
            RowFailed: A record is too large, or its key, value or time has a wrong type.
        """
        keys, stamps = list(chunk.keys), list(chunk.timestamps_ms)
        largest_bytes = codec.scan_columns(list(chunk.values), keys, stamps, NO_TIMESTAMP_MS)
        limit_bytes = self._sink.max_request_size_bytes or REQUEST_BYTES_DEFAULT
        if 0 <= largest_bytes <= limit_bytes - _RECORD_BYTES_SPARE:
            return
        for row, (value, key, stamp) in enumerate(zip(chunk.values, keys, stamps, strict=True)):
            try:
                if codec.scan_columns([value], [key], [stamp], NO_TIMESTAMP_MS) < 0:
                    raise TypeError(
                        "a record needs bytes as its value, bytes or None as its key and a time "
                        f"in ms, not {type(value).__name__}, {type(key).__name__} and {stamp!r}"
                    )
                self._producer.check_fits(value, key)
            except (RecordTooLarge, TypeError) as error:
                raise RowFailed(row, self.on_chunk(chunk.slice(0, row))) from error

    def _choose(self, chunk: Chunk) -> list[int]:
        """Call the user's partitioner; if it fails, call it row by row to find the failed row.

        Raises:
            RowFailed: It raised on a row, or did not return a valid partition.
        """
        partitioner = self._sink.partitioner
        assert partitioner is not None, "called only if there is a partitioner"
        count = self._client.cluster.metadata.partition_count(self._sink.topic)
        try:
            return _checked(partitioner(chunk.keys, count), len(chunk), count)
        except BaseException:
            chosen: list[int] = []
        for row, key in enumerate(chunk.keys):
            try:
                chosen += _checked(partitioner([key], count), 1, count)
            except BaseException as error:
                before = chunk.slice(0, row)
                pairs = list(zip(before.values, chosen, strict=True))
                raise RowFailed(row, before.with_values(pairs)) from error
        return chosen

    def _already_chosen(self, keys: Sequence[bytes | None], count: int) -> list[int]:
        return list(islice(self._chosen, len(keys)))


def _checked(chosen: Any, rows: int, count: int) -> list[int]:
    """Return the partitions that a partitioner chose.

    Raises:
        UsageError: The result is not one valid partition for each row.
    """
    found = list(chosen)
    if len(found) != rows:
        raise UsageError(f"the partitioner returned {len(found)} partitions for {rows} keys")
    for each in found:
        if type(each) is not int or not 0 <= each < count:
            raise UsageError(
                f"the partitioner returned {each!r}, but the partitions are 0 to {count - 1}"
            )
    return found


async def prepare_topics(
    client: Client,
    sources: list[TopicSource],
    sinks: list[TopicSink],
    *,
    creates_sinks: bool,
    creates_sources: bool,
    on_created: Callable[[str, int], None],
    on_mismatch: Callable[[str, int, int], None] = lambda topic, wanted, found: None,
) -> None:
    """Check that every topic exists; create missing ones if the options allow it.

    ``on_mismatch`` is called for each topic whose partition count differs from its `Topic`:
    with the topic, the declared count and the actual count.

    Raises:
        TopicNotFound: A topic is missing and may not be created; the hint has the command.
    """
    for source in sources:
        partitions = source.partition_count or 1
        await _ensure(
            client, source.topic, partitions, may_create=creates_sources, on_created=on_created
        )
    for sink in sinks:
        partitions = sink.partitions or 1
        await _ensure(
            client, sink.topic, partitions, may_create=creates_sinks, on_created=on_created
        )
    declared = {(each.topic, each.partition_count) for each in sources}
    declared |= {(each.topic, each.partitions) for each in sinks}
    for topic, count in declared:
        if count is not None:
            found = await client.cluster.partition_count(topic)
            if found != count:
                on_mismatch(topic, count, found)


async def _ensure(
    client: Client,
    topic: str,
    partitions: int,
    *,
    may_create: bool,
    on_created: Callable[[str, int], None],
) -> None:
    metadata = client.cluster.metadata
    if metadata.topic(topic) is not None:
        return
    if not may_create:
        try:
            await client.cluster.partition_count(topic)
            return
        except TopicNotFound as error:
            command = f"streamkit topic create {topic} -p {partitions}"
            hint = f"{error.hint}; create it with `{command}` or with --create-topics"
            raise TopicNotFound(topic, hint=hint) from None
    try:
        await client.admin.create_topic(topic, partitions)
    except TopicAlreadyExists:
        return  # another job that starts at the same time has created it
    on_created(topic, partitions)


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that are set, so that the client's defaults apply to the others."""
    return {name: value for name, value in options.items() if value is not None}
