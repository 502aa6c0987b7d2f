"""The official Node client and streamkit exchange records and topics on one broker."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from streamkit import Client
from streamkit.protocol.compression import Codec
from tests.client.reading import batches_of, read_all, values_of
from tests.peers.conftest import RunPeer, StartPeer
from tests.protocol.recorded import read_json

pytestmark = pytest.mark.peers("node")

# Keys that are text, with their partition in a topic of three partitions.
KEYS: Final = {
    bytes.fromhex(vector["key_hex"]).decode(): vector["mods"]["3"]
    for vector in read_json("siphash.json")
    if vector["kind"] == "keyed" and bytes.fromhex(vector["key_hex"]).isascii()
}
MIB: Final = 1 << 20


# --- Topics ----------------------------------------------------------------------------


async def test_the_node_client_creates_lists_finds_and_deletes_topics(
    run_node: RunPeer, client: Client
) -> None:
    created, listed, found, partitions, servers, deleted, remaining = await run_node(
        """
answer(await admin.createTopic("wide", { partitions: 3 }));
answer(JSON.parse(await admin.listTopic()).map((topic) => topic.name));
answer((await admin.findTopic("wide")).status);
answer(JSON.parse(await admin.listPartitions()).map((partition) => partition.name));
answer(JSON.parse(await admin.listSpu()).map((spu) => spu.status.resolution));
await admin.createTopic("kept");
answer(await admin.deleteTopic("wide"));
answer(JSON.parse(await admin.listTopic()).map((topic) => topic.name));
"""
    )
    assert (created, listed, deleted, remaining) == ("wide", ["wide"], "wide", ["kept"])
    assert partitions == ["wide-0", "wide-1", "wide-2"]
    assert found["resolution"] == "Provisioned"
    assert servers == ["Online"]
    assert [topic.name for topic in await client.admin.list_topics()] == ["kept"]


async def test_the_node_client_finds_topics_of_streamkit(run_node: RunPeer, client: Client) -> None:
    await client.admin.create_topic("ours", 3, compression="gzip")
    (spec,) = await run_node('answer((await admin.findTopic("ours")).spec);')
    assert spec["replicas"]["computed"]["partitions"] == 3
    assert spec["compressionType"] == "Gzip"


async def test_the_node_client_gets_the_error_texts(run_node: RunPeer) -> None:
    name, exists, missing, producer, consumer = await run_node(
        """
answer(await refusal(admin.createTopic("Bad_Name")));
await admin.createTopic("t");
answer(await refusal(admin.createTopic("t")));
answer(await refusal(admin.deleteTopic("nope")));
answer(await refusal(fluvio.topicProducer("nope")));
answer(await refusal(stream("nope", 0)));
"""
    )
    assert "Invalid topic name" in name
    assert "already exists" in exists
    assert "Topic not found" in missing
    assert "Topic not found: nope" in producer
    assert "Partition not found: nope-0" in consumer


# --- Records of the Node client ----------------------------------------------------------


async def test_both_clients_send_a_key_to_the_same_partition(
    run_node: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("keyed", 3)
    await run_node(
        f"""
const producer = await fluvio.topicProducer("keyed");
for (const key of {json.dumps(list(KEYS))}) await producer.send(key, "theirs");
await producer.flush();
"""
    )
    async with client.producer("keyed") as producer:
        for key in KEYS:
            await producer.send("ours", key=key)
    for side in (b"theirs", b"ours"):
        records = await read_all(client, "keyed")
        assert {r.key_text: r.partition for r in records if r.value == side} == KEYS


async def test_streamkit_reads_records_of_every_send_call_of_the_node_client(
    run_node: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    await run_node(
        """
