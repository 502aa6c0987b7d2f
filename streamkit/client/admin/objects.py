"""What a cluster has, as users read it: topics, partitions, SmartModules, SPUs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from streamkit.client.admin.topic_options import Deduplication
from streamkit.protocol.control_plane import Metadata
from streamkit.protocol.specs import (
    SPU_TYPE_CUSTOM,
    Endpoint,
    ModulePackage,
    PartitionSpec,
    PartitionStatus,
    SmartModuleSpec,
    SpuSpec,
)
from streamkit.protocol.topic_specs import (
    AssignedReplicas,
    ComputedReplicas,
    Replicas,
    TopicSpec,
    TopicStatus,
    TopicStorage,
)

TopicKind = Literal["computed", "assigned", "mirror"]


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as the control plane describes it. Absent bounds are the server's defaults.

    ``assignment`` has the SPUs of each partition, by number; the first one leads it.
    """

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
    kind: TopicKind = "computed"
    ignores_rack: bool = False
    deduplication: Deduplication | None = None
    assignment: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """How far one SPU has come with a partition; -1 where that is not known."""

    spu: int
    high_watermark: int
    log_end: int


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """A partition and how far it reaches.

    ``size_bytes`` is -1 where the SPU could not tell, and -2 where it has not told yet.
    ``live_followers`` counts the replicas beside the leader that keep up; ``followers`` says
    how far each has come.
    """

    topic: str
    partition: int
    leader: int
    replicas: tuple[int, ...]
    resolution: str
    size_bytes: int
    base_offset: int
    high_watermark: int
    log_end: int
    live_followers: int = 0
    followers: tuple[ReplicaInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class SmartModuleInfo:
    """A SmartModule. ``size_bytes`` is what the server stores, as a rule the gzip of the wasm.

    ``package`` is ``group/name@version``, and ``params`` what the module says it takes; modules
    that were made from nothing but wasm have neither.
    """

    name: str
    size_bytes: int
    package: str | None = None
    description: str | None = None
    params: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpuInfo:
    """A streaming processing unit: the server of some partitions.

    Addresses are ``host:port``: ``address`` is for clients, ``private_address`` for other
    SPUs, ``local_address`` for clients that use local addresses.
    """

    id: int
    name: str
    address: str
    private_address: str
    local_address: str | None
    rack: str | None
    is_custom: bool
    status: str


def topic_info(item: Metadata) -> TopicInfo:
    spec: TopicSpec = item.spec
    status: TopicStatus = item.status
    storage = spec.storage or TopicStorage()
    replicas = spec.replicas
    spus = status.replica_map
    return TopicInfo(
        item.name,
        spec.partition_count,
        _replication(replicas),
        None if spec.cleanup_policy is None else spec.cleanup_policy.time_in_seconds,
        storage.segment_size_bytes,
        storage.max_partition_size_bytes,
        _label(spec.compression),
        spec.system,
        _label(status.resolution),
        status.reason,
        _kind(replicas),
        replicas.ignore_rack if isinstance(replicas, ComputedReplicas) else False,
        None if spec.deduplication is None else Deduplication.of(spec.deduplication),
        tuple(tuple(spus[number]) for number in sorted(spus)),
    )


def partition_info(item: Metadata) -> PartitionInfo:
    topic, _, number = item.name.rpartition("-")
    spec: PartitionSpec = item.spec
    status: PartitionStatus = item.status
    return PartitionInfo(
        topic,
        int(number),
        spec.leader,
        spec.replicas,
        _label(status.resolution),
        status.size_bytes,
        status.base_offset,
        status.leader.high_watermark,
        status.leader.log_end,
        status.live_followers,
        tuple(ReplicaInfo(f.spu, f.high_watermark, f.log_end) for f in status.replicas),
    )


def smartmodule_info(item: Metadata) -> SmartModuleInfo:
    spec: SmartModuleSpec = item.spec
    size = len(spec.payload) if spec.summary is None else spec.summary.wasm_length_bytes
    if spec.meta is None:
        return SmartModuleInfo(item.name, size)
    package: ModulePackage = spec.meta.package
    return SmartModuleInfo(
        item.name,
        size,
        f"{package.group}/{package.name}@{package.version}",
        package.description,
        tuple(spec.meta.params),
    )


def spu_info(item: Metadata) -> SpuInfo:
    spec: SpuSpec = item.spec
    local = spec.public_endpoint_local
    ingress = spec.public_endpoint.ingress
    host = (ingress[0].hostname or ingress[0].ip or "") if ingress else ""
    return SpuInfo(
        spec.id,
        item.name,
        f"{host}:{spec.public_endpoint.port}",
        _address(spec.private_endpoint),
        None if local is None else _address(local),
        spec.rack,
        spec.spu_type == SPU_TYPE_CUSTOM,
        _label(item.status.resolution),
    )


def _replication(replicas: Replicas) -> int:
    match replicas:
        case ComputedReplicas(replication_factor=factor):
            return factor
        case AssignedReplicas(maps=(first, *_)):
            return len(first.replicas)
    return 1


def _kind(replicas: Replicas) -> TopicKind:
    match replicas:
        case ComputedReplicas():
            return "computed"
        case AssignedReplicas():
            return "assigned"
    return "mirror"


def _address(endpoint: Endpoint) -> str:
    return f"{endpoint.host}:{endpoint.port}"


def _label(value: IntEnum) -> str:
    return value.name.lower().replace("_", "-")
