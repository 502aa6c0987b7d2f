"""Wire layouts of the control plane's messages, which change with the version."""

from __future__ import annotations

from typing import Any

from streamkit.errors import RemoteProtocolError
from streamkit.protocol import specs
from streamkit.protocol.control_plane import (
    AddMirror,
    AddPartitions,
    Change,
    CreateRequest,
    DeleteRequest,
    ListRequest,
    ListResponse,
    Metadata,
    SpuId,
    SpuName,
    StatusResponse,
    UnknownObject,
    UpdateRequest,
    WatchRequest,
    WatchResponse,
)
from streamkit.protocol.schema import (
    BOOL,
    I32,
    I64,
    STRING,
    U8,
    U32,
    Reader,
    Wire,
    option,
    read_count,
    struct,
    union,
    vec,
    wire_of,
)
from streamkit.protocol.specs import KINDS, ObjectKind

_I64: Wire[int] = wire_of(I64)
_I32: Wire[int] = wire_of(I32)
_U8: Wire[int] = wire_of(U8)
ENVELOPE_SINCE = 11


_TIMEOUT_SINCE = 7


_FORCE_SINCE = 13


_SUMMARY_SINCE = 10


_SYSTEM_SINCE = 13


_CLASSIC_KINDS = {kind.classic_tag: kind for kind in KINDS.values() if kind.classic_tag is not None}


_TIMEOUT = option[int](U32)


_FILTERS = vec[str](STRING)


_ACTION = union[Any]({0: AddPartitions, 1: AddMirror})


def _read_kind(reader: Reader, version: int) -> ObjectKind:
    """Read the object type and, since version 11, the length of the body."""
    at = reader.at
    kind = _read_any_kind(reader, version)
    if isinstance(kind, str):
        raise RemoteProtocolError(f"unknown object type {kind!r}", at=at)
    return kind


def _read_any_kind(reader: Reader, version: int) -> ObjectKind | str:
    """Like `_read_kind`, but return the name of an unknown type."""
    name = STRING.read(reader, version)
    if version >= ENVELOPE_SINCE:
        length = read_count(reader)
        if length > reader.remaining():
            left = reader.remaining()
            raise RemoteProtocolError(f"{length} bytes announced, {left} left", at=reader.at)
        reader.end = reader.at + length
    return KINDS.get(name, name)


def _read_unknown(reader: Reader, kind: str) -> UnknownObject:
    return UnknownObject(kind, reader.take(reader.remaining()))


def _write_enveloped(
    out: bytearray, kind: ObjectKind | str, body: bytes | bytearray, version: int
) -> None:
    STRING.write(out, kind if isinstance(kind, str) else kind.name, version)
    if version >= ENVELOPE_SINCE:
        out += len(body).to_bytes(4, "big")
    out += body


class _Create:
    def read(self, reader: Reader, version: int) -> CreateRequest | UnknownObject:
        kind = _read_any_kind(reader, version) if version >= ENVELOPE_SINCE else None
        if isinstance(kind, str):
            return _read_unknown(reader, kind)
        name = STRING.read(reader, version)
        dry_run = BOOL.read(reader, version)
        timeout_ms = _TIMEOUT.read(reader, version) if version >= _TIMEOUT_SINCE else None
        if kind is None:
            at = reader.at
            tag = _U8.read(reader, version)
            if tag not in _CLASSIC_KINDS:
                raise RemoteProtocolError(f"unknown create type {tag}", at=at)
            kind = _CLASSIC_KINDS[tag]
        return CreateRequest(kind, name, kind.spec.read(reader, version), dry_run, timeout_ms)

    def write(self, out: bytearray, value: CreateRequest | UnknownObject, version: int) -> None:
        if isinstance(value, UnknownObject):
            assert version >= ENVELOPE_SINCE, "older versions have a number for each type"
            _write_enveloped(out, value.kind, value.body, version)
            return
        body = bytearray()
        STRING.write(body, value.name, version)
        BOOL.write(body, value.dry_run, version)
        if version >= _TIMEOUT_SINCE:
            _TIMEOUT.write(body, value.timeout_ms, version)
        if version < ENVELOPE_SINCE:
            assert value.kind.classic_tag is not None, "old versions cannot create this type"
            body.append(value.kind.classic_tag)
        value.kind.spec.write(body, value.spec, version)
        if version < ENVELOPE_SINCE:
            out += body
        else:
            _write_enveloped(out, value.kind, body, version)


class _Delete:
    def read(self, reader: Reader, version: int) -> DeleteRequest | UnknownObject:
        kind = _read_any_kind(reader, version)
        if isinstance(kind, str):
            return _read_unknown(reader, kind)
        key = self._read_key(reader, version, kind)
        force = BOOL.read(reader, version) if version >= _FORCE_SINCE else False
        return DeleteRequest(kind, key, force)

    def _read_key(self, reader: Reader, version: int, kind: ObjectKind) -> str | SpuName | SpuId:
        at = reader.at
        first = STRING.read(reader, version)
        if kind is not specs.CUSTOM_SPU:
            return first
        if first == "Name":
            return SpuName(STRING.read(reader, version))
        if first == "Id":
            return SpuId(_I32.read(reader, version))
        raise RemoteProtocolError(f"unknown key variant {first!r}", at=at)

    def write(self, out: bytearray, value: DeleteRequest | UnknownObject, version: int) -> None:
        if isinstance(value, UnknownObject):
            _write_enveloped(out, value.kind, value.body, version)
            return
        body = bytearray()
        match value.key:
            case SpuName(name):
                STRING.write(body, "Name", version)
                STRING.write(body, name, version)
            case SpuId(number):
                STRING.write(body, "Id", version)
                _I32.write(body, number, version)
            case str(name):
                STRING.write(body, name, version)
        if version >= _FORCE_SINCE:
            BOOL.write(body, value.force, version)
        _write_enveloped(out, value.kind, body, version)