const producer = await fluvio.topicProducer("t");
await producer.send("key", "one");
await producer.sendRecord("two", 0);
await producer.sendAll([["a", "three"], ["", "four"], ["c", ""]]);
await producer.send(Buffer.from([0, 255, 16, 128]), Buffer.from([255, 0, 254]));
await producer.flush();
"""
    )
    records = await read_all(client, "t")
    # The Node client always sends a key: an empty one for `sendRecord`.
    assert [(record.key, record.value) for record in records] == [
        (b"key", b"one"),
        (b"", b"two"),
        (b"a", b"three"),
        (b"", b"four"),
        (b"c", b""),
        (b"\x00\xff\x10\x80", b"\xff\x00\xfe"),
    ]
    assert [record.offset for record in records] == list(range(6))
    assert all(record.timestamp_ms > 0 for record in records)


async def test_the_node_client_ignores_the_partition_of_send_record(
    run_node: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t", 3)
    await run_node(
        """
const producer = await fluvio.topicProducer("t");
for (const partition of [0, 1, 2]) await producer.sendRecord("x", partition);
await producer.flush();
"""
    )
    records = await read_all(client, "t")
    assert [(record.partition, record.key) for record in records] == [(KEYS[""], b"")] * 3


async def test_streamkit_reads_batches_of_the_node_client_completely_and_in_order(
    run_node: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    await run_node(
        """
const producer = await fluvio.topicProducer("t");
await producer.sendAll(Array.from({ length: 3000 }, (_, i) => ["k", String(i).repeat(20)]));
await producer.flush();
"""
    )
    assert await values_of(client, "t") == [str(number).encode() * 20 for number in range(3000)]
    assert max(batch.record_count for batch in await batches_of(client, "t")) > 1


@pytest.mark.parametrize("codec", list(Codec))
async def test_the_node_client_uses_the_compression_of_the_topic(
    run_node: RunPeer, client: Client, codec: Codec
) -> None:
    """Its producer has no options, so the topic is the only way to choose a compression."""
    await client.admin.create_topic("packed", compression=codec.name.lower())
    await run_node(
        """
const producer = await fluvio.topicProducer("packed");
await producer.sendAll(Array.from({ length: 50 }, (_, i) => ["k", `${i} `.repeat(100)]));
await producer.flush();
"""
    )
    assert await values_of(client, "packed") == [f"{i} ".encode() * 100 for i in range(50)]
    assert {batch.codec_number for batch in await batches_of(client, "packed")} == {codec}


async def test_streamkit_reads_the_largest_values_of_the_node_client(
    run_node: RunPeer, client: Client
) -> None:
    """The Node client refuses values larger than its batch size of 16 KiB, which is fixed."""
    await client.admin.create_topic("t")
    (refused,) = await run_node(
        """
const producer = await fluvio.topicProducer("t");
for (const letter of "abc") await producer.send(letter, letter.repeat(16_000));
answer(await refusal(producer.send("d", "d".repeat(17_000))));
await producer.flush();
"""
    )
    assert "larger than the buffer max_size (16384 bytes)" in refused
    assert await values_of(client, "t") == [letter * 16_000 for letter in (b"a", b"b", b"c")]


# --- Records of streamkit ----------------------------------------------------------------


@pytest.mark.parametrize("codec", list(Codec))
async def test_the_node_client_reads_records_of_streamkit(
    run_node: RunPeer, client: Client, codec: Codec
) -> None:
    await client.admin.create_topic("t", compression=codec.name.lower())
    values = [b"", b"\x00\xff\xfe", "é".encode(), *(b"%d " % number * 50 for number in range(500))]
    keys = [None, b"", b"\xff", *(b"%d" % number for number in range(500))]
    async with client.producer("t") as producer:
        await producer.send_many(values, keys)
    (found,) = await run_node(
        f"""
const found = await take(await stream("t", 0), {len(values)});
answer(found.map((record) => [record.hasKey() ? hex(record.key()) : null, hex(record.value())]));
"""
    )
    assert found == [
        [None if key is None else key.hex(), value.hex()]
        for key, value in zip(keys, values, strict=True)
    ]
    assert {batch.codec_number for batch in await batches_of(client, "t")} == {codec}


async def test_the_node_client_reads_text(run_node: RunPeer, client: Client) -> None:
    await client.admin.create_topic("t")
    async with client.producer("t") as producer:
        await producer.send("größer", key="schlüssel")
        await producer.send("no key")
    (found,) = await run_node(
        """
