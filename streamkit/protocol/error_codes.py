"""Fluvio's error codes: an i16, for some followed by a payload of their own.

Source: data plane reference, 7; control plane reference, 5.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from streamkit import errors
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


@dataclass(frozen=True, slots=True)
class TextPayload:
    text: Str


@dataclass(frozen=True, slots=True)
class TimeoutPayload:
    timeout_ms: U64
    kind: U8


@dataclass(frozen=True, slots=True)
class EvictedPayload:
    offset: I64
    next_available: I64


@dataclass(frozen=True, slots=True)
class ReplicaPayload:
    topic: Str
    partition: U32


@dataclass(frozen=True, slots=True)
class InvalidModulePayload:
    text: Str
    name: Annotated[str | None, option(STRING)]


@dataclass(frozen=True, slots=True)
class ExportsPayload:
    text: Str
    kind: Str


@dataclass(frozen=True, slots=True)
class TransformErrorPayload:
    """What a SmartModule failed on. ``kind`` 6 is generic here, 7 in requests."""

    hint: Str
    offset: I64
    kind: U8
    record_key: Annotated[bytes | None, OPTIONAL_RECORD_DATA]
    record_value: Annotated[bytes, RECORD_DATA]


# The kinds as errors number them; see `streamkit.protocol.smartmodules` for requests.
MODULE_KINDS = {
    0: "filter",
    1: "map",
    2: "array_map",
    3: "aggregate",
    4: "filter_map",
    5: "join",
    6: "generic",
}


@dataclass(frozen=True, slots=True)
class MemoryPayload:
    requested: U64
    maximum: U64


@dataclass(frozen=True, slots=True)
class SystemPayload:
    kind: Str
    name: Str


@dataclass(frozen=True, slots=True)
class CodeInfo:
    name: str
    text: str
    payload: type[Any] | None = None


_C = CodeInfo
CODES: dict[int, CodeInfo] = {
    -1: _C("UnknownServerError", "An unknown server error occurred"),
    0: _C("None", ""),
    1: _C("OffsetOutOfRange", "Offset out of range"),
    2: _C("Other", "{0.text}", TextPayload),
    6: _C("NotLeaderForPartition", "the given SPU is not the leader for the partition"),
    7: _C("RequestTimedOut", "the request exceeded the timeout {0.timeout_ms} ms", TimeoutPayload),
    10: _C("MessageTooLarge", "the message is too large to send"),
    13: _C("PermissionDenied", "permission denied"),
    56: _C("StorageError", "a storage error occurred"),
    60: _C("InvalidCreateRequest", "invalid create request"),
    61: _C("InvalidDeleteRequest", "invalid delete request"),
    71: _C(
        "OffsetEvicted",
        "Offset {0.offset} is evicted. The next available is {0.next_available}",
        EvictedPayload,
    ),
    72: _C("PartitionFull", "partition storage is full: {0.topic}-{0.partition}", ReplicaPayload),
    73: _C("PartitionShortCircuited", "the partition refuses writes after a failed one"),
    1000: _C("SpuError", "an error occurred on the SPU"),
    1001: _C("SpuRegisterationFailed", "failed to register an SPU"),
    1002: _C("SpuOffline", "the SPU is offline"),
    1003: _C("SpuNotFound", "the SPU was not found"),
    1004: _C("SpuAlreadyExists", "the SPU already exists"),
    2000: _C("TopicError", "a topic error occurred"),
    2001: _C("TopicNotFound", "the topic was not found"),
    2002: _C("TopicAlreadyExists", "the topic already exists"),
    2003: _C("TopicPendingInitialization", "the topic has not been initialized"),
    2004: _C("TopicInvalidConfiguration", "the topic configuration is invalid"),
    2005: _C("TopicNotProvisioned", "the topic is not provisioned"),
    2006: _C("TopicInvalidName", "the topic name is invalid"),
    2007: _C("TopicDeleted", "the topic was deleted"),
    2008: _C("TopicInvalidReplicaType", "the topic has invalid replica type"),
    3000: _C("PartitionPendingInitialization", "the partition is not initialized"),
    3001: _C("PartitionNotLeader", "the partition is not a leader"),
    3002: _C("FetchSessionNotFound", "the fetch session was not found"),
    3003: _C("OffsetFlushRequestError", "offset flush error: {0.text}", TextPayload),
    3004: _C("OffsetManagementDisabled", "the offset management is disabled for the stream"),
    3005: _C("MaxRetryReached", "max retry attempts reached"),
    5000: _C("ManagedConnectorError", "an error occurred while managing a connector"),
    5001: _C("ManagedConnectorNotFound", "Connector not found"),
    5002: _C("ManagedConnectorAlreadyExists", "Connector already exists"),
    6000: _C("SmartModuleError", "an error occurred while managing a SmartModule"),
    6001: _C("SmartModuleNotFound", "SmartModule {0.text} was not found", TextPayload),
    6002: _C("SmartModuleInvalid", "SmartModule is invalid: {0.text}", InvalidModulePayload),
    6003: _C("SmartModuleInvalidExports", "SmartModule exports: {0.text}", ExportsPayload),
    6004: _C("SmartModuleRuntimeError", "SmartModule failed: {0.hint}", TransformErrorPayload),
    6005: _C("SmartModuleChainInitError", "SmartModule chain: {0.text}", TextPayload),
    6006: _C("SmartModuleInitError", "SmartModule init: {0.text}", TextPayload),
    6007: _C("SmartModuleLookBackError", "SmartModule look_back: {0.text}", TextPayload),
    6008: _C(
        "SmartModuleMemoryLimitExceeded",
        "SmartModule wanted {0.requested} bytes of memory, {0.maximum} allowed",
        MemoryPayload,
    ),
    7000: _C("TableFormatError", "a tableformat error occurred"),
    7001: _C("TableFormatNotFound", "TableFormat not found"),
    7002: _C("TableFormatAlreadyExists", "TableFormat already exists"),
    8000: _C("DerivedStreamObjectError", "DerivedStream object error"),
    8001: _C("DerivedStreamNotFound", "the derivedstream was not found", TextPayload),
    8002: _C("DerivedStreamJoinFetchError", "the derivedstream join data cannot be fetched"),
    8003: _C("DerivedStreamInvalid", "the derivedstream {0.text} is invalid", TextPayload),
    9000: _C("CompressionError", "a compression error occurred in the SPU"),
    10000: _C("DeduplicationSmartModuleNotLoaded", "Deduplication SmartModule is not loaded"),
    10001: _C(
        "DeduplicationSmartModuleNameInvalid",
        "Deduplication SmartModule name is invalid: {0.text}",
        TextPayload,
    ),
    11001: _C("MirrorNotFound", "Mirror not found"),
    11002: _C("MirrorAlreadyExists", "the mirror already exists"),
    11003: _C("MirrorProduceFromHome", "produce from home is not allowed"),
    11004: _C("MirrorDeleteFromRemote", "delete from remote is not allowed"),
    11005: _C("MirrorInvalidType", "the mirror is invalid"),
    11006: _C("MirrorProduceFromRemoteNotAllowed", "produce from remote target is not allowed"),
    12001: _C(
        "SystemSpecDeletionAttempt",
        "system {0.kind} '{0.name}' can only be deleted forcibly",
        SystemPayload,
    ),
    12002: _C(
        "SystemSpecUpdatingAttempt",
        "system {0.kind} '{0.name}' can only be updated forcibly",
        SystemPayload,
    ),
}

_PAYLOADS = {code: struct(info.payload) for code, info in CODES.items() if info.payload}

# Where a fresh look at the metadata, or a little patience, may bring another answer.
RETRYABLE_CODES = frozenset({6, 3000, 3001, 2003})


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """A code as it stands in a message."""

    code: int
    payload: Any = None

    @property
    def name(self) -> str:
        return CODES[self.code].name

    @property
    def text(self) -> str:
        """The sentence for people, with the payload's facts in it."""
        return CODES[self.code].text.format(self.payload)

    def __bool__(self) -> bool:
        """Tell whether this is an error at all."""
        return self.code != 0


