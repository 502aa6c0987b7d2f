"""Both clients read the records of the official Python client exactly as they were sent."""

from __future__ import annotations

from typing import Final

import pytest

from streamkit import Client
from streamkit.protocol.compression import Codec
from tests.client.reading import batches_of, read_all, values_of
from tests.peers.conftest import RunPeer
from tests.protocol.recorded import read_json

pytestmark = pytest.mark.peers

# Keys of the vectors, with their partition in a topic of three partitions.
KEYS: Final = {
    bytes.fromhex(vector["key_hex"]): vector["mods"]["3"]
    for vector in read_json("siphash.json")
    if vector["kind"] == "keyed"
}
MIB: Final = 1 << 20
NAMES: Final = {codec: codec.name.title() for codec in Codec} | {Codec.NONE: "None_"}


async def test_the_official_client_chooses_the_partitions_in_the_reference(
    run_peer: RunPeer, client: Client
) -> None:
    keys = [key.hex() for key in KEYS]
    await client.admin.create_topic("keyed", 3)
    sent, *read = await run_peer(
        f"""
producer = fluvio.topic_producer("keyed")
sent = []
for key in {keys!r}:
    sent.append(producer.send(bytes.fromhex(key), b"theirs"))
producer.flush()
answer([each.wait().partition_id() for each in sent])
for partition in range(3):
    stream = fluvio.partition_consumer("keyed", partition)
    config = ConsumerConfig()
    config.disable_continuous()
    answer([bytes(r.key()).hex() for r in stream.stream_with_config(Offset.beginning(), config)])
"""
    )
    assert sent == list(KEYS.values())
    for partition, found in enumerate(read):
        assert found == [key.hex() for key, where in KEYS.items() if where == partition]


async def test_streamkit_chooses_the_same_partitions_for_keys(
    client: Client, run_peer: RunPeer
) -> None:
    keys = list(KEYS)
    await client.admin.create_topic("keyed", 3)
    async with client.producer("keyed") as producer:
        singly = [await (await producer.send(b"one", key)) for key in keys]
        many = await (await producer.send_many([b"many"] * len(keys), keys))
    assert [stored.partition for stored in singly] == list(KEYS.values())
    assert list(many.partitions) == list(KEYS.values())
    found = await run_peer(
        """
for partition in range(3):
    answer([bytes(record.key()).hex() for record in until_end("keyed", partition)])
"""
    )
    for partition in range(3):
        expected = [key.hex() for key, where in KEYS.items() if where == partition]
        assert found[partition] == expected * 2


@pytest.mark.parametrize("codec", list(Codec))
async def test_batches_keep_their_codec_and_both_clients_read_them(
    run_peer: RunPeer, client: Client, codec: Codec
) -> None:
    await client.admin.create_topic("packed")
    (values,) = await run_peer(
        f"""
producer = producer_with("packed", compression=Compression.{NAMES[codec]}, linger=50)
producer.send_all([(b"key", b"value " * 50) for _ in range(20)])
producer.flush()
answer([r.value_string() for r in until_end("packed", 0)])
"""
    )
    assert values == ["value " * 50] * 20
    records = await read_all(client, "packed")
    assert [(r.key, r.value) for r in records] == [(b"key", b"value " * 50)] * 20
    assert {batch.codec_number for batch in await batches_of(client, "packed")} == {codec}


@pytest.mark.parametrize("codec", [codec for codec in Codec if codec is not Codec.NONE])
async def test_the_official_client_uses_the_compression_of_the_topic_or_refuses_to_start(
    run_peer: RunPeer, client: Client, codec: Codec
) -> None:
    other = Codec.LZ4 if codec is not Codec.LZ4 else Codec.GZIP
    await client.admin.create_topic("packed", compression=codec.name.lower())
    refused, *_ = await run_peer(
        f"""
answer(refusal(lambda: producer_with("packed", compression=Compression.{NAMES[other]})))
producer = fluvio.topic_producer("packed")
producer.send_all([(b"key", b"value " * 50) for _ in range(20)])
producer.flush()
"""
    )
    assert "does not match with topic level compression" in refused
    assert await values_of(client, "packed") == [b"value " * 50] * 20
    assert {batch.codec_number for batch in await batches_of(client, "packed")} == {codec}


