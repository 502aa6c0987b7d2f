"""The memory of a consumer, with and without an application that reads."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import anyio
import pytest

from streamkit import Client
from tests.broker_process import BrokerProcess
from tests.client.conftest import NewTopic

ROOT: Final = Path(__file__).parent.parent.parent
SOON_S: Final = 60.0
PARTITIONS: Final = 8
PREFETCH_BYTES: Final = 1 << 20
# The size of a response: the share of a partition, but at least this.
RESPONSE_BYTES_MIN: Final = 64 * 1024
BACKLOG_BYTES: Final = 64 << 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def bound_bytes(prefetch_bytes: int, partitions: int) -> int:
    """Return the documented limit: per partition its share and two responses."""
    share_bytes = prefetch_bytes // partitions
    return partitions * (share_bytes + 2 * max(share_bytes, RESPONSE_BYTES_MIN))


async def backlog(client: Client, topic: str, size_bytes: int) -> int:
    value = os.urandom(1_000)
    count = size_bytes // len(value)
    async with client.producer(topic) as producer:
        for _ in range(count // 10_000):
            await producer.send_many([value] * 10_000)
    return count // 10_000 * 10_000


async def test_prefetched_records_never_exceed_the_bound(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(PARTITIONS)
    count = await backlog(client, topic, BACKLOG_BYTES // 2)
    read = most = 0
    async with client.consumer(topic, prefetch_bytes=PREFETCH_BYTES, until_end=True) as consumer:
        with anyio.fail_after(SOON_S):
            while (chunk := await consumer.next_chunk()) is not None:
                read += len(chunk)
                await consumer.end_offsets()  # slower than the arrival of more records
                # Only `next_chunk` removes records, so most of them wait just before a call.
                most = max(most, consumer.metrics.records - read)
    assert read == count
    record_bytes = consumer.metrics.wire_bytes / count
    most_bytes = most * record_bytes
    assert PREFETCH_BYTES // 2 < most_bytes <= bound_bytes(PREFETCH_BYTES, PARTITIONS)


# It runs in its own process, so that other tests do not affect its memory.
WAITING_CONSUMERS: Final = """
import resource, sys
import anyio
from streamkit import Client

def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

async def main(address, topic, count, prefetch_bytes, responses):
    async with Client.connect(address) as client:
        consumers = [client.consumer(topic, prefetch_bytes=prefetch_bytes) for _ in range(count)]
        before_bytes = resident_bytes()
        for consumer in consumers:
            await consumer.open()
        while any(consumer.metrics.responses < responses for consumer in consumers):
            await anyio.lowlevel.checkpoint()
        for consumer in consumers * 5:  # round trips, to give more responses time to arrive
            await consumer.end_offsets()
        grown_bytes = resident_bytes() - before_bytes
        print(sum(consumer.metrics.wire_bytes for consumer in consumers), grown_bytes)

anyio.run(main, *sys.argv[1:3], *map(int, sys.argv[3:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
async def test_consumers_that_are_not_read_use_little_memory(
    cluster: BrokerProcess, client: Client, new_topic: NewTopic
) -> None:
    """The backlog is many times their limit, but they use little more than the limit."""
    topic, consumers = await new_topic(PARTITIONS), 4
    await backlog(client, topic, BACKLOG_BYTES)
    program = [sys.executable, "-c", WAITING_CONSUMERS, cluster.address, topic]
    numbers = [consumers, PREFETCH_BYTES, 2 * PARTITIONS]
    with anyio.fail_after(SOON_S):
        done = await anyio.run_process([*program, *map(str, numbers)], cwd=ROOT)
    held_bytes, grown_bytes = map(int, done.stdout.split())
    assert PREFETCH_BYTES < held_bytes <= consumers * bound_bytes(PREFETCH_BYTES, PARTITIONS)
    # Besides records there are the received bytes, and Python's objects for the records.
    assert held_bytes // 2 < grown_bytes < 3 * held_bytes
    assert 3 * held_bytes < consumers * BACKLOG_BYTES