class _ErrorCodeWire:
    _tag = Fixed("h")

    def read(self, reader: Reader, version: int) -> ErrorCode:
        at = reader.at
        code = self._tag.read(reader, version)
        if code == 0:
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


NO_ERROR = ErrorCode(0)
ERROR_CODE = _ErrorCodeWire()
Code = Annotated[ErrorCode, ERROR_CODE]


def other(text: str) -> ErrorCode:
    """Make the code for what has no code of its own."""
    return ErrorCode(2, TextPayload(text))


def evicted(offset: int, next_available: int) -> ErrorCode:
    return ErrorCode(71, EvictedPayload(offset, next_available))


def partition_full(topic: str, partition: int) -> ErrorCode:
    return ErrorCode(72, ReplicaPayload(topic, partition))


def as_exception(code: ErrorCode, *, about: str = "", message: str = "") -> errors.BrokerError:
    """Turn a code into the error an application catches.

    Args:
        code: Anything but success.
        about: The topic or object the request was about.
        message: The server's own words, where it sent some.
    """
    text = message or code.text
    where = f"{about}: " if about else ""
    match code.code:
        case 2001:
            return errors.TopicNotFound(about or text)
        case 2002:
            return errors.TopicAlreadyExists(about)
        case 2007:
            return errors.TopicDeleted(2007, f"{where}{text}")
        case 71:
            return errors.OffsetEvicted(code.payload.offset, code.payload.next_available)
        case 6 | 3001:
            return errors.NotLeader(code.code, f"{where}{text}", retryable=True)
        case 6001:
            return errors.SmartModuleNotFound(code.payload.text, about=about)
        case 6004:
            return _failed_on_a_record(code.payload, where)
        case 6000 | 6002 | 6003 | 6005 | 6006 | 6007 | 6008:
            return _unusable_module(code.code, where, text)
        case 2 if text.startswith(_CHAIN_FAILED):
            return _unusable_module(2, where, text)
        case 1:
            return errors.OffsetOutOfRange(1, f"{where}{text}")
        case 2 if "is greater than leo" in text:
            return errors.OffsetOutOfRange(2, f"{where}{text}")
        case _:
            retryable = code.code in RETRYABLE_CODES
            return errors.BrokerError(code.code, f"{where}{text}", retryable=retryable)


