"""A consumer's position: found by time, moved by a seek, and compared with the end."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit import Client, Offset
from streamkit.client.consume.fetch_buffer import FetchBuffer
from streamkit.errors import UsageError
from streamkit.record import Chunk
from tests.client.conftest import NewTopic
from tests.client.reading import values_of

SOON_S: Final = 60.0
BASE_MS: Final = 1_357_000_000_000


# --- By time -------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "zstd"])
async def test_a_time_finds_the_first_record_at_or_after_it(
    client: Client, new_topic: NewTopic, compression: Any
) -> None:
    topic = await new_topic()
    choose = random.Random(7)
    stamps = [BASE_MS + 10 * step for step in range(300) for _ in range(choose.choice([0, 1, 3]))]
    values = [b"%d" % number for number in range(len(stamps))]
    async with client.producer(topic, batch_size=300, compression=compression) as producer:
        await producer.send_many(values, timestamps_ms=stamps)
    times_ms = [BASE_MS - 1, BASE_MS + 3_001, *choose.sample(range(BASE_MS, BASE_MS + 3_000), 25)]
    for time_ms in times_ms:
        expected = [v for v, stamp in zip(values, stamps, strict=True) if stamp >= time_ms]
        assert await values_of(client, topic, start=Offset.at_time(time_ms)) == expected


async def test_a_time_finds_a_record_in_a_batch_with_unsorted_times(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    stamps = [BASE_MS + step for step in (50, 10, 90, 30, 20, 100, 120, 110, 105)]
    async with client.producer(topic) as producer:
        await producer.send_many([b"%d" % n for n in range(5)], timestamps_ms=stamps[:5])
        await producer.flush()
        await producer.send_many([b"%d" % n for n in range(5, 9)], timestamps_ms=stamps[5:])
    for time_ms in (BASE_MS, *stamps, BASE_MS + 121):
        not_older = [row for row, stamp in enumerate(stamps) if stamp >= time_ms]
        expected = [b"%d" % n for n in range(not_older[0], 9)] if not_older else []
        assert await values_of(client, topic, start=Offset.at_time(time_ms)) == expected


async def test_records_without_a_timestamp_count_as_older_than_any_time(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    async with client.producer(topic) as producer:
        await producer.send_many([b"a", b"b"], timestamps_ms=[0, 0])
        await producer.flush()
        await producer.send_many([b"c"], timestamps_ms=[BASE_MS])
    assert await values_of(client, topic, start=Offset.at_time(1)) == [b"c"]
    assert await values_of(client, topic, start=Offset.at_time(BASE_MS + 1)) == []


def test_a_time_without_a_zone_is_refused() -> None:
    moment = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(milliseconds=7)
    assert Offset.at_time(moment) == Offset.at_time(1_356_998_400_007)
    assert str(Offset.at_time(moment)) == "2013-01-01T00:00:00.007+00:00"
    with pytest.raises(UsageError, match="no time zone"):
        Offset.at_time(datetime(2013, 1, 1))  # noqa: DTZ001  # the refused value
    with pytest.raises(UsageError):
        Offset.at_time(datetime(1969, 1, 1, tzinfo=UTC))


# --- Seek ----------------------------------------------------------------------------------------


async def filled(client: Client, topic: str, count: int = 30) -> None:
    async with client.producer(topic, batch_size=200) as producer:
        await producer.send_many([b"%d" % number for number in range(count)])


async def test_seek_moves_in_both_directions_and_drops_prefetched_records(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    await filled(client, topic)
    async with client.consumer(topic, max_bytes=300) as consumer:
        with anyio.fail_after(SOON_S):
            for wanted, first in ((20, 20), ("beginning+3", 3), (Offset.end(1), 29), (0, 0)):
                assert await consumer.seek(0, wanted) == first
                chunk = await consumer.next_chunk()
                assert chunk is not None
                assert chunk.offsets[0] == first
            assert chunk is not None
            found = list(chunk.offsets)
            while found[-1] < 29:
                chunk = await consumer.next_chunk()
                assert chunk is not None
                found += chunk.offsets
    assert found == list(range(30))


async def test_a_consumer_at_its_end_continues_after_a_seek(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(2)
    await filled(client, topic)
    async with client.consumer(topic, until_end=True) as consumer:
        with anyio.fail_after(SOON_S):
            while await consumer.next_chunk() is not None:
                pass
            await consumer.seek(1, "end-4")
            chunk = await consumer.next_chunk()
            assert chunk is not None
            assert (chunk.partition, list(chunk.offsets)) == (1, [11, 12, 13, 14])
            assert await consumer.next_chunk() is None


async def test_there_can_be_more_seeks_than_streams_of_a_connection(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    await filled(client, topic)
    choose = random.Random(3)
    async with client.consumer(topic) as consumer:
        with anyio.fail_after(6 * SOON_S):
            for _ in range(600):
                wanted = choose.randrange(30)
                await consumer.seek(0, wanted)
                chunk = await consumer.next_chunk()
                assert chunk is not None
                assert chunk.offsets[0] == wanted


async def test_seek_refuses_partitions_that_are_not_read(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(2)
    async with client.consumer(topic, partitions=0) as consumer:
        with pytest.raises(UsageError, match="does not read partition 1"):
            await consumer.seek(1, 0)
    with pytest.raises(UsageError, match="closed"):
        await consumer.seek(0, 0)


async def test_a_commit_after_a_seek_stores_the_new_position(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    await filled(client, topic)
    async with client.consumer(
        topic, consumer_id="mover", offset_strategy="manual", max_bytes=300
    ) as consumer:
        with anyio.fail_after(SOON_S):
            async for record in consumer:
                if record.offset == 20:
                    break
            await consumer.commit_yielded()
            await consumer.seek(0, 5)
            async for record in consumer:
                await consumer.commit(record)
                break
    stored = [each for each in await client.admin.list_consumers() if each.topic == topic]
    assert [each.offset for each in stored] == [5]


# --- Ends ----------------------------------------------------------------------------------------


async def test_lag_counts_records_that_were_not_returned_yet(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(2)
    await filled(client, topic)
    async with client.consumer(topic, start="beginning+5", max_bytes=250) as consumer:
        assert await consumer.end_offsets() == {0: 15, 1: 15}
        assert await consumer.lag() == {0: 10, 1: 10}
        with anyio.fail_after(SOON_S):
            chunk = await consumer.next_chunk()
        assert chunk is not None
        expected = {0: 10, 1: 10}
        expected[chunk.partition] -= len(chunk)
        assert await consumer.lag() == expected
        await filled(client, topic, 2)
        assert sum((await consumer.lag()).values()) == sum(expected.values()) + 2


async def test_added_partitions_are_read_from_their_beginning(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    await filled(client, topic, 5)
    found: list[tuple[int, int]] = []
    async with client.consumer(topic, start="end") as consumer:
        await client.admin.add_partitions(topic, 2)
        async with client.producer(topic) as producer:
            for partition in (2, 1, 0):
                await producer.send(b"new", partition=partition)
        with anyio.fail_after(SOON_S):
            while len(found) < 3:
                chunk = await consumer.next_chunk()
                assert chunk is not None
                found += [(chunk.partition, offset) for offset in chunk.offsets]
    assert sorted(found) == [(0, 5), (1, 0), (2, 0)]


async def test_a_consumer_of_chosen_partitions_does_not_read_added_ones(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    async with client.consumer(topic, partitions=[0]) as consumer:
        await client.admin.add_partitions(topic, 1)
        async with client.producer(topic) as producer:
            await (await producer.send(b"one", partition=1))
            await (await producer.send(b"nought", partition=0))
        with anyio.fail_after(SOON_S):
            chunk = await consumer.next_chunk()
    assert chunk is not None
    assert (chunk.partition, list(chunk.values)) == (0, [b"nought"])
    assert consumer.start_offsets() == {0: 0}


# --- Turns ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50)), max_size=60))
def test_partitions_are_read_in_turn_and_keep_their_order(arrivals: list[tuple[int, int]]) -> None:
    fetch_buffer = FetchBuffer(100)
    for partition in range(4):
        fetch_buffer.add_partition(partition)
    waiting: dict[int, list[int]] = {partition: [] for partition in range(4)}
    for number, (partition, size_bytes) in enumerate(arrivals):
        fetch_buffer.put(partition, Chunk([b""], [None], [0], [number], "t", partition), size_bytes)
        waiting[partition].append(number)
    # The partitions that must come before a partition gets its next turn.
    due_before: dict[int, set[int]] = {}
    while (chunk := fetch_buffer.take()) is not None:
        assert waiting[chunk.partition].pop(0) == chunk.offsets[0]
        assert not due_before.get(chunk.partition)
        for others in due_before.values():
            others.discard(chunk.partition)
        due_before[chunk.partition] = {p for p, held in waiting.items() if held} - {chunk.partition}
    assert not any(waiting.values())
    assert fetch_buffer.held_bytes == 0


def test_a_partition_with_a_backlog_does_not_delay_the_others() -> None:
    fetch_buffer = FetchBuffer(1_000)
    for partition in range(2):
        fetch_buffer.add_partition(partition)
    for number in range(5):
        fetch_buffer.put(0, Chunk([b""], [None], [0], [number], "t", 0), 100)
    fetch_buffer.put(1, Chunk([b""], [None], [0], [0], "t", 1), 10)
    assert (fetch_buffer.has_room(0), fetch_buffer.has_room(1)) == (False, True)
    order = []
    while (chunk := fetch_buffer.take()) is not None:
        order.append(chunk.partition)
    assert order == [0, 1, 0, 0, 0, 0]


def test_dropping_the_chunks_of_a_partition_frees_its_buffer_space() -> None:
    fetch_buffer = FetchBuffer(100)
    fetch_buffer.add_partition(0)
    fetch_buffer.add_partition(1)
    fetch_buffer.put(0, Chunk([b"a"], [None], [0], [0], "t", 0), 60)
    fetch_buffer.put(1, Chunk([b"b"], [None], [0], [0], "t", 1), 10)
    fetch_buffer.drop(0)
    assert fetch_buffer.has_room(0)
    first = fetch_buffer.take()
    assert first is not None
    assert first.partition == 1
    assert fetch_buffer.take() is None
