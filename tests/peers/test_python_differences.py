"""Cases in which the official Python client fails and streamkit does not, on the same broker.

Each test runs both clients: first the official one in a separate process, then ours. It asserts
the failure as well as the success, so it also shows when a new release of the official client
fixes something. The page "From the official client" lists the same differences.

The official client's part is a script in a string. `conftest.py` gives it some names:
``fluvio`` is connected, ``answer(x)`` sends a value to the test, ``refusal(call)`` returns the
text of the exception that a call raises, or None. Example: "flush" of the official producer
raises nothing although the broker refused the record, and ours raises BrokerError; see
`test_a_flush_does_not_report_refused_records`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from streamkit import Client, Record
from streamkit.errors import BrokerError, OffsetEvicted, UsageError
from streamkit.protocol import apis
from streamkit.protocol.connection import IncomingRequest, encode_response
from streamkit.protocol.data_plane import FetchablePartition
from streamkit.protocol.error_codes import evicted
from streamkit.protocol.schema import Reader
from tests.client.reading import read_all, values_of
from tests.peers.conftest import RunPeer, StartPeer
from tests.peers.peer import PATIENCE_S, Peer
from tests.proxy import Proxy, Replace, Stall
from tests.stop.broker import BrokerProcess

pytestmark = pytest.mark.peers

FOREVER_S: Final = 3_600
SILENCE_S: Final = 1.0
NEVER: Final = 1 << 40
MARK: Final = b"hundred bytes"
# The versions of StreamFetch that the two clients use.
THEIR_VERSION, OUR_VERSION = 24, apis.STREAM_FETCH.max_version


# --- Producing -----------------------------------------------------------------------------


async def test_a_dropped_producer_loses_its_buffered_records(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("theirs")
    await client.admin.create_topic("ours")
    (lost,) = await run_peer(
        """
producer = producer_with("theirs", linger=3_600_000)
sent = producer.send_string("held")
del producer
answer(refusal(sent.wait))
"""
    )
    assert "failed to get record metadata" in lost
    assert await values_of(client, "theirs") == []
    async with client.producer("ours", linger=FOREVER_S) as producer:
        await producer.send("held")
    assert await values_of(client, "ours") == [b"held"]


async def test_a_flush_does_not_report_refused_records(run_peer: RunPeer, client: Client) -> None:
    await client.admin.create_topic("t", segment_size_bytes=2_000)
    flushed, waited = await run_peer(
        """
producer = fluvio.topic_producer("t")
sent = producer.send(b"", b"x" * 3_000)
answer(refusal(producer.flush))
answer(refusal(sent.wait))
"""
    )
    assert flushed is None
    assert "received an error code" in waited
    async with client.producer("t") as producer:
        await producer.send(b"x" * 3_000)
        with pytest.raises(BrokerError, match="too large"):
            await producer.flush()


async def test_at_most_once_returns_an_offset_for_refused_records(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t", segment_size_bytes=2_000)
    (offset,) = await run_peer(
        """
producer = producer_with("t", delivery_semantic=DeliverySemantic.AtMostOnce)
answer(producer.send(b"", b"x" * 3_000).wait().offset())
"""
    )
    assert offset is not None
    assert await values_of(client, "t") == []
    async with client.producer("t", delivery="at-most-once") as producer:
        handle = await producer.send(b"x" * 3_000)
        with pytest.raises(BrokerError, match="too large"):
            await handle
        with pytest.raises(BrokerError, match="too large"):
            await producer.flush()


async def test_a_producer_fails_after_losing_a_connection_with_records_in_flight(
    start_peer: StartPeer, client: Client, broker: BrokerProcess
) -> None:
    await client.admin.create_topic("theirs")
    await client.admin.create_topic("ours")
    script = """
