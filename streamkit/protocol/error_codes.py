"""Fluvio's error codes: an i16, followed by a payload for some codes.

Source: docs/protocol/error-codes.md.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any

import msgspec

from streamkit.errors import LocalProtocolError, RemoteProtocolError
from streamkit.protocol.schema import (
    I64,
    STRING,
    U8,
    U32,
    U64,
    Fixed,
    Reader,
    Str,
    option,
    struct,
)
from streamkit.protocol.varint import OPTIONAL_RECORD_DATA, RECORD_DATA


class TextPayload(msgspec.Struct, frozen=True):
    text: Str


class TimeoutPayload(msgspec.Struct, frozen=True):
    timeout_ms: U64
    kind: U8


class EvictedPayload(msgspec.Struct, frozen=True):
    offset: I64
    next_available: I64


class ReplicaPayload(msgspec.Struct, frozen=True):
    topic: Str
    partition: U32


class InvalidModulePayload(msgspec.Struct, frozen=True):
    text: Str
    name: Annotated[str | None, option(STRING)]


class ExportsPayload(msgspec.Struct, frozen=True):
    text: Str
    kind: Str


class TransformErrorPayload(msgspec.Struct, frozen=True):
    """The record on which a SmartModule failed. ``kind`` 6 is generic here, 7 in requests."""

    hint: Str
    offset: I64
    kind: U8
    record_key: Annotated[bytes | None, OPTIONAL_RECORD_DATA]
    record_value: Annotated[bytes, RECORD_DATA]


# The numbers of the kinds in errors; `streamkit.protocol.smartmodules` has those of requests.
MODULE_KINDS = {
    0: "filter",
    1: "map",
    2: "array_map",
    3: "aggregate",
    4: "filter_map",
    5: "join",
    6: "generic",
}


class MemoryPayload(msgspec.Struct, frozen=True):
    requested: U64
    maximum: U64


class SystemPayload(msgspec.Struct, frozen=True):
    kind: Str
    name: Str


class Code(IntEnum):
    """Every code that a Fluvio server can send."""

    UNKNOWN_SERVER_ERROR = -1
    SUCCESS = 0
    OFFSET_OUT_OF_RANGE = 1
    OTHER = 2
    NOT_LEADER_FOR_PARTITION = 6
    REQUEST_TIMED_OUT = 7
    MESSAGE_TOO_LARGE = 10
    PERMISSION_DENIED = 13
    STORAGE_ERROR = 56
    INVALID_CREATE_REQUEST = 60
    INVALID_DELETE_REQUEST = 61
    OFFSET_EVICTED = 71
    PARTITION_FULL = 72
    PARTITION_SHORT_CIRCUITED = 73
    SPU_ERROR = 1000
    SPU_REGISTRATION_FAILED = 1001
    SPU_OFFLINE = 1002
    SPU_NOT_FOUND = 1003
    SPU_ALREADY_EXISTS = 1004
    TOPIC_ERROR = 2000
    TOPIC_NOT_FOUND = 2001
    TOPIC_ALREADY_EXISTS = 2002
    TOPIC_PENDING_INITIALIZATION = 2003
    TOPIC_INVALID_CONFIGURATION = 2004
    TOPIC_NOT_PROVISIONED = 2005
    TOPIC_INVALID_NAME = 2006
    TOPIC_DELETED = 2007
    TOPIC_INVALID_REPLICA_TYPE = 2008
    PARTITION_PENDING_INITIALIZATION = 3000
    PARTITION_NOT_LEADER = 3001
    FETCH_SESSION_NOT_FOUND = 3002
    OFFSET_FLUSH_REQUEST_ERROR = 3003
    OFFSET_MANAGEMENT_DISABLED = 3004
    MAX_RETRY_REACHED = 3005
    MANAGED_CONNECTOR_ERROR = 5000
    MANAGED_CONNECTOR_NOT_FOUND = 5001
    MANAGED_CONNECTOR_ALREADY_EXISTS = 5002
    SMARTMODULE_ERROR = 6000
    SMARTMODULE_NOT_FOUND = 6001
    SMARTMODULE_INVALID = 6002
    SMARTMODULE_INVALID_EXPORTS = 6003
    SMARTMODULE_RUNTIME_ERROR = 6004
    SMARTMODULE_CHAIN_INIT_ERROR = 6005
    SMARTMODULE_INIT_ERROR = 6006
    SMARTMODULE_LOOKBACK_ERROR = 6007
    SMARTMODULE_MEMORY_LIMIT_EXCEEDED = 6008
    TABLE_FORMAT_ERROR = 7000
    TABLE_FORMAT_NOT_FOUND = 7001
    TABLE_FORMAT_ALREADY_EXISTS = 7002
    DERIVED_STREAM_OBJECT_ERROR = 8000
    DERIVED_STREAM_NOT_FOUND = 8001
    DERIVED_STREAM_JOIN_FETCH_ERROR = 8002
    DERIVED_STREAM_INVALID = 8003
    COMPRESSION_ERROR = 9000
    DEDUPLICATION_SMARTMODULE_NOT_LOADED = 10000
    DEDUPLICATION_SMARTMODULE_NAME_INVALID = 10001
    MIRROR_NOT_FOUND = 11001
    MIRROR_ALREADY_EXISTS = 11002
    MIRROR_PRODUCE_FROM_HOME = 11003
    MIRROR_DELETE_FROM_REMOTE = 11004
    MIRROR_INVALID_TYPE = 11005
    MIRROR_PRODUCE_FROM_REMOTE_NOT_ALLOWED = 11006
    SYSTEM_SPEC_DELETION_ATTEMPT = 12001
    SYSTEM_SPEC_UPDATING_ATTEMPT = 12002


class CodeInfo(msgspec.Struct, frozen=True):
    name: str
    text: str
    payload: type[Any] | None = None


_C = CodeInfo
CODES: dict[int, CodeInfo] = {
    Code.UNKNOWN_SERVER_ERROR: _C("UnknownServerError", "An unknown server error occurred"),
    Code.SUCCESS: _C("None", ""),
    Code.OFFSET_OUT_OF_RANGE: _C("OffsetOutOfRange", "Offset out of range"),
    Code.OTHER: _C("Other", "{0.text}", TextPayload),
    Code.NOT_LEADER_FOR_PARTITION: _C(
        "NotLeaderForPartition", "the given SPU is not the leader for the partition"
    ),
    Code.REQUEST_TIMED_OUT: _C(
        "RequestTimedOut", "the request exceeded the timeout {0.timeout_ms} ms", TimeoutPayload
    ),
    Code.MESSAGE_TOO_LARGE: _C("MessageTooLarge", "the message is too large to send"),
    Code.PERMISSION_DENIED: _C("PermissionDenied", "permission denied"),
    Code.STORAGE_ERROR: _C("StorageError", "a storage error occurred"),
    Code.INVALID_CREATE_REQUEST: _C("InvalidCreateRequest", "invalid create request"),
    Code.INVALID_DELETE_REQUEST: _C("InvalidDeleteRequest", "invalid delete request"),
    Code.OFFSET_EVICTED: _C(
        "OffsetEvicted",
        "Offset {0.offset} is evicted. The next available is {0.next_available}",
        EvictedPayload,
    ),
    Code.PARTITION_FULL: _C(
        "PartitionFull", "partition storage is full: {0.topic}-{0.partition}", ReplicaPayload
    ),
    Code.PARTITION_SHORT_CIRCUITED: _C(
        "PartitionShortCircuited", "the partition refuses writes after a failed write"
    ),
    Code.SPU_ERROR: _C("SpuError", "an error occurred on the SPU"),
    Code.SPU_REGISTRATION_FAILED: _C("SpuRegisterationFailed", "failed to register an SPU"),
    Code.SPU_OFFLINE: _C("SpuOffline", "the SPU is offline"),
    Code.SPU_NOT_FOUND: _C("SpuNotFound", "the SPU was not found"),
    Code.SPU_ALREADY_EXISTS: _C("SpuAlreadyExists", "the SPU already exists"),
    Code.TOPIC_ERROR: _C("TopicError", "a topic error occurred"),
    Code.TOPIC_NOT_FOUND: _C("TopicNotFound", "the topic was not found"),
    Code.TOPIC_ALREADY_EXISTS: _C("TopicAlreadyExists", "the topic already exists"),
    Code.TOPIC_PENDING_INITIALIZATION: _C(
        "TopicPendingInitialization", "the topic has not been initialized"
    ),
    Code.TOPIC_INVALID_CONFIGURATION: _C(
        "TopicInvalidConfiguration", "the topic configuration is invalid"
    ),
    Code.TOPIC_NOT_PROVISIONED: _C("TopicNotProvisioned", "the topic is not provisioned"),
    Code.TOPIC_INVALID_NAME: _C("TopicInvalidName", "the topic name is invalid"),
    Code.TOPIC_DELETED: _C("TopicDeleted", "the topic was deleted"),
    Code.TOPIC_INVALID_REPLICA_TYPE: _C(
        "TopicInvalidReplicaType", "the topic has invalid replica type"
    ),
    Code.PARTITION_PENDING_INITIALIZATION: _C(
        "PartitionPendingInitialization", "the partition is not initialized"
    ),
    Code.PARTITION_NOT_LEADER: _C("PartitionNotLeader", "the partition is not a leader"),
    Code.FETCH_SESSION_NOT_FOUND: _C("FetchSessionNotFound", "the fetch session was not found"),
    Code.OFFSET_FLUSH_REQUEST_ERROR: _C(
        "OffsetFlushRequestError", "offset flush error: {0.text}", TextPayload
    ),
    Code.OFFSET_MANAGEMENT_DISABLED: _C(
        "OffsetManagementDisabled", "the offset management is disabled for the stream"
    ),
    Code.MAX_RETRY_REACHED: _C("MaxRetryReached", "max retry attempts reached"),
    Code.MANAGED_CONNECTOR_ERROR: _C(
        "ManagedConnectorError", "an error occurred while managing a connector"
    ),
    Code.MANAGED_CONNECTOR_NOT_FOUND: _C("ManagedConnectorNotFound", "Connector not found"),
    Code.MANAGED_CONNECTOR_ALREADY_EXISTS: _C(
        "ManagedConnectorAlreadyExists", "Connector already exists"
    ),
    Code.SMARTMODULE_ERROR: _C(
        "SmartModuleError", "an error occurred while managing a SmartModule"
    ),
    Code.SMARTMODULE_NOT_FOUND: _C(
        "SmartModuleNotFound", "SmartModule {0.text} was not found", TextPayload
    ),
    Code.SMARTMODULE_INVALID: _C(
        "SmartModuleInvalid", "SmartModule is invalid: {0.text}", InvalidModulePayload
    ),
    Code.SMARTMODULE_INVALID_EXPORTS: _C(
        "SmartModuleInvalidExports", "SmartModule exports: {0.text}", ExportsPayload
    ),
    Code.SMARTMODULE_RUNTIME_ERROR: _C(
        "SmartModuleRuntimeError", "SmartModule failed: {0.hint}", TransformErrorPayload
    ),
    Code.SMARTMODULE_CHAIN_INIT_ERROR: _C(
        "SmartModuleChainInitError", "SmartModule chain: {0.text}", TextPayload
    ),
    Code.SMARTMODULE_INIT_ERROR: _C(
        "SmartModuleInitError", "SmartModule init: {0.text}", TextPayload
    ),
    Code.SMARTMODULE_LOOKBACK_ERROR: _C(
        "SmartModuleLookBackError", "SmartModule look_back: {0.text}", TextPayload
    ),
    Code.SMARTMODULE_MEMORY_LIMIT_EXCEEDED: _C(
        "SmartModuleMemoryLimitExceeded",
        "SmartModule requested {0.requested} bytes of memory, {0.maximum} allowed",
        MemoryPayload,
    ),
    Code.TABLE_FORMAT_ERROR: _C("TableFormatError", "a tableformat error occurred"),
    Code.TABLE_FORMAT_NOT_FOUND: _C("TableFormatNotFound", "TableFormat not found"),
    Code.TABLE_FORMAT_ALREADY_EXISTS: _C("TableFormatAlreadyExists", "TableFormat already exists"),
    Code.DERIVED_STREAM_OBJECT_ERROR: _C("DerivedStreamObjectError", "DerivedStream object error"),
    Code.DERIVED_STREAM_NOT_FOUND: _C(
        "DerivedStreamNotFound", "the derivedstream was not found", TextPayload
    ),
    Code.DERIVED_STREAM_JOIN_FETCH_ERROR: _C(
        "DerivedStreamJoinFetchError", "the derivedstream join data cannot be fetched"
    ),
    Code.DERIVED_STREAM_INVALID: _C(
        "DerivedStreamInvalid", "the derivedstream {0.text} is invalid", TextPayload
    ),
    Code.COMPRESSION_ERROR: _C("CompressionError", "a compression error occurred in the SPU"),
    Code.DEDUPLICATION_SMARTMODULE_NOT_LOADED: _C(
        "DeduplicationSmartModuleNotLoaded", "Deduplication SmartModule is not loaded"
    ),
    Code.DEDUPLICATION_SMARTMODULE_NAME_INVALID: _C(
        "DeduplicationSmartModuleNameInvalid",
        "Deduplication SmartModule name is invalid: {0.text}",
        TextPayload,
    ),
    Code.MIRROR_NOT_FOUND: _C("MirrorNotFound", "Mirror not found"),
    Code.MIRROR_ALREADY_EXISTS: _C("MirrorAlreadyExists", "the mirror already exists"),
    Code.MIRROR_PRODUCE_FROM_HOME: _C("MirrorProduceFromHome", "produce from home is not allowed"),
    Code.MIRROR_DELETE_FROM_REMOTE: _C(
        "MirrorDeleteFromRemote", "delete from remote is not allowed"
    ),
    Code.MIRROR_INVALID_TYPE: _C("MirrorInvalidType", "the mirror is invalid"),
    Code.MIRROR_PRODUCE_FROM_REMOTE_NOT_ALLOWED: _C(
        "MirrorProduceFromRemoteNotAllowed", "produce from remote target is not allowed"
    ),
    Code.SYSTEM_SPEC_DELETION_ATTEMPT: _C(
        "SystemSpecDeletionAttempt",
        "system {0.kind} '{0.name}' can only be deleted forcibly",
        SystemPayload,
    ),
    Code.SYSTEM_SPEC_UPDATING_ATTEMPT: _C(
        "SystemSpecUpdatingAttempt",
        "system {0.kind} '{0.name}' can only be updated forcibly",
        SystemPayload,
    ),
}

_PAYLOADS = {code: struct(info.payload) for code, info in CODES.items() if info.payload}

# Errors that can disappear after a metadata refresh or a short wait.
RETRYABLE_CODES = frozenset(
    {
        Code.NOT_LEADER_FOR_PARTITION,
        Code.PARTITION_PENDING_INITIALIZATION,
        Code.PARTITION_NOT_LEADER,
        Code.TOPIC_PENDING_INITIALIZATION,
    }
)


class ErrorCode(msgspec.Struct, frozen=True):
    """An error code in a message, with its payload."""

    code: int
    payload: Any = None

    @property
    def name(self) -> str:
        return CODES[self.code].name

    @property
    def text(self) -> str:
        """The error text, with the values of the payload."""
        return CODES[self.code].text.format(self.payload)

    def __bool__(self) -> bool:
        """Return whether this is an error, not success."""
        return self.code != Code.SUCCESS


class _ErrorCodeWire:
    _tag = Fixed("h")

    def read(self, reader: Reader, version: int) -> ErrorCode:
        at = reader.at
        code = self._tag.read(reader, version)
        if code == Code.SUCCESS:
            return NO_ERROR
        if code not in CODES:
            raise RemoteProtocolError(f"unknown error code {code}", at=at)
        payload = _PAYLOADS[code].read(reader, version) if code in _PAYLOADS else None
        return ErrorCode(code, payload)

    def write(self, out: bytearray, value: ErrorCode, version: int) -> None:
        if value.code not in CODES:
            raise LocalProtocolError(f"unknown error code {value.code}")
        self._tag.write(out, value.code, version)
        if value.code in _PAYLOADS:
            _PAYLOADS[value.code].write(out, value.payload, version)


NO_ERROR = ErrorCode(Code.SUCCESS)
ERROR_CODE = _ErrorCodeWire()
ErrorCodeField = Annotated[ErrorCode, ERROR_CODE]


def other(text: str) -> ErrorCode:
    """Return the error for a problem without its own code."""
    return ErrorCode(Code.OTHER, TextPayload(text))


def evicted(offset: int, next_available: int) -> ErrorCode:
    return ErrorCode(Code.OFFSET_EVICTED, EvictedPayload(offset, next_available))


def partition_full(topic: str, partition: int) -> ErrorCode:
    return ErrorCode(Code.PARTITION_FULL, ReplicaPayload(topic, partition))


__all__ = [
    "CODES",
    "ERROR_CODE",
    "NO_ERROR",
    "RETRYABLE_CODES",
    "Code",
    "ErrorCode",
    "ErrorCodeField",
    "evicted",
    "other",
    "partition_full",
]
