"""A record or batch above a limit is refused with the limit, at once, and nothing else is."""

from __future__ import annotations

from typing import Any, Final

import anyio
import pytest

from streamkit import Client
from streamkit.errors import BrokerError, DataError, LocalProtocolError, RecordTooLarge, UsageError
from streamkit.limits import BATCH_BYTES_HARD_MAX, FRAME_BYTES_MAX, MIB
from streamkit.protocol import apis
from streamkit.protocol.data_plane import (
    ACKS_LEADER,
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from streamkit.protocol.error_codes import Code
from tests.broker.running import batch_of
from tests.client.conftest import NewTopic
from tests.client.reading import values_of

SOON_S: Final = 20.0
CODECS: Final[list[Any]] = ["none", "gzip", "snappy", "lz4", "zstd"]


async def test_no_producer_has_a_limit_above_that_of_servers(client: Client) -> None:
    client.producer("t", max_request_size=BATCH_BYTES_HARD_MAX, batch_size=BATCH_BYTES_HARD_MAX)
    with pytest.raises(UsageError, match="max_request_size=33554433 must be between"):
        client.producer("t", max_request_size=BATCH_BYTES_HARD_MAX + 1)
    with pytest.raises(UsageError, match="batch_size=146800640 must be between"):
        client.producer("t", batch_size=140 * MIB)


@pytest.mark.parametrize("size", [33 * MIB, 140 * MIB])
async def test_a_record_above_every_limit_is_refused_before_it_is_sent(
    client: Client, new_topic: NewTopic, size: int
) -> None:
    async with client.producer(
        await new_topic(), max_request_size=BATCH_BYTES_HARD_MAX, compression="gzip"
    ) as producer:
        with pytest.raises(RecordTooLarge, match="max_request_size is 33554432"):
            await producer.send(bytes(size))
        with pytest.raises(RecordTooLarge, match="row 1"):
            await producer.send_many([b"x", bytes(size)])
        assert not producer.unacknowledged


async def test_the_largest_record_is_stored_and_read(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic()
    value = bytes(range(256)) * (31 * MIB // 256)
    async with client.producer(topic, max_request_size=BATCH_BYTES_HARD_MAX) as producer:
        assert (await (await producer.send(value))).offset == 0
    assert await values_of(client, topic) == [value]


async def test_a_record_that_compresses_too_well_to_be_read_is_refused_in_words(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    async with client.producer(
        topic, max_request_size=BATCH_BYTES_HARD_MAX, compression="zstd"
    ) as producer:
        handle = await producer.send(bytes(20 * MIB))
        later = await producer.send(b"later")
        with pytest.raises(DataError, match="ratio of up to 1,000"):
            await handle
        assert (await later).offset == 0
        with pytest.raises(DataError):
            await producer.flush()
    assert await values_of(client, topic) == [b"later"]


async def test_a_request_larger_than_a_frame_is_refused_before_it_is_sent(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    channel = await client.cluster.connect(await client.cluster.leader(topic, 0))
    data = PartitionProduceData(0, bytes(FRAME_BYTES_MAX))
    request = ProduceRequest(
        acks=ACKS_LEADER, timeout_ms=1_000, topics=(TopicProduceData(topic, (data,)),)
    )
    with pytest.raises(LocalProtocolError, match="more than 134,217,728"):
        await channel.call(apis.PRODUCE, request)
    batch = batch_of(bytes(33 * MIB))  # of another client
    request = ProduceRequest(
        acks=ACKS_LEADER,
        timeout_ms=1_000,
        topics=(TopicProduceData(topic, (PartitionProduceData(0, batch),)),),
    )
    answer = await channel.call(apis.PRODUCE, request)
    assert answer.topics[0].partitions[0].error.code == Code.MESSAGE_TOO_LARGE
    await channel.close()


@pytest.mark.parametrize("compression", CODECS)
async def test_batches_fit_into_the_segments_of_their_topic(
    client: Client, new_topic: NewTopic, compression: Any
) -> None:
    topic = await new_topic(segment_size_bytes=4_096)
    values = [bytes((row * 7 + at * at) % 251 for at in range(100)) for row in range(1_000)]
    with anyio.fail_after(SOON_S):
        async with client.producer(topic, compression=compression) as producer:
            await (await producer.send_many(values))
            for value in values:
                await producer.send(value)
    assert await values_of(client, topic) == values * 2


async def test_a_record_larger_than_a_segment_is_refused_with_its_size(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(segment_size_bytes=4_096)
    async with client.producer(topic) as producer:
        handle = await producer.send(bytes(5_000))
        with pytest.raises(BrokerError, match="accepts up to 4,096 bytes here, the size") as raised:
            await handle
        assert raised.value.code == Code.MESSAGE_TOO_LARGE
        with pytest.raises(BrokerError):
            await producer.flush()
