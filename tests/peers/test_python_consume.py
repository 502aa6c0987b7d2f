"""The official Python client reads records that it wrote itself, and records of streamkit."""

from __future__ import annotations

from typing import Final

import pytest

from streamkit import Client
from streamkit.protocol.compression import Codec
from tests.client.reading import batches_of
from tests.peers.conftest import RunPeer, StartPeer

pytestmark = pytest.mark.peers

MIB: Final = 1 << 20
# Each API of the official client that reads a partition, as `read(topic, partition, count)`.
APIS: Final = {
    "consumer_with_config": """
def read(topic, partition, count):
    return list(until_end(topic, partition))
""",
    "stream": """
def read(topic, partition, count):
    stream = fluvio.partition_consumer(topic, partition).stream(Offset.beginning())
    return [next(stream) for _ in range(count)]
""",
    "stream_with_config": """
def read(topic, partition, count):
    config = ConsumerConfig()
    config.disable_continuous()
    consumer = fluvio.partition_consumer(topic, partition)
    return list(consumer.stream_with_config(Offset.beginning(), config))
""",
    "async_stream": """
def read(topic, partition, count):
    import asyncio

    async def main():
        found = []
        consumer = fluvio.partition_consumer(topic, partition)
        async for record in await consumer.async_stream(Offset.beginning()):
            found.append(record)
            if len(found) == count:
                return found

    return asyncio.run(main())
""",
}


# --- Records of streamkit --------------------------------------------------------------


async def test_every_api_of_the_official_client_reads_records_of_streamkit(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t", 2)
    expected = []
    async with client.producer("t", partition=1) as producer:
        for number, (key, value) in enumerate(
            [(b"key", b"value"), (None, b"\x00\xff"), (b"", b""), (b"\xfe", "é".encode())]
        ):
            timestamp_ms = 1_700_000_000_000 + number * 1_000
            await producer.send(value, key, timestamp_ms=timestamp_ms)
            shown = b"No key" if key is None else key  # its text for a record without a key
            expected.append([number, shown.hex(), value.hex(), timestamp_ms])
    answers = await run_peer(
        by_each_api(
            """
answer([
    [record.offset(), bytes(record.key()).hex(), bytes(record.value()).hex(), record.timestamp()]
    for record in read("t", 1, 4)
])
"""
        )
    )
    assert answers == [expected] * len(APIS)


@pytest.mark.parametrize("codec", list(Codec))
async def test_the_official_client_reads_every_codec_of_streamkit(
    run_peer: RunPeer, client: Client, codec: Codec
) -> None:
    await client.admin.create_topic("t", compression=codec.name.lower())
    async with client.producer("t") as producer:
        await producer.send_many([b"%04d" % number * 50 for number in range(1_000)])
    answers = await run_peer(
        by_each_api('answer([record.value_string() for record in read("t", 0, 1_000)])')
    )
    assert answers == [[f"{number:04}" * 50 for number in range(1_000)]] * len(APIS)
    assert {batch.codec_number for batch in await batches_of(client, "t")} == {codec}


def by_each_api(script: str) -> str:
    """Return a script that runs once with each API."""
    return "\n".join(read + script for read in APIS.values())


async def test_records_of_streamkit_without_a_key_have_no_key_in_the_official_client(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t", 3)
    async with client.producer("t") as producer:
        for number in range(9):
            await producer.send(str(number))
    answers = await run_peer(
        """
for partition in range(3):
    answer([
        [record.value_string(), record.key_string(), bytes(record.key()).decode()]
        for record in until_end("t", partition)
    ])
"""
    )
    assert answers == [
        [[str(number), "", "No key"] for number in range(first, 9, 3)] for first in range(3)
    ]


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.GZIP])
async def test_the_official_client_reads_values_of_one_mebibyte(
    run_peer: RunPeer, client: Client, codec: Codec
) -> None:
    await client.admin.create_topic("t", compression=codec.name.lower())
    async with client.producer("t", max_request_size=4 * MIB) as producer:
        await producer.send_many([letter * MIB for letter in (b"a", b"b", b"c")])
    (found,) = await run_peer(
        'answer([[len(r.value()), *set(r.value())] for r in until_end("t", 0)])'
    )
    assert found == [[MIB, letter] for letter in b"abc"]


