"""Records sent while a producer or client closes are stored, or their handles raise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

import pytest

from streamkit import sync
from streamkit.errors import NotFlushed, RequestTimedOut, StreamKitError, UsageError
from tests.broker_process import BrokerProcess
from tests.proxy import Proxy, Stall

SOON_S: Final = 20.0
THREADS: Final = 4


def stored(client: sync.Client, topic: str) -> list[bytes]:
    return [record.value for record in client.consumer(topic, until_end=True)]


class Senders:
    """Threads that send until they are refused, and remember the accepted records."""

    def __init__(self, producer: sync.Producer, enough: int = 2_000) -> None:
        self.producer = producer
        self.accepted: list[tuple[bytes, sync.RecordHandle]] = []
        self.many: list[tuple[list[bytes], sync.RecordsHandle]] = []
        self.refusals: list[StreamKitError] = []
        self.are_many = threading.Event()
        self._enough = enough
        works = [*[self._send] * THREADS, self._send_many]
        self._threads = [
            threading.Thread(target=work, args=(number,), daemon=True)
            for number, work in enumerate(works)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(SOON_S)
            assert not thread.is_alive()

    def accounted(self) -> tuple[list[bytes], list[bytes]]:
        """Return the records reported as stored, and those reported as not stored."""
        found: list[bytes] = []
        lost: list[bytes] = []
        for value, handle in self.accepted:
            (lost if is_lost(handle.wait) else found).append(value)
        for values, many in self.many:
            (lost if is_lost(many.wait) else found).extend(values)
        return found, lost

    def _send(self, thread: int) -> None:
        self._until_refused(lambda number: self._send_one(f"{thread}-{number}".encode()))

    def _send_one(self, value: bytes) -> None:
        self.accepted.append((value, self.producer.send(value)))
        if len(self.accepted) >= self._enough:
            self.are_many.set()

    def _send_many(self, thread: int) -> None:
        def send(number: int) -> None:
            values = [f"many-{number}-{row}".encode() for row in range(100)]
            self.many.append((values, self.producer.send_many(values)))

        self._until_refused(send)

    def _until_refused(self, send: Callable[[int], None]) -> None:
        try:
            for number in count():
                send(number)
        except StreamKitError as error:
            self.refusals.append(error)


def is_lost(wait: Callable[[], object]) -> bool:
    try:
        wait()
    except NotFlushed:
        return True
    return False


@contextmanager
def thread(work: Callable[[], object]) -> Iterator[threading.Thread]:
    found = threading.Thread(target=work, daemon=True)
    found.start()
    yield found
    found.join(SOON_S)
    assert not found.is_alive()


@pytest.mark.parametrize("closers", [1, 2])
@pytest.mark.parametrize("queue_bytes", [5_000, 8 << 20])
def test_records_accepted_while_a_producer_closes_are_stored(
    client: sync.Client, topic: str, queue_bytes: int, closers: int
) -> None:
    client.admin.add_partitions(topic, 2)
    senders = Senders(client.producer(topic, linger=3_600, queue_bytes=queue_bytes))
    assert senders.are_many.wait(SOON_S)
    closing = [threading.Thread(target=senders.producer.close) for _ in range(closers)]
    for each in closing:
        each.start()
    for each in closing:
        each.join(SOON_S)
    senders.join()
    found, lost = senders.accounted()
    assert not lost
    assert all("is closed" in str(error) for error in senders.refusals)
    assert sorted(stored(client, topic)) == sorted(found)


def test_records_accepted_while_a_client_closes_are_stored(
    cluster: BrokerProcess, client: sync.Client, topic: str
) -> None:
    with sync.Client.connect(cluster.address) as other:
        senders = [Senders(other.producer(topic, linger=3_600)) for _ in range(3)]
        for each in senders:
            assert each.are_many.wait(SOON_S)
    expected = []
    for each in senders:
        each.join()
        found, lost = each.accounted()
        assert not lost
        expected += found
    assert sorted(stored(client, topic)) == sorted(expected)


def test_a_producer_opened_while_its_client_closes_is_refused_or_flushed(
    cluster: BrokerProcess, client: sync.Client, topic: str
) -> None:
    other = sync.Client.connect(cluster.address)
    other.admin.list_topics()
    accepted: list[sync.RecordHandle] = []
    some = threading.Event()

    def open_producers() -> None:
        try:
            for _ in count():
                accepted.append(other.producer(topic, linger=3_600).send(b"x"))
                some.set()
        except UsageError as error:
            assert "is closed" in str(error)  # noqa: PT017  # this runs in its own thread

    with thread(open_producers):
        assert some.wait(SOON_S)
        other.close()
    assert len(stored(client, topic)) == len(accepted)
    for handle in accepted:
        handle.wait()


@pytest.mark.parametrize("is_released", [True, False])
def test_records_waiting_for_queue_space_when_their_producer_closes_are_stored_or_refused(
    cluster: BrokerProcess, client: sync.Client, topic: str, is_released: bool
) -> None:
    stall = Stall("spu up")
    with (
        Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy,
        sync.Client.connect(proxy.address) as proxied,
    ):
        senders = Senders(proxied.producer(topic, queue_bytes=1_000), enough=1 << 30)
        assert stall.has_fired.wait(SOON_S)
        if is_released:
            with thread(senders.producer.close):
                stall.release()
        else:
            with pytest.raises(NotFlushed):
                senders.producer.close(deadline_s=0.1)
        senders.join()
        assert all(isinstance(error, UsageError | NotFlushed) for error in senders.refusals)
        found, lost = senders.accounted()
    if is_released:
        assert not lost
        assert sorted(stored(client, topic)) == sorted(found)
    else:
        assert not found
        assert stored(client, topic) == []


def test_each_accepted_record_is_stored_or_its_handle_raises(
    cluster: BrokerProcess, client: sync.Client, topic: str
) -> None:
    """A producer closed without time to flush still has the outcome of each record."""
    for _ in range(20):
        with sync.Client.connect(cluster.address) as other:
            producer = other.producer(topic, linger=0, batch_size=100)
            handles = [(b"%d" % n, producer.send(b"%d" % n)) for n in range(500)]
            first = handles[0][1].wait().offset
            try:
                producer.close(deadline_s=0)
            except NotFlushed:
                pass
            known: dict[bytes, bool | None] = {}
            for value, handle in handles:
                try:
                    known[value] = bool(handle.wait()) or True
                except NotFlushed:
                    known[value] = False
                except RequestTimedOut:
                    known[value] = None
        consumer = client.consumer(topic, start=first, until_end=True)
        found = {record.value for record in consumer}
        assert {value for value, is_stored in known.items() if is_stored} <= found
        assert not found & {value for value, is_stored in known.items() if is_stored is False}
