"""Single faults that are rare in a real network, from a server that follows a script."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import pytest

from streamkit import Client, Record
from streamkit.client import RetryPolicy
from streamkit.errors import (
    BrokerError,
    CorruptBatch,
    NotFlushed,
    RequestTimedOut,
    TopicNotFound,
)
from tests.broker.running import batch_of
from tests.client.scripted import Read, Scripted, Write
from tests.client.test_cuts import NoPauses

SOON_S: Final = 60.0
FOREVER_S: Final = 3_600
NO_SUCH_TOPIC: Final = 2_001
NOT_THE_LEADER: Final = Write(6, stores=False)


@asynccontextmanager
async def scripted(partitions: int = 1) -> AsyncIterator[tuple[Scripted, Client]]:
    server = Scripted(partitions)
    async with (
        server.running(),
        Client(server.address, clock=NoPauses()) as client,
    ):
        with anyio.fail_after(SOON_S):
            yield server, client


def fill(server: Scripted, partition: int = 0, count: int = 6) -> None:
    """Append records in batches of two; each value is the record's offset."""
    for number in range(0, count, 2):
        server.append(partition, batch_of(b"%d" % number, b"%d" % (number + 1)))


# --- Producers ---------------------------------------------------------------------------------


async def test_a_closed_producer_sends_nothing_more() -> None:
    """Retries must stop: a record that was reported as not stored must not be stored later."""
    async with scripted() as (server, client):
        given_up = anyio.Event()

        def on_retry(error: Exception, attempt: int) -> None:
            if attempt == 5:
                given_up.set()

        server.writes.extend([NOT_THE_LEADER] * 100_000)
        producer = client.producer("t", linger=0, delivery_timeout=None, on_retry=on_retry)
        handle = await producer.send(b"x")
        await given_up.wait()
        with pytest.raises(NotFlushed, match="1 of partition 0"):
            await producer.close(deadline_s=0)
        with pytest.raises(
            (NotFlushed, RequestTimedOut)
        ):  # depends on whether a request is in flight
            await handle
        await anyio.wait_all_tasks_blocked()
        server.writes.clear()  # from now on every request would succeed
        tried = server.requests
        async with client.producer("t", linger=0) as later:
            assert (await (await later.send(b"later"))).offset == 0
        assert server.requests == tried + 1
        assert server.logs[0].values == [b"later"]


FULL: Final = Write(72, stores=False)
SHUT_BY_A_FAILED_WRITE: Final = Write(73, stores=False)
TIMED_OUT: Final = Write(7, stores=True)


@pytest.mark.parametrize("answer", [FULL, SHUT_BY_A_FAILED_WRITE, NOT_THE_LEADER])
async def test_if_every_attempt_is_refused_the_error_reports_that_nothing_is_stored(
    answer: Write,
) -> None:
    async with scripted() as (server, client):
        server.writes.extend([answer] * 3)
        policy = RetryPolicy(max_retries=2)
        producer = client.producer("t", linger=0, retry=policy, on_retry=lambda *_: None)
        handle = await producer.send(b"x")
        with pytest.raises(BrokerError, match=r"rejected every attempt.* not stored") as raised:
            await handle
        assert raised.value.code == answer.code
        with pytest.raises(BrokerError, match="not stored"):
            await producer.close()
        assert server.logs[0].values == []


async def test_if_one_attempt_may_be_stored_the_error_reports_an_unknown_outcome() -> None:
    async with scripted() as (server, client):
        server.writes.extend([TIMED_OUT, FULL, FULL])
        policy = RetryPolicy(max_retries=2)
        producer = client.producer("t", linger=0, retry=policy, on_retry=lambda *_: None)
        handle = await producer.send(b"x")
        with pytest.raises(RequestTimedOut, match=r"not known .* full") as raised:
            await handle
        assert isinstance(raised.value.__cause__, BrokerError)
        assert raised.value.__cause__.code == FULL.code
        with pytest.raises(RequestTimedOut):
            await producer.close()


@pytest.mark.parametrize("count", [2, 3])
async def test_after_a_full_disk_it_is_unknown_which_of_several_batches_are_stored(
    count: int,
) -> None:
    """A stock server keeps the batches of a request that it wrote before the disk was full."""
    async with scripted() as (server, client):
        server.writes.extend([FULL] * 3)
        policy = RetryPolicy(max_retries=2)
        producer = client.producer("t", batch_size=100, retry=policy, on_retry=lambda *_: None)
        handle = await producer.send_many([bytes(100)] * count)
        with pytest.raises(RequestTimedOut, match="not known"):
            await handle
        assert [len(entry.batches) for entry in server.entries] == [count] * 3
        with pytest.raises(RequestTimedOut):
            await producer.close()


async def test_a_flush_sends_full_and_open_batches_in_one_request() -> None:
    async with scripted() as (server, client):
        async with client.producer("t", batch_size=100, linger=FOREVER_S) as producer:
            await producer.send_many([bytes(100), b"a few bytes"])
            await producer.flush()
        assert [len(entry.batches) for entry in server.entries] == [2]


