"""The client without an event loop, against a running broker."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Final

import pytest

from streamkit import sync
from streamkit.client.produce.handles import RecordMetadata
from streamkit.errors import BrokerError, ConnectFailed, TopicNotFound
from tests.broker_process import BrokerProcess

SOON_S: Final = 60.0


def test_sent_records_can_be_read(client: sync.Client, topic: str) -> None:
    with client.producer(topic) as producer:
        assert producer.send("eins", "a").wait() == RecordMetadata(0, 0)
        assert list(producer.send_many([b"2", b"3"], [None, b"b"]).wait().offsets) == [1, 2]
        producer.send(b"4", timestamp_ms=5)
        producer.flush()
    found = list(client.consumer(topic, until_end=True))
    assert [(r.value, r.key) for r in found] == [
        (b"eins", b"a"),
        (b"2", None),
        (b"3", b"b"),
        (b"4", None),
    ]
    assert found[3].timestamp_ms == 5
    chunks = list(client.consumer(topic, until_end=True).chunks())
    assert [value for chunk in chunks for value in chunk.values] == [r.value for r in found]


def test_errors_are_the_same_as_in_the_async_client(
    client: sync.Client, topic: str, cluster: BrokerProcess
) -> None:
    with pytest.raises(TopicNotFound, match="did-not"):
        client.producer("did-not").send(b"x")
    with pytest.raises(ConnectFailed), sync.Client.connect("127.0.0.1:1"):
        pass
    client.admin.create_topic(f"{topic}-small", segment_size_bytes=1_024)
    with pytest.raises(BrokerError, match="too large"), client.producer(f"{topic}-small") as small:
        small.send(bytes(2_000))


def test_another_thread_runs_while_one_waits(client: sync.Client, topic: str) -> None:
    turns = 0
    is_over = threading.Event()
    enough = threading.Event()
    found: list[bytes] = []

    def count() -> None:
        nonlocal turns
        while not is_over.is_set():
            turns += 1
            if turns == 100_000:
                enough.set()

    def read() -> None:
        found.extend(record.value for record in islice(client.consumer(topic), 1))

    counter, reader = (
        threading.Thread(target=count, daemon=True),
        threading.Thread(target=read, daemon=True),
    )
    reader.start()
    counter.start()
    try:
        assert enough.wait(SOON_S), "the reader blocked the interpreter"
        assert not found
        with client.producer(topic) as producer:
            producer.send(b"at last")
        reader.join(SOON_S)
    finally:
        is_over.set()
        counter.join()
    assert found == [b"at last"]


def test_many_threads_may_share_a_client_and_a_producer(client: sync.Client, topic: str) -> None:
    with client.producer(topic) as producer, ThreadPoolExecutor(8) as threads:

        def send(number: int) -> int:
            return producer.send(b"%d" % number).wait().offset

        offsets = list(threads.map(send, range(200)))
    assert sorted(offsets) == list(range(200))
    found = {r.offset: r.value for r in client.consumer(topic, until_end=True)}
    assert [found[offset] for offset in offsets] == [b"%d" % n for n in range(200)]


def test_a_loop_can_be_ended_early(client: sync.Client, topic: str) -> None:
    with client.producer(topic, batch_size=100) as producer:
        producer.send_many([b"%d" % n for n in range(100)])
    for record in client.consumer(topic):
        assert record.offset == 0
        break
    assert [r.offset for r in islice(client.consumer(topic, start=50), 3)] == [50, 51, 52]
    with client.consumer(topic) as consumer:
        for chunk in consumer.chunks():
            assert chunk.offsets[0] == 0
            break


def test_a_consumer_resumes_from_stored_offsets(client: sync.Client, topic: str) -> None:
    with client.producer(topic) as producer:
        producer.send_many([b"%d" % n for n in range(10)])
    options: dict[str, Any] = {"consumer_id": topic, "until_end": True}
    with client.consumer(topic, **options) as consumer:
        for record in consumer:
            if record.offset == 6:
                consumer.commit(record)
    assert [r.value for r in client.consumer(topic, **options)] == [b"7", b"8", b"9"]
    assert [each.offset for each in client.admin.delete_consumer(topic)] == [6]


def test_fetch_returns_the_records_from_an_offset(client: sync.Client, topic: str) -> None:
    with client.producer(topic) as producer:
        producer.send_many([b"1", b"2"])
    assert list(client.fetch(topic, 0, 1).chunk.values) == [b"2"]


def test_an_error_in_the_block_is_raised_unchanged(cluster: BrokerProcess) -> None:
    with pytest.raises(ZeroDivisionError), sync.Client.connect(cluster.address):
        raise ZeroDivisionError


def test_topics_and_partitions_are_managed_with_plain_calls(
    client: sync.Client, topic: str
) -> None:
    assert topic in [each.name for each in client.admin.list_topics()]
    assert client.admin.describe_topic(topic).partitions == 1
    assert [each.partition for each in client.admin.add_partitions(topic)] == [1]
    assert [each.partition for each in client.admin.list_partitions(topic)] == [0, 1]
    client.admin.delete_topic(topic)
    assert topic not in [each.name for each in client.admin.list_topics()]
