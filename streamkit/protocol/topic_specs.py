"""Topics as the control plane describes them: replicas, storage, compression, status."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any

import msgspec

from streamkit.protocol.compression import Codec
from streamkit.protocol.schema import (
    I32,
    STRING,
    U8,
    U32,
    U64,
    Bool,
    Str,
    converted,
    mapping,
    option,
    since,
    union,
    vec,
)
from streamkit.protocol.smartmodules import Duration

_I32S = vec[int](I32)


class TopicCompression(IntEnum):
    """The codec that a topic requires of its batches. The numbers differ from `Codec`."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ANY = 4
    ZSTD = 5

    @property
    def codec(self) -> Codec | None:
        """The codec that a batch must have; None if any codec is allowed."""
        return None if self is TopicCompression.ANY else Codec[self.name]


class HomePartition(msgspec.Struct, frozen=True):
    remote_cluster: Str
    remote_replica: Str
    source: Annotated[Bool, since(18)] = False


class RemotePartition(msgspec.Struct, frozen=True):
    home_cluster: Str
    home_spu_key: Str
    home_spu_id: I32
    home_spu_endpoint: Str
    target: Annotated[Bool, since(18)] = False


PartitionMirror = RemotePartition | HomePartition
PARTITION_MIRROR = union[Any]({0: RemotePartition, 1: HomePartition})


class PartitionMap(msgspec.Struct, frozen=True):
    """The SPUs of one partition; the first is the leader."""

    id: U32
    replicas: Annotated[tuple[int, ...], _I32S]
    mirror: Annotated[PartitionMirror | None, option(PARTITION_MIRROR), since(14)] = None


class AssignedReplicas(msgspec.Struct, frozen=True):
    maps: Annotated[tuple[PartitionMap, ...], vec(PartitionMap)]


class ComputedReplicas(msgspec.Struct, frozen=True):
    partitions: U32 = 1
    replication_factor: U32 = 1
    ignore_rack: Bool = False


class HomeSpu(msgspec.Struct, frozen=True):
    id: I32
    key: Str
    endpoint: Str


class RemoteMirror(msgspec.Struct, frozen=True):
    home_cluster: Str
    home_spus: Annotated[tuple[HomeSpu, ...], vec(HomeSpu)]
    target: Annotated[Bool, since(18)] = False


class HomeMirror(msgspec.Struct, frozen=True):
    partitions: Annotated[tuple[HomePartition, ...], vec(HomePartition)]
    source: Annotated[Bool, since(18)] = False


MIRROR_CONFIG = union[Any]({0: RemoteMirror, 1: HomeMirror})


class MirrorReplicas(msgspec.Struct, frozen=True):
    config: Annotated[RemoteMirror | HomeMirror, MIRROR_CONFIG]


Replicas = AssignedReplicas | ComputedReplicas | MirrorReplicas
REPLICAS = union[Any]({0: AssignedReplicas, 1: ComputedReplicas, 2: MirrorReplicas})


class SegmentPolicy(msgspec.Struct, frozen=True):
    time_in_seconds: U32


CLEANUP_POLICY = union[SegmentPolicy]({0: SegmentPolicy})


class TopicStorage(msgspec.Struct, frozen=True):
    segment_size_bytes: Annotated[int | None, option(U32)] = None
    max_partition_size_bytes: Annotated[int | None, option(U64)] = None


class Deduplication(msgspec.Struct, frozen=True):
    count: U64
    age: Annotated[Duration | None, option(Duration)]
    uses: Str
    params: Annotated[dict[str, str], mapping(STRING, STRING)] = msgspec.field(default_factory=dict)


COMPRESSION = converted[TopicCompression](U8, TopicCompression, int)
TopicCompressionField = Annotated[TopicCompression, COMPRESSION]


class TopicSpec(msgspec.Struct, frozen=True):
    replicas: Annotated[Replicas, REPLICAS] = ComputedReplicas()
    cleanup_policy: Annotated[SegmentPolicy | None, option(CLEANUP_POLICY), since(3)] = None
    storage: Annotated[TopicStorage | None, option(TopicStorage), since(4)] = None
    compression: Annotated[TopicCompressionField, since(6)] = TopicCompression.ANY
    deduplication: Annotated[Deduplication | None, option(Deduplication), since(12)] = None
    system: Annotated[Bool, since(13)] = False

    @property
    def partition_count(self) -> int:
        """Number of partitions, as every client counts them."""
        match self.replicas:
            case ComputedReplicas(partitions=count):
                return count
            case AssignedReplicas(maps=maps):
                return len(maps)
            case MirrorReplicas(config=HomeMirror(partitions=partitions)):
                return len(partitions)
            case MirrorReplicas(config=RemoteMirror(home_spus=spus)):
                return len(spus)
        raise AssertionError("every kind of replicas is listed above")


class TopicResolution(IntEnum):
    INIT = 0
    PENDING = 1
    INSUFFICIENT_RESOURCES = 2
    INVALID_CONFIG = 3
    PROVISIONED = 4
    DELETING = 5


class TopicStatus(msgspec.Struct, frozen=True):
    resolution: Annotated[TopicResolution, converted(U8, TopicResolution, int)]
    replica_map: Annotated[dict[int, tuple[int, ...]], mapping(U32, _I32S)] = msgspec.field(
        default_factory=dict
    )
    mirror_map: Annotated[dict[int, PartitionMirror], mapping(U32, PARTITION_MIRROR), since(14)] = (
        msgspec.field(default_factory=dict)
    )
    reason: Str = ""
