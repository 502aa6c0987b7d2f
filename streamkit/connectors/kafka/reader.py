"""Reads the partitions of a Kafka topic from positions that the job commits."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import repeat
from typing import Any, Final

from streamkit.connectors.kafka.administration import Administration
from streamkit.connectors.kafka.client import (
    Config,
    Watch,
    client_config,
    is_away,
    library,
    not_valid,
    when_there,
)
from streamkit.connectors.kafka.starts import TOPIC_ID, Starts, offsets_of
from streamkit.connectors.kafka.topic_facts import TopicFacts
from streamkit.connectors.kafka.values import KafkaRecord
from streamkit.connectors.own_thread import OwnThread
from streamkit.dataflow.contracts import ConnectorEnv, Positions, SourceFacts, SourceReader
from streamkit.errors import ConfigError
from streamkit.limits import CHUNK_BYTES_MAX
from streamkit.record import NO_TIMESTAMP_MS, Chunk

_ROWS_MAX: Final = 1_000
_POLL_S: Final = 0.1
_LAG_S: Final = 1.0
_PREFETCH_KB: Final = 16_384
_BACKOFF_MS: Final = 20


class KafkaReader(SourceReader):
    """The reader of a `KafkaSource`.

    All calls of the library are made in its own thread. The rows of a call that was cancelled stay
    in ``_chunks`` for the next one. Values are bytes, or None for a tombstone; with
    ``has_headers``, each is a `KafkaRecord` of them.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        starts: Starts,
        config: Config,
        env: ConnectorEnv,
        *,
        has_headers: bool,
    ) -> None:
        self._where = starts.where
        self._servers = servers
        self._topic = topic
        self._starts = starts
        self._config = config
        self._env = env
        self._has_headers = has_headers
        self._thread = OwnThread(f"kafka-source-{env.name}")
        self._watch = Watch(self._where, config)
        self._kafka: Any = None
        self._consumer: Any = None
        self._administration = Administration(servers, topic, config, self._watch)
        self._facts: TopicFacts | None = None
        self._chunks: deque[Chunk] = deque()
        self._next: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        # The offset after the last record that was read, and after the last that was processed.
        self._read: dict[int, int] = {}
        self._done: dict[int, int] = {}
        # Where the log continues after the last record that was read, which is the first number:
        # there were only markers of transactions, or records that were removed or aborted.
        self._gaps: dict[int, tuple[int, int]] = {}
        # How far a partition has no more records, although its end may be a marker after them.
        self._empty_until: dict[int, int] = {}
        self._reading: set[int] = set()
        self._measured_s = 0.0

    async def open(self, committed: Positions) -> SourceFacts:
        self._kafka = library()
        facts = self._facts = await self._thread.call(self._create)
        await when_there(
            self._thread, lambda: self._assign(facts, committed), self._watch, self._env.note
        )
        starts = {str(each): str(at) for each, at in self._next.items()}
        return SourceFacts(
            f"{self._where}, {len(self._next)} partition(s)",
            waiting=self.lag(),
            start_offsets=starts | ({TOPIC_ID: facts.topic_id} if facts.topic_id else {}),
        )

    async def next(self) -> Chunk | None:
        while not self._chunks:
            if self._env.until_end and not self._reading:
                return None
            try:
                await self._thread.call(self._poll)
            except self._kafka.KafkaException as error:
                self._watch.fail(error.args[0])
            self._watch.show(self._env.note)
            if not self._chunks:  # what came before a failure is processed first
                self._watch.check()
        chunk = self._chunks.popleft()
        self._next[chunk.partition] = chunk.offsets[-1] + 1
        return chunk

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        after = self._done[chunk.partition] = chunk.offsets[-1] + 1
        return str(chunk.partition), str(after)

    def skipped_positions(self) -> Positions:
        # Otherwise the job could not resume if retention also removes what follows the last record.
        found: dict[str, str] = {}
        for partition, (read, end) in tuple(self._gaps.items()):
            if self._done[partition] == read:
                del self._gaps[partition]
                found[str(partition)] = str(end)
        return found

    def lag(self) -> int:
        return sum(self.backlog().values())

    def backlog(self) -> Mapping[int, int]:
        waiting = {each.partition for each in tuple(self._chunks)}
        found: dict[int, int] = {}
        for each, end in tuple(self._ends.items()):
            at = self._next[each]
            if each not in waiting:
                at = max(at, self._empty_until.get(each, 0))
            found[each] = max(0, end - at)
        return found

    async def close(self) -> None:
        await self._thread.close(self._close)

    # --- in the thread ----------------------------------------------------------------

    def _create(self) -> TopicFacts:
        config = {
            "queued.max.messages.kbytes": _PREFETCH_KB,
            # After a full buffer, the default is to fetch again only after a second.
            "fetch.queue.backoff.ms": _BACKOFF_MS,
            "check.crcs": True,  # as Kafka's own clients do; then a damaged batch fails the job
            "group.id": f"streamkit-{self._env.app}",  # required, but never joined
            **client_config(self._servers, self._config, self._watch),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
        try:
            self._consumer = self._kafka.Consumer(config)
        except self._kafka.KafkaException as error:
            raise not_valid(self._where, self._watch, error) from None
        now_s = self._env.clock.monotonic_s()
        return TopicFacts(self._consumer, self._administration, self._where, self._topic, now_s)

    def _assign(self, facts: TopicFacts, committed: Positions) -> dict[int, int] | None:
        """Find all positions and start there; None if no broker has answered."""
        self._consumer.poll(0)  # for the callbacks
        limits = facts.all_limits(self._starts.start)
        if limits is None:
            return None
        facts.check_id(committed.get(TOPIC_ID, ""))
        starts, messages = self._starts.chosen(offsets_of(committed), limits)
        self._watch.messages += messages
        self._next = starts
        self._read, self._done = dict(starts), dict(starts)
        self._ends = {each: found.end for each, found in limits.items()}
        self._reading = set(limits)
        self._consumer.assign([self._at(each, at) for each, at in starts.items()])
        return starts

    def _at(self, partition: int, *offset: int) -> Any:
        return self._kafka.TopicPartition(self._topic, partition, *offset)

    def _poll(self) -> None:
        """Add the records that have come to ``_chunks``; wait a moment if there are none."""
        self._look_for_partitions()
        self._measure()
        first = self._consumer.poll(_POLL_S)  # returns with the first one, `consume` with the last
        if first is None:
            return
        messages = [first, *self._consumer.consume(_ROWS_MAX - 1, timeout=0)]
        errors: list[Any] = []
        if any(map(self._kafka.Message.error, messages)):
            errors = [each for each in messages if each.error() is not None]
            messages = [each for each in messages if each.error() is None]
        if messages:
            self._watch.is_back()
            for partition, rows in self._by_partition(messages).items():
                self._add(partition, rows)
        for each in errors:
            self._take_error(each)

    def _by_partition(self, messages: list[Any]) -> dict[int, list[Any]]:
        numbers = list(map(self._kafka.Message.partition, messages))
        if numbers.count(numbers[0]) == len(numbers):
            return {numbers[0]: messages}
        found: dict[int, list[Any]] = {each: [] for each in numbers}
        for number, each in zip(numbers, messages, strict=True):
            found[number].append(each)
        return found

    def _take_error(self, message: Any) -> None:
        error = message.error()
        partition = message.partition()
        if error.name() == "_AUTO_OFFSET_RESET" and self._skip_removed(partition):
            return
        if error.code() != self._kafka.KafkaError._PARTITION_EOF:
            if not (error.retriable() or is_away(error)):
                self._watch.fail(error)
            return
        end = message.offset()
        self._passes(partition, end)
        self._ends[partition] = max(self._ends[partition], end)
        if self._env.until_end:
            self._end(partition)

    def _passes(self, partition: int, end: int) -> None:
        """Learn that there are no more records before an offset."""
        if end > max(self._read[partition], self._empty_until.get(partition, 0)):
            self._gaps[partition] = self._read[partition], end
        self._empty_until[partition] = end

    def _skip_removed(self, partition: int) -> bool:
        """Continue after records that were removed; return whether that is why a fetch failed."""
        if self._starts.removed != "skip" or self._facts is None:
            return False
        limits = self._facts.limits(partition)
        at = self._read[partition]
        if limits is None or at >= limits[0]:
            return False
        self._watch.messages.append(self._starts.skipped(partition, at, limits[0]))
        self._passes(partition, limits[0])
        self._consumer.incremental_unassign([self._at(partition)])
        self._consumer.incremental_assign([self._at(partition, limits[0])])
        return True

    def _add(self, partition: int, messages: list[Any]) -> None:
        last = messages[-1].offset()
        self._read[partition] = last + 1
        if self._env.until_end:
            end = self._ends[partition]
            if last + 1 >= end:
                self._end(partition)
                messages = [each for each in messages if each.offset() < end]
        else:
            self._ends[partition] = max(self._ends[partition], last + 1)
        if messages:
            self._chunks.extend(_bounded(self._chunk(partition, messages)))

    def _end(self, partition: int) -> None:
        """Stop reading a partition."""
        if partition in self._reading:
            self._reading.discard(partition)
            self._consumer.incremental_unassign([self._at(partition)])

    def _chunk(self, partition: int, messages: list[Any]) -> Chunk:
        kind = self._kafka.Message
        values = list(map(kind.value, messages))
        keys = list(map(kind.key, messages))
        offsets = list(map(kind.offset, messages))
        times_ms = [
            NO_TIMESTAMP_MS if is_missing == 0 else at
            for is_missing, at in map(kind.timestamp, messages)
        ]
        if self._has_headers:
            headers = [tuple(each.headers() or ()) for each in messages]
            where = (repeat(partition), repeat(self._topic))
            values = list(map(KafkaRecord, values, keys, times_ms, offsets, *where, headers))
        return Chunk(values, keys, times_ms, offsets, self._topic, partition)

    def _measure(self) -> None:
        """Learn the ends of the partitions from the last responses, for `lag`."""
        now_s = self._env.clock.monotonic_s()
        if self._env.until_end or now_s - self._measured_s < _LAG_S:
            return
        self._measured_s = now_s
        for each in self._ends:
            _, end = self._consumer.get_watermark_offsets(self._at(each), cached=True)
            self._ends[each] = max(self._ends[each], end)

    def _look_for_partitions(self) -> None:
        facts = self._facts
        assert facts is not None, "open comes first"
        try:
            found = facts.new_partitions(self._next, self._env.clock.monotonic_s())
        except ConfigError as error:
            self._watch.failure = self._watch.failure or error
            return
        for each in () if self._env.until_end else found:
            limits = facts.limits(each)
            if limits is None:
                return
            self._next[each], self._ends[each] = limits
            self._read[each] = self._done[each] = limits[0]
            self._consumer.incremental_assign([self._at(each, limits[0])])
            self._watch.messages.append(f"{self._where}: reads the new partition {each}")

    def _close(self) -> None:
        self._administration.close()
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


def _bounded(chunk: Chunk) -> list[Chunk]:
    """Return the parts of a chunk that have about 1 MiB."""
    values = chunk.values
    if isinstance(values[0], KafkaRecord):
        values = [each.value for each in values]
    if sum(map(len, filter(None, values))) <= CHUNK_BYTES_MAX:
        return [chunk]
    parts: list[Chunk] = []
    first = size = 0
    for row, value in enumerate(values):
        size += len(value or b"")
        if size >= CHUNK_BYTES_MAX:
            parts.append(chunk.slice(first, row + 1))
            first, size = row + 1, 0
    if first < len(chunk):
        parts.append(chunk.slice(first, len(chunk)))
    return parts
