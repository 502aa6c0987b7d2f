"""Objects of the control plane: topics, partitions, SPUs and others, with their states.

Source: docs/protocol/admin.md, "Topics", "Partitions", "SPUs", "SmartModules" and "Other objects".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any

from streamkit.protocol.schema import (
    BOOL,
    I32,
    I64,
    STRING,
    U8,
    U16,
    U32,
    U64,
    Bool,
    Bytes,
    Str,
    Wire,
    converted,
    mapping,
    option,
    since,
    struct,
    union,
    vec,
)
from streamkit.protocol.topic_specs import (
    CLEANUP_POLICY,
    PARTITION_MIRROR,
    Deduplication,
    PartitionMirror,
    SegmentPolicy,
    TopicCompression,
    TopicCompressionField,
    TopicSpec,
    TopicStatus,
    TopicStorage,
)

_I32S = vec[int](I32)


# --- Partitions ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PartitionSpec:
    leader: I32
    replicas: Annotated[tuple[int, ...], _I32S]
    cleanup_policy: Annotated[SegmentPolicy | None, option(CLEANUP_POLICY), since(4)] = None
    storage: Annotated[TopicStorage | None, option(TopicStorage), since(4)] = None
    compression: Annotated[TopicCompressionField, since(6)] = TopicCompression.ANY
    deduplication: Annotated[Deduplication | None, option(Deduplication), since(12)] = None
    system: Annotated[Bool, since(13)] = False
    mirror: Annotated[PartitionMirror | None, option(PARTITION_MIRROR), since(14)] = None


class PartitionResolution(IntEnum):
    OFFLINE = 0
    ONLINE = 1
    LEADER_OFFLINE = 2
    ELECTION_LEADER_FOUND = 3
    OUT_OF_STORAGE = 4


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    spu: I32 = -1
    high_watermark: I64 = -1
    log_end: I64 = -1


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    resolution: Annotated[PartitionResolution, converted(U8, PartitionResolution, int)]
    leader: Annotated[ReplicaStatus, struct(ReplicaStatus)] = ReplicaStatus()
    live_followers: U32 = 0
    replicas: Annotated[tuple[ReplicaStatus, ...], vec(ReplicaStatus)] = ()
    size_bytes: Annotated[I64, since(5)] = 0
    is_being_deleted: Bool = False
    base_offset: Annotated[I64, since(16)] = 0


# --- SPUs ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ingress:
    hostname: Annotated[str | None, option(STRING)] = None
    ip: Annotated[str | None, option(STRING)] = None


@dataclass(frozen=True, slots=True)
class IngressPort:
    port: U16
    ingress: Annotated[tuple[Ingress, ...], vec(Ingress)]
    encryption: U8 = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    port: U16
    host: Str
    encryption: U8 = 0


@dataclass(frozen=True, slots=True)
class SpuSpec:
    id: I32
    spu_type: U8
    public_endpoint: Annotated[IngressPort, struct(IngressPort)]
    private_endpoint: Annotated[Endpoint, struct(Endpoint)]
    rack: Annotated[str | None, option(STRING)] = None
    public_endpoint_local: Annotated[Endpoint | None, option(Endpoint), since(1)] = None


@dataclass(frozen=True, slots=True)
class CustomSpuSpec:
    id: I32
    public_endpoint: Annotated[IngressPort, struct(IngressPort)]
    private_endpoint: Annotated[Endpoint, struct(Endpoint)]
    rack: Annotated[str | None, option(STRING)] = None
    public_endpoint_local: Annotated[Endpoint | None, option(Endpoint)] = None


SPU_TYPE_CUSTOM = 1


class SpuResolution(IntEnum):
    ONLINE = 0
    OFFLINE = 1
    INIT = 2


@dataclass(frozen=True, slots=True)
class SpuStatus:
    resolution: Annotated[SpuResolution, converted(U8, SpuResolution, int)]


# --- SmartModules ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModuleParam:
    description: Annotated[str | None, option(STRING)] = None
    optional: Bool = False


@dataclass(frozen=True, slots=True)
class ModulePackage:
    name: Str
    group: Str
    version: Str
    api_version: Str
    description: Annotated[str | None, option(STRING)] = None
    license: Annotated[str | None, option(STRING)] = None
    visibility: Annotated[U8, since(19)] = 0
    repository: Annotated[str | None, option(STRING)] = None


@dataclass(frozen=True, slots=True)
class ModuleMeta:
    package: Annotated[ModulePackage, struct(ModulePackage)]
    params: Annotated[dict[str, ModuleParam], mapping(STRING, ModuleParam)]


@dataclass(frozen=True, slots=True)
class ModuleSummary:
    wasm_length_bytes: U32


@dataclass(frozen=True, slots=True)
class LegacySource:
    language: U8
    payload: Str


@dataclass(frozen=True, slots=True)
class SmartModuleSpec:
    """The spec of a SmartModule.

    Versions below 10 have two kinds, a source and parameters instead of the metadata.
    """

    meta: Annotated[ModuleMeta | None, option(ModuleMeta), since(10)] = None
    summary: Annotated[ModuleSummary | None, option(ModuleSummary), since(10)] = None
    input_kind: Annotated[U8, since(0, 9)] = 0
    output_kind: Annotated[U8, since(0, 9)] = 0
    source: Annotated[LegacySource | None, option(LegacySource), since(0, 9)] = None
    format: U8 = 0
    payload: Bytes = b""
    parameters: Annotated[tuple[str, ...] | None, option(vec(STRING)), since(0, 9)] = None


@dataclass(frozen=True, slots=True)
class NoStatus:
    """The status of objects that have none, encoded as zero bytes."""


# --- Other objects ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReplicationConfig:
    in_sync_replica_min: Annotated[int | None, option(U16)] = None


@dataclass(frozen=True, slots=True)
class StorageConfig:
    log_dir: Annotated[str | None, option(STRING)] = None
    size: Annotated[str | None, option(STRING)] = None


@dataclass(frozen=True, slots=True)
class EnvironmentVariable:
    name: Str
    value: Str


@dataclass(frozen=True, slots=True)
class SpuGroupSpec:
    replicas: U16
    min_id: I32
    rack: Annotated[str | None, option(STRING)] = None
    replication: Annotated[ReplicationConfig | None, option(ReplicationConfig)] = None
    storage: Annotated[StorageConfig | None, option(StorageConfig)] = None
    env: Annotated[tuple[EnvironmentVariable, ...], vec(EnvironmentVariable)] = ()


@dataclass(frozen=True, slots=True)
class ReasonStatus:
    """The state of an SPU group or a table format."""

    resolution: U8
    reason: Annotated[str | None, option(STRING)] = None


@dataclass(frozen=True, slots=True)
class TableColumn:
    header_label: Annotated[str | None, option(STRING)]
    width: Annotated[str | None, option(STRING)]
    alignment: Annotated[int | None, option(U8)]
    key_path: Str
    format: Annotated[str | None, option(STRING)] = None
    display: Annotated[bool | None, option(BOOL)] = None
    primary_key: Annotated[bool | None, option(BOOL)] = None
    header_bg_color: Annotated[int | None, option(U8)] = None
    header_text_color: Annotated[int | None, option(U8)] = None


@dataclass(frozen=True, slots=True)
class TableFormatSpec:
    name: Str
    input_format: Annotated[int | None, option(U8)] = None
    columns: Annotated[tuple[TableColumn, ...] | None, option(vec(TableColumn))] = None
    smartmodule: Annotated[str | None, option(STRING)] = None


@dataclass(frozen=True, slots=True)
class MirrorTls:
    domain: Str
    ca_cert: Str
    client_cert: Str
    client_key: Str


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    id: Str


@dataclass(frozen=True, slots=True)
class HomeSpec:
    id: Str
    remote_id: Str
    public_endpoint: Str
    client_tls: Annotated[MirrorTls | None, option(MirrorTls)] = None


MIRROR_SPEC = union[Any]({0: RemoteSpec, 1: HomeSpec})


@dataclass(frozen=True, slots=True)
class PairWaiting:
    pass


@dataclass(frozen=True, slots=True)
class PairSuccessful:
    pass


@dataclass(frozen=True, slots=True)
class PairFailed:
    pass


@dataclass(frozen=True, slots=True)
class PairDisabled:
    pass


@dataclass(frozen=True, slots=True)
class PairUnauthorized:
    pass


@dataclass(frozen=True, slots=True)
class PairDetailFailure:
    text: Str


PAIR = union[Any](
    {
        0: PairWaiting,
        1: PairSuccessful,
        2: PairFailed,
        3: PairDisabled,
        4: PairUnauthorized,
        5: PairDetailFailure,
    }
)


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    connection_status: U8
    pairing_sc: Annotated[Any, PAIR]
    pairing_spu: Annotated[Any, PAIR]
    last_seen_ms: U64


@dataclass(frozen=True, slots=True)
class ObjectKind:
    """One type of object: its name on the wire, and the layouts of its parts."""

    name: str
    spec: Wire[Any]
    status: Wire[Any]
    classic_tag: int | None = None


TOPIC = ObjectKind("Topic", struct(TopicSpec), struct(TopicStatus), 0)
PARTITION = ObjectKind("Partition", struct(PartitionSpec), struct(PartitionStatus))
SPU = ObjectKind("SPU", struct(SpuSpec), struct(SpuStatus))
CUSTOM_SPU = ObjectKind("CustomSpu", struct(CustomSpuSpec), struct(SpuStatus), 1)
SMARTMODULE = ObjectKind("SmartModule", struct(SmartModuleSpec), struct(NoStatus), 4)
SPU_GROUP = ObjectKind("SpuGroup", struct(SpuGroupSpec), struct(ReasonStatus), 2)
TABLE_FORMAT = ObjectKind("TableFormat", struct(TableFormatSpec), struct(ReasonStatus), 5)
MIRROR = ObjectKind("Mirror", MIRROR_SPEC, struct(MirrorStatus), 6)

KINDS = {
    kind.name: kind
    for kind in (
        TOPIC,
        PARTITION,
        SPU,
        CUSTOM_SPU,
        SMARTMODULE,
        SPU_GROUP,
        TABLE_FORMAT,
        MIRROR,
    )
}
