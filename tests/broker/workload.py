"""A workload for a broker, and the check of the data that must survive a crash at any moment.

Until the response to a request arrives, the request may or may not have taken effect. All batches
and topics of a workload are different, so each one can be identified.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from streamkit.broker.broker import Broker
from streamkit.env import Disk
from streamkit.protocol import apis, specs
from streamkit.protocol.batch import whole_batches
from streamkit.protocol.control_plane import AddPartitions, ListRequest, UpdateRequest
from streamkit.protocol.data_plane import (
    DeleteConsumerOffsetRequest,
    FetchConsumerOffsetsRequest,
    ReplicaKey,
    StreamFetchRequest,
    UpdateConsumerOffsetRequest,
)
from tests.broker.recording_disk import Mark, RecordingDisk, Step
from tests.broker.running import (
    batch_of,
    create,
    delete,
    fetch,
    produce,
    produce_request,
    running,
    topic_spec,
)
from tests.broker.wire import Wire

SEGMENT_BYTES: Final = 1024
CONSUMER: Final = "worker"
Partition = tuple[str, int]


# --- Facts -------------------------------------------------------------------------


@dataclass(frozen=True)
class Requested:
    """A request was sent."""

    what: str
    topic: str
    detail: Any = None


@dataclass(frozen=True)
class Done:
    """The request succeeded."""

    what: str
    topic: str
    detail: Any = None


@dataclass
class Known:
    """What is known at a moment, from all facts before it."""

    may_exist: set[str] = field(default_factory=set)
    must_exist: dict[str, int] = field(default_factory=dict)
    sent: dict[Partition, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    stored: dict[Partition, dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))
    # The possible positions: the last confirmed, or any requested later.
    positions: dict[Partition, list[int | None]] = field(
        default_factory=lambda: defaultdict(lambda: [None])
    )

    @classmethod
    def of(cls, steps: Iterable[Step]) -> Known:
        known = cls()
        for step in steps:
            if isinstance(step, Mark):
                known.add(step.fact)
        return known

    def add(self, fact: Requested | Done) -> None:
        match fact:
            case Requested("create", topic):
                self.may_exist.add(topic)
            case Done("create" | "grow", topic, partitions):
                self.must_exist[topic] = partitions
            case Requested("delete", topic):
                self.must_exist.pop(topic, None)
            case Done("delete", topic):
                self.may_exist.discard(topic)
            case Requested("produce", topic, (partition, batches)):
                self.sent[topic, partition].update(batches)
            case Done("produce", topic, (partition, stored)):
                self.stored[topic, partition].update(stored)
            case Requested("position", topic, (partition, offset)):
                self.positions[topic, partition].append(offset)
            case Done("position", topic, (partition, offset)):
                self.positions[topic, partition] = [offset]


# --- Work ----------------------------------------------------------------------------


class Workload:
    """Sends random requests to a broker on a recording disk and marks the facts."""

    def __init__(self, broker: Broker, disk: RecordingDisk, random: Random) -> None:
        self._broker = broker
        self._disk = disk
        self._random = random
        self._topics: dict[str, int] = {}
        self._created = 0
        self._sent = 0

    async def run(self, steps: int) -> None:
        async with (
            await Wire.open(self._broker.sc_address) as self._sc,
            await Wire.open(self._broker.spu_address) as first,
            await Wire.open(self._broker.spu_address) as second,
        ):
            self._spus = [first, second]
            for _ in range(steps):
                await self._one()

    async def _one(self) -> None:
        if len(self._topics) < 2:
            return await self._create()
        work = [
            self._create,
            self._grow,
            self._delete,
            self._store_offset,
            self._delete_offset,
            self._produce,
        ]
        (chosen,) = self._random.choices(work, (8, 4, 4, 14, 3, 67))
        await chosen()

    async def _create(self) -> None:
        self._created += 1
        name, partitions = f"topic-{self._created}", self._random.randint(1, 2)
        self._disk.mark(Requested("create", name))
        spec = topic_spec(partitions, segment_bytes=SEGMENT_BYTES)
        assert not (await create(self._sc, name, spec)).error
        self._disk.mark(Done("create", name, partitions))
        self._topics[name] = partitions

    async def _grow(self) -> None:
        name = self._any_topic()
        request = UpdateRequest(specs.TOPIC, name, AddPartitions(1))
        assert not (await self._sc.call(apis.UPDATE, request)).error
        self._topics[name] += 1
        self._disk.mark(Done("grow", name, self._topics[name]))

    async def _delete(self) -> None:
        name = self._any_topic()
        del self._topics[name]
        self._disk.mark(Requested("delete", name))
        assert not (await delete(self._sc, name)).error
        self._disk.mark(Done("delete", name))

    async def _store_offset(self) -> None:
        """Store the offset of a consumer."""
        name = self._any_topic()
        partition = self._random.randrange(self._topics[name])
        offset = self._random.randrange(1_000)
        start = StreamFetchRequest(name, partition, 0, 100, consumer_id=CONSUMER)
        update = UpdateConsumerOffsetRequest(offset, 1)
        async with await Wire.open(self._broker.spu_address) as spu:
            spu.start(apis.STREAM_FETCH, start)
            self._disk.mark(Requested("position", name, (partition, offset)))
            assert not (await spu.call(apis.UPDATE_CONSUMER_OFFSET, update)).error
            self._disk.mark(Done("position", name, (partition, offset)))

    async def _delete_offset(self) -> None:
        name = self._any_topic()
        partition = self._random.randrange(self._topics[name])
        self._disk.mark(Requested("position", name, (partition, None)))
        request = DeleteConsumerOffsetRequest(ReplicaKey(name, partition), CONSUMER)
        assert not (await self._spus[0].call(apis.DELETE_CONSUMER_OFFSET, request)).error
        self._disk.mark(Done("position", name, (partition, None)))

    async def _produce(self) -> None:
        bursts = [(spu, self._entries()) for spu in self._spus for _ in range(2)]
        await asyncio.gather(
            *(self._send(spu, *burst) for spu, burst in bursts[: self._random.randint(1, 4)])
        )

    async def _send(self, spu: Wire, name: str, entries: list[tuple[int, list[bytes]]]) -> None:
        for partition, batches in entries:
            self._disk.mark(
                Requested("produce", name, (partition, [batch[8:] for batch in batches]))
            )
        request = produce_request(name, *((number, b"".join(each)) for number, each in entries))
        response = await spu.call(apis.PRODUCE, request)
        for (partition, batches), entry in zip(entries, response.topics[0].partitions, strict=True):
            assert not entry.error
            offset, stored = entry.base_offset, {}
            for batch in batches:
                stored[offset] = batch[8:]
                (header, _) = next(whole_batches(batch))
                offset += header.record_count
            self._disk.mark(Done("produce", name, (partition, stored)))

    def _entries(self) -> tuple[str, list[tuple[int, list[bytes]]]]:
        name = self._any_topic()
        partitions = [self._random.randrange(self._topics[name]) for _ in range(2)]
        entries = [
            (partition, [self._batch() for _ in range(self._random.randint(1, 3))])
            for partition in partitions[: self._random.randint(1, 2)]
        ]
        return name, entries

    def _batch(self) -> bytes:
        self._sent += 1
        filler = self._random.randbytes(self._random.choice((0, 0, 30, 300, 600)))
        values = (b"%d" % self._sent, filler)
        return batch_of(*values[: self._random.randint(1, 2)])

    def _any_topic(self) -> str:
        return self._random.choice(sorted(self._topics))


# --- Check -----------------------------------------------------------------------------


class QuickDisk(Disk):
    """Does not sync; sufficient to read the recovered data."""

    def sync(self, fd: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


async def check_recovery(data_dir: Path, known: Known, disk: Disk | None = None) -> None:
    """Open a broker on the disk after a crash and compare its data with the known facts."""
    async with (
        running(data_dir, disk=disk or QuickDisk()) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as spu,
    ):
        found = await sc.call(apis.LIST, ListRequest(specs.TOPIC))
        counts = {item.name: item.spec.partition_count for item in found.items}
        assert set(counts) <= known.may_exist, "a deleted topic exists"
        for topic, partitions in known.must_exist.items():
            assert counts.get(topic, 0) >= partitions, f"{topic} is lost"
        for topic, partitions in counts.items():
            for partition in range(partitions):
                await _check_partition(spu, topic, partition, known)
        await _check_positions(spu, counts, known)


async def _check_partition(spu: Wire, topic: str, partition: int, known: Known) -> None:
    where = f"{topic}-{partition}"
    found: dict[int, bytes] = {}
    end = 0
    while True:
        response = await fetch(spu, topic, partition, end)
        assert not response.error, f"{where} at {end}: {response.error}"
        if not response.records:
            break
        for header, at in whole_batches(response.records):
            assert header.base_offset == end, f"{where}: a gap at {end}"
            found[end] = response.records[at + 8 : at + header.size_bytes]
            end = header.end_offset
    for offset, batch in known.stored[topic, partition].items():
        assert found.get(offset) == batch, f"{where}: acknowledged batch lost at {offset}"
    assert len(set(found.values())) == len(found), f"{where}: a batch is duplicated"
    assert set(found.values()) <= known.sent[topic, partition], f"{where}: never sent"
    assert await produce(spu, topic, batch_of(b"after"), partition) == (0, end), where


async def _check_positions(spu: Wire, topics: dict[str, int], known: Known) -> None:
    response = await spu.call(apis.FETCH_CONSUMER_OFFSETS, FetchConsumerOffsetsRequest())
    found_offsets = {
        (each.replica.topic, each.replica.partition): each for each in response.consumers
    }
    assert {topic for topic, _ in found_offsets} <= set(topics), "a position without a topic"
    for key, possible in known.positions.items():
        if key[0] in known.must_exist:
            offset = found_offsets[key].offset if key in found_offsets else None
            assert offset in possible, f"{key}: offset {offset}, possible {possible}"