async def test_streamkit_reads_records_of_every_send_call(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    (offsets,) = await run_peer(
        r"""
import asyncio

producer = fluvio.topic_producer("t")
sent = [producer.send(b"key", b"one"), producer.send_string("zwölf")]
sent += producer.send_all([(b"\x00\xff", b"\xfe\x00"), (b"", b""), (b"key", b"")])
producer.flush()

async def main():
    sent.append(await producer.async_send(b"key", b"async"))
    sent.append(await producer.async_send_string("async text"))
    sent.extend(await producer.async_send_all([(b"a", b"async all")]))
    await producer.async_flush()
    for each in sent[-3:]:
        offsets.append((await each.async_wait()).offset())

offsets = [each.wait().offset() for each in sent]
asyncio.run(main())
answer(offsets)
"""
    )
    records = await read_all(client, "t")
    assert offsets == [record.offset for record in records] == list(range(8))
    # The official client always sends a key: an empty one for `send_string`.
    assert [(record.key, record.value) for record in records] == [
        (b"key", b"one"),
        (b"", "zwölf".encode()),
        (b"\x00\xff", b"\xfe\x00"),
        (b"", b""),
        (b"key", b""),
        (b"key", b"async"),
        (b"", b"async text"),
        (b"a", b"async all"),
    ]


async def test_both_clients_read_the_same_timestamps(run_peer: RunPeer, client: Client) -> None:
    await client.admin.create_topic("t")
    before, after, seen = await run_peer(
        """
import time

producer = producer_with("t", linger=200)
answer(int(time.time() * 1000))
for number in range(5):
    producer.send_string(str(number))
    until = time.time() + 0.01
    while time.time() < until:
        pass
producer.flush()
answer(int(time.time() * 1000))
answer([record.timestamp() for record in until_end("t", 0)])
"""
    )
    found = [record.timestamp_ms for record in await read_all(client, "t")]
    assert found == seen == sorted(found)
    assert before <= found[0]
    assert found[-1] <= after
    assert found[-1] - found[0] >= 30  # the records of a batch have different timestamps


async def test_streamkit_reads_values_of_one_mebibyte(run_peer: RunPeer, client: Client) -> None:
    await client.admin.create_topic("t")
    await run_peer(
        f"""
producer = producer_with("t", max_request_size={4 * MIB})
for letter in (b"a", b"b", b"c"):
    producer.send(letter, letter * {MIB})
producer.flush()
"""
    )
    records = await read_all(client, "t")
    assert [(r.key, r.value) for r in records] == [(k, k * MIB) for k in (b"a", b"b", b"c")]


async def test_streamkit_reads_whole_batches_larger_than_its_max_bytes(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    await run_peer(
        """
producer = producer_with("t", batch_size=200_000, linger=500)
producer.send_all([(b"", b"%06d" % number * 20) for number in range(3000)])
producer.flush()
"""
    )
    batches = await batches_of(client, "t")
    assert max(batch.size_bytes for batch in batches) > 100_000
    assert await values_of(client, "t", max_bytes=1_000) == [b"%06d" % n * 20 for n in range(3000)]


async def test_batch_size_and_linger_of_the_official_client_define_the_batches(
    run_peer: RunPeer, client: Client
) -> None:
    for topic in ("small", "big"):
        await client.admin.create_topic(topic)
    await run_peer(
        """
for topic, batch_size in (("small", 2_000), ("big", 100_000)):
    producer = producer_with(topic, batch_size=batch_size, linger=1_000)
    producer.send_all([(b"", b"x" * 100) for _ in range(500)])
    producer.flush()
"""
    )
    small, big = await batches_of(client, "small"), await batches_of(client, "big")
    assert [batch.record_count for batch in big] == [500]
    assert len(small) > 500 * 100 / 2_000
    assert await values_of(client, "small") == await values_of(client, "big") == [b"x" * 100] * 500


async def test_an_official_producer_for_one_partition_writes_to_it(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t", 3)
    await run_peer(
        """
producer = producer_with("t", set_specific_partitioner=2)
producer.send_all([(b"%d" % number, b"x") for number in range(10)])
producer.flush()
"""
    )
    assert {record.partition for record in await read_all(client, "t")} == {2}


async def test_records_written_with_read_committed_can_be_read_with_read_committed(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    offsets, values = await run_peer(
        """
producer = producer_with("t", isolation=Isolation.ReadCommitted, batch_size=2000)
sent = producer.send_all([(b"", b"%d" % number) for number in range(500)])
producer.flush()
answer([each.wait().offset() for each in sent])
answer([record.value_string() for record in until_end("t", 0)])
"""
    )
    assert offsets == list(range(500))
    assert values == [str(number) for number in range(500)]
    found = await values_of(client, "t", isolation="read_committed")
    assert found == [str(number).encode() for number in range(500)]


async def test_records_of_an_at_most_once_producer_are_stored(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    (values,) = await run_peer(
        """
producer = producer_with("t", delivery_semantic=DeliverySemantic.AtMostOnce)
for number in range(10):
    producer.send_string(str(number))
producer.flush()
stream = fluvio.partition_consumer("t", 0).stream(Offset.beginning())
answer([next(stream).value_string() for _ in range(10)])
"""
    )
    assert values == [str(number) for number in range(10)]
    assert await values_of(client, "t") == [str(number).encode() for number in range(10)]
