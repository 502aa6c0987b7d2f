"""Records accepted before a producer or client closes are stored, or their handles raise."""

from __future__ import annotations

from itertools import count
from typing import Any, Final

import anyio
import pytest

from streamkit import Client
from streamkit.client import Producer, RecordHandle, RecordsHandle
from streamkit.errors import NotFlushed, RequestTimedOut, StreamKitError, UsageError
from tests.broker_process import BrokerProcess
from tests.client.conftest import NewTopic
from tests.client.reading import values_of
from tests.proxy import Proxy, Stall

SOON_S: Final = 20.0
FOREVER_S: Final = 3_600
SENDERS: Final = 4


class Senders:
    """Tasks that send until they are refused, and remember the accepted records."""

    def __init__(self) -> None:
        self.accepted: dict[bytes, RecordHandle] = {}
        self.many: list[tuple[list[bytes], RecordsHandle]] = []
        self.refusals: list[StreamKitError] = []
        self._grown = anyio.Event()

    async def until(self, records: int) -> None:
        while len(self.accepted) < records:
            self._grown = anyio.Event()
            await self._grown.wait()

    async def send(self, producer: Producer, name: str) -> None:
        try:
            for number in count():
                value = f"{name}-{number}".encode()
                self.accepted[value] = await producer.send(value)
                self._grown.set()
                if number % 10 == 0:
                    await anyio.lowlevel.checkpoint()
        except UsageError as error:
            self.refusals.append(error)

    async def send_many(self, producer: Producer, name: str) -> None:
        try:
            for number in count():
                values = [f"{name}-{number}-{row}".encode() for row in range(50)]
                self.many.append((values, await producer.send_many(values)))
                await anyio.lowlevel.checkpoint()
        except StreamKitError as error:
            self.refusals.append(error)

    async def accounted(self) -> tuple[set[bytes], set[bytes]]:
        """Return the records reported as stored, and those reported as not stored."""
        stored, lost = set(), set()
        for value, handle in self.accepted.items():
            try:
                await handle
                stored.add(value)
            except NotFlushed:
                lost.add(value)
        for values, many in self.many:
            not_stored = {row for rows, _ in await many.refusals() for row in rows}
            lost |= {values[row] for row in not_stored}
            stored |= {value for row, value in enumerate(values) if row not in not_stored}
        return stored, lost

    @property
    def total(self) -> int:
        return len(self.accepted) + sum(len(values) for values, _ in self.many)


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("closers", [1, 2])
async def test_records_accepted_while_a_producer_closes_are_stored(
    client: Client, new_topic: NewTopic, partitions: int, closers: int
) -> None:
    topic, senders = await new_topic(partitions), Senders()
    producer = client.producer(topic, linger=FOREVER_S, queue_bytes=2_000)
    with anyio.fail_after(SOON_S):
        async with anyio.create_task_group() as tasks:
            for number in range(SENDERS):
                tasks.start_soon(senders.send, producer, str(number))
            tasks.start_soon(senders.send_many, producer, "many")
            await senders.until(500)
            for _ in range(closers):
                tasks.start_soon(producer.close)
        stored, lost = await senders.accounted()
    assert len(senders.refusals) == SENDERS + 1
    assert all("is closed" in str(error) for error in senders.refusals)
    assert not lost
    assert len(stored) == senders.total
    assert sorted(await values_of(client, topic)) == sorted(stored)