producer = fluvio.topic_producer("theirs")
producer.send_string("before").wait()
answer("sent")
receive()
sent = producer.send_string("in flight")
answer("in flight")
answer(refusal(sent.wait))
refusal(lambda: producer.send_string("immediately").wait())
answer(refusal(lambda: producer.send_string("after").wait()))
"""
    stall = Stall("spu down", NEVER)
    with Proxy(broker.sc_port, broker.spu_port, stall) as proxy:
        async with start_peer(script, proxy.address, socket_wait_s=2) as peer:
            assert await peer.answer() == "sent"
            stall.at = 0  # the proxy delays the next response
            await peer.send()
            assert await peer.answer() == "in flight"
            await asyncio.to_thread(stall.has_fired.wait)
            proxy.cut_all()
            stall.release()
            refusals = await peer.remaining()
    assert len(refusals) == 2
    assert all(refusals)
    assert b"after" not in await values_of(client, "theirs")

    stall = Stall("spu down", NEVER)
    with Proxy(broker.sc_port, broker.spu_port, stall) as proxy:
        async with Client.connect(proxy.address) as far, far.producer("ours") as producer:
            await (await producer.send("before"))
            stall.at = 0
            handle = await producer.send("in flight")
            producer.send_now()
            await asyncio.to_thread(stall.has_fired.wait)
            proxy.cut_all()
            stall.release()
            await handle
            await (await producer.send("after"))
    # The broker had stored the record before the retry, so it may be there twice.
    assert list(dict.fromkeys(await values_of(client, "ours"))) == [
        b"before",
        b"in flight",
        b"after",
    ]


async def test_a_transient_error_is_not_retried(
    start_peer: StartPeer, client: Client, broker: BrokerProcess
) -> None:
    """Code 6: for some seconds after a restart, a server has not loaded the partition yet."""
    await client.admin.create_topic("t")
    script = """
producer = fluvio.topic_producer("t")
answer(refusal(producer.send_string("theirs").wait))
"""
    refuse = refusing_once()
    with Proxy(broker.sc_port, broker.spu_port, refuse) as proxy:
        async with start_peer(script, proxy.address) as peer:
            (theirs,) = await peer.remaining()
    assert refuse.fired == 1
    assert "received an error code" in theirs

    refuse = refusing_once()
    retries: list[int] = []
    with Proxy(broker.sc_port, broker.spu_port, refuse) as proxy:
        async with (
            Client.connect(proxy.address) as far,
            far.producer("t", on_retry=lambda error, attempt: retries.append(attempt)) as producer,
        ):
            assert (await (await producer.send("ours"))).offset >= 0
    assert refuse.fired == 1
    assert retries == [1]


def refusing_once() -> Replace:
    """Answer the first Produce request of the topic ``t`` with code 6."""
    entry = b"\x00\x01t\x00\x00\x00\x01\x00\x00\x00\x00"

    def answer(frame: bytes) -> bytes | None:
        at = frame.find(entry) + len(entry)
        if refuse.fired or at < len(entry) or frame[at : at + 2] != b"\x00\x00":
            return None
        return frame[:at] + b"\x00\x06" + frame[at + 2 :]

    refuse = Replace("spu down", answer)
    return refuse


async def test_a_full_partition_blocks_sends_to_all_partitions(
    start_peer: StartPeer, client: Client, broker: BrokerProcess
) -> None:
    await client.admin.create_topic("t", 3)
    # Keys "b" and "a" go to the partitions 0 and 1.
    script = """
import threading

producer = producer_with("t", batch_queue_size=2, batch_size=100)
producer.send(b"b", b"first").wait()
answer("connected")
receive()

def fill():
    while True:
        producer.send(b"b", b"x" * 100)
        answer("b")