class _List:
    def read(self, reader: Reader, version: int) -> ListRequest:
        kind = _read_kind(reader, version)
        filters = _FILTERS.read(reader, version)
        summary = BOOL.read(reader, version) if version >= _SUMMARY_SINCE else False
        system = BOOL.read(reader, version) if version >= _SYSTEM_SINCE else False
        return ListRequest(kind, filters, summary, system)

    def write(self, out: bytearray, value: ListRequest, version: int) -> None:
        body = bytearray()
        _FILTERS.write(body, value.filters, version)
        if version >= _SUMMARY_SINCE:
            BOOL.write(body, value.summary, version)
        if version >= _SYSTEM_SINCE:
            BOOL.write(body, value.system, version)
        _write_enveloped(out, value.kind, body, version)


def _read_metadata(reader: Reader, version: int, kind: ObjectKind) -> Metadata:
    return Metadata(
        STRING.read(reader, version),
        kind.spec.read(reader, version),
        kind.status.read(reader, version),
    )


def _write_metadata(out: bytearray, value: Metadata, version: int, kind: ObjectKind) -> None:
    STRING.write(out, value.name, version)
    kind.spec.write(out, value.spec, version)
    kind.status.write(out, value.status, version)


def _checked_count(reader: Reader) -> int:
    at = reader.at
    count = read_count(reader)
    if count > reader.remaining():
        left = reader.remaining()
        raise RemoteProtocolError(f"{count} objects announced, {left} bytes left", at=at)
    return count


class _ListResponse:
    def read(self, reader: Reader, version: int) -> ListResponse:
        kind = _read_kind(reader, version)
        count = _checked_count(reader)
        items = tuple([_read_metadata(reader, version, kind) for _ in range(count)])
        return ListResponse(kind, items)

    def write(self, out: bytearray, value: ListResponse, version: int) -> None:
        body = bytearray(len(value.items).to_bytes(4, "big"))
        for item in value.items:
            _write_metadata(body, item, version, value.kind)
        _write_enveloped(out, value.kind, body, version)


class _Watch:
    def read(self, reader: Reader, version: int) -> WatchRequest:
        kind = _read_kind(reader, version)
        epoch = _I64.read(reader, version)
        summary = BOOL.read(reader, version) if version >= _SUMMARY_SINCE else False
        return WatchRequest(kind, epoch, summary)

    def write(self, out: bytearray, value: WatchRequest, version: int) -> None:
        body = bytearray()
        _I64.write(body, value.epoch, version)
        if version >= _SUMMARY_SINCE:
            BOOL.write(body, value.summary, version)
        _write_enveloped(out, value.kind, body, version)


class _WatchResponse:
    def read(self, reader: Reader, version: int) -> WatchResponse:
        kind = _read_kind(reader, version)
        epoch = _I64.read(reader, version)
        changes = tuple(
            [self._read_change(reader, version, kind) for _ in range(_checked_count(reader))]
        )
        everything = tuple(
            [_read_metadata(reader, version, kind) for _ in range(_checked_count(reader))]
        )
        return WatchResponse(kind, epoch, changes, everything)

    def _read_change(self, reader: Reader, version: int, kind: ObjectKind) -> Change:
        at = reader.at
        tag = _U8.read(reader, version)
        if tag > 1:
            raise RemoteProtocolError(f"unknown change {tag}", at=at)
        return Change(_read_metadata(reader, version, kind), is_delete=tag == 1)

    def write(self, out: bytearray, value: WatchResponse, version: int) -> None:
        body = bytearray()
        _I64.write(body, value.epoch, version)
        body += len(value.changes).to_bytes(4, "big")
        for change in value.changes:
            body.append(1 if change.is_delete else 0)
            _write_metadata(body, change.item, version, value.kind)
        body += len(value.all).to_bytes(4, "big")
        for item in value.all:
            _write_metadata(body, item, version, value.kind)
        _write_enveloped(out, value.kind, body, version)


class _Update:
    """An Update request is always in an envelope, because servers expect it in every version."""

    def read(self, reader: Reader, version: int) -> UpdateRequest | UnknownObject:
        kind = _read_any_kind(reader, max(version, ENVELOPE_SINCE))
        if isinstance(kind, str):
            return _read_unknown(reader, kind)
        key = STRING.read(reader, version)
        return UpdateRequest(kind, key, _ACTION.read(reader, version))

    def write(self, out: bytearray, value: UpdateRequest | UnknownObject, version: int) -> None:
        if isinstance(value, UnknownObject):
            _write_enveloped(out, value.kind, value.body, max(version, ENVELOPE_SINCE))
            return
        body = bytearray()
        STRING.write(body, value.key, version)
        _ACTION.write(body, value.action, version)
        _write_enveloped(out, value.kind, body, max(version, ENVELOPE_SINCE))


CREATE_REQUEST = _Create()


DELETE_REQUEST = _Delete()


LIST_REQUEST = _List()


LIST_RESPONSE = _ListResponse()


WATCH_REQUEST = _Watch()


WATCH_RESPONSE = _WatchResponse()


UPDATE_REQUEST = _Update()


STATUS_RESPONSE = struct(StatusResponse)
