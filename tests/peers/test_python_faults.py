"""The official Python client when the broker stops or a topic is deleted."""

from __future__ import annotations

import pytest

from streamkit import Client
from tests.client.reading import values_of
from tests.peers.conftest import StartPeer
from tests.stop.broker import BrokerProcess

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("signal", ["kill", "stop"])
async def test_an_official_producer_continues_after_a_broker_restart(
    start_peer: StartPeer, client: Client, broker: BrokerProcess, signal: str
) -> None:
    await client.admin.create_topic("t", 3)
    script = """
producer = fluvio.topic_producer("t")
for key in (b"a", b"b", b"c"):
    producer.send(key, b"before").wait()
answer("sent")
receive()
for key in (b"a", b"b", b"c"):
    producer.send(key, b"after").wait()
"""
    async with start_peer(script) as peer:
        assert await peer.answer() == "sent"
        getattr(broker, signal)()
        broker.start()
        await peer.send()
        assert await peer.remaining() == []
    assert sorted(await values_of(client, "t")) == [b"after"] * 3 + [b"before"] * 3


async def test_an_official_consumer_of_one_partition_resumes_after_a_broker_restart(
    start_peer: StartPeer, client: Client, broker: BrokerProcess
) -> None:
    await client.admin.create_topic("t")
    script = """
builder = ConsumerConfigExtBuilder("t")
builder.partition(0)
builder.offset_start(Offset.beginning())
stream = fluvio.consumer_with_config(builder.build())
for _ in range(20):
    answer(next(stream).value_string())
"""
    async with client.producer("t") as producer, start_peer(script) as peer:
        await producer.send_many([b"%d" % number for number in range(10)])
        await producer.flush()  # so that no record is sent again after the restart
        assert [await peer.answer() for _ in range(10)] == [str(n) for n in range(10)]
        broker.kill()
        broker.start()
        await producer.send_many([b"%d" % number for number in range(10, 20)])
        await producer.flush()
        assert await peer.remaining() == [str(number) for number in range(10, 20)]


async def test_an_official_stream_gets_an_error_when_its_topic_is_deleted(
    start_peer: StartPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    script = """
stream = fluvio.partition_consumer("t", 0).stream(Offset.beginning())
answer(next(stream).value_string())
answer(refusal(lambda: next(stream)))
answer(refusal(lambda: fluvio.topic_producer("t")))
"""
    async with start_peer(script) as peer:
        async with client.producer("t") as producer:
            await producer.send("one")
        assert await peer.answer() == "one"
        await client.admin.delete_topic("t")
        deleted, missing = await peer.remaining()
    assert "the topic was deleted" in deleted
    assert "Topic not found: t" in missing


async def test_an_official_producer_gets_an_error_when_its_topic_is_deleted(
    start_peer: StartPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    script = """
producer = fluvio.topic_producer("t")
producer.send_string("one").wait()
answer("sent")
receive()
answer(refusal(lambda: producer.send_string("two").wait()))
"""
    async with start_peer(script) as peer:
        assert await peer.answer() == "sent"
        await client.admin.delete_topic("t")
        await peer.send()
        (missing,) = await peer.remaining()
    # Its own list of topics tells it first, or the leader does.
    assert any(each in missing for each in ("Topic not found: t", "not the leader")), missing