threading.Thread(target=fill, daemon=True).start()
receive()
producer.send(b"a", b"x")
answer("a")
"""
    stall = Stall("spu down", NEVER)
    with Proxy(broker.sc_port, broker.spu_port, stall) as proxy:
        async with start_peer(script, proxy.address) as peer:
            assert await peer.answer() == "connected"
            stall.at = 0
            await peer.send()
            waiting = asyncio.create_task(peer.answer())
            while await is_answered(waiting):
                assert waiting.result() == "b"
                waiting = asyncio.create_task(peer.answer())
            await peer.send()
            assert not await is_answered(waiting)
            stall.release()
            await waiting

    stall = Stall("spu down", NEVER)
    with Proxy(broker.sc_port, broker.spu_port, stall) as proxy:
        async with (
            Client.connect(proxy.address) as far,
            far.producer("t", queue_bytes=400, batch_size=100) as producer,
        ):
            await (await producer.send(b"first", b"b"))
            stall.at = 0

            async def fill() -> None:
                for _ in range(100):
                    await producer.send(b"x" * 100, b"b")

            filling = asyncio.create_task(fill())
            producer.send_now()
            await asyncio.to_thread(stall.has_fired.wait)
            async with asyncio.timeout(PATIENCE_S):
                await producer.send(b"x", b"a")
            assert not filling.done()
            stall.release()
            await filling


async def is_answered(answer: asyncio.Task[Any]) -> bool:
    """Return whether an answer comes within SILENCE_S: there is no event for its absence."""
    await asyncio.wait([answer], timeout=SILENCE_S)
    return answer.done()


async def test_a_flush_waits_forever_for_a_partition_that_does_not_exist(
    start_peer: StartPeer, client: Client
) -> None:
    await client.admin.create_topic("t", 3)
    script = """
producer = producer_with("t", set_specific_partitioner=7)
producer.send(b"", b"x")
answer("sent")
producer.flush()
answer("flushed")
"""
    async with start_peer(script) as peer:
        assert await peer.answer() == "sent"
        flushed = asyncio.create_task(peer.answer())
        assert not await is_answered(flushed)
        flushed.cancel()
    with pytest.raises(UsageError, match="has no partition 7"):
        async with client.producer("t", partition=7):
            pass


async def test_a_record_is_refused_as_too_large_because_of_other_buffered_records(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("theirs")
    await client.admin.create_topic("ours")
    first, second = await run_peer(
        """
producer = producer_with("theirs", max_request_size=1_000, linger=3_600_000)
answer(refusal(producer.send, b"k", b"x" * 900))
answer(refusal(producer.send, b"k", b"x" * 900))
"""
    )
    assert first is None
    assert "exceeded maximum request size" in second
    async with client.producer("ours", max_request_size=1_000, linger=FOREVER_S) as producer:
        for _ in range(2):
            await producer.send(b"x" * 900, b"k")
    assert await values_of(client, "ours") == [b"x" * 900] * 2


async def test_all_text_without_a_key_goes_to_one_partition(
    run_peer: RunPeer, client: Client
) -> None:
    for topic in ("theirs", "ours"):
        await client.admin.create_topic(topic, 3)
    await run_peer(
        """
producer = fluvio.topic_producer("theirs")
for number in range(9):
    producer.send_string(str(number))
producer.flush()
"""
    )
    async with client.producer("ours") as producer:
        for number in range(9):
            await producer.send(str(number))
    theirs, ours = await read_all(client, "theirs"), await read_all(client, "ours")
    assert Counter((r.partition, r.key) for r in theirs) == {(2, b""): 9}
    assert Counter((r.partition, r.key) for r in ours) == {(p, None): 3 for p in range(3)}


async def test_a_handle_can_be_awaited_only_once(run_peer: RunPeer, client: Client) -> None:
    await client.admin.create_topic("t")
    first, second = await run_peer(
        """
