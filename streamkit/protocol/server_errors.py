"""Conversion of error codes in responses to exceptions."""

from __future__ import annotations

from streamkit import errors
from streamkit.protocol.error_codes import (
    MODULE_KINDS,
    RETRYABLE_CODES,
    Code,
    ErrorCode,
    TransformErrorPayload,
)


def as_exception(code: ErrorCode, *, about: str = "", message: str = "") -> errors.BrokerError:
    """Convert an error code to the exception that an application catches.

    Args:
        code: Any code except success.
        about: The topic or object in the request.
        message: The text that the server sent, if any.
    """
    text = message or code.text
    where = f"{about}: " if about else ""
    match code.code:
        case Code.TOPIC_NOT_FOUND:
            return errors.TopicNotFound(about or text)
        case Code.TOPIC_ALREADY_EXISTS:
            return errors.TopicAlreadyExists(about)
        case Code.TOPIC_DELETED:
            return errors.TopicDeleted(Code.TOPIC_DELETED, f"{where}{text}")
        case Code.OFFSET_EVICTED:
            return errors.OffsetEvicted(code.payload.offset, code.payload.next_available)
        case Code.NOT_LEADER_FOR_PARTITION | Code.PARTITION_NOT_LEADER:
            return errors.NotLeader(code.code, f"{where}{text}", retryable=True)
        case Code.SMARTMODULE_NOT_FOUND:
            return errors.SmartModuleNotFound(code.payload.text, about=about)
        case Code.SMARTMODULE_RUNTIME_ERROR:
            return _failed_on_a_record(code.payload, where)
        case (
            Code.SMARTMODULE_ERROR
            | Code.SMARTMODULE_INVALID
            | Code.SMARTMODULE_INVALID_EXPORTS
            | Code.SMARTMODULE_CHAIN_INIT_ERROR
            | Code.SMARTMODULE_INIT_ERROR
            | Code.SMARTMODULE_LOOKBACK_ERROR
            | Code.SMARTMODULE_MEMORY_LIMIT_EXCEEDED
        ):
            return _unusable_module(code.code, where, text)
        case Code.OTHER if text.startswith(_CHAIN_FAILED):
            return _unusable_module(Code.OTHER, where, text)
        case Code.OFFSET_OUT_OF_RANGE:
            return errors.OffsetOutOfRange(Code.OFFSET_OUT_OF_RANGE, f"{where}{text}")
        case Code.OTHER if "is greater than leo" in text:
            return errors.OffsetOutOfRange(Code.OTHER, f"{where}{text}")
        case _:
            retryable = code.code in RETRYABLE_CODES
            return errors.BrokerError(code.code, f"{where}{text}", retryable=retryable)


# Stock servers have no code for these errors, but their texts begin like this.
_CHAIN_FAILED = ("SmartModule err ", "smartmodule chain failed: ")
_HINTS: dict[int, str] = {
    Code.SMARTMODULE_INVALID: (
        "servers accept a gzip-compressed wasm binary; create the SmartModule again from its file"
    ),
    Code.SMARTMODULE_CHAIN_INIT_ERROR: "check its params and its exports",
    Code.SMARTMODULE_MEMORY_LIMIT_EXCEEDED: "reduce the memory that the SmartModules use",
}
_SHOWN_BYTES_MAX = 200


def _failed_on_a_record(failed: TransformErrorPayload, where: str) -> errors.SmartModuleError:
    kind = MODULE_KINDS.get(failed.kind, str(failed.kind))
    key = "" if failed.record_key is None else f" (key {_shown(failed.record_key)})"
    return errors.SmartModuleError(
        Code.SMARTMODULE_RUNTIME_ERROR,
        f"{where}the SmartModule ({kind}) failed at offset {failed.offset}: {failed.hint}; "
        f"its input was {_shown(failed.record_value)}{key}",
        reason=failed.hint,
        offset=failed.offset,
        key=failed.record_key,
        value=failed.record_value,
    )


def _unusable_module(code: int, where: str, text: str) -> errors.SmartModuleError:
    # The text of a SmartModule can have several lines.
    reason = "; ".join(filter(None, map(str.strip, text.splitlines())))
    return errors.SmartModuleError(
        code, f"{where}{reason}", reason=reason, hint=_HINTS.get(code, "")
    )


def _shown(data: bytes) -> str:
    text = repr(data[:_SHOWN_BYTES_MAX])[1:]
    return text if len(data) <= _SHOWN_BYTES_MAX else f"{text}... ({len(data):,} bytes)"
