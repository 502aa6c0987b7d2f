"""The objects of the broker as clients see them: topics, partitions, SmartModules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from streamkit.broker.module_names import parse_module_name
from streamkit.broker.partition_log import PartitionLog
from streamkit.broker.recovery import folder_of
from streamkit.env import Disk
from streamkit.limits import SEGMENT_BYTES_DEFAULT
from streamkit.protocol import specs, topic_specs
from streamkit.protocol.control_plane import Change, Metadata
from streamkit.protocol.specs import (
    Endpoint,
    Ingress,
    IngressPort,
    NoStatus,
    ObjectKind,
    PartitionResolution,
    PartitionSpec,
    PartitionStatus,
    ReplicaStatus,
    SmartModuleSpec,
    SpuResolution,
    SpuSpec,
    SpuStatus,
)
from streamkit.protocol.topic_specs import (
    AssignedReplicas,
    ComputedReplicas,
    PartitionMap,
    TopicResolution,
    TopicSpec,
    TopicStatus,
)

SPU_ID = 5001
SPU_NAME = f"custom-spu-{SPU_ID}"
CONSUMER_OFFSET_TOPIC = "consumer-offset"
# The internal topic as every Fluvio cluster has it. Source:
# docs/protocol/admin.md, "The topic of consumer offsets".
CONSUMER_OFFSET_SPEC = TopicSpec(
    ComputedReplicas(1, 1, False),
    cleanup_policy=topic_specs.SegmentPolicy(604_800),
    storage=topic_specs.TopicStorage(512_000_000, 2_048_000_000),
    system=True,
)


@dataclass(slots=True)
class CatalogTopic:
    name: str
    incarnation: str
    spec: TopicSpec
    logs: list[PartitionLog] = field(default_factory=list)
    # Serializes changes to the topic.
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def segment_bytes(self) -> int:
        storage = self.spec.storage
        size = storage.segment_size_bytes if storage else None
        return SEGMENT_BYTES_DEFAULT if size is None else size

    def metadata(self) -> Metadata:
        """Describe the topic as the control plane does."""
        replica_map: dict[int, tuple[int, ...]] = {log.partition: (SPU_ID,) for log in self.logs}
        return Metadata(self.name, self.spec, TopicStatus(TopicResolution.PROVISIONED, replica_map))

    def partition_metadata(self, log: PartitionLog) -> Metadata:
        """Describe one partition as the control plane does."""
        spec = self.spec
        end = log.durable_end
        return Metadata(
            f"{self.name}-{log.partition}",
            PartitionSpec(
                SPU_ID,
                (SPU_ID,),
                spec.cleanup_policy,
                spec.storage,
                spec.compression,
                spec.deduplication,
                spec.system,
            ),
            PartitionStatus(
                PartitionResolution.ONLINE,
                ReplicaStatus(SPU_ID, end, end),
                size_bytes=log.size_bytes,
                base_offset=log.start_offset,
            ),
        )


Watcher = Callable[[ObjectKind, list[Change]], None]


class Catalog:
    """The objects that exist. Watchers are notified of every change, in order."""

    def __init__(self, disk: Disk, root: Path) -> None:
        self._disk = disk
        self._root = root
        self.topics: dict[str, CatalogTopic] = {}
        self.modules: dict[str, SmartModuleSpec] = {}
        self.spu: Metadata | None = None
        self._watchers: list[Watcher] = []

    # --- facts ---------------------------------------------------------------

    def log(self, topic: str, partition: int) -> PartitionLog | None:
        """Return the log of a partition; None if the partition does not exist."""
        found = self.topics.get(topic)
        if found is None or not 0 <= partition < len(found.logs):
            return None
        return found.logs[partition]

    def logs(self) -> Iterator[PartitionLog]:
        return (log for topic in self.topics.values() for log in topic.logs)

    def partition_count(self) -> int:
        return sum(len(topic.logs) for topic in self.topics.values())

    def find_module(self, name: str) -> str | None:
        """Return the name a SmartModule is stored under; None if it does not exist.

        Raises:
            RemoteProtocolError: The text after the ``@`` is not a valid version.
        """
        key = name if name in self.modules else parse_module_name(name).key
        return key if key in self.modules else None

    def listing(self, kind: ObjectKind) -> list[Metadata]:
        """Return all objects of a kind, ordered by name; partitions by topic and number."""
        if kind in (specs.SPU, specs.CUSTOM_SPU):
            assert self.spu is not None, "the ports are open before a client can connect"
            return [self.spu]
        if kind is specs.SMARTMODULE:
            return [self._module_metadata(name) for name in sorted(self.modules)]
        topics = [self.topics[name] for name in sorted(self.topics)]
        if kind is specs.TOPIC:
            return [topic.metadata() for topic in topics]
        if kind is specs.PARTITION:
            return [topic.partition_metadata(log) for topic in topics for log in topic.logs]
        return []

    # --- changes -------------------------------------------------------------

    def describe_spu(self, host: str, port: int, *, public: str | None = None) -> None:
        """Set the address of the SPU, and the ``host:port`` that remote clients use."""
        local = Endpoint(port, host)
        public_host, _, public_port = (public or f"{host}:{port}").rpartition(":")
        endpoint = IngressPort(int(public_port), (Ingress(hostname=public_host.strip("[]")),))
        spec = SpuSpec(
            SPU_ID,
            specs.SPU_TYPE_CUSTOM,
            endpoint,
            local,
            public_endpoint_local=None if public is None else local,
        )
        self.spu = Metadata(SPU_NAME, spec, SpuStatus(SpuResolution.ONLINE))

    def new_log(self, topic: CatalogTopic, partition: int) -> PartitionLog:
        """Create the object for a partition's log, without files."""
        return PartitionLog(
            self._disk,
            folder_of(self._root, topic.incarnation, partition),
            topic=topic.name,
            partition=partition,
            segment_bytes=topic.segment_bytes,
        )

    def add(self, topic: CatalogTopic) -> None:
        """Add a topic whose files exist. Watchers get its partitions first, then the topic."""
        self.topics[topic.name] = topic
        self._notify_of_partitions(topic, topic.logs)
        self._notify(specs.TOPIC, [Change(topic.metadata())])

    def grow(self, topic: CatalogTopic, spec: TopicSpec, logs: list[PartitionLog]) -> None:
        """Add partitions. Watchers get them before the topic with the new partition count."""
        topic.logs.extend(logs)
        self._notify_of_partitions(topic, logs)
        topic.spec = spec
        self._notify(specs.TOPIC, [Change(topic.metadata())])

    def remove(self, name: str) -> CatalogTopic:
        """Remove a topic and its partitions."""
        topic = self.topics.pop(name)
        deleted = [Change(topic.partition_metadata(log), is_delete=True) for log in topic.logs]
        self._notify(specs.PARTITION, deleted)
        self._notify(specs.TOPIC, [Change(topic.metadata(), is_delete=True)])
        return topic

    def put_module(self, name: str, spec: SmartModuleSpec) -> None:
        """Add or replace a stored SmartModule."""
        self.modules[name] = spec
        self._notify(specs.SMARTMODULE, [Change(self._module_metadata(name))])

    def remove_module(self, name: str) -> None:
        """Remove a SmartModule."""
        deleted = Change(self._module_metadata(name), is_delete=True)
        del self.modules[name]
        self._notify(specs.SMARTMODULE, [deleted])

    def report(self, logs: set[PartitionLog]) -> None:
        """Notify the watchers of new ends and sizes of partitions that still exist."""
        changes = [
            Change(topic.partition_metadata(log))
            for topic in self.topics.values()
            for log in topic.logs
            if log in logs
        ]
        if changes:
            self._notify(specs.PARTITION, changes)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call ``watcher`` at every change; return a function that removes it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    @property
    def is_watched(self) -> bool:
        return bool(self._watchers)

    def _module_metadata(self, name: str) -> Metadata:
        return Metadata(name, self.modules[name], NoStatus())

    def _notify_of_partitions(self, topic: CatalogTopic, logs: list[PartitionLog]) -> None:
        self._notify(specs.PARTITION, [Change(topic.partition_metadata(log)) for log in logs])

    def _notify(self, kind: ObjectKind, changes: list[Change]) -> None:
        for watcher in list(self._watchers):
            watcher(kind, changes)


def with_more_partitions(spec: TopicSpec, count: int) -> TopicSpec:
    """Return the spec of the topic with ``count`` more partitions."""
    match spec.replicas:
        case ComputedReplicas() as computed:
            grown = replace(computed, partitions=computed.partitions + count)
            return replace(spec, replicas=grown)
        case AssignedReplicas(maps=maps):
            added = tuple(PartitionMap(len(maps) + more, (SPU_ID,)) for more in range(count))
            return replace(spec, replicas=AssignedReplicas((*maps, *added)))
        case _:
            raise AssertionError("this broker never creates mirror topics")