sent = (producer := fluvio.topic_producer("t")).send_string("x")
answer(sent.wait().offset())
answer(sent.wait())
"""
    )
    assert (first, second) == (0, None)
    async with client.producer("t") as producer:
        handle = await producer.send("x")
        assert await handle == await handle


# --- Consuming -----------------------------------------------------------------------------


def changing(version: int, change: Callable[[FetchablePartition], FetchablePartition]) -> Replace:
    """Change each response of a stream that contains records."""

    def answer(frame: bytes) -> bytes | None:
        if MARK not in frame:
            return None
        api = apis.STREAM_FETCH
        response = api.response.read(Reader(frame, 8), version)
        correlation_id = int.from_bytes(frame[4:8], "big")
        request = IncomingRequest(api, version, correlation_id, "", None, 0)
        changed = replace(response, partition=change(response.partition))
        return bytes(encode_response(request, changed))

    return Replace("spu down", answer)


def cut(answer: FetchablePartition) -> FetchablePartition:
    """Cut the records as a stock server does, which sends a number of bytes of the log."""
    return replace(answer, records=answer.records[:2_500])


def fail(answer: FetchablePartition) -> FetchablePartition:
    """Return the error for records that retention has removed."""
    return FetchablePartition(answer.partition, evicted(0, 6))


async def test_records_are_skipped_if_a_server_cuts_a_response_inside_a_batch(
    start_peer: StartPeer, client: Client, broker: BrokerProcess
) -> None:
    await client.admin.create_topic("t")
    values = [b"%06d " % number + MARK * 8 for number in range(90)]
    async with client.producer("t", batch_size=1_000) as producer:
        await producer.send_many(values)
    cuts = changing(THEIR_VERSION, cut)
    with Proxy(broker.sc_port, broker.spu_port, cuts) as proxy:
        script = 'answer([int(record.value_string()[:6]) for record in until_end("t", 0)])'
        async with start_peer(script, proxy.address) as peer:
            (theirs,) = await peer.remaining()
    assert cuts.fired
    assert theirs == sorted(set(theirs))
    assert len(theirs) < 90  # without an error

    cuts = changing(OUR_VERSION, cut)
    with Proxy(broker.sc_port, broker.spu_port, cuts) as proxy:
        async with Client.connect(proxy.address) as far:
            assert await values_of(far, "t") == values
    assert cuts.fired


async def test_after_a_reconnect_one_offset_is_used_for_all_partitions(
    start_peer: StartPeer, client: Client, broker: BrokerProcess
) -> None:
    await client.admin.create_topic("t", 2)
    script = """
builder = ConsumerConfigExtBuilder("t")
builder.offset_start(Offset.beginning())
for record in fluvio.consumer_with_config(builder.build()):
    answer(record.value_string())
"""

    async def phases(proxy: Proxy, read: AsyncIterator[str]) -> list[str]:
        """Read 2 records of partition 1, then 10 of partition 0; reconnect; read 10 more of 1."""
        seen = []
        for partition, numbers in ((1, range(2)), (0, range(10))):
            await send(partition, numbers)
            seen += [await anext(read) for _ in numbers]
        proxy.cut_all()
        await send(1, range(2, 12))
        while seen[-1] != "1: 11":
            seen.append(await anext(read))
        return seen

    async def send(partition: int, numbers: range) -> None:
        async with client.producer("t", partition=partition) as producer:
            await producer.send_many([b"%d: %d" % (partition, number) for number in numbers])

    everything = {f"1: {n}" for n in range(12)} | {f"0: {n}" for n in range(10)}
    with Proxy(broker.sc_port, broker.spu_port) as proxy:
        async with start_peer(script, proxy.address) as peer:

            async def theirs() -> AsyncIterator[str]:
                while True:
                    yield await peer.answer()

            seen = await phases(proxy, theirs())
    assert everything - set(seen) == {f"1: {n}" for n in range(2, 10)}

    await client.admin.delete_topic("t")
    await client.admin.create_topic("t", 2)
    with Proxy(broker.sc_port, broker.spu_port) as proxy:
        async with Client.connect(proxy.address) as far, far.consumer("t") as consumer:

            async def ours() -> AsyncIterator[str]:
                async for record in consumer:
                    yield record.value_text

            seen = await phases(proxy, ours())
    assert Counter(seen) == Counter(everything)


async def test_added_partitions_are_not_read(start_peer: StartPeer, client: Client) -> None:
    await client.admin.create_topic("t")
    script = """
builder = ConsumerConfigExtBuilder("t")
builder.offset_start(Offset.beginning())
for record in fluvio.consumer_with_config(builder.build()):
    answer(record.value_string())
