"""A waiting sync call does not block other threads: meanwhile another thread keeps counting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
import pytest

from streamkit import sync
from streamkit.client import RecordsMetadata
from streamkit.sync.loop_thread import shared_loop
from streamkit.sync.send_batch import SendBatch
from tests.broker_process import BrokerProcess
from tests.proxy import Proxy, Stall
from tests.unseen_signal import Interrupted, unseen_signal

SOON_S: Final = 60.0
STEPS: Final = 100_000


@contextmanager
def counting(release: Callable[[], object]) -> Iterator[threading.Event]:
    """Count in another thread; call ``release`` when the count is high enough.

    If a wait blocked the interpreter, the thread would not count, and the wait would never end.
    """
    is_over, enough = threading.Event(), threading.Event()

    def count() -> None:
        steps = 0
        while not is_over.is_set():
            steps += 1
            if steps == STEPS:
                enough.set()
                release()

    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    try:
        yield enough
    finally:
        is_over.set()
        counter.join(SOON_S)
        if not enough.is_set():
            release()


def call(client: sync.Client) -> None:
    shared_loop().call(anyio.sleep_forever())


def wait_for_a_record(client: sync.Client) -> None:
    client.admin.create_topic("unseen")
    with client.consumer("unseen") as consumer:
        next(iter(consumer))


def wait_for_an_outcome(client: sync.Client) -> None:
    class Silent:
        def watch(self, batch: SendBatch, row: int, known: threading.Event) -> None:
            pass

        def outcome_of(self, batch: SendBatch) -> RecordsMetadata:
            raise AssertionError("it is not asked")

    SendBatch(Silent()).wait_for_row(0)


@pytest.mark.parametrize("wait", [call, wait_for_a_record, wait_for_an_outcome])
def test_a_signal_that_does_not_wake_a_wait_is_handled(
    cluster: BrokerProcess, wait: Callable[[sync.Client], None]
) -> None:
    with (
        sync.Client.connect(cluster.address) as client,
        unseen_signal(),
        pytest.raises(Interrupted),
    ):
        wait(client)


def flush(producer: sync.Producer) -> None:
    producer.send(b"x")
    producer.flush()


def close(producer: sync.Producer) -> None:
    producer.send(b"x")
    producer.close()


def send_until_full(producer: sync.Producer) -> None:
    for _ in range(100):
        producer.send(bytes(1_000))


def send_many_until_full(producer: sync.Producer) -> None:
    for _ in range(10):
        producer.send_many([bytes(1_000)] * 10)


WAITS: Final[dict[str, Callable[[sync.Producer], object]]] = {
    "handle": lambda producer: producer.send(b"x").wait(),
    "handle of many": lambda producer: producer.send_many([b"x"]).wait(),
    "flush": flush,
    "close": close,
    "room": send_until_full,
    "room for many": send_many_until_full,
}


@pytest.mark.parametrize("wait", WAITS)
def test_another_thread_runs_while_a_producer_waits(
    cluster: BrokerProcess, topic: str, wait: str
) -> None:
    stall = Stall("spu up")
    with (
        Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy,
        sync.Client.connect(proxy.address) as client,
        client.producer(topic, queue_bytes=1_000) as producer,
        counting(stall.release) as enough,
    ):
        WAITS[wait](producer)
        assert enough.is_set(), "it did not wait"


@pytest.mark.parametrize("way", ["records", "chunks"])
def test_another_thread_runs_while_a_consumer_waits(
    client: sync.Client, topic: str, way: str
) -> None:
    with client.producer(topic) as producer, client.consumer(topic) as consumer:
        with counting(lambda: producer.send(b"at last")) as enough:
            values = (
                [next(iter(consumer)).value]
                if way == "records"
                else list(next(consumer.chunks()).values)
            )
            assert enough.is_set(), "it did not wait"
        assert values == [b"at last"]


def test_another_thread_runs_while_a_client_connects(cluster: BrokerProcess) -> None:
    stall = Stall("sc down")
    with (
        Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy,
        counting(stall.release) as enough,
        sync.Client.connect(proxy.address, connect_timeout=SOON_S),
    ):
        assert enough.is_set(), "it did not wait"


def test_another_thread_runs_while_a_watch_waits(client: sync.Client, topic: str) -> None:
    with client.admin.watch_topics() as watch:
        next(watch)
        with counting(lambda: client.admin.delete_topic(topic)) as enough:
            event = next(watch)
            assert enough.is_set(), "it did not wait"
        assert topic in repr(event)


def test_a_record_waits_for_its_linger_unless_a_caller_waits_for_it(
    client: sync.Client, topic: str
) -> None:
    with client.producer(topic, linger=3_600) as producer:
        handle = producer.send(b"first")
        assert producer.unacknowledged == 1
        assert handle.wait().offset == 0
        producer.send(b"second")
        producer.flush()
        assert producer.unacknowledged == 0
        later = producer.send(b"third")
        producer.send_now()
        assert next(iter(client.consumer(topic, start=2))).value == b"third"
        assert later.wait().offset == 2
