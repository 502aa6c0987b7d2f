"""Objects of the control plane: topics, partitions, SPUs and others, with their states.

Source: docs/protocol/admin.md, "Topics", "Partitions", "SPUs", "SmartModules" and "Other objects".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any

import msgspec

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


class PartitionSpec(msgspec.Struct, frozen=True):
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


class ReplicaStatus(msgspec.Struct, frozen=True):
    spu: I32 = -1
    high_watermark: I64 = -1
    log_end: I64 = -1


class PartitionStatus(msgspec.Struct, frozen=True):
    resolution: Annotated[PartitionResolution, converted(U8, PartitionResolution, int)]
    leader: Annotated[ReplicaStatus, struct(ReplicaStatus)] = ReplicaStatus()
    live_followers: U32 = 0
    replicas: Annotated[tuple[ReplicaStatus, ...], vec(ReplicaStatus)] = ()
    size_bytes: Annotated[I64, since(5)] = 0
    is_being_deleted: Bool = False
    base_offset: Annotated[I64, since(16)] = 0


# --- SPUs ------------------------------------------------------------------


class Ingress(msgspec.Struct, frozen=True):
    hostname: Annotated[str | None, option(STRING)] = None
    ip: Annotated[str | None, option(STRING)] = None


class IngressPort(msgspec.Struct, frozen=True):
    port: U16
    ingress: Annotated[tuple[Ingress, ...], vec(Ingress)]
    encryption: U8 = 0


class Endpoint(msgspec.Struct, frozen=True):
    port: U16
    host: Str
    encryption: U8 = 0


class SpuSpec(msgspec.Struct, frozen=True):
    id: I32
    spu_type: U8
    public_endpoint: Annotated[IngressPort, struct(IngressPort)]
    private_endpoint: Annotated[Endpoint, struct(Endpoint)]
    rack: Annotated[str | None, option(STRING)] = None
    public_endpoint_local: Annotated[Endpoint | None, option(Endpoint), since(1)] = None


class CustomSpuSpec(msgspec.Struct, frozen=True):
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


class SpuStatus(msgspec.Struct, frozen=True):
    resolution: Annotated[SpuResolution, converted(U8, SpuResolution, int)]


# --- SmartModules ----------------------------------------------------------


class ModuleParam(msgspec.Struct, frozen=True):
    description: Annotated[str | None, option(STRING)] = None
    optional: Bool = False


class ModulePackage(msgspec.Struct, frozen=True):
    name: Str
    group: Str
    version: Str
    api_version: Str
    description: Annotated[str | None, option(STRING)] = None
    license: Annotated[str | None, option(STRING)] = None
    visibility: Annotated[U8, since(19)] = 0
    repository: Annotated[str | None, option(STRING)] = None


class ModuleMeta(msgspec.Struct, frozen=True):
    package: Annotated[ModulePackage, struct(ModulePackage)]
    params: Annotated[dict[str, ModuleParam], mapping(STRING, ModuleParam)]


class ModuleSummary(msgspec.Struct, frozen=True):
    wasm_length_bytes: U32


class LegacySource(msgspec.Struct, frozen=True):
    language: U8
    payload: Str


class SmartModuleSpec(msgspec.Struct, frozen=True):
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


class NoStatus(msgspec.Struct, frozen=True):
    """The status of objects that have none, encoded as zero bytes."""


# --- Other objects ---------------------------------------------------------


class ReplicationConfig(msgspec.Struct, frozen=True):
    in_sync_replica_min: Annotated[int | None, option(U16)] = None


class StorageConfig(msgspec.Struct, frozen=True):
    log_dir: Annotated[str | None, option(STRING)] = None
    size: Annotated[str | None, option(STRING)] = None


class EnvironmentVariable(msgspec.Struct, frozen=True):
    name: Str
    value: Str


class SpuGroupSpec(msgspec.Struct, frozen=True):
    replicas: U16
    min_id: I32
    rack: Annotated[str | None, option(STRING)] = None
    replication: Annotated[ReplicationConfig | None, option(ReplicationConfig)] = None
    storage: Annotated[StorageConfig | None, option(StorageConfig)] = None
    env: Annotated[tuple[EnvironmentVariable, ...], vec(EnvironmentVariable)] = ()


class ReasonStatus(msgspec.Struct, frozen=True):
    """The state of an SPU group or a table format."""

    resolution: U8
    reason: Annotated[str | None, option(STRING)] = None


class TableColumn(msgspec.Struct, frozen=True):
    header_label: Annotated[str | None, option(STRING)]
    width: Annotated[str | None, option(STRING)]
    alignment: Annotated[int | None, option(U8)]
    key_path: Str
    format: Annotated[str | None, option(STRING)] = None
    display: Annotated[bool | None, option(BOOL)] = None
    primary_key: Annotated[bool | None, option(BOOL)] = None
    header_bg_color: Annotated[int | None, option(U8)] = None
    header_text_color: Annotated[int | None, option(U8)] = None


class TableFormatSpec(msgspec.Struct, frozen=True):
    name: Str
    input_format: Annotated[int | None, option(U8)] = None
    columns: Annotated[tuple[TableColumn, ...] | None, option(vec(TableColumn))] = None
    smartmodule: Annotated[str | None, option(STRING)] = None


class MirrorTls(msgspec.Struct, frozen=True):
    domain: Str
    ca_cert: Str
    client_cert: Str
    client_key: Str


class RemoteSpec(msgspec.Struct, frozen=True):
    id: Str


class HomeSpec(msgspec.Struct, frozen=True):
    id: Str
    remote_id: Str
    public_endpoint: Str
    client_tls: Annotated[MirrorTls | None, option(MirrorTls)] = None


MIRROR_SPEC = union[Any]({0: RemoteSpec, 1: HomeSpec})


class PairWaiting(msgspec.Struct, frozen=True):
    pass


class PairSuccessful(msgspec.Struct, frozen=True):
    pass


class PairFailed(msgspec.Struct, frozen=True):
    pass


class PairDisabled(msgspec.Struct, frozen=True):
    pass


class PairUnauthorized(msgspec.Struct, frozen=True):
    pass


class PairDetailFailure(msgspec.Struct, frozen=True):
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


class MirrorStatus(msgspec.Struct, frozen=True):
    connection_status: U8
    pairing_sc: Annotated[Any, PAIR]
    pairing_spu: Annotated[Any, PAIR]
    last_seen_ms: U64


class ObjectKind(msgspec.Struct, frozen=True):
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
