"""The consumer against a running broker."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, Final

import anyio
import pytest
from trio.testing import MockClock

from streamkit import Client, Offset
from streamkit.client import Consumer, StoredOffset
from streamkit.errors import (
    OffsetOutOfRange,
    RequestTimedOut,
    TopicDeleted,
    TopicNotFound,
    UsageError,
)
from streamkit.record import Record
from tests.broker_process import BrokerProcess
from tests.client.conftest import NewTopic
from tests.client.reading import batches_of, read_all, values_of

SOON_S: Final = 60.0


async def fill(client: Client, topic: str, count: int, **options: Any) -> list[bytes]:
    """Write ``count`` records, in small batches."""
    values = [b"%d" % number for number in range(count)]
    async with client.producer(topic, batch_size=100, **options) as producer:
        await producer.send_many(values)
    return values


async def stored_of(client: Client, consumer_id: str) -> dict[int, int]:
    found = [
        each for each in await client.admin.list_consumers() if each.consumer_id == consumer_id
    ]
    return {each.partition: each.offset for each in found}


# --- Start offsets -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("beginning", 0),
        ("beginning+3", 3),
        ("beginning+99", 10),
        ("end-3", 7),
        ("end-99", 0),
        ("end", 10),
        (4, 4),
        ("4", 4),
        (Offset.absolute(10), 10),
        (Offset.end(1), 9),
    ],
)
async def test_a_consumer_starts_at_the_given_offset(
    client: Client, new_topic: NewTopic, start: Offset | str | int, first: int
) -> None:
    topic = await new_topic()
    values = await fill(client, topic, 10)
    assert await values_of(client, topic, start=start) == values[first:]


async def test_each_partition_can_have_its_own_start(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic(3)
    await fill(client, topic, 30)
    async with client.consumer(
        topic, start="end-2", start_offsets={1: 5}, until_end=True
    ) as consumer:
        assert consumer.start_offsets() == {0: 8, 1: 5, 2: 8}
        assert consumer.ends() == {0: 10, 1: 10, 2: 10}
    found = await read_all(client, topic, start="end-2", start_offsets={1: 5})
    assert [(record.partition, record.offset) for record in found] == [
        *((0, offset) for offset in (8, 9)),
        *((1, offset) for offset in range(5, 10)),
        *((2, offset) for offset in (8, 9)),
    ]


async def test_a_start_at_the_end_reads_only_later_records(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    await fill(client, topic, 10)
    async with client.consumer(topic, start="end") as consumer:
        async with client.producer(topic) as producer:
            await producer.send(b"later")
        with anyio.fail_after(SOON_S):
            chunk = await consumer.next_chunk()
    assert chunk is not None
    assert (list(chunk.values), list(chunk.offsets)) == ([b"later"], [10])


@pytest.mark.parametrize("start", ["start", "end+1", "beginning-1", "-1", "", "end-x", None, 1.5])
async def test_an_invalid_offset_is_refused(client: Client, start: Any) -> None:
    with pytest.raises(UsageError, match="is not a valid offset"):
        client.consumer("any", start=start)


@pytest.mark.parametrize("until_end", [False, True])
async def test_a_start_after_the_end_is_refused(
    client: Client, new_topic: NewTopic, until_end: bool
) -> None:
    topic = await new_topic()
    await fill(client, topic, 10)
    async with client.consumer(topic, start=11, until_end=until_end) as consumer:
        with anyio.fail_after(SOON_S), pytest.raises(OffsetOutOfRange, match=topic):
            await consumer.next_chunk()


# --- Reading -------------------------------------------------------------------------------


async def test_until_end_stops_at_the_end_seen_at_the_start(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(2)
    await fill(client, topic, 20)
    found = []
    async with client.consumer(topic, until_end=True) as consumer:
        await fill(client, topic, 20)
        with anyio.fail_after(SOON_S):
            while (chunk := await consumer.next_chunk()) is not None:
                found += [(chunk.partition, offset) for offset in chunk.offsets]
    assert sorted(found) == [(p, offset) for p in (0, 1) for offset in range(10)]


async def test_until_end_of_an_empty_topic_ends_immediately(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(3)
    with anyio.fail_after(SOON_S):
        assert await values_of(client, topic) == []


async def test_selected_partitions_can_be_read(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic(3)
    await fill(client, topic, 30)
    assert {r.partition for r in await read_all(client, topic, partitions=1)} == {1}
    assert {r.partition for r in await read_all(client, topic, partitions=[2, 0])} == {0, 2}
    with pytest.raises(UsageError, match="no partition 3"):
        await client.consumer(topic, partitions=[0, 3]).open()
    with pytest.raises(UsageError, match="partition"):
        client.consumer(topic, partitions=[])
    assert len(await read_all(client, topic, partitions=[1, 1])) == 10


async def test_reading_by_record_and_by_chunk_gives_the_same_records(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    async with client.producer(topic, batch_size=300) as producer:
        await producer.send_many(
            [b"%d" % n for n in range(100)], [b"k"] * 100, timestamps_ms=range(1, 101)
        )
    singles = [record async for record in client.consumer(topic, until_end=True)]
    columns = []
    async for chunk in client.consumer(topic, until_end=True).chunks():
        columns += chunk.records()
    assert singles == columns
    assert [record.offset for record in singles] == list(range(100))
    assert [record.timestamp_ms for record in singles] == list(range(1, 101))
    assert {(record.key, record.topic, record.partition) for record in singles} == {
        (b"k", topic, 0)
    }


async def test_reading_can_be_stopped_early_and_started_again(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    values = await fill(client, topic, 50)
    consumer = client.consumer(topic)
    async with aclosing(consumer.chunks()) as chunks:
        async for chunk in chunks:
            assert chunk.values[0] == values[0]
            break
    assert await values_of(client, topic) == values


async def test_a_loop_that_ends_early_causes_no_warning(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    await fill(client, topic, 50)
    async with client.consumer(topic) as consumer:
        async for record in consumer:
            assert record.offset == 0
            break


async def test_iterating_again_resumes_after_the_last_record(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    values = await fill(client, topic, 50)
    async with client.consumer(topic, until_end=True) as consumer:
        found = [(await anext(aiter(consumer))).value for _ in range(3)]
        assert await consumer.lag() == {0: 47}
        chunk = await consumer.next_chunk()
        assert chunk is not None
        assert chunk.offsets[0] == 3
        found += chunk.values
        async for record in consumer:
            found.append(record.value)
    assert found == values


async def test_tasks_that_share_a_consumer_all_get_records_and_all_end(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    consumer = client.consumer(topic)
    found: list[bytes] = []

    async def read() -> None:
        async for record in consumer:
            found.append(record.value)
            if len(found) == 50:
                tasks.cancel_scope.cancel()

    async with consumer:
        with anyio.fail_after(SOON_S):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(read)
                await anyio.wait_all_tasks_blocked()
                await fill(client, topic, 50)
    assert sorted(found, key=int) == [b"%d" % number for number in range(50)]


async def test_every_waiting_task_reaches_the_end(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic()
    ended = []

    async def read(consumer: Consumer) -> None:
        assert await consumer.next_chunk() is None
        ended.append(consumer)

    async with client.consumer(topic) as consumer:
        with anyio.fail_after(SOON_S):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(read, consumer)
                await anyio.wait_all_tasks_blocked()
                await consumer.close()
    assert len(ended) == 3


async def test_closing_the_client_ends_a_wait_of_its_consumers(
    cluster: BrokerProcess, new_topic: NewTopic
) -> None:
    topic = await new_topic()

    async def read(consumer: Consumer) -> None:
        with pytest.raises(UsageError, match="the client was closed while"):
            await consumer.next_chunk()

    with anyio.fail_after(SOON_S):
        async with anyio.create_task_group() as tasks, Client.connect(cluster.address) as other:
            consumer = other.consumer(topic)
            await consumer.open()
            tasks.start_soon(read, consumer)
            await anyio.wait_all_tasks_blocked()


async def test_a_closed_consumer_raises_instead_of_ending(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    await fill(client, topic, 5)
    consumer = client.consumer(topic, until_end=True)
    assert len([record async for record in consumer]) == 5
    with pytest.raises(UsageError, match="is closed"):
        await anext(aiter(consumer))
    unopened = client.consumer(topic)
    await unopened.close()
    with pytest.raises(UsageError, match="is closed"):
        await unopened.open()


async def test_batches_larger_than_a_response_are_read(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic()
    values = [bytes([n]) * 5_000 for n in range(20)]
    async with client.producer(topic) as producer:
        for value in values:
            await producer.send(value)
    for max_bytes in (1, 57, 100, 5_000, 12_000):
        assert await values_of(client, topic, max_bytes=max_bytes) == values


async def test_a_slow_application_does_not_fetch_the_whole_log(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(2)
    async with client.producer(topic) as producer:
        await producer.send_many([bytes(10_000)] * 400)
    total_bytes, prefetch_bytes, response_bytes = 4_000_000, 500_000, 100_000
    async with client.consumer(
        topic, prefetch_bytes=prefetch_bytes, max_bytes=response_bytes, until_end=True
    ) as consumer:
        seen = 0
        furthest_bytes = 0
        while (chunk := await consumer.next_chunk()) is not None:
            seen += len(chunk)
            await anyio.wait_all_tasks_blocked()
            ahead = sum(consumer.next_offsets().values()) - seen
            furthest_bytes = max(furthest_bytes, ahead * 10_000)
    assert seen == 400
    assert furthest_bytes <= prefetch_bytes + 2 * (response_bytes + 20_000) < total_bytes


async def test_there_can_be_more_partitions_than_streams_of_a_connection(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(300)
    retries: list[Exception] = []
    wanted = {(partition, 0) for partition in range(300)}
    async with client.consumer(
        topic, on_retry=lambda error, attempt: retries.append(error)
    ) as consumer:
        async with client.producer(topic) as producer:
            await producer.send_many([b"x"] * 300)
        with anyio.fail_after(30):
            while wanted:
                chunk = await consumer.next_chunk()
                assert chunk is not None
                wanted -= {(chunk.partition, offset) for offset in chunk.offsets}
        assert not retries


# --- Stored offsets ---------------------------------------------------------------------------


async def test_by_default_no_offset_is_stored(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic()
    await fill(client, topic, 10)
    await read_all(client, topic, consumer_id=topic)
    await read_all(client, topic, consumer_id=topic, offset_strategy="manual")
    assert await stored_of(client, topic) == {}


async def test_a_commit_stores_the_last_processed_record(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    values = await fill(client, topic, 10)
    options: dict[str, Any] = {"consumer_id": topic, "offset_strategy": "manual"}
    async with client.consumer(topic, **options) as consumer:
        async for record in consumer:
            if record.offset == 3:
                await consumer.commit(record)
                break
    assert await stored_of(client, topic) == {0: 3}
    assert await values_of(client, topic, **options) == values[4:]
    assert await values_of(client, topic, start="end-2", **options) == values[2:]
    assert await values_of(client, topic, start=1, **options) == values[1:]


async def test_a_commit_replaces_an_offset_that_was_stored_directly(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    await fill(client, topic, 10)
    options: dict[str, Any] = {"consumer_id": topic, "offset_strategy": "manual"}
    async with client.consumer(topic, **options) as consumer:
        await consumer.commit(Record(b"", offset=3, partition=0))
        await consumer.store(0, 7)
        await consumer.commit(Record(b"", offset=3, partition=0))
        assert await stored_of(client, topic) == {0: 3}


async def test_committing_a_record_commits_only_its_partition(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(2)
    await fill(client, topic, 10)
    async with client.consumer(topic, consumer_id=topic, until_end=True) as consumer:
        async for record in consumer:
            if record.offset == record.partition:
                await consumer.commit(record)
    assert await stored_of(client, topic) == {0: 0, 1: 1}


async def test_a_commit_without_a_record_excludes_the_current_one(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    await fill(client, topic, 10)
    async with client.consumer(topic, consumer_id=topic) as consumer:
        async for record in consumer:
            if record.offset == 0:
                await consumer.commit()
                assert await stored_of(client, topic) == {}
            if record.offset == 5:
                await consumer.commit()
                assert await stored_of(client, topic) == {0: 4}
                await consumer.commit_yielded()
                assert await stored_of(client, topic) == {0: 5}
                break


async def test_the_auto_strategy_commits_a_chunk_when_the_next_one_is_requested(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    await fill(client, topic, 200)
    before = -1
    count = 0
    options: dict[str, Any] = {"consumer_id": topic, "offset_strategy": "auto"}
    async for chunk in client.consumer(topic, max_bytes=300, until_end=True, **options).chunks():
        stored = await stored_of(client, topic)
        assert stored == ({} if before < 0 else {0: before})
        before = chunk.offsets[-1]
        count += 1
    assert count > 3
    assert await stored_of(client, topic) == {0: 199}


async def test_the_auto_strategy_does_not_commit_a_record_that_failed(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    values = await fill(client, topic, 10)
    options: dict[str, Any] = {"consumer_id": topic, "offset_strategy": "auto"}
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the loop is what is tested
        async with client.consumer(topic, **options) as consumer:
            async for record in consumer:
                1 // (4 - record.offset)
    assert await stored_of(client, topic) in ({}, {0: 3})
    assert b"4" in await values_of(client, topic, consumer_id=topic)
    left = [record.value async for record in client.consumer(topic, until_end=True, **options)]
    assert left == values[-len(left) :]
    assert await stored_of(client, topic) == {0: 9}


async def test_a_loop_that_ends_early_commits_processed_records(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    await fill(client, topic, 10)
    options: dict[str, Any] = {"consumer_id": topic, "offset_strategy": "auto"}
    async with client.consumer(topic, **options) as consumer:
        async for record in consumer:
            if record.offset == 4:
                break
        # The fifth record was given out, but not processed.
    assert await stored_of(client, topic) == {0: 3}


async def test_offsets_are_kept_per_consumer_topic_and_partition(
    client: Client, new_topic: NewTopic
) -> None:
    topic, other = await new_topic(3), await new_topic()
    await fill(client, topic, 30)
    await fill(client, other, 5)
    for name in (topic, other):
        await read_all_and_commit(client, name, topic)
    await read_all_and_commit(client, topic, other)
    found = [each for each in await client.admin.list_consumers() if each.consumer_id == topic]
    assert [(each.topic, each.partition, each.offset) for each in found] == sorted(
        [(topic, 0, 9), (topic, 1, 9), (topic, 2, 9), (other, 0, 4)]
    )
    deleted = await client.admin.delete_consumer(topic, topic, 1)
    assert [(each.partition, each.offset) for each in deleted] == [(1, 9)]
    assert len(await client.admin.delete_consumer(topic)) == 3
    assert await stored_of(client, topic) == {}
    assert await stored_of(client, other) == {0: 9, 1: 9, 2: 9}


async def read_all_and_commit(client: Client, topic: str, consumer_id: str) -> None:
    options: dict[str, Any] = {"consumer_id": consumer_id, "until_end": True}
    async with client.consumer(topic, **options) as consumer:
        async for _ in consumer.chunks():
            await consumer.commit_yielded()


async def test_a_commit_at_the_end_is_stored_immediately(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    await fill(client, topic, 10)
    consumer = client.consumer(topic, consumer_id=topic, until_end=True)
    async with consumer:
        while await consumer.next_chunk() is not None:
            pass
        with anyio.fail_after(SOON_S):
            await consumer.store(0, 9)
    assert await stored_of(client, topic) == {0: 9}


async def test_a_commit_without_an_id_is_refused(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic()
    await fill(client, topic, 1)
    async with client.consumer(topic) as consumer:
        with pytest.raises(UsageError, match="consumer_id"):
            await consumer.commit()
    for strategy in ("auto", "manual"):
        with pytest.raises(UsageError, match="consumer_id"):
            client.consumer(topic, offset_strategy=strategy)


async def test_a_commit_for_a_partition_that_is_not_read_is_refused(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(2)
    await fill(client, topic, 4)
    stranger = next(r for r in await read_all(client, topic) if r.partition == 1)
    async with client.consumer(topic, consumer_id=topic, partitions=0) as consumer:
        with pytest.raises(UsageError, match="partition 1"):
            await consumer.commit(stranger)


async def test_an_offset_can_be_stored_after_a_broker_restart(
    own_broker: BrokerProcess, anyio_backend_name: str
) -> None:
    """The new stream has no records yet, and its id arrives with the first records."""
    async with Client.connect(own_broker.address) as client:
        await client.admin.create_topic("t")
        await fill(client, "t", 10)
        async with client.consumer("t", consumer_id="me") as consumer:
            await read_up_to(consumer, 9)
            await anyio.to_thread.run_sync(own_broker.restart)
            with anyio.fail_after(SOON_S):
                await consumer.store(0, 9)
        assert await client.admin.list_consumers() == [
            StoredOffset("me", "t", 0, 9, (await client.admin.list_consumers())[0].modified_time_s)
        ]


async def read_up_to(consumer: Consumer, offset: int) -> None:
    while (chunk := await consumer.next_chunk()) is not None and chunk.offsets[-1] < offset:
        pass


# --- Errors ------------------------------------------------------------------------------------


async def test_an_unknown_topic_is_refused_with_a_suggestion(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    with anyio.fail_after(SOON_S), pytest.raises(TopicNotFound, match=topic) as caught:
        await client.consumer(f"{topic}x").open()
    assert "did you mean" in caught.value.hint


async def test_deleting_the_topic_ends_the_stream_with_an_error(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(2)
    values = await fill(client, topic, 10)
    async with client.consumer(topic) as consumer:
        seen = 0
        with anyio.fail_after(SOON_S):
            while seen < len(values):
                chunk = await consumer.next_chunk()
                assert chunk is not None
                seen += len(chunk)
            await client.admin.delete_topic(topic)
            with pytest.raises(TopicDeleted, match=topic):
                await consumer.next_chunk()


async def test_a_topic_created_on_another_connection_can_be_used_immediately(
    client: Client, cluster: BrokerProcess
) -> None:
    async with Client.connect(cluster.address) as other:
        for number in range(20):
            topic = f"at-once-{id(client)}-{number}"
            await other.admin.create_topic(topic)
            async with client.producer(topic) as producer:
                await producer.send(b"x")
            assert await values_of(client, topic) == [b"x"]


async def test_batch_headers_match_their_records(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic()
    async with client.producer(topic) as producer:
        await producer.send_many([b"a", b"b", b"c"], timestamps_ms=[30, 10, 20])
    (header,) = await batches_of(client, topic)
    assert (header.first_timestamp_ms, header.record_count) == (30, 3)


FAST: Final = MockClock(rate=1)


@pytest.mark.parametrize("anyio_backend", [("trio", {"clock": FAST})])
async def test_a_last_commit_that_is_not_stored_within_5_s_is_reported(
    own_broker: BrokerProcess,
) -> None:
    async with Client.connect(own_broker.address) as client:
        await client.admin.create_topic("t")
        await fill(client, "t", 3)
        consumer = client.consumer("t", consumer_id="me", offset_strategy="auto")
        await consumer.open()
        async for record in consumer:
            if record.offset == 1:  # so record 0 is processed
                break
        own_broker.kill()
        FAST.rate = 20  # seconds of the event loop per real second
        with anyio.fail_after(SOON_S), pytest.raises(RequestTimedOut, match="not committed within"):
            await consumer.__aexit__(None, None, None)
        with pytest.raises(UsageError, match="is closed"):
            await consumer.open()


async def test_an_unknown_on_evicted_policy_is_refused(client: Client) -> None:
    misspelt: Any = "earlist"
    with pytest.raises(UsageError, match="'earlist' is not one of: fail, earliest, latest"):
        client.consumer("flights", on_evicted=misspelt)


async def test_a_partition_given_twice_is_read_once(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic(2)
    async with client.consumer(topic, partitions=[1, 1]) as consumer:
        assert consumer.start_offsets() == {1: 0}
