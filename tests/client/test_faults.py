"""The client in a network that cuts, stalls, delays, splits and corrupts data."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import anyio
import pytest

from streamkit import Client
from streamkit.errors import (
    BrokerError,
    CorruptBatch,
    OffsetEvicted,
    RequestTimedOut,
)
from streamkit.protocol import apis, specs
from streamkit.protocol.connection import IncomingRequest, encode_response
from streamkit.protocol.control_plane import ListRequest
from streamkit.protocol.data_plane import FetchablePartition, StreamFetchResponse
from streamkit.protocol.error_codes import evicted
from streamkit.protocol.schema import Reader
from tests.broker_process import BrokerProcess
from tests.checker import Ledger, Row, Verdict, check
from tests.client.conftest import NewTopic
from tests.client.opening import retrying_client
from tests.client.reading import read_all, values_of
from tests.proxy import FLOWS, Cut, Delay, Fault, Flip, Flow, Proxy, Replace, Split, Stall

PARTITIONS: Final = 2
RECORDS_PER_ROUND: Final = 12
ROUNDS: Final = 3
SAMPLED_CUTS: Final = 6
DEEP_CUTS: Final = 48
FOREVER_S: Final = 3_600
SOON_S: Final = 60.0


async def session(broker: BrokerProcess, *faults: Fault) -> tuple[Verdict, Counter[str]]:
    """Produce in rounds, read and commit through a proxy; return the checker's result."""
    ledger = Ledger()
    rows: list[Row] = []
    async with Client.connect(broker.address) as direct:
        await direct.admin.create_topic("t", PARTITIONS)
        with Proxy(broker.sc_port, broker.spu_port, *faults) as proxy:
            with anyio.fail_after(SOON_S):
                async with retrying_client(proxy.address) as client:
                    opened = proxy.carried["sc down"]
                    await produce(client, ledger)
                    rows += await consume(client)
            carried = proxy.carried
            carried["sc down"] = opened
        rows += [("t", r.partition, r.offset, r.value) for r in await read_all(direct, "t")]
        stored = {each.partition: each.offset for each in await direct.admin.list_consumers()}
        await direct.admin.delete_topic("t")
    verdict = check(ledger, rows, may_repeat=any(isinstance(fault, Cut) for fault in faults))
    assert stored == {p: max(row[2] for row in rows if row[1] == p) for p in range(PARTITIONS)}
    assert verdict.counts["acknowledged"] == ROUNDS * RECORDS_PER_ROUND
    assert verdict.counts["unknown"] == 0
    return verdict, carried


async def produce(client: Client, ledger: Ledger) -> None:
    options: dict[str, Any] = {"linger": FOREVER_S, "batch_size": 120, "delivery_timeout": None}
    async with client.producer("t", **options) as producer:
        for turn in range(ROUNDS):
            handles = []
            for number in range(turn * RECORDS_PER_ROUND, (turn + 1) * RECORDS_PER_ROUND):
                lane = ("t", number % PARTITIONS)
                value = ledger.send(lane, number, b"payload %d" % number)
                handle = await producer.send(value, partition=lane[1], timestamp_ms=1_000)
                handles.append((lane, number, handle))
            await producer.flush()
            for lane, number, handle in handles:
                ledger.ok(lane, number, (await handle).offset)


async def consume(client: Client) -> list[Row]:
    rows: list[Row] = []
    options: dict[str, Any] = {"consumer_id": "me", "offset_strategy": "auto", "until_end": True}
    async for chunk in client.consumer("t", max_bytes=200, **options).chunks():
        rows += [
            ("t", chunk.partition, offset, value)
            for offset, value in zip(chunk.offsets, chunk.values, strict=True)
        ]
    ends = Counter(row[1] for row in rows)
    assert sum(ends.values()) == len(set(rows)), "the consumer repeated records"
    return rows