async def test_the_official_client_reads_whole_batches_larger_than_its_max_bytes(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    async with client.producer("t", batch_size=200_000) as producer:
        await producer.send_many([b"%06d" % number * 20 for number in range(3_000)])
    assert max(batch.size_bytes for batch in await batches_of(client, "t")) > 100_000
    (found,) = await run_peer(
        """
builder = ConsumerConfigExtBuilder("t")
builder.disable_continuous()
builder.max_bytes(1_000)
builder.partition(0)
builder.offset_start(Offset.beginning())
stream = fluvio.consumer_with_config(builder.build())
answer([int(record.value_string()[:6]) for record in stream])
"""
    )
    assert found == list(range(3_000))


async def test_an_open_stream_of_the_official_client_gets_new_records_of_streamkit(
    start_peer: StartPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    script = """
stream = fluvio.partition_consumer("t", 0).stream(Offset.from_end(1))
for _ in range(4):
    answer(next(stream).value_string())
"""
    async with client.producer("t", isolation="read_committed") as producer:
        await (await producer.send("before"))
        async with start_peer(script) as peer:
            assert await peer.answer() == "before"
            for number in range(3):
                await (await producer.send(f"live {number}"))
                assert await peer.answer() == f"live {number}"
            assert await peer.remaining() == []


# --- Positions and partitions ------------------------------------------------------------


async def test_every_start_offset_means_the_same_for_both_clients(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t")
    async with client.producer("t") as producer:
        for number in range(10):
            await (await producer.send(str(number)))
    starts: dict[str, int | str] = {
        "Offset.beginning()": "beginning",
        "Offset.absolute(4)": 4,
        "Offset.from_beginning(3)": "beginning+3",
        "Offset.from_end(2)": "end-2",
        "Offset.end()": "end",
        "Offset.from_beginning(50)": "beginning+50",
        "Offset.from_end(50)": "end-50",
    }
    answers = await run_peer(
        f"""
for start in ({", ".join(starts)}):
    answer([int(record.value_string()) for record in until_end("t", 0, start=start)])
"""
    )
    everything = list(range(10))
    assert answers == [
        everything,
        everything[4:],
        everything[3:],
        everything[-2:],
        [],
        [],
        everything,
    ]
    for start, expected in zip(starts.values(), answers, strict=True):
        consumer = client.consumer("t", start=start, until_end=True)
        assert [int(record.value) async for record in consumer] == expected


async def test_the_official_client_reads_several_partitions_together(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("t", 3)
    async with client.producer("t") as producer:
        await producer.send_many(
            [b"%d" % n for n in range(30)], [b"abc"[n % 3 :][:1] for n in range(30)]
        )
    everything, two, some, old = await run_peer(
        """
answer(sorted(int(record.value_string()) for record in until_end("t")))
two = [int(r.value_string()) for partition in (0, 2) for r in until_end("t", partition)]
answer(sorted(two))
stream = fluvio.multi_topic_partition_consumer([("t", 0), ("t", 2)]).stream(Offset.beginning())
answer(sorted(int(next(stream).value_string()) for _ in two))
stream = fluvio.multi_partition_consumer("t").stream(Offset.beginning())
answer(sorted(int(next(stream).value_string()) for _ in range(30)))
"""
    )
    assert everything == old == list(range(30))
    assert some == two == [number for number in range(30) if number % 3 != 0]


async def test_the_official_client_reads_a_long_backlog_completely_and_in_order(
    run_peer: RunPeer,
) -> None:
    """A stock server cuts responses inside batches, and this client then skips records."""
    (answers,) = await run_peer(
        """
admin.create_topic("t", TopicSpec.create().with_segment_size("20KB").build())
producer = producer_with("t", batch_size=1000)
producer.send_all([(b"", b"%06d" % number * 20) for number in range(3000)])
producer.flush()
builder = ConsumerConfigExtBuilder("t")
builder.disable_continuous()
builder.max_bytes(5000)
builder.partition(0)
builder.offset_start(Offset.beginning())
stream = fluvio.consumer_with_config(builder.build())
answer([int(record.value_string()[:6]) for record in stream])
"""
    )
    assert answers == list(range(3000))
