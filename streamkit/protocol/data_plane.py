"""Produce, Fetch and StreamFetch, and the offsets of partitions and of consumers.

Source: docs/protocol/produce-and-fetch.md.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

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


class PartitionProduceData(msgspec.Struct, frozen=True):
    partition: U32
    records: RecordSet


class TopicProduceData(msgspec.Struct, frozen=True):
    topic: Str
    partitions: Annotated[tuple[PartitionProduceData, ...], vec(PartitionProduceData)]


class ProduceRequest(msgspec.Struct, frozen=True):
    """A request to store batches. ``acks`` -1 waits for every replica, for up to ``timeout_ms``."""

    transactional_id: Annotated[str | None, option(STRING)] = None
    acks: I16 = ACKS_LEADER
    timeout_ms: Timeout = 1_500
    topics: Annotated[tuple[TopicProduceData, ...], vec(TopicProduceData)] = ()
    smartmodules: SmartModules = ()


class PartitionProduceResponse(msgspec.Struct, frozen=True):
    partition: U32
    error: ErrorCodeField = NO_ERROR
    base_offset: I64 = 0
    log_append_time_ms: Annotated[I64, since(2)] = 0
    log_start_offset: Annotated[I64, since(5)] = 0


class TopicProduceResponse(msgspec.Struct, frozen=True):
    topic: Str
    partitions: Annotated[tuple[PartitionProduceResponse, ...], vec(PartitionProduceResponse)]


class ProduceResponse(msgspec.Struct, frozen=True):
    topics: Annotated[tuple[TopicProduceResponse, ...], vec(TopicProduceResponse)]
    throttle_time_ms: Annotated[I32, since(1)] = 0


# --- Fetch and StreamFetch -------------------------------------------------


class AbortedTransaction(msgspec.Struct, frozen=True):
    producer_id: I64
    first_offset: I64


class FetchablePartition(msgspec.Struct, frozen=True):
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


class FetchPartition(msgspec.Struct, frozen=True):
    partition: U32
    current_leader_epoch: Annotated[I32, since(9)] = -1
    fetch_offset: I64 = 0
    log_start_offset: Annotated[I64, since(5)] = -1
    max_bytes: I32 = 0


class FetchTopic(msgspec.Struct, frozen=True):
    topic: Str
    partitions: Annotated[tuple[FetchPartition, ...], vec(FetchPartition)]


class ForgottenTopic(msgspec.Struct, frozen=True):
    topic: Str
    partitions: Annotated[tuple[int, ...], vec(I32)]


class FetchRequest(msgspec.Struct, frozen=True):
    max_wait_ms: I32 = 0
    min_bytes: I32 = 0
    max_bytes: Annotated[I32, since(3)] = 0
    isolation: Annotated[IsolationField, since(4)] = READ_UNCOMMITTED
    topics: Annotated[tuple[FetchTopic, ...], vec(FetchTopic)] = ()
    forgotten: Annotated[tuple[ForgottenTopic, ...], vec(ForgottenTopic), since(7)] = ()


class FetchedTopic(msgspec.Struct, frozen=True):
    topic: Str
    partitions: Annotated[tuple[FetchablePartition, ...], vec(FetchablePartition)]


class FetchResponse(msgspec.Struct, frozen=True):
    throttle_time_ms: I32 = 0
    error: ErrorCodeField = NO_ERROR
    session_id: I32 = 0
    topics: Annotated[tuple[FetchedTopic, ...], vec(FetchedTopic)] = ()


class DerivedStream(msgspec.Struct, frozen=True):
    stream: Str
    params: Annotated[ExtraParams, struct(ExtraParams)]


class StreamFetchRequest(msgspec.Struct, frozen=True):
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


class StreamFetchResponse(msgspec.Struct, frozen=True):
    topic: Str
    stream_id: U32
    partition: Annotated[FetchablePartition, struct(FetchablePartition)]


class OffsetUpdate(msgspec.Struct, frozen=True):
    """An acknowledgement in a stream. ``offset`` is the next offset the consumer needs."""

    offset: I64
    session_id: U32


class UpdateOffsetsRequest(msgspec.Struct, frozen=True):
    offsets: Annotated[tuple[OffsetUpdate, ...], vec(OffsetUpdate)]


class OffsetUpdateStatus(msgspec.Struct, frozen=True):
    session_id: U32
    error: ErrorCodeField = NO_ERROR


class UpdateOffsetsResponse(msgspec.Struct, frozen=True):
    statuses: Annotated[tuple[OffsetUpdateStatus, ...], vec(OffsetUpdateStatus)]


# --- Offsets of partitions -------------------------------------------------


class PartitionIndex(msgspec.Struct, frozen=True):
    partition: U32


class OffsetsTopic(msgspec.Struct, frozen=True):
    topic: Str
    partitions: Annotated[tuple[PartitionIndex, ...], vec(PartitionIndex)]


class FetchOffsetsRequest(msgspec.Struct, frozen=True):
    topics: Annotated[tuple[OffsetsTopic, ...], vec(OffsetsTopic)]
    consumer_id: Annotated[str | None, option(STRING), since(23, 23)] = None


class PartitionOffsets(msgspec.Struct, frozen=True):
    """The offsets of a partition. Unlike in other responses, the error comes first."""

    error: ErrorCodeField
    partition: U32
    start_offset: I64 = 0
    last_stable_offset: I64 = 0


class FetchedOffsetsTopic(msgspec.Struct, frozen=True):
    topic: Str
    partitions: Annotated[tuple[PartitionOffsets, ...], vec(PartitionOffsets)]


class FetchOffsetsResponse(msgspec.Struct, frozen=True):
    topics: Annotated[tuple[FetchedOffsetsTopic, ...], vec(FetchedOffsetsTopic)]


# --- Offsets of consumers --------------------------------------------------

# A topic name and a partition number. Several messages identify a partition like this.
ReplicaKey = ReplicaPayload


class UpdateConsumerOffsetRequest(msgspec.Struct, frozen=True):
    """A request to store the offset of the last consumed record."""

    offset: I64
    session_id: U32


class UpdateConsumerOffsetResponse(msgspec.Struct, frozen=True):
    offset: I64
    error: ErrorCodeField = NO_ERROR


class DeleteConsumerOffsetRequest(msgspec.Struct, frozen=True):
    replica: Annotated[ReplicaKey, struct(ReplicaKey)]
    consumer_id: Str


class DeleteConsumerOffsetResponse(msgspec.Struct, frozen=True):
    error: ErrorCodeField = NO_ERROR


class ConsumerOffsetsFilter(msgspec.Struct, frozen=True):
    replica: Annotated[ReplicaKey | None, option(ReplicaKey)] = None
    consumer_id: Annotated[str | None, option(STRING)] = None


class FetchConsumerOffsetsRequest(msgspec.Struct, frozen=True):
    filter: Annotated[ConsumerOffsetsFilter | None, option(ConsumerOffsetsFilter), since(24)] = None


class ConsumerOffset(msgspec.Struct, frozen=True):
    consumer_id: Str
    replica: Annotated[ReplicaKey, struct(ReplicaKey)]
    offset: I64
    modified_time_s: U64


class FetchConsumerOffsetsResponse(msgspec.Struct, frozen=True):
    error: ErrorCodeField = NO_ERROR
    consumers: Annotated[tuple[ConsumerOffset, ...], vec(ConsumerOffset)] = ()