# --- Cuts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", FLOWS)
async def test_a_cut_connection_loses_nothing(
    dedicated_broker: BrokerProcess, flow: Flow, is_deep: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A long session, cut at some bytes; `test_cuts` cuts every byte of shorter ones."""
    clean, carried = await session(dedicated_broker)
    assert not clean.problems, clean
    cuts = DEEP_CUTS if is_deep else SAMPLED_CUTS
    points = sorted(random.Random(f"{flow} 1").sample(range(carried[flow]), cuts))
    counts: Counter[str] = Counter()
    for at in points:
        cut = Cut(flow, at)
        verdict, now = await session(dedicated_broker, cut)
        assert not verdict.problems, f"cut at {at} of {flow}: {verdict}"
        # A session may send fewer bytes than the measured one; then the cut comes too late.
        assert cut.fired == 1 or now[flow] <= at, f"byte {at} of {flow} was not cut"
        counts += verdict.counts
        counts["too late"] += not cut.fired
    assert counts["too late"] * 2 < len(points), counts
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{flow}: {len(points)} cuts of {carried[flow]} bytes, {counts['acknowledged']} "
            f"acknowledged, {counts['stored again']} stored again, 0 lost"
        )


async def test_a_consumer_opens_although_the_connection_is_lost_during_it(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    """The request for stored offsets must be retried."""
    topic = await new_topic()
    async with client.producer(topic) as producer:
        await producer.send(b"x")
    cut = Cut("spu down", 1_000_000)
    with Proxy(cluster.sc_port, cluster.spu_port, cut) as proxy:
        async with Client.connect(proxy.address) as proxied:
            await proxied.admin.list_consumers()
            cut.at = proxy.carried["spu down"]
            assert await values_of(proxied, topic, consumer_id="me") == [b"x"]
    assert cut.fired == 1


async def test_producers_and_consumers_can_open_while_the_broker_is_down(
    own_broker: BrokerProcess, anyio_backend_name: str
) -> None:
    waits = anyio.Event()
    async with Client.connect(own_broker.address) as client:
        await client.admin.create_topic("t")
        own_broker.kill()
        options: dict[str, Any] = {"on_retry": lambda error, attempt: waits.set()}
        async with anyio.create_task_group() as tasks:

            async def start_again() -> None:
                await waits.wait()
                await anyio.to_thread.run_sync(own_broker.start)

            tasks.start_soon(start_again)
            with anyio.fail_after(SOON_S):
                async with client.producer("t", **options) as producer:
                    await producer.send(b"x")
                assert await values_of(client, "t", **options) == [b"x"]


async def test_a_session_succeeds_even_if_its_connections_are_cut_many_times(
    dedicated_broker: BrokerProcess, anyio_backend_name: str
) -> None:
    cuts = [Cut("spu down", at) for at in range(300, 2_700, 300)]
    verdict, _ = await session(dedicated_broker, *cuts)
    assert not verdict.problems, verdict
    assert all(cut.fired for cut in cuts)


# --- Slow but complete ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda flow: Split(flow),
        lambda flow: Delay(flow, 0.002),
    ],
    ids=["split", "delay"],
)
async def test_slow_or_split_responses_cause_no_duplicates(
    dedicated_broker: BrokerProcess, make: Callable[[Flow], Fault]
) -> None:
    faults = [make(flow) for flow in FLOWS]
    verdict, _ = await session(dedicated_broker, *faults)
    assert not verdict.problems, verdict
    assert all(fault.fired for fault in faults)
    assert verdict.counts["stored again"] == 0


@pytest.mark.parametrize("flow", ["spu up", "spu down"])
async def test_a_stalled_connection_causes_no_loss_and_no_duplicates(
    dedicated_broker: BrokerProcess, flow: Flow
) -> None:
    stall = Stall(flow, 300)

    async with anyio.create_task_group() as tasks:

        async def release_once_met() -> None:
            await anyio.to_thread.run_sync(stall.has_fired.wait)
            stall.release()

        tasks.start_soon(release_once_met)
        verdict, _ = await session(dedicated_broker, stall)
    assert not verdict.problems, verdict
    assert stall.fired
    assert verdict.counts["stored again"] == 0


async def until_fired(stall: Stall) -> None:
    with anyio.fail_after(SOON_S):
        await anyio.to_thread.run_sync(stall.has_fired.wait)


@pytest.mark.parametrize("many", [False, True], ids=["send", "send_many"])
async def test_the_queue_for_a_silent_broker_is_limited(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic, many: bool
) -> None:
    topic = await new_topic()
    value, count, queue_bytes = bytes(10_000), 500, 200_000
    stall = Stall("spu down", 200)
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        async with Client.connect(proxy.address) as slow:
            producer = slow.producer(topic, queue_bytes=queue_bytes, linger=0)
            await producer.open()

            async def send_on() -> None:
                if many:
                    await producer.send_many([value] * count)
                for _ in range(0 if many else count):
                    await producer.send(value)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send_on)
                await until_fired(stall)
                await anyio.wait_all_tasks_blocked()
                waiting_bytes = producer.unacknowledged * len(value)
                stall.release()
            await producer.close()
    assert 0.8 * queue_bytes < waiting_bytes <= 2 * queue_bytes + len(value)
    assert len(await values_of(client, topic)) == count


async def test_one_silent_partition_does_not_stop_the_others(
    own_broker: BrokerProcess, anyio_backend_name: str
) -> None:
    """A full queue of one partition does not block the others, nor does a flush of it."""
    refuse = Replace("spu down", refuse_partition_0)
    with Proxy(own_broker.sc_port, own_broker.spu_port, refuse) as proxy:
        async with Client.connect(proxy.address) as client:
            await client.admin.create_topic("t", 2)
            async with client.producer("t", linger=0, queue_bytes=100) as producer:
                await producer.send(bytes(200), partition=0)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(partial(producer.send, bytes(200), partition=0))  # waits
                    tasks.start_soon(producer.flush)
                    with anyio.fail_after(SOON_S):
                        for offset in range(20):
                            stored = await (await producer.send(b"x", partition=1))
                            assert stored.offset == offset
                    refuse.function = lambda frame: None
    assert refuse.fired


def refuse_partition_0(frame: bytes) -> bytes | None:
    """Answer every Produce request for partition 0 with "not the leader"."""
    name = b"\x00\x01t\x00\x00\x00\x01\x00\x00\x00\x00"
    at = frame.find(name)
    if at < 0 or frame[at + len(name) : at + len(name) + 2] != b"\x00\x00":
        return None
    return frame[: at + len(name)] + b"\x00\x06" + frame[at + len(name) + 2 :]


async def test_requests_above_the_limit_of_a_connection_wait(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(200)
    stall = Stall("spu down", 200)
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        async with (
            Client.connect(proxy.address) as slow,
            slow.producer(topic, linger=0) as producer,
        ):
            await producer.send_many([b"x"] * 200)
            await until_fired(stall)
            await anyio.wait_all_tasks_blocked()
            stall.release()
    assert len(await values_of(client, topic)) == 200


async def test_cancelling_a_waiting_write_does_not_close_the_connection(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    large = bytes(24 << 20)  # more than the kernel buffers
    stall = Stall("spu up", 1 << 40)
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        async with (
            Client.connect(proxy.address) as proxied,
            proxied.producer(topic, max_request_size=30 << 20) as producer,
        ):
            await (await producer.send(b"first"))
            stall.at = 0
            handle = await producer.send(large)
            producer.send_now()
            await until_fired(stall)
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0.1) as gave_up:
                await proxied.fetch(topic, 0, 0)
            assert gave_up.cancelled_caught
            stall.release()
            with anyio.fail_after(SOON_S):
                assert (await handle).offset == 1
                assert (await proxied.fetch(topic, 0, 0)).chunk.values[0] == b"first"
            assert producer.metrics.retries == 0
    assert len(await values_of(client, topic)) == 2


async def test_an_admin_call_without_a_response_times_out(cluster: BrokerProcess) -> None:
    stall = Stall("sc down", 1_000_000)
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        async with Client.connect(proxy.address) as client:
            stall.at = 0
            with pytest.raises(RequestTimedOut, match="no response to"):
                await client.cluster.admin(apis.LIST, ListRequest(specs.TOPIC), timeout_s=0.2)
    assert stall.fired


# --- Flipped bits -----------------------------------------------------------------------------


async def test_a_batch_with_a_flipped_bit_is_read_again(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    values = [b"value %d" % number for number in range(50)]
    async with client.producer(topic, batch_size=200) as producer:
        await producer.send_many(values)
    flip = Flip("spu down", b"value 33")
    with Proxy(cluster.sc_port, cluster.spu_port, flip) as proxy:
        async with Client.connect(proxy.address) as proxied:
            assert await values_of(proxied, topic, max_bytes=400) == values
    assert flip.fired == 1


async def test_a_batch_that_stays_damaged_ends_reading_after_the_intact_records(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    values = [b"value %d" % number for number in range(50)]
    async with client.producer(topic, batch_size=200) as producer:
        await producer.send_many(values)
    flip = Flip("spu down", b"value 33", times=99)
    found: list[bytes] = []
    with Proxy(cluster.sc_port, cluster.spu_port, flip) as proxy:
        async with (
            Client.connect(proxy.address) as proxied,
            proxied.consumer(topic, max_bytes=1) as consumer,
        ):
            with pytest.raises(CorruptBatch, match=f"{topic}-0 offset") as caught:  # noqa: PT012
                while (chunk := await consumer.next_chunk()) is not None:
                    found += chunk.values
    assert (caught.value.topic, caught.value.offset) == (topic, len(found))
    assert found == values[: len(found)]
    assert 20 < len(found) <= 33
    assert flip.fired == 2, "it is fetched again only once"


async def test_a_batch_with_a_flipped_bit_is_refused_and_not_stored(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    flip = Flip("spu up", b"damaged")
    with Proxy(cluster.sc_port, cluster.spu_port, flip) as proxy:
        async with Client.connect(proxy.address) as proxied:
            producer = proxied.producer(topic, linger=0)
            with pytest.raises(BrokerError, match="checksum"):
                await (await producer.send(b"damaged"))
            await (await producer.send(b"whole"))
            with pytest.raises(BrokerError, match="checksum"):
                await producer.close()
    assert flip.fired == 1
    assert await values_of(client, topic) == [b"whole"]


# --- Offsets that retention has removed ----------------------------------------------------------


def evicting(first_left: int) -> Replace:
    """Answer the first stream like a server whose log starts later."""

    def answer(frame: bytes) -> bytes | None:
        if replace.fired or b"old record" not in frame:
            return None
        api = apis.STREAM_FETCH
        response = api.response.read(Reader(frame, 8), api.max_version)
        partition = FetchablePartition(0, evicted(response.partition.log_start_offset, first_left))
        correlation_id = int.from_bytes(frame[4:8], "big")
        request = IncomingRequest(api, api.max_version, correlation_id, "", None, 0)
        body = StreamFetchResponse(response.topic, response.stream_id, partition)
        return bytes(encode_response(request, body))

    replace = Replace("spu down", answer)
    return replace


async def read_evicted(
    cluster: BrokerProcess, client: Client, topic: str, **options: Any
) -> list[bytes]:
    async with client.producer(topic) as producer:
        await producer.send_many([b"old record %d" % number for number in range(10)])
    replace = evicting(first_left=6)
    with Proxy(cluster.sc_port, cluster.spu_port, replace) as proxy:
        async with Client.connect(proxy.address) as proxied:
            found: list[bytes] = []
            async with proxied.consumer(topic, start=0, **options) as consumer:
                async with client.producer(topic) as producer:
                    await producer.send(b"new")
                with anyio.fail_after(SOON_S):
                    while b"new" not in found:
                        chunk = await consumer.next_chunk()
                        assert chunk is not None
                        found += chunk.values
    assert replace.fired == 1
    return found


@pytest.mark.parametrize("policy", ["earliest", "latest"])
async def test_reading_ends_even_if_retention_has_removed_the_end_offset(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic, policy: Any
) -> None:
    topic = await new_topic()
    async with client.producer(topic) as producer:
        await producer.send_many([b"old record %d" % number for number in range(10)])
    replace = evicting(first_left=10)
    with Proxy(cluster.sc_port, cluster.spu_port, replace) as proxy:
        async with Client.connect(proxy.address) as proxied:
            consumer = proxied.consumer(topic, start=0, until_end=True, on_evicted=policy)
            async with consumer:
                with anyio.fail_after(SOON_S):
                    assert await consumer.next_chunk() is None
            assert consumer.metrics.evicted == 10
    assert replace.fired == 1


async def test_the_error_for_an_evicted_offset_has_the_first_available_offset(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    with pytest.raises(OffsetEvicted, match="the log starts at 6") as caught:
        await read_evicted(cluster, client, await new_topic())
    assert (caught.value.offset, caught.value.next_available) == (0, 6)


async def test_a_consumer_can_skip_from_an_evicted_offset_to_the_first_available_one(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    found = await read_evicted(cluster, client, await new_topic(), on_evicted="earliest")
    assert found == [*(b"old record %d" % number for number in range(6, 10)), b"new"]


async def test_a_consumer_can_skip_from_an_evicted_offset_to_the_end(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    async with anyio.create_task_group() as tasks:
        found: list[bytes] = []

        async def read() -> None:
            found.extend(await read_evicted(cluster, client, topic, on_evicted="latest"))

        async def write_on() -> None:
            async with client.producer(topic) as producer:
                while not found:
                    await (await producer.send(b"new"))

        tasks.start_soon(read)
        tasks.start_soon(write_on)
    assert set(found) == {b"new"}