# How a stock server begins what it has no code for.
_CHAIN_FAILED = ("SmartModule err ", "smartmodule chain failed: ")
_HINTS = {
    6002: "servers take the gzip of a wasm binary; create it again from the file that was built",
    6005: "look at its params, and at what it exports",
    6008: "the chain keeps more than the server allows it",
}
_SHOWN_BYTES_MAX = 200


def _failed_on_a_record(failed: TransformErrorPayload, where: str) -> errors.SmartModuleError:
    kind = MODULE_KINDS.get(failed.kind, str(failed.kind))
    key = "" if failed.record_key is None else f" (key {_shown(failed.record_key)})"
    return errors.SmartModuleError(
        6004,
        f"{where}the SmartModule ({kind}) failed at offset {failed.offset}: {failed.hint}; "
        f"its input was {_shown(failed.record_value)}{key}",
        reason=failed.hint,
        offset=failed.offset,
        key=failed.record_key,
        value=failed.record_value,
    )


def _unusable_module(code: int, where: str, text: str) -> errors.SmartModuleError:
    # What a module says may be several lines.
    reason = "; ".join(filter(None, map(str.strip, text.splitlines())))
    return errors.SmartModuleError(
        code, f"{where}{reason}", reason=reason, hint=_HINTS.get(code, "")
    )


def _shown(data: bytes) -> str:
    text = repr(data[:_SHOWN_BYTES_MAX])[1:]
    return text if len(data) <= _SHOWN_BYTES_MAX else f"{text}... ({len(data):,} bytes)"


__all__ = [
    "CODES",
    "ERROR_CODE",
    "NO_ERROR",
    "RETRYABLE_CODES",
    "Code",
    "ErrorCode",
    "as_exception",
    "evicted",
    "other",
    "partition_full",
]
