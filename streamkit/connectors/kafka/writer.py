"""Writes to a Kafka topic; a commit waits until Kafka has acknowledged every record."""

from __future__ import annotations

from typing import Any, Final

from streamkit.connectors.kafka.client import (
    Config,
    Watch,
    client_config,
    library,
    max_record_bytes,
    partitions_now,
    when_there,
)
from streamkit.connectors.own_thread import OwnThread
from streamkit.dataflow.contracts import AcknowledgedWriter, ConnectorEnv, Positions, Prepared
from streamkit.dataflow.steps import RowFailed
from streamkit.errors import ConfigError, RecordTooLarge
from streamkit.record import Chunk

_WAIT_S: Final = 0.1
_BUFFER_KB: Final = 65_536


class KafkaWriter(AcknowledgedWriter):
    """The writer of a `KafkaSink`.

    All calls of the library are made in its own thread, one after another. So a flush waits for
    exactly the records that were written before it.
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
        self._bytes_max = max_record_bytes(config)
        self._thread = OwnThread(f"kafka-sink-{env.name}")
        self._watch = Watch(self._where, config)
        self._producer: Any = None
        self._kafka: Any = None
        self._is_closed = False
        self._written = 0
        self._acknowledged = 0

    @property
    def unacknowledged(self) -> int:
        return self._written - self._acknowledged

    async def open(self, committed: Positions) -> None:
        self._kafka = library()
        await self._thread.call(self._create)
        await when_there(self._thread, self._partitions, self._watch, self._env.note)

    def on_chunk(self, chunk: Chunk) -> Chunk:
        for row, (key, value) in enumerate(zip(chunk.keys, chunk.values, strict=True)):
            size = _size(value) + (0 if key is None else len(key))
            if size > self._bytes_max:
                raise RowFailed(row, chunk.slice(0, row)) from RecordTooLarge(
                    f"key and value have {size} bytes, but {self._where} accepts {self._bytes_max}",
                    hint="raise message.max.bytes in config=, and of the topic in Kafka",
                )
        return chunk

    async def write(self, chunk: Chunk) -> None:
        self._watch.check()
        self._written += len(chunk)
        await self._thread.call(lambda: self._produce(chunk))
        self._watch.show(self._env.note)
        self._watch.check()

    def prepare_commit(self, *, is_last: bool) -> Prepared:
        written = self._written

        async def wait() -> None:
            if written > self._acknowledged:
                await self._thread.call(self._flush)
                self._watch.show(self._env.note)
                self._watch.check()
                self._acknowledged = max(self._acknowledged, written)
            self._watch.check()

        return Prepared(wait, {})

    async def close(self) -> None:
        self._is_closed = True
        await self._thread.close(self._close)

    # --- in the thread ----------------------------------------------------------------

    def _create(self) -> None:
        config = {
            # While Kafka is away, records wait instead of failing after five minutes.
            "message.timeout.ms": 0,
            "linger.ms": 5,
            "queue.buffering.max.kbytes": _BUFFER_KB,
            # A key goes to the partition that Kafka's own clients choose for it.
            "partitioner": "murmur2_random",
            "allow.auto.create.topics": False,
            **client_config(self._servers, self._config, self._watch),
            "enable.idempotence": True,
            "acks": "all",
            "delivery.report.only.error": True,
            "on_delivery": self._on_delivery,
        }
        try:
            self._producer = self._kafka.Producer(config)
        except self._kafka.KafkaException as error:
            text = self._watch.text(error.args[0])
            raise ConfigError(f"{self._where}: config= is not valid: {text}") from None

    def _partitions(self) -> list[int] | None:
        self._producer.poll(0)  # for the callbacks
        return partitions_now(self._producer, self._topic)

    def _on_delivery(self, error: Any, message: Any) -> None:
        if error is not None:
            self._watch.fail(error)

    def _produce(self, chunk: Chunk) -> None:
        produce, topic = self._producer.produce, self._topic
        rows = zip(chunk.values, chunk.keys, chunk.timestamps_ms, strict=True)
        for value, key, timestamp_ms in rows:
            options: dict[str, Any] = {"timestamp": max(0, timestamp_ms)}  # 0: the present time
            if type(value) is tuple:
                value, options["headers"] = value
            while not self._is_over():
                try:
                    produce(topic, value, key, **options)
                    break
                except BufferError:
                    self._producer.poll(_WAIT_S)
                except self._kafka.KafkaException as error:
                    self._watch.fail(error.args[0])
        self._producer.poll(0)

    def _flush(self) -> None:
        while not self._is_over() and self._producer.flush(_WAIT_S):
            pass
        if not self._is_over():
            self._watch.is_back()

    def _is_over(self) -> bool:
        return self._is_closed or self._watch.failure is not None

    def _close(self) -> None:
        if self._producer is not None:
            self._producer.purge()
            self._producer = None  # the library ends its threads and connections


def _size(value: Any) -> int:
    """Return how many bytes a value has, with its headers if it has some."""
    if value is None:
        return 0
    if type(value) is not tuple:
        return len(value)
    data, headers = value
    return _size(data) + sum(len(name.encode()) + len(each or b"") for name, each in headers)