"""
    ours: list[str] = []
    async with (
        client.producer("t") as producer,
        client.consumer("t") as consumer,
        start_peer(script) as peer,
    ):
        await producer.send("0", partition=0)
        assert await peer.answer() == "0"
        await client.admin.add_partitions("t")
        await (await producer.send("new", partition=1))
        for number in range(1, 6):
            await (await producer.send(str(number), partition=0))
            assert await peer.answer() == str(number)
        async for record in consumer:
            ours.append(record.value_text)
            if len(ours) == 7:
                break
    assert sorted(ours) == [*"012345", "new"]


async def test_an_error_looks_like_the_end_of_the_topic(
    start_peer: StartPeer, client: Client, broker: BrokerProcess
) -> None:
    await client.admin.create_topic("t")
    async with client.producer("t") as producer:
        await producer.send_many([MARK] * 10)
    failure = changing(THEIR_VERSION, fail)
    with Proxy(broker.sc_port, broker.spu_port, failure) as proxy:
        script = 'answer([record.offset() for record in until_end("t", 0)])'
        async with start_peer(script, proxy.address) as peer:
            assert await peer.remaining() == [[]]
    assert failure.fired

    with Proxy(broker.sc_port, broker.spu_port, changing(OUR_VERSION, fail)) as proxy:
        async with Client.connect(proxy.address) as far:
            with pytest.raises(OffsetEvicted):
                await values_of(far, "t")


async def test_auto_commit_stores_the_offset_of_a_record_before_it_is_processed(
    start_peer: StartPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    async with client.producer("t") as producer:
        await producer.send_many([b"x"] * 10)

    async def stored(consumer_id: str) -> list[int]:
        found = await client.admin.list_consumers()
        return [each.offset for each in found if each.consumer_id == consumer_id]

    script = """
stream = until_end("t", 0, None, "theirs", OffsetManagementStrategy.AUTO)
next(stream)
while not fluvio.consumer_offsets():
    pass
answer("processing")
receive()
"""
    async with start_peer(script) as peer:
        assert await peer.answer() == "processing"
        assert await stored("theirs") == [0]
        await peer.send()
        await peer.remaining()
    consumer = client.consumer("t", consumer_id="ours", offset_strategy="auto")
    async with consumer:
        record: Record[Any] = await anext(aiter(consumer))
        assert record.offset == 0
        assert await stored("ours") == []


async def test_waiting_for_a_record_blocks_every_thread(
    start_peer: StartPeer, client: Client
) -> None:
    """For our client, a test in tests/client/sync counts the iterations of a second thread."""
    await client.admin.create_topic("t")
    script = """
import threading

def echo():
    while True:
        answer(["second thread", receive()])

threading.Thread(target=echo, daemon=True).start()
stream = fluvio.partition_consumer("t", 0).stream(Offset.beginning())
answer(next(stream).value_string())
"""
    async with start_peer(script) as peer:
        pending = await first_unanswered(peer)
        async with client.producer("t") as producer:
            await producer.send("a record")
        assert "a record" in [await pending, *await peer.remaining()]


async def first_unanswered(peer: Peer) -> asyncio.Task[Any]:
    """Send to the second thread until it stops answering; return the task that waits for it."""
    for number in range(1_000):
        await peer.send(number)
        pending = asyncio.create_task(peer.answer())
        if not await is_answered(pending):
            return pending
        assert pending.result() == ["second thread", number]
    raise AssertionError("the second thread was never blocked")


# --- SmartModules ------------------------------------------------------------------------------


async def test_a_smartmodule_is_stored_uncompressed(
    run_peer: RunPeer, client: Client, tmp_path: Path
) -> None:
    """Servers run only compressed modules."""
    module = b"\0asm\1\0\0\0" + b"\0\x83\x01\x81\x01" + b"\0" * 129
    path = tmp_path / "module.wasm"
    path.write_bytes(module)
    await run_peer(f'admin.create_smartmodule("theirs", {str(path)!r}, False)')
    await client.admin.create_smartmodule("ours", path)
    ours, theirs = await client.admin.list_smartmodules()
    assert theirs.size_bytes == len(module)
    assert ours.size_bytes < len(module)
