"""A Kafka cluster in this process: the mock cluster of librdkafka, which is a real peer.

Its functions to create topics and to inject faults are only in C. They are called with ctypes, in
the library that confluent-kafka has loaded.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Final

import confluent_kafka as kafka

# The handle of librdkafka comes after the head of the Python object.
_HANDLE_AT: Final = 16
_WAIT_S: Final = 10

PRODUCE: Final = 0
FETCH: Final = 1
LIST_OFFSETS: Final = 2
METADATA: Final = 3
INIT_PRODUCER_ID: Final = 22

OFFSET_OUT_OF_RANGE: Final = 1
LEADER_NOT_AVAILABLE: Final = 5
NOT_LEADER: Final = 6
REQUEST_TIMED_OUT: Final = 7
MSG_SIZE_TOO_LARGE: Final = 10
NOT_ENOUGH_REPLICAS: Final = 19
TOPIC_AUTHORIZATION_FAILED: Final = 29
OFFSET_NOT_AVAILABLE: Final = 78


class Cluster:
    """A cluster with one broker that lives as long as this object."""

    def __init__(self) -> None:
        self._owner = kafka.Producer(
            {"test.mock.num.brokers": 1, "log_level": 0, "bootstrap.servers": "unused"}
        )
        brokers = self._owner.list_topics(timeout=_WAIT_S).brokers.values()
        self.servers = ",".join(f"{each.host}:{each.port}" for each in brokers)
        self._library = _library()
        find = self._library.rd_kafka_handle_mock_cluster
        find.restype = ctypes.c_void_p
        self._mock = ctypes.c_void_p(
            find(ctypes.c_void_p.from_address(id(self._owner) + _HANDLE_AT))
        )

    def close(self) -> None:
        """End the cluster, which its owner keeps."""
        del self._owner

    # --- topics -----------------------------------------------------------------------

    def create(self, topic: str, partitions: int = 4) -> None:
        """Create a topic."""
        self._call("topic_create", topic.encode(), partitions, 1)

    def write(self, topic: str, rows: list[tuple[int, bytes | None]], **options: Any) -> None:
        """Write values to partitions."""
        producer = kafka.Producer({"bootstrap.servers": self.servers})
        for partition, value in rows:
            while True:
                try:
                    producer.produce(topic, value, partition=partition, **options)
                    break
                except BufferError:
                    producer.poll(1)
        assert producer.flush(_WAIT_S) == 0

    def read(self, topic: str, count: int) -> list[Any]:
        """Read messages with the library alone, from the beginning."""
        consumer = self._consumer(topic)
        messages: list[Any] = []
        while len(messages) < count:
            got = consumer.consume(count - len(messages), timeout=5)
            assert got, f"only {len(messages)} of {count} messages came"
            messages += got
        consumer.close()
        return messages

    def read_all(self, topic: str) -> list[Any]:
        """Read what the topic has now, with the library alone."""
        return self.read(topic, sum(self.ends(topic).values()))

    def topics(self) -> set[str]:
        """Return the names of the topics."""
        return set(self._owner.list_topics(timeout=_WAIT_S).topics)

    def ends(self, topic: str) -> dict[int, int]:
        """Return the end offset of each partition."""
        consumer = self._consumer(topic)
        found = {
            each.partition: consumer.get_watermark_offsets(each, timeout=_WAIT_S)[1]
            for each in consumer.assignment()
        }
        consumer.close()
        return found

    # --- faults -----------------------------------------------------------------------

    def stop(self) -> None:
        """Close the port and all connections of the broker."""
        self._call("broker_set_down", 1)

    def start(self) -> None:
        """Open the port again."""
        self._call("broker_set_up", 1)

    def delay(self, milliseconds: int) -> None:
        """Delay every response."""
        self._call("broker_set_rtt", 1, milliseconds)

    def fail(self, api: int, *codes: int) -> None:
        """Answer the next requests of a kind with these errors."""
        self._library.rd_kafka_mock_push_request_errors_array(
            self._mock,
            ctypes.c_int16(api),
            ctypes.c_size_t(len(codes)),
            (ctypes.c_int * len(codes))(*codes),
        )

    def recover(self, api: int) -> None:
        """Forget the errors that are left."""
        self._library.rd_kafka_mock_clear_request_errors(self._mock, ctypes.c_int16(api))

    def fail_topic(self, topic: str, code: int) -> None:
        """Answer requests for metadata of a topic with an error; 0 ends it."""
        self._library.rd_kafka_mock_topic_set_error(self._mock, topic.encode(), code)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, f"rd_kafka_mock_{name}")(self._mock, *arguments)
        assert code == 0, f"{name} of the mock cluster failed with {code}"

    def _consumer(self, topic: str) -> Any:
        consumer = kafka.Consumer({"bootstrap.servers": self.servers, "group.id": "check"})
        found = consumer.list_topics(topic, timeout=_WAIT_S).topics[topic].partitions
        consumer.assign([kafka.TopicPartition(topic, each, 0) for each in found])
        return consumer


def _library() -> ctypes.CDLL:
    """Return librdkafka as it is loaded."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[2]
        if "librdkafka" in path:
            return ctypes.CDLL(f"/{path}")
    return ctypes.CDLL(kafka.cimpl.__file__)  # it is linked into the module