# --- Consumers ---------------------------------------------------------------------------------


async def test_partitions_added_while_others_are_added_are_read() -> None:
    """The second change arrives while the first one is processed, and must not be missed."""
    async with scripted() as (server, client), client.consumer("t") as consumer:
        await server.grow()
        await server.grow()
        await server.grow()
        for partition in range(4):
            fill(server, partition, 2)
        found: set[int] = set()
        while len(found) < 4:
            chunk = await consumer.next_chunk()
            assert chunk is not None
            found.add(chunk.partition)


async def test_a_seek_does_not_clear_the_failure_of_another_partition() -> None:
    """The failure must not be forgotten, or that partition would silently not be read again."""
    async with scripted(2) as (server, client), client.consumer("t") as consumer:
        server.reads.extend([Read("refused", code=NO_SUCH_TOPIC)] * 2)
        fill(server, 0)
        fill(server, 1)
        for partition in (0, 1):
            with pytest.raises(TopicNotFound):
                await consumer.next_chunk()
            await consumer.seek(partition, 0)
        found: list[tuple[int, int]] = []
        while len(found) < 12:
            chunk = await consumer.next_chunk()
            assert chunk is not None
            found += [(chunk.partition, offset) for offset in chunk.offsets]
    assert sorted(found) == [(partition, offset) for partition in (0, 1) for offset in range(6)]


async def test_a_seek_allows_another_retry_of_a_corrupt_batch() -> None:
    """A batch that is corrupt twice fails the consumer; a seek to it resets the count."""
    async with scripted() as (server, client):
        server.reads.extend([Read("flipped", 50)] * 3)
        fill(server)
        async with client.consumer("t") as consumer:
            with pytest.raises(CorruptBatch):
                await consumer.next_chunk()
            await consumer.seek(0, 0)
            chunk = await consumer.next_chunk()
            assert chunk is not None
            assert chunk.offsets[0] == 0
            assert consumer.metrics.refetched == 2


async def test_after_a_seek_the_lag_counts_from_the_new_position() -> None:
    async with scripted() as (server, client):
        fill(server)
        async with client.consumer("t", start="end") as consumer:
            assert await consumer.lag() == {0: 0}
            await consumer.seek(0, 1)
            assert await consumer.lag() == {0: 5}


async def test_a_seek_discards_the_records_requested_before_it() -> None:
    """A loop over single records must not continue with the rest of its chunk."""
    async with scripted() as (server, client):
        fill(server)
        options: dict[str, Any] = {"consumer_id": "me", "offset_strategy": "manual"}
        async with client.consumer("t", **options) as consumer:
            found = []
            async for record in consumer:
                found.append(record.offset)
                if found == [0, 1, 2]:
                    await consumer.commit()
                    assert server.stored == {0: 1}
                    await consumer.seek(0, 0)
                if len(found) == 5:
                    await consumer.commit()
                    break
        assert found == [0, 1, 2, 0, 1]
        assert server.stored == {0: 0}


async def test_a_commit_after_a_seek_is_stored_even_if_the_offset_is_the_same() -> None:
    """The stored offset may have been deleted in the meantime."""
    async with scripted() as (server, client):
        fill(server, count=2)
        options: dict[str, Any] = {"consumer_id": "me", "offset_strategy": "manual"}
        async with client.consumer("t", **options) as consumer:
            for _ in range(2):
                server.stored.clear()
                await consumer.next_chunk()
                await consumer.commit(Record(b"1", offset=1, partition=0))
                assert server.stored == {0: 1}
                await consumer.seek(0, 0)


async def test_a_consumer_opened_by_two_tasks_yields_each_record_once() -> None:
    async with scripted() as (server, client):
        fill(server)
        consumer = client.consumer("t", until_end=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consumer.lag)
            offsets = [offset async for chunk in consumer.chunks() for offset in chunk.offsets]
        assert offsets == list(range(6))
        assert consumer.metrics.records == 6


async def test_a_consumer_ends_when_retention_removes_everything_up_to_its_end() -> None:
    async with scripted() as (server, client):
        fill(server)
        consumer = client.consumer("t", until_end=True, on_evicted="earliest")
        await consumer.open()
        server.logs[0].start = 6  # before the consumer's stream is open
        assert [chunk async for chunk in consumer.chunks()] == []
        assert consumer.metrics.evicted == 6


async def test_many_partitions_share_a_small_prefetch() -> None:
    """A share below one byte must not stop the requests for more records."""
    async with scripted(4) as (server, client):
        for partition in range(4):
            fill(server, partition)
        consumer = client.consumer("t", prefetch_bytes=3, max_bytes=1, until_end=True)
        assert [chunk async for chunk in consumer.chunks()]
        assert consumer.metrics.records == 24
