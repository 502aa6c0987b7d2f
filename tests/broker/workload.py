"""Some work for a broker, what is known of it at each moment, and what must be left after a crash.

Nothing is known of a request before its answer: it may have been carried out or not. Every batch
and every topic of a workload differ from all others, so that what is found can be told apart.
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
class Asked:
    """A request is on its way."""

    what: str
    topic: str
    detail: Any = None


@dataclass(frozen=True)
class Done:
    """Its answer was: yes."""

    what: str
    topic: str
    detail: Any = None


@dataclass
class Known:
    """What all facts up to a moment add up to."""

    may_exist: set[str] = field(default_factory=set)
    must_exist: dict[str, int] = field(default_factory=dict)
    sent: dict[Partition, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    stored: dict[Partition, dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))
    # The positions that may be found: the one last confirmed, or one asked for since.
    positions: dict[Partition, list[int | None]] = field(
        default_factory=lambda: defaultdict(lambda: [None])
    )

    @classmethod
    def of(cls, steps: Iterable[Step]) -> Known:
        known = cls()
        for step in steps:
            if isinstance(step, Mark):
                known.learn(step.fact)
        return known

    def learn(self, fact: Asked | Done) -> None:
        match fact:
            case Asked("create", topic):
                self.may_exist.add(topic)
            case Done("create" | "grow", topic, partitions):
                self.must_exist[topic] = partitions
            case Asked("delete", topic):
                self.must_exist.pop(topic, None)
            case Done("delete", topic):
                self.may_exist.discard(topic)
            case Asked("produce", topic, (partition, batches)):
                self.sent[topic, partition].update(batches)
            case Done("produce", topic, (partition, stored)):
                self.stored[topic, partition].update(stored)
            case Asked("position", topic, (partition, offset)):
                self.positions[topic, partition].append(offset)
            case Done("position", topic, (partition, offset)):
                self.positions[topic, partition] = [offset]


# --- Work ----------------------------------------------------------------------------


class Workload:
    """Random requests to a broker on a recording disk, and their answers as facts."""

    def __init__(self, broker: Broker, disk: RecordingDisk, random: Random) -> None:
        self._broker = broker
        self._disk = disk
        self._random = random
        self._topics: dict[str, int] = {}
        self._made = 0
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
        work = [self._create, self._grow, self._delete, self._move, self._forget, self._produce]
        (chosen,) = self._random.choices(work, (8, 4, 4, 14, 3, 67))
        await chosen()

    async def _create(self) -> None:
        self._made += 1
        name, partitions = f"topic-{self._made}", self._random.randint(1, 2)
        self._disk.mark(Asked("create", name))
        spec = topic_spec(partitions, segment_bytes=SEGMENT_BYTES)
        assert not (await create(self._sc, name, spec)).error
        self._disk.mark(Done("create", name, partitions))
        self._topics[name] = partitions

    async def _grow(self) -> None:
        name = self._any_topic()
        request = UpdateRequest(specs.TOPIC, name, AddPartitions(1))
        assert not (await self._sc.ask(apis.UPDATE, request)).error
        self._topics[name] += 1
        self._disk.mark(Done("grow", name, self._topics[name]))

    async def _delete(self) -> None:
        name = self._any_topic()
        del self._topics[name]
        self._disk.mark(Asked("delete", name))
        assert not (await delete(self._sc, name)).error
        self._disk.mark(Done("delete", name))

    async def _move(self) -> None:
        """Store where a consumer is."""
        name = self._any_topic()
        partition = self._random.randrange(self._topics[name])
        offset = self._random.randrange(1_000)
        start = StreamFetchRequest(name, partition, 0, 100, consumer_id=CONSUMER)
        update = UpdateConsumerOffsetRequest(offset, 1)
        async with await Wire.open(self._broker.spu_address) as spu:
            spu.start(apis.STREAM_FETCH, start)
            self._disk.mark(Asked("position", name, (partition, offset)))
            assert not (await spu.ask(apis.UPDATE_CONSUMER_OFFSET, update)).error
            self._disk.mark(Done("position", name, (partition, offset)))

    async def _forget(self) -> None:
        name = self._any_topic()
        partition = self._random.randrange(self._topics[name])
        self._disk.mark(Asked("position", name, (partition, None)))
        request = DeleteConsumerOffsetRequest(ReplicaKey(name, partition), CONSUMER)
        assert not (await self._spus[0].ask(apis.DELETE_CONSUMER_OFFSET, request)).error
        self._disk.mark(Done("position", name, (partition, None)))

    async def _produce(self) -> None:
        bursts = [(spu, self._entries()) for spu in self._spus for _ in range(2)]
        await asyncio.gather(
            *(self._send(spu, *burst) for spu, burst in bursts[: self._random.randint(1, 4)])
        )

    async def _send(self, spu: Wire, name: str, entries: list[tuple[int, list[bytes]]]) -> None:
        for partition, batches in entries:
            self._disk.mark(Asked("produce", name, (partition, [batch[8:] for batch in batches])))
        request = produce_request(name, *((number, b"".join(each)) for number, each in entries))
        answer = await spu.ask(apis.PRODUCE, request)
        for (partition, batches), entry in zip(entries, answer.topics[0].partitions, strict=True):
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


# --- Judgement -------------------------------------------------------------------------


class QuickDisk(Disk):
    """Syncs nothing; enough to look at what is there."""

    def sync(self, fd: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


async def judge(data_dir: Path, known: Known, disk: Disk | None = None) -> None:
    """Open a broker on what a crash left, as nobody's help, and compare with what is known."""
    async with (
        running(data_dir, disk=disk or QuickDisk()) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as spu,
    ):
        found = await sc.ask(apis.LIST, ListRequest(specs.TOPIC))
        counts = {item.name: item.spec.partition_count for item in found.items}
        assert set(counts) <= known.may_exist, "a topic that is not there"
        for topic, partitions in known.must_exist.items():
            assert counts.get(topic, 0) >= partitions, f"{topic} is lost"
        for topic, partitions in counts.items():
            for partition in range(partitions):
                await _judge_partition(spu, topic, partition, known)
        await _judge_positions(spu, counts, known)


async def _judge_partition(spu: Wire, topic: str, partition: int, known: Known) -> None:
    where = f"{topic}-{partition}"
    found: dict[int, bytes] = {}
    end = 0
    while True:
        answer = await fetch(spu, topic, partition, end)
        assert not answer.error, f"{where} at {end}: {answer.error}"
        if not answer.records:
            break
        for header, at in whole_batches(answer.records):
            assert header.base_offset == end, f"{where}: a hole at {end}"
            found[end] = answer.records[at + 8 : at + header.size_bytes]
            end = header.end_offset
    for offset, batch in known.stored[topic, partition].items():
        assert found.get(offset) == batch, f"{where}: acknowledged, and gone at {offset}"
    assert len(set(found.values())) == len(found), f"{where}: something is there twice"
    assert set(found.values()) <= known.sent[topic, partition], f"{where}: never sent"
    assert await produce(spu, topic, batch_of(b"after"), partition) == (0, end), where


async def _judge_positions(spu: Wire, topics: dict[str, int], known: Known) -> None:
    answer = await spu.ask(apis.FETCH_CONSUMER_OFFSETS, FetchConsumerOffsetsRequest())
    held = {(each.replica.topic, each.replica.partition): each for each in answer.consumers}
    assert {topic for topic, _ in held} <= set(topics), "a position in no topic"
    for key, possible in known.positions.items():
        if key[0] in known.must_exist:
            offset = held[key].offset if key in held else None
            assert offset in possible, f"{key}: at {offset}, stored was {possible}"
