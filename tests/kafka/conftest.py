"""A Kafka cluster in this process: the mock cluster of librdkafka, which is a real peer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit.connectors import ConnectorEnv
from streamkit.env import SystemClock

try:
    import confluent_kafka as kafka
except ImportError:
    pytest.skip("needs an optional package: confluent-kafka", allow_module_level=True)


class Cluster:
    """A cluster that lives as long as this object."""

    def __init__(self) -> None:
        self._owner = kafka.Producer(
            {"test.mock.num.brokers": 1, "log_level": 0, "bootstrap.servers": "unused"}
        )
        brokers = self._owner.list_topics(timeout=10).brokers.values()
        self.servers = ",".join(f"{each.host}:{each.port}" for each in brokers)

    def create(self, topic: str) -> None:
        """Create a topic with the four partitions that the mock cluster gives to every topic."""
        assert len(self._owner.list_topics(topic, timeout=10).topics[topic].partitions) == 4

    def close(self) -> None:
        """End the cluster, which its owner keeps."""
        del self._owner

    def write(self, topic: str, rows: list[tuple[int, bytes | None]], **options: Any) -> None:
        producer = kafka.Producer({"bootstrap.servers": self.servers})
        for partition, value in rows:
            producer.produce(topic, value, partition=partition, **options)
        assert producer.flush(10) == 0

    def read(self, topic: str, count: int) -> list[Any]:
        """Read messages with the library alone, from the beginning."""
        consumer = kafka.Consumer({"bootstrap.servers": self.servers, "group.id": "check"})
        found = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([kafka.TopicPartition(topic, each, 0) for each in found])
        messages: list[Any] = []
        while len(messages) < count:
            got = consumer.consume(count - len(messages), timeout=5)
            assert got, f"only {len(messages)} of {count} messages came"
            messages += got
        consumer.close()
        return messages


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.close()


def env_of(folder: Path, notes: list[str], *, until_end: bool = True) -> ConnectorEnv:
    return ConnectorEnv("kafka", "test", folder, SystemClock(), until_end, notes.append)
