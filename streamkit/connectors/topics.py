"""Fluvio topics as sources and sinks: the one place where engine and client meet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import anyio
import google_crc32c

from streamkit.client.backoff import OnRetry
from streamkit.client.client import Client
from streamkit.client.cluster import retrying
from streamkit.client.consumer import Consumer
from streamkit.client.offsets import OffsetClient
from streamkit.client.positions import records_from
from streamkit.client.producer import Producer
from streamkit.dataflow.endpoints import TopicSink, TopicSource
from streamkit.errors import (
    OffsetEvicted,
    StateMismatch,
    StreamKitError,
    TopicAlreadyExists,
    TopicNotFound,
)
from streamkit.record import NO_TIMESTAMP_MS, Chunk
from streamkit.runtime.ports import Positions, SourceFacts

_STORE_S_MAX = 1.0
_COMPARED_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Mark:
    """A position in a partition, and what tells the log: the record in front of it."""

    next_offset: int
    timestamp_ms: int
    crc: int


class TopicReader:
    """Reads a topic, all partitions merged.

    Positions are a `Mark` per partition. After a commit they are also stored in the
    broker under the app's name, for whoever wants to see the lag.
    """

    def __init__(
        self,
        client: Client,
        source: TopicSource,
        *,
        app: str,
        until_end: bool,
        resumes_from_broker: bool,
        on_retry: OnRetry,
    ) -> None:
        self._client = client
        self._source = source
        self._app = app
        self._until_end = until_end
        self._resumes_from_broker = resumes_from_broker
        self._on_retry = on_retry
        self._consumer: Consumer | None = None
        self._next_offsets: dict[int, int] = {}
        self._stored: dict[str, Any] = {}

    async def open(self, committed: Positions) -> SourceFacts:
        origin = "committed offsets"
        saved = {int(number): Mark(**mark) for number, mark in committed.items()}
        starts = {number: mark.next_offset for number, mark in saved.items()}
        if not starts and self._resumes_from_broker:
            starts = await self._stored_by_broker()
            origin = "the offsets the broker has of this app (no state was found here)"
        if not starts:
            origin = str(self._source.start)
        await self._check(starts)
        await self._compare(saved)
        self._consumer = consumer = self._client.consumer(
            self._source.topic,
            # A partition that is new since the last commit is read from its beginning.
            start="beginning" if starts else self._source.start,
            starts=starts,
            partitions=self._source.partitions,
            until_end=self._until_end,
            consumer_id=self._app,
            resume=False,  # where to begin is decided here, by the job's own state first
            on_retry=self._on_retry,
            **_given(isolation=self._source.isolation, max_bytes=self._source.max_bytes),
        )
        await consumer.open()
        self._next_offsets = consumer.starts()
        ends = consumer.high_watermarks()
        waiting = sum(max(0, ends[number] - at) for number, at in self._next_offsets.items())
        at = ", ".join(f"{number}: {offset}" for number, offset in self._next_offsets.items())
        return SourceFacts(f"topic {self._source.topic} from {origin} ({at})", waiting)

    async def next(self) -> Chunk | None:
        assert self._consumer is not None, "open comes first"
        return await self._consumer.next_chunk()

    def position_after(self, chunk: Chunk) -> tuple[str, Any]:
        after = chunk.offsets[-1] + 1
        self._next_offsets[chunk.partition] = after
        mark = Mark(after, chunk.timestamps_ms[-1], google_crc32c.value(chunk.values[-1]))
        return str(chunk.partition), asdict(mark)

    async def committed(self, positions: Mapping[str, Any]) -> None:
        assert self._consumer is not None, "open comes first"
        with anyio.move_on_after(_STORE_S_MAX):
            for number, mark in positions.items():
                offset = mark["next_offset"]
                if self._stored.get(number) == offset or offset == 0:
                    continue
                try:
                    await self._consumer.store(int(number), offset - 1)
                except StreamKitError:
                    return  # the truth is in the store; this copy may lag behind
                self._stored[number] = offset

    def lag(self) -> int | None:
        if self._consumer is None:
            return None
        ends = self._consumer.ends() if self._until_end else self._consumer.high_watermarks()
        return sum(max(0, ends[number] - at) for number, at in self._next_offsets.items())

    def stop(self) -> bool:
        return False  # the topic keeps what was read ahead

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.close()

    async def _stored_by_broker(self) -> dict[int, int]:
        found = await self._retrying(
            lambda: OffsetClient(self._client.cluster).stored(self._app, self._source.topic)
        )
        return {each.partition: each.offset + 1 for each in found}

    async def _check(self, starts: dict[int, int]) -> None:
        """Refuse positions that the log does not have: nobody would ever notice the wait.

        Raises:
            StateMismatch: The log ends before a position.
            OffsetEvicted: Retention has removed what a position points at.
        """
        topic = self._source.topic
        count = await self._client.cluster.partition_count(topic)
        for number, offset in starts.items():
            if number >= count:
                raise StateMismatch(
                    f"offset {offset} of {topic}-{number} is committed, but the topic has only "
                    f"{count} partitions: it is another topic of that name",
                    hint="start over with --fresh-state",
                )
            first, end = await self._retrying(
                lambda number=number: OffsetClient(self._client.cluster).bounds(topic, number)  # type: ignore[misc]
            )
            if offset > end:
                raise StateMismatch(
                    f"offset {offset} of {topic}-{number} is committed, but it ends at {end}: "
                    "the log has lost data, or is another topic of that name",
                    hint="start over with --fresh-state",
                )
            if offset < first:
                raise OffsetEvicted(offset, first)

    async def _compare(self, saved: dict[int, Mark]) -> None:
        """Refuse a log whose last record read is not the one that was read.

        A topic deleted and made anew has the same offsets, and none of the same records.

        Raises:
            StateMismatch: It is another log.
        """
        topic = self._source.topic
        for number, mark in saved.items():
            held = await self._retrying(partial(self._record_before, number, mark.next_offset))
            if held is not None and held != (mark.timestamp_ms, mark.crc):
                raise StateMismatch(
                    f"offset {mark.next_offset} of {topic}-{number} is committed, but the record "
                    "in front of it is not the one that was read: the topic was made anew, or "
                    "its log fell back",
                    hint="start over with --fresh-state",
                )

    async def _record_before(self, number: int, offset: int) -> tuple[int, int] | None:
        """Return timestamp and checksum of the record in front of an offset, if it is there."""
        offsets = OffsetClient(self._client.cluster)
        found = await offsets.fetch(self._source.topic, number, offset - 1, _COMPARED_BYTES)
        chunk = records_from(self._source.topic, number, offset - 1, found)
        if chunk is None or chunk.offsets[0] != offset - 1:
            return None  # its batch is larger than what was asked for, or it left a gap
        return chunk.timestamps_ms[0], google_crc32c.value(chunk.values[0])

    async def _retrying(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        return await retrying(
            self._client.cluster,
            attempt,
            self._source.topic,
            give_up_s=None,
            on_retry=self._on_retry,
        )


class TopicWriter:
    """Writes to a topic by a producer that never gives up and waits for every replica."""

    has_effects_at_once = False

    def __init__(self, client: Client, sink: TopicSink, *, on_retry: OnRetry) -> None:
        self._client = client
        self._sink = sink
        self._linger_s = sink.linger_s
        self._producer: Producer = client.producer(
            sink.topic,
            linger=0.0 if sink.linger_s is None else sink.linger_s,
            isolation="read_committed",
            partitioner=sink.partitioner,
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

    async def open(self) -> None:
        await self._producer.open()

    async def write(self, chunk: Chunk) -> None:
        stamps: list[int] | None = list(chunk.timestamps_ms)
        if stamps and NO_TIMESTAMP_MS in stamps:
            now_ms = self._client.cluster.clock.wall_ms()
            stamps = [now_ms if each < 0 else each for each in stamps]
        await self._producer.send_many(chunk.values, chunk.keys, timestamps_ms=stamps)
        if self._linger_s is None:
            self._producer.send_now()

    def seal(self) -> Awaitable[None]:
        return self._producer.checkpoint()()

    async def close(self) -> None:
        self._producer.stop()


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
    """See that every topic is there; make what may be made.

    ``on_mismatch`` is told each topic that has another number of partitions than its `Topic`
    says: the number said, and the number found.

    Raises:
        TopicNotFound: A topic is missing that may not be made; the hint names the command.
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
    said = {(each.topic, each.partition_count) for each in sources}
    said |= {(each.topic, each.partitions) for each in sinks}
    for topic, wanted in said:
        if wanted is not None:
            found = await client.cluster.partition_count(topic)
            if found != wanted:
                on_mismatch(topic, wanted, found)


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
            hint = f"{error.hint}; `{command}` makes it, or --create-topics"
            raise TopicNotFound(topic, hint=hint) from None
    try:
        await client.admin.create_topic(topic, partitions)
    except TopicAlreadyExists:
        return  # another job that starts now was quicker
    on_created(topic, partitions)


def _given(**options: Any) -> dict[str, Any]:
    """Leave out the options that are not set, so that the defaults stand in one place."""
    return {name: value for name, value in options.items() if value is not None}
