"""The delivery guarantees of a producer, and its reports."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import anyio
import pytest
from msgspec.structs import replace

from streamkit import Client
from streamkit.client import BatchReport, RetryPolicy
from streamkit.errors import BrokerError, NotFlushed, TransportError, UsageError
from streamkit.protocol import specs
from streamkit.protocol.control_plane import Change, WatchResponse
from streamkit.protocol.specs import PartitionResolution
from tests.broker_process import BrokerProcess
from tests.client.conftest import NewTopic
from tests.client.reading import read_all, values_of
from tests.proxy import Proxy, Stall

SOON_S: Final = 60.0


def values(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


# --- At most once --------------------------------------------------------------------------------


async def test_at_most_once_stores_in_order_and_returns_offsets(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    async with client.producer(topic, delivery="at-most-once", linger=0, batch_size=100) as once:
        handles = [await once.send(value) for value in values(200)]
        await once.flush()
        assert once.unacknowledged == 0
        assert [(await handle).offset for handle in handles] == list(range(200))
        assert once.metrics.records == 200
    assert await values_of(client, topic) == values(200)


async def test_at_most_once_never_resends_records_that_may_be_stored(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    """The responses are lost but not the records: each is stored once, with an unknown outcome."""
    topic = await new_topic()
    stall = Stall("spu down", 1 << 40)
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        async with (
            Client.connect(proxy.address) as proxied,
            proxied.producer(topic, delivery="at-most-once", linger=0) as producer,
        ):
            await (await producer.send(b"first"))
            stall.at = 0  # no response gets through from now on
            handles = [await producer.send(value) for value in values(20)]
            with anyio.fail_after(SOON_S):
                while len(await values_of(client, topic)) < 21:
                    pass
                proxy.cut_all()
                for handle in handles:
                    with pytest.raises(TransportError) as caught:
                        await handle
                    assert caught.value.sent
                stall.release()
                with pytest.raises(TransportError):
                    await producer.flush()
                assert (await (await producer.send(b"later"))).offset == 21
            assert (producer.metrics.records, producer.metrics.failed_records) == (2, 20)
    assert await values_of(client, topic) == [b"first", *values(20), b"later"]


async def test_at_least_once_resends_records_that_may_be_stored(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    stall = Stall("spu down", 1 << 40)
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        async with (
            Client.connect(proxy.address) as proxied,
            proxied.producer(topic, linger=0) as producer,
        ):
            await (await producer.send(b"first"))
            stall.at = 0
            handle = await producer.send(b"twice")
            with anyio.fail_after(SOON_S):
                while len(await values_of(client, topic)) < 2:
                    await anyio.lowlevel.checkpoint()
                proxy.cut_all()
                stall.release()
                assert (await handle).offset == 2
            assert producer.metrics.retries >= 1
    assert await values_of(client, topic) == [b"first", b"twice", b"twice"]


async def test_at_most_once_does_not_wait_for_responses(
    cluster: BrokerProcess, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    stall = Stall("spu down", 1 << 40)
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        async with (
            Client.connect(proxy.address) as proxied,
            proxied.producer(topic, delivery="at-most-once", linger=0) as producer,
        ):
            await (await producer.send(b"first"))
            stall.at = 0
            with anyio.fail_after(SOON_S):
                for number in range(5):
                    handle = await producer.send(b"%d" % number)
                    while producer.metrics.requests < number + 2:
                        await anyio.lowlevel.checkpoint()
                assert producer.unacknowledged == 5
                stall.release()
                assert (await handle).offset == 5


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
async def test_handle_and_flush_raise_the_error_of_the_broker(
    client: Client, new_topic: NewTopic, delivery: Any
) -> None:
    topic = await new_topic(segment_size_bytes=2_000)
    async with client.producer(topic, delivery=delivery, batch_size=100) as producer:
        small = await producer.send(b"small")
        large = await producer.send(b"x" * 3_000)
        with pytest.raises(BrokerError):
            await producer.flush()
        assert (await small).offset == 0
        with pytest.raises(BrokerError):
            await large
        await producer.flush()
        assert (await (await producer.send(b"next"))).offset == 1
    assert await values_of(client, topic) == [b"small", b"next"]


async def test_an_unknown_delivery_semantic_is_refused(client: Client) -> None:
    with pytest.raises(UsageError, match="at-least-once, at-most-once"):
        client.producer("any", delivery="exactly-once")  # type: ignore[arg-type]


# --- Retries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
@pytest.mark.parametrize("retries", [0, 3])
async def test_a_policy_limits_the_retries(
    own_broker: BrokerProcess, delivery: Any, retries: int
) -> None:
    policy = RetryPolicy(timedelta(milliseconds=1), strategy="fixed", max_retries=retries)
    seen: list[int] = []
    async with Client.connect(own_broker.address) as client:
        await client.admin.create_topic("t")
        async with client.producer(
            "t", retry=policy, delivery=delivery, on_retry=lambda _, number: seen.append(number)
        ) as producer:
            await (await producer.send(b"first"))
            own_broker.kill()
            handle = await producer.send(b"second")
            with anyio.fail_after(SOON_S), pytest.raises(TransportError):
                await handle
            assert producer.metrics.failed_records == 1
            with pytest.raises(TransportError):
                await producer.flush()
    # The first attempt may itself notice the lost connection, and then may count as sent.
    assert len(seen) <= retries
    if delivery == "at-least-once":
        assert seen == list(range(1, retries + 1))


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
async def test_an_exception_in_on_retry_does_not_stop_retries(
    own_broker: BrokerProcess, delivery: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(error: Exception, attempt: int) -> None:
        raise ValueError("raised by the user")

    async with Client.connect(own_broker.address) as client:
        await client.admin.create_topic("t")
        async with (
            client.consumer("t", on_retry=fail) as consumer,
            client.producer("t", delivery=delivery, on_retry=fail) as producer,
        ):
            await (await producer.send(b"first"))
            own_broker.kill()
            with anyio.fail_after(SOON_S):
                while "raised by the user" not in caplog.text:
                    await anyio.lowlevel.checkpoint()
                own_broker.start()
                while producer.metrics.records < 2:
                    handle = await producer.send(b"second")
                    try:
                        await handle
                    except TransportError:
                        assert delivery == "at-most-once"
                seen: list[bytes] = []
                while b"second" not in seen:
                    chunk = await consumer.next_chunk()
                    assert chunk is not None
                    seen += chunk.values
            if delivery == "at-most-once":
                producer.stop()


async def test_a_producer_closed_while_opening_stays_closed(own_broker: BrokerProcess) -> None:
    retries = 0

    def count(error: Exception, attempt: int) -> None:
        nonlocal retries
        retries = attempt

    async with Client.connect(own_broker.address) as client:
        await client.admin.create_topic("t")
        own_broker.kill()
        with anyio.fail_after(SOON_S):
            await client.cluster.metadata_changed()  # the watches have ended
        producer = client.producer("t", on_retry=count)

        async def open_it() -> None:
            with pytest.raises(UsageError, match="closed while it was opening"):
                await producer.open()

        with anyio.fail_after(SOON_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(open_it)
                while not retries:
                    await anyio.lowlevel.checkpoint()
                producer.stop()
                own_broker.start()
            with pytest.raises(UsageError, match="closed"):
                await producer.send(b"x")


async def test_closing_times_out_and_reports_unacknowledged_records(
    cluster: BrokerProcess, new_topic: NewTopic
) -> None:
    topic = await new_topic(2)
    stall = Stall("spu down", 1 << 40)
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        async with Client.connect(proxy.address) as proxied:
            producer = proxied.producer(topic, close_timeout=0.1)
            await (await producer.send(b"first", partition=0))
            stall.at = 0
            await producer.send_many(values(3))
            with anyio.fail_after(SOON_S), pytest.raises(NotFlushed) as caught:
                await producer.close()
    assert "3 records" in str(caught.value)
    assert "of partition 0" in str(caught.value)
    assert "of partition 1" in str(caught.value)


# --- Limits and choices --------------------------------------------------------------------------


async def test_the_queue_is_limited_in_batches(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    stall = Stall("spu down", 1 << 40)
    taken = 0
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        async with (
            Client.connect(proxy.address) as proxied,
            proxied.producer(topic, linger=0, batch_size=100, queue_batches=5) as producer,
        ):
            await (await producer.send(b"first"))
            stall.at = 0

            async def send() -> None:
                nonlocal taken
                for _ in range(50):
                    await producer.send(b"x" * 200)  # each fills a batch
                    taken += 1

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                await anyio.wait_all_tasks_blocked()
                held = taken
                stall.release()
    assert held == 5
    assert len(await values_of(client, topic)) == 51


@pytest.mark.parametrize("many", [False, True])
async def test_records_without_a_key_skip_offline_partitions(
    client: Client, new_topic: NewTopic, many: bool
) -> None:
    topic = await new_topic(3)
    async with client.producer(topic) as producer:
        metadata = client.cluster.metadata
        item = metadata.partition(topic, 1)
        assert item is not None
        offline = replace(item.status, resolution=PartitionResolution.OFFLINE)
        change = Change(replace(item, status=offline), is_delete=False)
        metadata.apply(WatchResponse(specs.PARTITION, 1, changes=(change,)))
        keys = [None, b"b", None, None, None]  # the key belongs to partition 0
        if many:
            await producer.send_many(values(5), keys)
        else:
            for value, key in zip(values(5), keys, strict=True):
                await producer.send(value, key)
    found = await read_all(client, topic)
    assert [(each.partition, each.value) for each in found] == [
        *[(0, value) for value in (b"0", b"1", b"3")],
        *[(2, value) for value in (b"2", b"4")],
    ]


# --- Reports -------------------------------------------------------------------------------------


async def test_each_batch_is_reported_with_its_latency(
    cluster: BrokerProcess, new_topic: NewTopic
) -> None:
    topic = await new_topic(segment_size_bytes=2_000)
    reports: list[BatchReport] = []
    async with Client.connect(cluster.address) as client:
        async with client.producer(topic, batch_size=200, on_batch=reports.append) as producer:
            await producer.send_many([b"x" * 50] * 7)
            await producer.send(b"x" * 3_000)
            with pytest.raises(BrokerError):
                await producer.flush()
        metrics = producer.metrics
    stored = [each for each in reports if each.error is None]
    refused = [each for each in reports if each.error is not None]
    assert [each.base_offset for each in stored] == [0, 2, 4, 6]
    assert [each.record_count for each in stored] == [2, 2, 2, 1]
    assert [(each.base_offset, each.record_count) for each in refused] == [(-1, 1)]
    assert all(0 <= each.queued_s <= each.acknowledged_s for each in reports)
    assert {(each.topic, each.partition) for each in reports} == {(topic, 0)}
    assert metrics.wire_bytes == sum(each.wire_bytes for each in stored)
    assert (metrics.records, metrics.batches, metrics.failed_records) == (7, 4, 1)
    assert metrics.retries == 0


async def test_an_exception_in_on_batch_loses_no_record(
    client: Client, new_topic: NewTopic, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await new_topic()

    def fail(report: BatchReport) -> None:
        raise ValueError("raised by the user")

    async with client.producer(topic, on_batch=fail) as producer:
        assert (await (await producer.send(b"x"))).offset == 0
    assert "raised by the user" in caplog.text
    assert await values_of(client, topic) == [b"x"]
