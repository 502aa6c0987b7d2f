"""Topics and partitions, by the SC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import anyio

from streamkit.client.cluster import Cluster
from streamkit.client.offsets import OffsetClient, StoredOffset
from streamkit.errors import BrokerError, RequestTimedOut, TopicNotFound, UsageError
from streamkit.protocol import specs
from streamkit.protocol.apis import CREATE, DELETE, LIST, UPDATE
from streamkit.protocol.control_plane import (
    AddPartitions,
    CreateRequest,
    DeleteRequest,
    ListRequest,
    Metadata,
    StatusResponse,
    UpdateRequest,
)
from streamkit.protocol.error_codes import as_exception
from streamkit.protocol.specs import (
    ComputedReplicas,
    PartitionStatus,
    SegmentPolicy,
    TopicCompression,
    TopicSpec,
    TopicStatus,
    TopicStorage,
)

_PARTITIONS_S = 10.0


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as the control plane describes it. Absent bounds are the server's defaults."""

    name: str
    partitions: int
    replication: int
    retention_s: int | None
    segment_size_bytes: int | None
    max_partition_size_bytes: int | None
    compression: str
    is_system: bool
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """A partition and how far it reaches."""

    topic: str
    partition: int
    leader: int
    replicas: tuple[int, ...]
    resolution: str
    size_bytes: int
    base_offset: int
    high_watermark: int
    log_end: int


