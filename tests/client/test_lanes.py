"""Stamped batches: each is written once and unchanged, with an outcome for every entry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit import Client
from streamkit.client.produce.lanes import LaneEntry, LaneProducer, LaneStatus
from streamkit.errors import OffsetOutOfRange, UsageError
from streamkit.protocol.batch import (
    Columns,
    Stamp,
    check_crc,
    encode_batch,
    encode_fence,
    read_batch_header,
    with_epoch,
)
from streamkit.protocol.codec import fit_rows
from streamkit.protocol.compression import Codec
from tests.broker_process import BrokerProcess
from tests.client.conftest import NewTopic
from tests.client.reading import values_of
from tests.proxy import Proxy, Stall

SOON_S: Final = 60.0
LANE: Final = 0x1122334455667788


def batch(*values: bytes, first: int = 0, lane: int = LANE, codec: Codec = Codec.NONE) -> bytes:
    """Encode values as a batch of a lane, without an epoch yet."""
    columns = Columns(list(values), [None] * len(values), [1_000] * len(values))
    _, size = fit_rows(columns.values, columns.keys, columns.timestamps_ms, 0, 1 << 30, 1 << 20)
    stamp = Stamp(lane, -1, first)
    return encode_batch(columns, 0, len(values), size, codec_used=codec, stamp=stamp)


@asynccontextmanager
async def lanes_of(client: Client) -> AsyncIterator[LaneProducer]:
    lanes = LaneProducer(client.cluster)
    try:
        yield lanes
    finally:
        with anyio.CancelScope(shield=True):
            await lanes.close()


# --- Bytes ---------------------------------------------------------------------------------------


def test_a_fence_is_encoded_as_in_the_reference() -> None:
    end_probe = encode_fence(Stamp(LANE, 7, 41), 0x199C82CC07B)
    assert end_probe.hex() == (
        "0000000000000000" "00000031" "ffffffff" "02" "a43fbab2" "0000"
        "00000000" "00000199c82cc07b" "00000199c82cc07b"
        "1122334455667788" "0007" "00000029" "00000000"
    )  # fmt: skip


@given(st.integers(0, 2**15 - 1), st.lists(st.binary(max_size=50), min_size=1, max_size=9))
def test_an_epoch_can_be_written_into_an_encoded_batch(epoch: int, values: list[bytes]) -> None:
    late = with_epoch(batch(*values, first=5), epoch)
    header = read_batch_header(late)
    check_crc(late, 0, header)
    assert (header.producer_id, header.producer_epoch, header.first_sequence) == (LANE, epoch, 5)
    assert late[61:] == batch(*values, first=5)[61:]


# --- Outcomes ------------------------------------------------------------------------------------


async def test_lanes_are_sent_together_and_keep_their_batches_and_producer_ids(
    client: Client, new_topic: NewTopic
) -> None:
    one, two = await new_topic(2), await new_topic()
    async with lanes_of(client) as lanes:
        outcomes = await lanes.send(
            [
                LaneEntry(two, 0, 3, [batch(b"x", first=9, lane=3)]),
                LaneEntry(one, 1, 3, [batch(b"a", b"b"), batch(b"c", first=2)]),
                LaneEntry(one, 0, 3, [batch(b"y", lane=4)]),
            ]
        )
    assert [(each.outcome, each.base_offset) for each in outcomes] == [(LaneStatus.STORED, 0)] * 3
    found = await client.fetch(one, 1, 0)
    assert [(each.base_offset, each.offset_count, each.stamp) for each in found.batches] == [
        (0, 2, Stamp(LANE, 3, 0)),
        (2, 1, Stamp(LANE, 3, 2)),
    ]
    assert (list(found.chunk.values), found.next_offset) == ([b"a", b"b", b"c"], 3)
    assert [each.stamp for each in (await client.fetch(two, 0, 0)).batches] == [Stamp(3, 3, 9)]


async def test_lanes_of_one_partition_are_sent_one_after_the_other(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    async with lanes_of(client) as lanes:
        entries = [
            LaneEntry(topic, 0, 1, [batch(b"%d" % n, lane=n), batch(b"%d" % n, first=1, lane=n)])
            for n in range(4)
        ]
        outcomes = await lanes.send(entries)
    assert [each.base_offset for each in outcomes] == [0, 2, 4, 6]
    assert await values_of(client, topic) == [b"0", b"0", b"1", b"1", b"2", b"2", b"3", b"3"]


async def test_a_refused_lane_does_not_affect_the_others(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(2, segment_size_bytes=2_000)
    async with lanes_of(client) as lanes:
        outcomes = await lanes.send(
            [
                LaneEntry(topic, 0, 1, [batch(b"x" * 3_000)]),
                LaneEntry(topic, 1, 1, [batch(b"y")]),
                LaneEntry(topic, 7, 1, [batch(b"nobody leads it")]),
                LaneEntry("no-such-topic", 0, 1, [batch(b"z")]),
            ]
        )
    assert [each.outcome for each in outcomes] == [
        LaneStatus.REFUSED,
        LaneStatus.STORED,
        LaneStatus.NOT_STORED,
        LaneStatus.NOT_STORED,
    ]
    assert "too large" in str(outcomes[0].error)
    assert await values_of(client, topic) == [b"y"]


async def test_without_a_response_the_outcome_is_unknown_and_nothing_is_resent(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    stall = Stall("spu down", 1 << 40)
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        async with Client.connect(proxy.address) as proxied, lanes_of(proxied) as lanes:
            assert await lanes.is_streamkit(topic, 0)
            stall.at = 0
            outcomes = []

            async def send() -> None:
                outcomes.extend(await lanes.send([LaneEntry(topic, 0, 1, [batch(b"once")])]))

            with anyio.fail_after(SOON_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(send)
                    while not await values_of(client, topic):
                        await anyio.lowlevel.checkpoint()
                    proxy.cut_all()
                stall.release()
                (outcome,) = outcomes
                assert outcome.outcome is LaneStatus.UNKNOWN
                (later,) = await lanes.send([LaneEntry(topic, 0, 1, [batch(b"next", first=1)])])
            assert (later.outcome, later.base_offset) == (LaneStatus.STORED, 1)
    assert await values_of(client, topic) == [b"once", b"next"]


async def test_without_a_broker_the_outcome_is_not_stored(own_broker: BrokerProcess) -> None:
    async with Client.connect(own_broker.address) as client:
        await client.admin.create_topic("t")
        async with lanes_of(client) as lanes:
            own_broker.kill()
            with anyio.fail_after(SOON_S):
                (outcome,) = await lanes.send([LaneEntry("t", 0, 1, [batch(b"x")])])
    assert outcome.outcome is LaneStatus.NOT_STORED
    assert "refused" in str(outcome.error)


async def test_one_request_is_in_flight_at_a_time(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(2)
    stall = Stall("spu down", 1 << 40)
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        async with Client.connect(proxy.address) as proxied, lanes_of(proxied) as lanes:
            assert await lanes.is_streamkit(topic, 0)
            stall.at = 0
            with anyio.fail_after(SOON_S):
                async with anyio.create_task_group() as tasks:
                    for number in (0, 1):
                        entry = LaneEntry(topic, number, 1, [batch(b"x")])
                        tasks.start_soon(lanes.send, [entry])
                        while not await values_of(client, topic):
                            await anyio.lowlevel.checkpoint()
                    await anyio.wait_all_tasks_blocked()
                    assert len(await values_of(client, topic)) == 1
                    stall.release()
    assert len(await values_of(client, topic)) == 2


async def test_cancelling_closes_the_connection(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    stall = Stall("spu down", 1 << 40)
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        async with Client.connect(proxy.address) as proxied, lanes_of(proxied) as lanes:
            assert await lanes.is_streamkit(topic, 0)
            stall.at = 0
            with anyio.fail_after(SOON_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(lanes.send, [LaneEntry(topic, 0, 1, [batch(b"x")])])
                    while not await values_of(client, topic):
                        await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
                stall.release()
                (outcome,) = await lanes.send([LaneEntry(topic, 0, 1, [batch(b"y", first=1)])])
            assert (outcome.outcome, outcome.base_offset) == (LaneStatus.STORED, 1)


# --- Fences and single reads ---------------------------------------------------------------------


@pytest.mark.parametrize("codec", list(Codec))
async def test_a_fence_has_an_offset_but_no_record(
    client: Client, new_topic: NewTopic, codec: Codec
) -> None:
    topic = await new_topic(compression=codec.name.lower())
    async with lanes_of(client) as lanes:
        end_probe = encode_fence(Stamp(LANE, -1, -1), 1_000, codec_used=codec)
        for epoch, content in ((1, [batch(b"a", codec=codec)]), (2, [end_probe]), (2, [end_probe])):
            (outcome,) = await lanes.send([LaneEntry(topic, 0, epoch, content)])
            assert outcome.outcome is LaneStatus.STORED
    assert await values_of(client, topic) == [b"a"]
    found = await client.fetch(topic, 0, 1)
    assert [(each.base_offset, each.offset_count) for each in found.batches] == [(1, 1), (2, 1)]
    assert [each.stamp.producer_epoch for each in found.batches] == [2, 2]
    assert (len(found.chunk), found.next_offset) == (0, 3)


async def test_a_fetch_returns_whole_batches_and_nothing_at_the_end(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    async with client.producer(topic, batch_size=100) as producer:
        await producer.send_many([b"%d" % number * 20 for number in range(10)])
    offset = 0
    values: list[bytes] = []
    while (found := await client.fetch(topic, 0, offset, max_bytes=1)).next_offset > offset:
        assert found.chunk.offsets[0] == offset
        values += found.chunk.values
        offset = found.next_offset
    assert values == [b"%d" % number * 20 for number in range(10)]
    assert (found.batches, len(found.chunk), found.high_watermark) == ((), 0, 10)
    inside = await client.fetch(topic, 0, 3)
    assert inside.chunk.offsets[0] == 3
    with pytest.raises(OffsetOutOfRange):
        await client.fetch(topic, 0, 11)
    with pytest.raises(UsageError):
        await client.fetch(topic, 0, 0, max_bytes=0)
