"""Topics of Kafka as sources and sinks; needs the extra ``kafka``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from streamkit.connectors.kafka.client import Config, checked_config, max_record_bytes
from streamkit.connectors.kafka.reader import KafkaReader
from streamkit.connectors.kafka.starts import Removed, Starts
from streamkit.connectors.kafka.values import (
    KafkaRecord,
    Tombstones,
    decoder_for,
    encoder_of,
    is_kafka_record,
    row_of,
)
from streamkit.connectors.kafka.writer import KafkaWriter
from streamkit.dataflow.contracts import ConnectorEnv, Decoder, Sink, Source
from streamkit.dataflow.functions import without_none
from streamkit.errors import UsageError, shown
from streamkit.record import Kind, Offset, Value
from streamkit.serde.binding import Serde, Usage, bound
from streamkit.serde.kinds import in_record
from streamkit.serde.values import ValueEncoder

__all__ = ["KafkaRecord", "KafkaSink", "KafkaSource"]

_RAW: Final[Kind] = bytes | None


@dataclass(frozen=True, slots=True)
class KafkaSource(Source[Any]):
    """All partitions of one Kafka topic.

    The positions are in the commits of the job; consumer groups are not used. Keys and timestamps
    are kept, and headers if the type of the values is `KafkaRecord`. New partitions are read from
    their beginning.

    Attributes:
        servers: Bootstrap servers, such as ``"host:9092,other:9092"``.
        topic: The name of the topic.
        start: Where the first run starts: ``"beginning"``, ``"end"``, or another `Offset`.
            `Offset.at_time` is the first record of each partition with this timestamp or a later
            one.
        tombstones: A record without a value is None if the type of the values allows it. Otherwise
            ``"empty"`` makes an empty value of it; it fails if that is not bytes or text.
            ``"skip"`` drops all of them.
        removed: What happens if Kafka has removed records before the job has read them:
            ``"fail"`` stops the job; ``"skip"`` shows a message and continues at the first record.
        config: Options of librdkafka. Passwords must be `streamkit.Secret`.

    Raises:
        UsageError: An option is not valid.
    """

    servers: str
    topic: str
    start: Offset | str = "beginning"
    tombstones: Tombstones = "empty"
    removed: Removed = "fail"
    config: Config = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        checked_config(self.servers, self.topic, self.config)
        Offset.parse(self.start)
        for name, given, words in (
            ("tombstones", self.tombstones, get_args(Tombstones)),
            ("removed", self.removed, get_args(Removed)),
        ):
            if given not in words:
                raise UsageError(
                    f"{name}={shown(given)} is not valid",
                    hint=f'use "{words[0]}" or "{words[1]}"',
                )

    def __str__(self) -> str:
        return f"Kafka topic {self.topic} at {self.servers}"

    @property
    def name(self) -> str:
        """The name of the topic in the form that names of nodes have."""
        return f"kafka-{re.sub('[^a-z0-9]+', '-', self.topic.lower())}"[:60].rstrip("-")

    @property
    def raw_type(self) -> Kind:
        """Bytes, and None for a tombstone."""
        return _RAW

    def decoder(self, kind: Kind, serde: Serde | None) -> Decoder | None:
        """Return how values are decoded: as those of a Fluvio topic; see ``tombstones``."""
        return decoder_for(kind, serde, self.tombstones)

    def usage(self, kind: Kind) -> Usage:
        """Return where a format is used; a tombstone has no format."""
        return Usage(without_none(in_record(kind)), self.topic)

    def encoded(self, value: Value, kind: Kind, serde: Serde | None) -> Value:
        """Return the row of a value, for `TestJob.send`."""
        return row_of(value, kind, serde)

    def reader(self, env: ConnectorEnv) -> KafkaReader:
        """Create the reader that the engine uses."""
        return KafkaReader(
            self.servers,
            self.topic,
            Starts(str(self), Offset.parse(self.start), self.removed),
            self.config,
            env,
            has_headers=is_kafka_record(env.kind),
        )


@dataclass(frozen=True, slots=True)
class KafkaSink(Sink[Any]):
    """One Kafka topic, which must exist.

    Records are delivered at least once, with ``acks=all`` and librdkafka's idempotent producer.
    Keys and timestamps are kept, and the headers of a `KafkaRecord` are written. A record that is
    larger than ``max.message.bytes`` of the topic fails.

    Attributes:
        servers: Bootstrap servers, such as ``"host:9092,other:9092"``.
        topic: The name of the topic.
        tombstones: Write a record without a value for None, or for an empty value of a type that
            does not allow None. Otherwise None is ``null`` in JSON.
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

    @property
    def raw_type(self) -> Kind:
        """Bytes, and None for a tombstone."""
        return _RAW

    @property
    def record_type(self) -> type[KafkaRecord[Any]]:
        """Records with headers."""
        return KafkaRecord

    def encoder(self, kind: Kind, serde: Serde | None) -> ValueEncoder:
        """Return how values are encoded: as those of a Fluvio topic; see ``tombstones``.

        Raises:
            TopologyError: Values of the type cannot be written.
        """
        if serde is not None:
            usage = Usage(without_none(in_record(kind)), self.topic, is_written=True)
            serde = bound(serde, usage)
        return encoder_of(kind, serde, writes_tombstones=self.tombstones)

    def writer(self, env: ConnectorEnv) -> KafkaWriter:
        """Create the writer that the engine uses."""
        return KafkaWriter(self.servers, self.topic, self.config, env)
