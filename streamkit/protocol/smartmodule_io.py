"""The input and output of a SmartModule, as bytes in its memory.

The version is that of the request with the invocation.

Source: docs/protocol/smartmodules.md, "Input", "Output" and "init and look_back".
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from streamkit.errors import RemoteProtocolError
from streamkit.protocol.error_codes import TransformErrorPayload
from streamkit.protocol.schema import (
    I8,
    I64,
    Bytes,
    Reader,
    Str,
    encode,
    option,
    since,
    struct,
    vec,
)
from streamkit.protocol.smartmodules import ExtraParams
from streamkit.protocol.varint import (
    OPTIONAL_RECORD_DATA,
    RECORD_DATA,
    VARINT,
    read_varint,
    write_varint,
)

_PARAMS_UNTIL = 22
_JOIN_SINCE = 16
_TIMESTAMP_SINCE = 22
_ACCUMULATOR_SINCE = 16


class ModuleRecord(msgspec.Struct, frozen=True):
    """One record. The deltas are relative to the base of the input or the batch."""

    attributes: I8
    timestamp_delta_ms: Annotated[int, VARINT]
    offset_delta: Annotated[int, VARINT]
    key: Annotated[bytes | None, OPTIONAL_RECORD_DATA]
    value: Annotated[bytes, RECORD_DATA]
    headers: Annotated[int, VARINT] = 0


class _Record:
    """A length, then the fields, which must have exactly this length."""

    _fields = struct(ModuleRecord)

    def read(self, reader: Reader, version: int) -> ModuleRecord:
        start = reader.skip(read_varint(reader))
        inside = Reader(reader.data, start, reader.at)
        inside.depth = reader.depth
        record = self._fields.read(inside, version)
        if inside.remaining():
            raise RemoteProtocolError("record does not have the announced length", at=inside.at)
        return record

    def write(self, out: bytearray, value: ModuleRecord, version: int) -> None:
        body = encode(self._fields, value, version)
        write_varint(out, len(body))
        out += body


RECORD = _Record()
RECORDS = vec[ModuleRecord](RECORD)


class SmartModuleInput(msgspec.Struct, frozen=True):
    """The input of a call.

    ``records`` is the payload of a batch, not compressed: a count, then the records.
    """

    base_offset: I64
    records: Bytes
    params: Annotated[ExtraParams, struct(ExtraParams), since(0, _PARAMS_UNTIL)] = msgspec.field(
        default_factory=ExtraParams
    )
    join_record: Annotated[Bytes, since(_JOIN_SINCE, _PARAMS_UNTIL)] = b""
    base_timestamp_ms: Annotated[I64, since(_TIMESTAMP_SINCE)] = 0


class AggregateInput(msgspec.Struct, frozen=True):
    """The input of an aggregate, with the accumulator that the previous call returned."""

    input: Annotated[SmartModuleInput, struct(SmartModuleInput)]
    accumulator: Bytes = b""


class SmartModuleOutput(msgspec.Struct, frozen=True):
    """The output records. No record after the one in ``error`` was processed."""

    successes: Annotated[tuple[ModuleRecord, ...], RECORDS]
    error: Annotated[TransformErrorPayload | None, option(TransformErrorPayload)] = None


class AggregateOutput(msgspec.Struct, frozen=True):
    output: Annotated[SmartModuleOutput, struct(SmartModuleOutput)]
    accumulator: Annotated[Bytes, since(_ACCUMULATOR_SINCE)] = b""


class InitOutput(msgspec.Struct, frozen=True):
    """Why ``init`` failed; present only if it returned -2."""

    hint: Str


class LookBackOutput(msgspec.Struct, frozen=True):
    """Why ``look_back`` failed, and on which record; present only if it returned -99."""

    hint: Str
    offset: I64
    record_key: Annotated[bytes | None, OPTIONAL_RECORD_DATA]
    record_value: Annotated[bytes, RECORD_DATA]


SMARTMODULE_INPUT = struct(SmartModuleInput)
AGGREGATE_INPUT = struct(AggregateInput)
SMARTMODULE_OUTPUT = struct(SmartModuleOutput)
AGGREGATE_OUTPUT = struct(AggregateOutput)
INIT_OUTPUT = struct(InitOutput)
LOOK_BACK_OUTPUT = struct(LookBackOutput)