async def test_records_accepted_while_a_client_closes_are_stored(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topics = [await new_topic() for _ in range(3)]
    senders = [Senders() for _ in topics]
    with anyio.fail_after(SOON_S):
        async with anyio.create_task_group() as tasks, Client.connect(cluster.address) as other:
            for topic, each in zip(topics, senders, strict=True):
                producer = other.producer(topic, linger=FOREVER_S, queue_bytes=2_000)
                tasks.start_soon(each.send, producer, "a")
                tasks.start_soon(each.send, producer, "b")
            for each in senders:
                await each.until(300)
        for topic, each in zip(topics, senders, strict=True):
            stored, lost = await each.accounted()
            assert not lost
            assert len(each.refusals) == 2
            assert sorted(await values_of(client, topic)) == sorted(stored)


async def test_closing_a_client_reports_undelivered_records(
    cluster: BrokerProcess, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    with Proxy(cluster.sc_port, cluster.spu_port, Stall("spu up")) as proxy:

        async def use(error: type[Exception] | None) -> None:
            async with Client.connect(proxy.address) as proxied:
                producer = proxied.producer(topic, close_timeout=0.1)
                await producer.send_many([b"one", b"two"])
                if error is not None:
                    raise error

        with anyio.fail_after(SOON_S):
            with pytest.raises(NotFlushed, match="2 records"):
                await use(None)
            with pytest.raises(ZeroDivisionError) as raised:
                await use(ZeroDivisionError)
    assert "2 records" in raised.value.__notes__[0]


async def test_a_record_waiting_for_queue_space_is_stored_when_its_producer_closes(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic, senders, stall = await new_topic(), Senders(), Stall("spu up")
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy, anyio.fail_after(SOON_S):
        async with Client.connect(proxy.address) as proxied, anyio.create_task_group() as tasks:
            producer = proxied.producer(topic, queue_bytes=1_000)
            tasks.start_soon(senders.send, producer, "single")
            tasks.start_soon(senders.send_many, producer, "many")
            while not await anyio.to_thread.run_sync(stall.has_fired.wait, 0.01):
                pass
            tasks.start_soon(producer.close)
            await anyio.wait_all_tasks_blocked()
            stall.release()
        stored, lost = await senders.accounted()
    assert not lost
    assert sorted(await values_of(client, topic)) == sorted(stored)


async def test_a_record_waiting_for_queue_space_is_refused_after_the_close_timeout(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic, senders, stall = await new_topic(), Senders(), Stall("spu up")
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy, anyio.fail_after(SOON_S):
        async with Client.connect(proxy.address) as proxied:
            async with anyio.create_task_group() as tasks:
                producer = proxied.producer(topic, queue_bytes=1_000)
                tasks.start_soon(senders.send, producer, "single")
                tasks.start_soon(senders.send_many, producer, "many")
                while not await anyio.to_thread.run_sync(stall.has_fired.wait, 0.01):
                    pass
                with pytest.raises(NotFlushed):
                    await producer.close(deadline_s=0.05)
            assert len(senders.refusals) == 2
            stored, lost = await senders.accounted()
            assert len(lost) == senders.total
            assert not stored
    assert await values_of(client, topic) == []


async def test_the_handle_of_a_record_that_may_be_stored_reports_an_unknown_outcome(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic, stall = await new_topic(), Stall("spu down", 1 << 40)
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        async with Client.connect(proxy.address) as proxied:
            producer = proxied.producer(topic, linger=0)
            await (await producer.send(b"first"))
            stall.at = 0
            handle = await producer.send(b"second")
            with anyio.fail_after(SOON_S):
                while b"second" not in await values_of(client, topic):
                    pass
                later = await producer.send(b"third")
                with pytest.raises(NotFlushed, match="2 records"):
                    await producer.close(deadline_s=0)
            with pytest.raises(RequestTimedOut, match="not known"):
                await handle
            with pytest.raises(NotFlushed, match="not stored"):
                await later
    assert await values_of(client, topic) == [b"first", b"second"]


async def test_a_cancelled_close_loses_nothing_and_can_be_repeated(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic, stall = await new_topic(), Stall("spu up")
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy, anyio.fail_after(SOON_S):
        async with Client.connect(proxy.address) as proxied:
            producer = proxied.producer(topic)
            handle = await producer.send_many([b"one", b"two"])
            with anyio.move_on_after(0.05) as scope:
                await producer.close()
            assert scope.cancelled_caught
            with pytest.raises(UsageError, match="is closed"):
                await producer.send(b"too late")
            stall.release()
            await producer.close()
            assert list((await handle).offsets) == [0, 1]
    assert await values_of(client, topic) == [b"one", b"two"]


async def test_closing_twice_does_nothing(client: Client, new_topic: NewTopic) -> None:
    producer = client.producer(await new_topic())
    await producer.send(b"x")
    await producer.close()
    await producer.close()
    producer.stop()
    await producer.close()


async def test_nothing_is_lost_if_an_error_ends_a_block_while_others_send(
    client: Client, new_topic: NewTopic
) -> None:
    topic, senders = await new_topic(), Senders()

    async def use(tasks: Any) -> None:
        async with client.producer(topic, linger=FOREVER_S) as producer:
            tasks.start_soon(senders.send, producer, "a")
            tasks.start_soon(senders.send_many, producer, "b")
            await senders.until(300)
            raise ZeroDivisionError

    with anyio.fail_after(SOON_S):
        async with anyio.create_task_group() as tasks:
            with pytest.raises(ZeroDivisionError):
                await use(tasks)
        stored, lost = await senders.accounted()
    assert not lost
    assert sorted(await values_of(client, topic)) == sorted(stored)


async def test_a_failing_task_of_a_client_does_not_end_the_others(
    client: Client, new_topic: NewTopic, caplog: pytest.LogCaptureFixture
) -> None:
    topic, is_over = await new_topic(), anyio.Event()

    async def fail() -> None:
        is_over.set()
        raise ZeroDivisionError

    async with client.producer(topic, linger=FOREVER_S) as producer:
        handle = await producer.send(b"x")
        client.cluster.start(fail)
        await is_over.wait()
        await anyio.lowlevel.checkpoint()
        assert (await handle).offset == 0
    assert "a task of the client failed" in caplog.text
