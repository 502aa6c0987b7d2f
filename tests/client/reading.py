"""Helpers that read all records of a topic."""

from __future__ import annotations

from typing import Any

from streamkit import Client, Record
from streamkit.client.consume.offsets import OffsetClient
from streamkit.protocol.batch import BatchHeader, whole_batches


async def read_all(client: Client, topic: str, **options: Any) -> list[Record[bytes]]:
    """Return all records, partition by partition."""
    found: list[Record[bytes]] = []
    async with client.consumer(topic, until_end=True, **options) as consumer:
        while (chunk := await consumer.next_chunk()) is not None:
            found += chunk.records()
    return sorted(found, key=lambda record: (record.partition, record.offset))


async def values_of(client: Client, topic: str, **options: Any) -> list[bytes]:
    return [record.value for record in await read_all(client, topic, **options)]


async def batches_of(client: Client, topic: str, partition: int = 0) -> list[BatchHeader]:
    """Return the headers of the stored batches."""
    found = await OffsetClient(client.cluster).fetch(topic, partition, 0, 1 << 26)
    return [header for header, _ in whole_batches(found.records)]