const found = await take(await stream("t", 0), 2);
answer(found.map((record) => [record.keyString(), record.valueString()]));
"""
    )
    assert found == [["schlüssel", "größer"], [None, "no key"]]


async def test_the_node_client_starts_at_each_kind_of_offset(
    run_node: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    async with client.producer("t") as producer:
        await producer.send_many([b"%d" % number for number in range(10)])
    starts: dict[str, list[int]] = {
        "Offset.FromBeginning()": list(range(10)),
        'new Offset({ index: 3, from: "beginning" })': list(range(3, 10)),
        'new Offset({ index: 4, from: "end" })': list(range(6, 10)),
    }
    for start, expected in starts.items():
        (found,) = await run_node(
            f"""
const found = await take(await stream("t", 0, {start}), {len(expected)});
answer(found.map((record) => Number(record.valueString())));
"""
        )
        assert found == expected, start


async def test_a_stream_of_the_node_client_at_the_end_gets_new_records_of_streamkit(
    start_node: StartPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    async with client.producer("t") as producer:
        await (await producer.send("before"))
        script = """
const records = await stream("t", 0, new Offset({ index: 1, from: "end" }));
for (let i = 0; i < 4; i++) answer((await records.next()).value.valueString());
"""
        async with start_node(script) as peer:
            assert await peer.answer() == "before"
            for number in range(3):
                await (await producer.send(f"live {number}"))
                assert await peer.answer() == f"live {number}"
            assert await peer.remaining() == []


async def test_a_callback_of_the_node_client_gets_records_of_streamkit(
    run_node: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    async with client.producer("t") as producer:
        await producer.send_many([b"one", b"two", b"three"])
    (found,) = await run_node(
        """
const consumer = await fluvio.partitionConsumer("t", 0);
answer(await new Promise((done) => {
    const found = [];
    consumer.stream(Offset.FromBeginning(), (record) => {
        found.push(record.valueString());
        if (found.length === 3) done(found);
    });
}));
"""
    )
    assert found == ["one", "two", "three"]


async def test_the_node_client_reads_each_of_several_partitions(
    run_node: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t", 3)
    async with client.producer("t") as producer:
        await producer.send_many([b"%d" % number for number in range(30)])
    answers = await run_node(
        """
for (const partition of [0, 1, 2]) {
    const found = await take(await stream("t", partition), 10);
    answer(found.map((record) => Number(record.valueString())));
}
"""
    )
    assert answers == [list(range(first, 30, 3)) for first in range(3)]


async def test_the_node_client_reads_large_values(run_node: RunPeer, client: Client) -> None:
    await client.admin.create_topic("t")
    values = [letter * (MIB - 200) for letter in (b"a", b"b", b"c")]
    async with client.producer("t") as producer:
        await producer.send_many(values)
    answers: list[Any] = await run_node(
        """
for (const record of await take(await stream("t", 0), 3)) {
    const bytes = Buffer.from(record.value());
    answer([bytes.length, bytes.every((byte) => byte === bytes[0]), bytes[0]]);
}
"""
    )
    assert answers == [[len(value), True, value[0]] for value in values]


async def test_a_producer_of_the_node_client_continues_after_a_broker_restart(
    start_node: StartPeer, client: Client, broker: Any
) -> None:
    await client.admin.create_topic("t")
    script = """
const producer = await fluvio.topicProducer("t");
await producer.send("k", "before");
await producer.flush();
answer("sent");
await receive();
await producer.send("k", "after");
await producer.flush();
"""
    async with start_node(script) as peer:
        assert await peer.answer() == "sent"
        broker.kill()
        broker.start()
        await peer.send()
        assert await peer.remaining() == []
    assert await values_of(client, "t") == [b"before", b"after"]