class Admin:
    """Administers one cluster. Reached as ``client.admin``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._offsets = OffsetClient(cluster)

    async def create_topic(
        self,
        name: str,
        partitions: int = 1,
        *,
        replication: int = 1,
        retention: float | timedelta | None = None,
        segment_size_bytes: int | None = None,
        max_partition_size_bytes: int | None = None,
        compression: str = "any",
        dry_run: bool = False,
    ) -> None:
        """Make a topic; return when its partitions can be written to.

        Args:
            name: 1 to 63 of ``a-z 0-9 -``.
            partitions: How many.
            replication: On how many SPUs each partition is kept.
            retention: How long closed segments are kept, in seconds or as a timedelta.
            segment_size_bytes: Size of one file of a partition's log.
            max_partition_size_bytes: How large a partition may grow.
            compression: What batches must be compressed with; ``any`` leaves it to producers.
            dry_run: Only check.

        Raises:
            TopicAlreadyExists: The name is in use.
            BrokerError: A rule of the server forbids it; the text says which.
        """
        spec = topic_spec(
            partitions,
            replication=replication,
            retention=retention,
            segment_size_bytes=segment_size_bytes,
            max_partition_size_bytes=max_partition_size_bytes,
            compression=compression,
        )
        request = CreateRequest(specs.TOPIC, name, spec, dry_run)
        try:
            status = await self._cluster.admin(CREATE, request)
        except RequestTimedOut:
            if not await self._is_there(name, partitions):
                raise
            return  # a stock server may answer late although the topic is made
        if status.error.code == 2005 and await self._is_there(name, partitions):
            return
        _check(status, name)
        if not dry_run:
            await self._wait_for_partitions(name, partitions)

    async def delete_topic(self, name: str, *, force: bool = False) -> None:
        """Remove a topic and everything in it.

        Raises:
            TopicNotFound: There is none of that name.
            BrokerError: It is a system topic, and ``force`` is not set.
        """
        status = await self._cluster.admin(DELETE, DeleteRequest(specs.TOPIC, name, force))
        if status.error.code == 2001:
            raise TopicNotFound(name, hint=self._cluster.metadata.did_you_mean(name))
        _check(status, name)

    async def add_partitions(self, name: str, count: int = 1) -> list[PartitionInfo]:
        """Give a topic ``count`` partitions more; return the new ones.

        Keys are spread over more partitions from then on: records of one key may then stand
        in two of them.

        Raises:
            TopicNotFound: There is none of that name.
        """
        before = (await self.describe_topic(name)).partitions
        request = UpdateRequest(specs.TOPIC, name, AddPartitions(count))
        _check(await self._cluster.admin(UPDATE, request), name)
        await self._wait_for_partitions(name, before + count)
        return [each for each in await self.list_partitions(name) if each.partition >= before]

    async def list_topics(self, *, system: bool = False) -> list[TopicInfo]:
        """Return the topics by name: those of users, or those of the system."""
        answer = await self._cluster.admin(LIST, ListRequest(specs.TOPIC, system=system))
        return sorted(map(_topic_info, answer.items), key=lambda topic: topic.name)

    async def describe_topic(self, name: str) -> TopicInfo:
        """Return one topic.

        Raises:
            TopicNotFound: There is none of that name.
        """
        for system in (False, True):
            request = ListRequest(specs.TOPIC, (name,), system=system)
            answer = await self._cluster.admin(LIST, request)
            for item in answer.items:
                if item.name == name:
                    return _topic_info(item)
        raise TopicNotFound(name, hint=self._cluster.metadata.did_you_mean(name))

    async def list_partitions(
        self, topic: str | None = None, *, system: bool = False
    ) -> list[PartitionInfo]:
        """Return partitions by topic and number: all, or those of one topic."""
        answer = await self._cluster.admin(LIST, ListRequest(specs.PARTITION, system=system))
        found = sorted(
            map(_partition_info, answer.items), key=lambda each: (each.topic, each.partition)
        )
        return [each for each in found if topic is None or each.topic == topic]

    async def list_consumers(self) -> list[StoredOffset]:
        """Return every stored consumer offset, by consumer, topic and partition."""
        found = await self._offsets.stored()
        return sorted(found, key=lambda each: (each.consumer_id, each.topic, each.partition))

    async def delete_consumer(
        self, consumer_id: str, topic: str | None = None, partition: int | None = None
    ) -> list[StoredOffset]:
        """Forget the offsets of a consumer, all or some; return what was forgotten."""
        gone = [
            each
            for each in await self._offsets.stored(consumer_id, topic)
            if partition is None or each.partition == partition
        ]
        for each in gone:
            await self._offsets.delete(each)
        return gone

    async def _is_there(self, name: str, partitions: int) -> bool:
        found = await self.list_partitions(name)
        return len(found) == partitions

    async def _wait_for_partitions(self, name: str, count: int) -> None:
        """Wait until this client can write to all of them: deltas may lag behind answers."""
        with anyio.move_on_after(_PARTITIONS_S):
            for number in range(count):
                while True:
                    try:
                        await self._cluster.leader(name, number)
                        break
                    except BrokerError:
                        await self._cluster.clock.sleep(0.01)


def topic_spec(
    partitions: int,
    *,
    replication: int = 1,
    retention: float | timedelta | None = None,
    segment_size_bytes: int | None = None,
    max_partition_size_bytes: int | None = None,
    compression: str = "any",
) -> TopicSpec:
    """Describe a topic for Create.

    Raises:
        UsageError: A value means nothing.
    """
    try:
        asked = TopicCompression[compression.upper()]
    except KeyError:
        known = ", ".join(each.name.lower() for each in TopicCompression)
        raise UsageError(f"no compression is called {compression!r}", hint=f"use {known}") from None
    if not 0 <= partitions < 2**32 or not 0 <= replication < 2**32:
        raise UsageError(f"{partitions} partitions with replication {replication}")
    retention_s = retention.total_seconds() if isinstance(retention, timedelta) else retention
    has_storage = segment_size_bytes is not None or max_partition_size_bytes is not None
    return TopicSpec(
        ComputedReplicas(partitions, replication, False),
        None if retention_s is None else SegmentPolicy(int(retention_s)),
        TopicStorage(segment_size_bytes, max_partition_size_bytes) if has_storage else None,
        asked,
    )


def _check(status: StatusResponse, name: str) -> None:
    if status.error:
        raise as_exception(status.error, about=name, message=status.error_message or "")


def _topic_info(item: Metadata) -> TopicInfo:
    spec: TopicSpec = item.spec
    status: TopicStatus = item.status
    storage = spec.storage or TopicStorage()
    replicas = spec.replicas
    return TopicInfo(
        item.name,
        spec.partition_count,
        replicas.replication_factor if isinstance(replicas, ComputedReplicas) else 1,
        None if spec.cleanup_policy is None else spec.cleanup_policy.time_in_seconds,
        storage.segment_size_bytes,
        storage.max_partition_size_bytes,
        spec.compression.name.lower(),
        spec.system,
        status.resolution.name.lower().replace("_", "-"),
        status.reason,
    )


def _partition_info(item: Metadata) -> PartitionInfo:
    topic, _, number = item.name.rpartition("-")
    status: PartitionStatus = item.status
    return PartitionInfo(
        topic,
        int(number),
        item.spec.leader,
        item.spec.replicas,
        status.resolution.name.lower().replace("_", "-"),
        status.size_bytes,
        status.base_offset,
        status.leader.high_watermark,
        status.leader.log_end,
    )
