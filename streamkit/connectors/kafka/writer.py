"""Writes to a Kafka topic; a commit waits until Kafka has acknowledged every record."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from operator import length_hint
from typing import Any, Final, TypeVar

import anyio

from streamkit.connectors.kafka.administration import Administration
from streamkit.connectors.kafka.client import (
    Config,
    Watch,
    client_config,
    library,
    not_valid,
    sizes_of,
    when_there,
)
from streamkit.connectors.kafka.limits import RecordLimits, TopicOptions
from streamkit.connectors.own_thread import OwnThread
from streamkit.dataflow.contracts import AcknowledgedWriter, ConnectorEnv, Positions, Prepared
from streamkit.record import Chunk

T = TypeVar("T")

_WAIT_S: Final = 0.1
_FULL_S: Final = 0.01
_BUFFER_KB: Final = 65_536
_ANY_PARTITION: Final = -1  # the partitioner chooses
# After how much time without an acknowledgement the user gets a message.
_SILENT_S: Final = 10.0


class KafkaWriter(AcknowledgedWriter):
    """The writer of a `KafkaSink`.

    All calls of the library are made in its own thread. They return after a moment, so that
    messages are shown while Kafka is away. A flush would also wait for records that are written
    meanwhile, so writes wait for it.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        config: Config,
        env: ConnectorEnv,
    ) -> None:
        self.description = f"Kafka topic {topic} at {servers} (at least once)"
        self._where = f"Kafka topic {topic} at {servers}"
        self._servers = servers
        self._topic = topic
        self._config = config
        self._env = env
        self._limits = RecordLimits(self._where, config, TopicOptions())
        self._thread = OwnThread(f"kafka-sink-{env.name}")
        self._watch = Watch(self._where, config)
        self._administration = Administration(servers, topic, config, self._watch)
        self._producer: Any = None
        self._kafka: Any = None
        self._turn = anyio.Lock()
        self._written = 0
        self._acknowledged = 0
        self._left = 0
        self._heard_s = 0.0

    @property
    def unacknowledged(self) -> int:
        return self._written - self._acknowledged

    async def open(self, committed: Positions) -> None:
        self._kafka = library()
        found = self._administration
        await when_there(self._thread, found.partitions, self._watch, self._env.note)
        await self._thread.call(self._create)

    def on_chunk(self, chunk: Chunk) -> Chunk:
        return self._limits.checked(chunk, self._env.clock.wall_ms())

    async def write(self, chunk: Chunk) -> None:
        async with self._turn:
            self._watch.check()
            self._written += len(chunk)
            row = 0
            while row < len(chunk):
                row = await self._called(partial(self._produce, chunk, row))

    def prepare_commit(self, *, is_last: bool) -> Prepared:
        written = self._written

        async def wait() -> None:
            async with self._turn:
                while written > self._acknowledged:
                    if await self._called(self._flush):
                        self._acknowledged = max(self._acknowledged, written)
                        self._watch.is_back()
                        self._watch.show(self._env.note)
            self._watch.check()

        return Prepared(wait, {})

    async def close(self) -> None:
        await self._thread.close(self._close)

    async def _called(self, function: Callable[[], T]) -> T:
        try:
            found = await self._thread.call(function)
        except self._kafka.KafkaException as error:
            self._watch.fail(error.args[0])
            self._watch.check()
            raise
        self._watch.show(self._env.note)
        self._watch.check()
        return found

    # --- in the thread ----------------------------------------------------------------

    def _create(self) -> None:
        options = self._administration.options()
        self._administration.close()
        self._limits = RecordLimits(self._where, self._config, options)
        config = {
            # While Kafka is away, records wait instead of failing after five minutes.
            "message.timeout.ms": 0,
            "linger.ms": 5,
            "queue.buffering.max.kbytes": _BUFFER_KB,
            # A key goes to the partition that Kafka's own clients choose for it.
            "partitioner": "murmur2_random",
            "allow.auto.create.topics": False,
            **client_config(self._servers, self._config, self._watch),
            **sizes_of(self._config, options.batch_bytes_max),
            "enable.idempotence": True,
            "acks": "all",
            "delivery.report.only.error": True,
            "on_delivery": self._on_delivery,
        }
        try:
            self._producer = self._kafka.Producer(config)
        except self._kafka.KafkaException as error:
            raise not_valid(self._where, self._watch, error) from None

    def _on_delivery(self, error: Any, message: Any) -> None:
        if error is not None:
            self._watch.fail(error)

    def _produce(self, chunk: Chunk, start: int) -> int:
        """Write rows from ``start`` on until the buffer is full; return the next row."""
        rest = chunk.slice(start, len(chunk))
        rows: list[Any] = list(rest.values)  # whose iterator knows how many are left
        # `map` would end with the shortest column.
        assert len(rows) == len(rest.keys) == len(rest.timestamps_ms), "columns have equal lengths"
        headers: Iterable[Any] = repeat(None)
        if tuple in set(map(type, rows)):
            headers = [each[1] if type(each) is tuple else None for each in rows]
            rows = [each[0] if type(each) is tuple else each for each in rows]
        values = iter(rows)
        nothing = repeat(None)
        calls = map(
            self._producer.produce,
            repeat(self._topic),
            values,
            rest.keys,
            repeat(_ANY_PARTITION),
            nothing,  # no callback of their own
            nothing,
            _present(rest.timestamps_ms),
            headers,
        )
        try:
            deque(calls, maxlen=0)
        except BufferError:
            row = len(chunk) - length_hint(values) - 1  # that of the call
            self._producer.poll(_FULL_S)
            self._listen(len(self._producer), has_moved=row > start)
            return row
        except self._kafka.KafkaException as error:
            self._watch.fail(error.args[0])
            return len(chunk) - length_hint(values) - 1
        self._producer.poll(0)
        return len(chunk)

    def _flush(self) -> bool:
        """Wait a moment; return whether Kafka has acknowledged everything."""
        left = self._producer.flush(_WAIT_S)
        self._listen(left, has_moved=left < self._left)
        return not left

    def _listen(self, left: int, *, has_moved: bool) -> None:
        """Notice that no record was acknowledged for some time."""
        now_s = self._env.clock.monotonic_s()
        if has_moved or not self._left:
            self._heard_s = now_s
        elif now_s - self._heard_s > _SILENT_S:
            self._watch.is_silent(left, now_s - self._heard_s)
        self._left = left

    def _close(self) -> None:
        self._administration.close()
        if self._producer is not None:
            self._producer.purge()
            self._producer = None  # the library ends its threads and connections


def _present(timestamps_ms: Sequence[int]) -> Iterable[int]:
    """Return timestamps with 0, the present time, for those that are not known."""
    if min(timestamps_ms) > 0:
        return timestamps_ms
    return [each if each > 0 else 0 for each in timestamps_ms]
