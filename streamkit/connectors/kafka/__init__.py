"""Topics of Kafka as sources and sinks; needs the extra ``kafka``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from streamkit.connectors.kafka.client import Config, checked_config, max_record_bytes
from streamkit.connectors.kafka.reader import KafkaReader
from streamkit.connectors.kafka.writer import KafkaWriter
from streamkit.dataflow.contracts import ConnectorEnv, Sink, Source
from streamkit.errors import UsageError
from streamkit.record import Offset, Origin
from streamkit.serde.binding import Serde
from streamkit.serde.values import ValueEncoder, encoder_for

__all__ = ["KafkaSink", "KafkaSource"]

Tombstones = Literal["empty", "skip"]


@dataclass(frozen=True, slots=True)
class KafkaSource(Source[Any]):
    """All partitions of one Kafka topic.

    The positions are in the commits of the job; consumer groups are not used. Keys and timestamps
    are kept, headers are dropped. New partitions are read from their beginning.

    Args:
        servers: Bootstrap servers, such as ``"host:9092,other:9092"``.
        topic: The name of the topic.
        start: Where the first run starts: ``"beginning"``, ``"end"``, or another `Offset` that is
            not a time.
        tombstones: ``"empty"`` makes ``b""`` of a record without a value, ``"skip"`` drops it.
        config: Options of librdkafka. Passwords must be `streamkit.Secret`.

    Raises:
        UsageError: An option is not valid.
    """

    servers: str
    topic: str
    start: Offset | str = "beginning"
    tombstones: Tombstones = "empty"
    config: Config = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        checked_config(self.servers, self.topic, self.config)
        if Offset.parse(self.start).origin is Origin.TIME:
            raise UsageError(
                "KafkaSource cannot start at a time", hint='use "beginning", "end" or an offset'
            )
        if self.tombstones not in ("empty", "skip"):
            raise UsageError(
                f"tombstones={self.tombstones!r} is not valid", hint='use "empty" or "skip"'
            )

    def __str__(self) -> str:
        return f"Kafka topic {self.topic} at {self.servers}"

    @property
    def name(self) -> str:
        """The name of the topic in the form that names of nodes have."""
        return f"kafka-{re.sub('[^a-z0-9]+', '-', self.topic.lower())}"[:60].rstrip("-")

    def reader(self, env: ConnectorEnv) -> KafkaReader:
        """Create the reader that the engine uses."""
        return KafkaReader(
            self.servers,
            self.topic,
            Offset.parse(self.start),
            self.config,
            env,
            skips_tombstones=self.tombstones == "skip",
        )


@dataclass(frozen=True, slots=True)
class KafkaSink(Sink[Any]):
    """One Kafka topic, which must exist.

    Records are delivered at least once, with ``acks=all`` and librdkafka's idempotent producer.
    Keys and timestamps are kept. A record that is larger than ``message.max.bytes`` fails.

    Args:
        servers: Bootstrap servers, such as ``"host:9092,other:9092"``.
        topic: The name of the topic.
        tombstones: Whether an empty value is written as a record without a value.
        config: Options of librdkafka. Passwords must be `streamkit.Secret`.

    Raises:
        UsageError: An option is not valid.
    """

    servers: str
    topic: str
    tombstones: bool = False
    config: Config = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        checked_config(self.servers, self.topic, self.config)
        max_record_bytes(self.config)

    def __str__(self) -> str:
        return f"Kafka topic {self.topic} at {self.servers}"

    @property
    def name(self) -> str:
        """A name for the node if the user gives none."""
        return f"to-kafka-{re.sub('[^a-z0-9]+', '-', self.topic.lower())}"[:60].rstrip("-")

    def encoder(self, kind: Any, serde: Serde | None) -> ValueEncoder:
        """Return how values are encoded: as those of a Fluvio topic."""
        return encoder_for(kind, serde)

    def writer(self, env: ConnectorEnv) -> KafkaWriter:
        """Create the writer that the engine uses."""
        return KafkaWriter(
            self.servers, self.topic, self.config, env, writes_tombstones=self.tombstones
        )
