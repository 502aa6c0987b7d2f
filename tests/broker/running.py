"""Run a broker in this process, and send it common requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from streamkit.broker.broker import Broker, BrokerOptions
from streamkit.env import Clock, Disk
from streamkit.protocol import apis, specs
from streamkit.protocol.batch import UNSTAMPED, Columns, Stamp, encode_batch, with_base_offset
from streamkit.protocol.codec import record_bytes
from streamkit.protocol.compression import Codec
from streamkit.protocol.control_plane import CreateRequest, DeleteRequest, StatusResponse
from streamkit.protocol.data_plane import (
    FetchPartition,
    FetchRequest,
    FetchTopic,
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from streamkit.protocol.topic_specs import ComputedReplicas, TopicSpec, TopicStorage
from tests.broker.wire import Wire

NOW_MS = 1_700_000_000_000


@asynccontextmanager
async def running(
    data_dir: Path, *, disk: Disk | None = None, clock: Clock | None = None, **options: Any
) -> AsyncIterator[Broker]:
    """Open a broker on a folder and close it at the end."""
    broker = Broker(BrokerOptions(data_dir, **options), disk=disk, clock=clock)
    await broker.open()
    try:
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def several(address: str, count: int) -> AsyncIterator[list[Wire]]:
    """Open some connections to the same port."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(await Wire.open(address)) for _ in range(count)]


def batch_of(
    *values: bytes,
    base_offset: int = 0,
    codec_used: Codec = Codec.NONE,
    stamp: Stamp = UNSTAMPED,
) -> bytes:
    """Return a batch of records without keys, as a producer encodes it."""
    columns = Columns(list(values), [None] * len(values), [NOW_MS] * len(values))
    size = sum(record_bytes(row, 0, None, value) for row, value in enumerate(values))
    batch = encode_batch(columns, 0, len(values), size, codec_used=codec_used, stamp=stamp)
    return with_base_offset(batch, base_offset)


def topic_spec(
    partitions: int = 1, *, segment_bytes: int | None = None, **others: Any
) -> TopicSpec:
    storage = None if segment_bytes is None else TopicStorage(segment_bytes)
    return TopicSpec(ComputedReplicas(partitions, 1, False), storage=storage, **others)


async def create(sc: Wire, name: str, spec: TopicSpec | None = None) -> StatusResponse:
    request = CreateRequest(specs.TOPIC, name, spec or topic_spec())
    response: StatusResponse = await sc.call(apis.CREATE, request)
    return response


async def delete(sc: Wire, name: str) -> StatusResponse:
    response: StatusResponse = await sc.call(apis.DELETE, DeleteRequest(specs.TOPIC, name))
    return response


def produce_request(topic: str, *entries: tuple[int, bytes]) -> ProduceRequest:
    """Return a request with one entry per partition number and record set."""
    data = tuple(PartitionProduceData(partition, records) for partition, records in entries)
    return ProduceRequest(topics=(TopicProduceData(topic, data),))


async def produce(spu: Wire, topic: str, records: bytes, partition: int = 0) -> tuple[int, int]:
    """Send one entry; return the error code and the base offset of the response."""
    response = await spu.call(apis.PRODUCE, produce_request(topic, (partition, records)))
    (entry,) = response.topics[0].partitions
    return entry.error.code, entry.base_offset


def fetch_request(topic: str, partition: int, offset: int, max_bytes: int = -1) -> FetchRequest:
    fetch_topic = FetchTopic(topic, (FetchPartition(partition, fetch_offset=offset),))
    return FetchRequest(max_bytes=max_bytes, topics=(fetch_topic,))


async def fetch(spu: Wire, topic: str, partition: int = 0, offset: int = 0) -> Any:
    """Return the result of one fetch of one partition, without a size limit."""
    response = await spu.call(apis.FETCH, fetch_request(topic, partition, offset))
    (found,) = response.topics[0].partitions
    return found
