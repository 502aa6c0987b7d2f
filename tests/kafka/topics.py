"""Creates, writes and reads topics of Kafka with confluent-kafka alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, Final

import confluent_kafka as kafka
from confluent_kafka import admin, cimpl

_WAIT_S: Final = 30
_ADMIN: Final[Any] = admin  # its names are imported from elsewhere
_numbers = count(1)


class Topics:
    """The topics of a cluster."""

    def __init__(self, servers: str) -> None:
        self._servers = servers

    def new(self, partitions: int = 1, **config: str) -> str:
        """Create a topic and return its name; an option's ``_`` stands for ``.``."""
        topic = f"topic-{next(_numbers)}"
        self.create(topic, partitions, **config)
        return topic

    def create(self, topic: str, partitions: int = 1, **config: str) -> None:
        """Create a topic; return when it has leaders."""
        # Retention goes by the timestamps, and many tests have old ones.
        options = {"retention.ms": "-1"}
        options |= {name.replace("_", "."): value for name, value in config.items()}
        new = cimpl.NewTopic(topic, partitions, replication_factor=1, config=options)
        self._done(lambda client: client.create_topics([new]))
        self.ends(topic)

    def allow(self, topic: str, user: str, operation: str) -> None:
        """Allow one operation on a topic; others are forbidden from now on."""
        binding = _ADMIN.AclBinding(
            _ADMIN.ResourceType.TOPIC,
            topic,
            _ADMIN.ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            _ADMIN.AclOperation[operation],
            _ADMIN.AclPermissionType.ALLOW,
        )
        self._done(lambda client: client.create_acls([binding]))

    def delete(self, topic: str) -> None:
        """Delete a topic."""
        self._done(lambda client: client.delete_topics([topic]))

    def add_partitions(self, topic: str, total: int) -> None:
        """Give a topic more partitions; return when they have leaders."""
        self._done(lambda client: client.create_partitions([cimpl.NewPartitions(topic, total)]))
        while len(self.ends(topic)) < total:
            pass

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Remove the records before an offset, as retention does."""
        at = kafka.TopicPartition(topic, partition, before)
        self._done(lambda client: client.delete_records([at]))

    def write(self, topic: str, rows: Iterable[tuple[int, bytes | None]], **options: Any) -> None:
        """Write values to partitions."""
        config = options.pop("config", {})
        producer = kafka.Producer({"bootstrap.servers": self._servers, **config})
        for partition, value in rows:
            produce(producer, topic, partition, value, **options)
        assert producer.flush(_WAIT_S) == 0

    def transaction(
        self, topic: str, rows: Iterable[tuple[int, bytes | None]], *, commits: bool
    ) -> None:
        """Write values in a transaction, commit or abort it, and wait until its end is visible."""
        producer = self.transactional(f"of-{topic}")
        producer.begin_transaction()
        for partition, value in rows:
            produce(producer, topic, partition, value)
        producer.flush(_WAIT_S)
        (producer.commit_transaction if commits else producer.abort_transaction)(_WAIT_S)
        # The markers are written a moment later; until then, the end is before the transaction.
        while self.limits(topic) != self.limits(topic, isolation="read_uncommitted"):
            pass

    def transactional(self, name: str) -> Any:
        """Return a producer that can begin transactions."""
        producer = kafka.Producer({"bootstrap.servers": self._servers, "transactional.id": name})
        producer.init_transactions(_WAIT_S)
        return producer

    def read_all(self, topic: str) -> list[Any]:
        """Read all messages that the topic has now, from the beginning."""
        consumer = self._consumer(topic)
        messages: list[Any] = []
        unread = set(range(len(consumer.assignment())))
        while unread:
            for message in consumer.consume(10_000, timeout=1):
                if message.error() is None:
                    messages.append(message)
                else:
                    code = message.error().code()
                    assert code == kafka.KafkaError._PARTITION_EOF, message.error()
                    unread.discard(message.partition())
        consumer.close()
        return messages

    def by_partition(self, topic: str) -> dict[int, list[Any]]:
        """Read all messages of each partition."""
        found: dict[int, list[Any]] = {}
        for each in self.read_all(topic):
            found.setdefault(each.partition(), []).append(each)
        return found

    def values(self, topic: str) -> list[Any]:
        return [each.value() for each in self.read_all(topic)]

    def ends(self, topic: str) -> dict[int, int]:
        """Return the end offset of each partition."""
        return {each: end for each, (_, end) in self.limits(topic).items()}

    def limits(
        self, topic: str, *, isolation: str = "read_committed"
    ) -> dict[int, tuple[int, int]]:
        """Return the first offset and the end offset of each partition."""
        consumer = self._consumer(topic, isolation)
        found = {each.partition: _limits(consumer, each) for each in consumer.assignment()}
        consumer.close()
        return found

    def _consumer(self, topic: str, isolation: str = "read_committed") -> Any:
        consumer = kafka.Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": "check",
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )
        while not (found := consumer.list_topics(topic, timeout=_WAIT_S).topics[topic].partitions):
            pass  # it was created a moment ago
        first = kafka.OFFSET_BEGINNING
        consumer.assign([kafka.TopicPartition(topic, each, first) for each in found])
        return consumer

    def _done(self, ask: Callable[[Any], dict[Any, Any]]) -> None:
        client = _ADMIN.AdminClient({"bootstrap.servers": self._servers})
        for each in ask(client).values():
            each.result(_WAIT_S)


def _limits(consumer: Any, partition: Any) -> tuple[int, int]:
    while True:
        try:
            found: tuple[int, int] = consumer.get_watermark_offsets(partition, timeout=_WAIT_S)
        except kafka.KafkaException as error:
            if error.args[0].code() != kafka.KafkaError.NOT_LEADER_FOR_PARTITION:
                raise
        else:
            return found


def produce(producer: Any, topic: str, partition: int, value: bytes | None, **options: Any) -> None:
    """Write one value; wait while the buffer is full."""
    while True:
        try:
            producer.produce(topic, value, partition=partition, **options)
            return
        except BufferError:
            producer.poll(1)
