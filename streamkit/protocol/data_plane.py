"""Produce, Fetch and StreamFetch, and the offsets of partitions and of consumers.

Source: docs/protocol/produce-and-fetch.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from streamkit.protocol.error_codes import NO_ERROR, ErrorCodeField, ReplicaPayload
from streamkit.protocol.record_set import RecordSet
from streamkit.protocol.schema import (
    I16,
    I32,
    I64,
    STRING,
    U8,
    U32,
    U64,
    Bytes,
    Str,
    converted,
    option,
    since,
    struct,
    vec,
)
from streamkit.protocol.smartmodules import (
    ExtraParams,
    SmartModuleInvocation,
    SmartModules,
)

READ_UNCOMMITTED = 0
READ_COMMITTED = 1
ACKS_LEADER = 1
ACKS_ALL = -1


def _timeout_ms(number: int) -> int:
    if number < 0:
        raise ValueError(f"invalid timeout of {number} ms")
    return number


def _isolation(number: int) -> int:
    if number > READ_COMMITTED:
        raise ValueError(f"unknown isolation {number}")
    return number


Timeout = Annotated[int, converted(I32, _timeout_ms, int)]
IsolationField = Annotated[int, converted(U8, _isolation, int)]


# --- Produce ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PartitionProduceData:
    partition: U32
    records: RecordSet


@dataclass(frozen=True, slots=True)
class TopicProduceData:
    topic: Str
    partitions: Annotated[tuple[PartitionProduceData, ...], vec(PartitionProduceData)]


@dataclass(frozen=True, slots=True)
class ProduceRequest:
    """A request to store batches. ``acks`` -1 waits for every replica, for up to ``timeout_ms``."""

    transactional_id: Annotated[str | None, option(STRING)] = None
    acks: I16 = ACKS_LEADER
    timeout_ms: Timeout = 1_500
    topics: Annotated[tuple[TopicProduceData, ...], vec(TopicProduceData)] = ()
    smartmodules: SmartModules = ()


@dataclass(frozen=True, slots=True)
class PartitionProduceResponse:
    partition: U32
    error: ErrorCodeField = NO_ERROR
    base_offset: I64 = 0
    log_append_time_ms: Annotated[I64, since(2)] = 0
    log_start_offset: Annotated[I64, since(5)] = 0


@dataclass(frozen=True, slots=True)
class TopicProduceResponse:
    topic: Str
    partitions: Annotated[tuple[PartitionProduceResponse, ...], vec(PartitionProduceResponse)]


@dataclass(frozen=True, slots=True)
class ProduceResponse:
    topics: Annotated[tuple[TopicProduceResponse, ...], vec(TopicProduceResponse)]
    throttle_time_ms: Annotated[I32, since(1)] = 0


# --- Fetch and StreamFetch -------------------------------------------------


@dataclass(frozen=True, slots=True)
class AbortedTransaction:
    producer_id: I64
    first_offset: I64


@dataclass(frozen=True, slots=True)
class FetchablePartition:
    """The result of a fetch. ``next_filter_offset`` is 0 if no SmartModule ran."""

    partition: U32
    error: ErrorCodeField = NO_ERROR
    high_watermark: I64 = 0
    next_filter_offset: Annotated[I64, since(11)] = 0
    log_start_offset: I64 = 0
    aborted: Annotated[tuple[AbortedTransaction, ...] | None, option(vec(AbortedTransaction))] = (
        None
    )
    records: RecordSet = b""


@dataclass(frozen=True, slots=True)
class FetchPartition:
    partition: U32
    current_leader_epoch: Annotated[I32, since(9)] = -1
    fetch_offset: I64 = 0
    log_start_offset: Annotated[I64, since(5)] = -1
    max_bytes: I32 = 0


@dataclass(frozen=True, slots=True)
class FetchTopic:
    topic: Str
    partitions: Annotated[tuple[FetchPartition, ...], vec(FetchPartition)]


@dataclass(frozen=True, slots=True)
class ForgottenTopic:
    topic: Str
    partitions: Annotated[tuple[int, ...], vec(I32)]


@dataclass(frozen=True, slots=True)
class FetchRequest:
    max_wait_ms: I32 = 0
    min_bytes: I32 = 0
    max_bytes: Annotated[I32, since(3)] = 0
    isolation: Annotated[IsolationField, since(4)] = READ_UNCOMMITTED
    topics: Annotated[tuple[FetchTopic, ...], vec(FetchTopic)] = ()
    forgotten: Annotated[tuple[ForgottenTopic, ...], vec(ForgottenTopic), since(7)] = ()


@dataclass(frozen=True, slots=True)
class FetchedTopic:
    topic: Str
    partitions: Annotated[tuple[FetchablePartition, ...], vec(FetchablePartition)]


@dataclass(frozen=True, slots=True)
class FetchResponse:
    throttle_time_ms: I32 = 0
    error: ErrorCodeField = NO_ERROR
    session_id: I32 = 0
    topics: Annotated[tuple[FetchedTopic, ...], vec(FetchedTopic)] = ()


@dataclass(frozen=True, slots=True)
class DerivedStream:
    stream: Str
    params: Annotated[ExtraParams, struct(ExtraParams)]


@dataclass(frozen=True, slots=True)
class StreamFetchRequest:
    """A request for a stream of records. ``isolation`` is 0 or 1 here, unlike in Produce."""

    topic: Str
    partition: U32
    fetch_offset: I64
    max_bytes: I32
    isolation: IsolationField = READ_UNCOMMITTED
    wasm_module: Annotated[Bytes, since(11, 18)] = b""
    smartmodule: Annotated[
        SmartModuleInvocation | None, option(SmartModuleInvocation), since(16, 18)
    ] = None
    derived_stream: Annotated[DerivedStream | None, option(DerivedStream), since(16, 18)] = None
    smartmodules: Annotated[SmartModules, since(18)] = ()
    consumer_id: Annotated[str | None, option(STRING), since(23)] = None


@dataclass(frozen=True, slots=True)
class StreamFetchResponse:
    topic: Str
    stream_id: U32
    partition: Annotated[FetchablePartition, struct(FetchablePartition)]


@dataclass(frozen=True, slots=True)
class OffsetUpdate:
    """An acknowledgement in a stream. ``offset`` is the next offset the consumer needs."""

    offset: I64
    session_id: U32


@dataclass(frozen=True, slots=True)
class UpdateOffsetsRequest:
    offsets: Annotated[tuple[OffsetUpdate, ...], vec(OffsetUpdate)]


@dataclass(frozen=True, slots=True)
class OffsetUpdateStatus:
    session_id: U32
    error: ErrorCodeField = NO_ERROR


@dataclass(frozen=True, slots=True)
class UpdateOffsetsResponse:
    statuses: Annotated[tuple[OffsetUpdateStatus, ...], vec(OffsetUpdateStatus)]


# --- Offsets of partitions -------------------------------------------------


@dataclass(frozen=True, slots=True)
class PartitionIndex:
    partition: U32


@dataclass(frozen=True, slots=True)
class OffsetsTopic:
    topic: Str
    partitions: Annotated[tuple[PartitionIndex, ...], vec(PartitionIndex)]


@dataclass(frozen=True, slots=True)
class FetchOffsetsRequest:
    topics: Annotated[tuple[OffsetsTopic, ...], vec(OffsetsTopic)]
    consumer_id: Annotated[str | None, option(STRING), since(23, 23)] = None


@dataclass(frozen=True, slots=True)
class PartitionOffsets:
    """The offsets of a partition. Unlike in other responses, the error comes first."""

    error: ErrorCodeField
    partition: U32
    start_offset: I64 = 0
    last_stable_offset: I64 = 0


@dataclass(frozen=True, slots=True)
class FetchedOffsetsTopic:
    topic: Str
    partitions: Annotated[tuple[PartitionOffsets, ...], vec(PartitionOffsets)]


@dataclass(frozen=True, slots=True)
class FetchOffsetsResponse:
    topics: Annotated[tuple[FetchedOffsetsTopic, ...], vec(FetchedOffsetsTopic)]


# --- Offsets of consumers --------------------------------------------------

# A topic name and a partition number. Several messages identify a partition like this.
ReplicaKey = ReplicaPayload


@dataclass(frozen=True, slots=True)
class UpdateConsumerOffsetRequest:
    """A request to store the offset of the last consumed record."""

    offset: I64
    session_id: U32


@dataclass(frozen=True, slots=True)
class UpdateConsumerOffsetResponse:
    offset: I64
    error: ErrorCodeField = NO_ERROR


@dataclass(frozen=True, slots=True)
class DeleteConsumerOffsetRequest:
    replica: Annotated[ReplicaKey, struct(ReplicaKey)]
    consumer_id: Str


@dataclass(frozen=True, slots=True)
class DeleteConsumerOffsetResponse:
    error: ErrorCodeField = NO_ERROR


@dataclass(frozen=True, slots=True)
class ConsumerOffsetsFilter:
    replica: Annotated[ReplicaKey | None, option(ReplicaKey)] = None
    consumer_id: Annotated[str | None, option(STRING)] = None


@dataclass(frozen=True, slots=True)
class FetchConsumerOffsetsRequest:
    filter: Annotated[ConsumerOffsetsFilter | None, option(ConsumerOffsetsFilter), since(24)] = None


@dataclass(frozen=True, slots=True)
class ConsumerOffset:
    consumer_id: Str
    replica: Annotated[ReplicaKey, struct(ReplicaKey)]
    offset: I64
    modified_time_s: U64


@dataclass(frozen=True, slots=True)
class FetchConsumerOffsetsResponse:
    error: ErrorCodeField = NO_ERROR
    consumers: Annotated[tuple[ConsumerOffset, ...], vec(ConsumerOffset)] = ()
