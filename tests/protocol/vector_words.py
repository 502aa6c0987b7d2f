"""Converts decoded messages to the field names of the vectors, to compare them."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, get_type_hints

import msgspec

from streamkit.protocol import consumer_offset_log as offsets
from streamkit.protocol import control_layouts, error_codes, smartmodule_io, specs, topic_specs
from streamkit.protocol import control_plane as sc
from streamkit.protocol import data_plane as spu
from streamkit.protocol import smartmodules as modules
from streamkit.protocol.batch import (
    HEADER_BYTES,
    BatchHeader,
    plain_records,
    whole_batches,
)
from streamkit.protocol.error_codes import ErrorCode
from streamkit.protocol.record_set import RECORD_SET
from streamkit.protocol.schema import Reader, decode, encode, since
from streamkit.protocol.smartmodule_io import RECORD, RECORDS, ModuleRecord
from streamkit.protocol.varint import read_varint

# Fields with another name in the vectors. WORDS_OF has priority over WORDS.
WORDS: Final[dict[str, str]] = {
    "error": "error_code",
    "modified_time_s": "modified_time",
    "timestamp_delta_ms": "timestamp_delta",
    "base_timestamp_ms": "base_timestamp",
    "compression": "compression_type",
    "ignore_rack": "ignore_rack_assignment",
    "segment_size_bytes": "segment_size",
    "max_partition_size_bytes": "max_partition_size",
    "live_followers": "lrs",
    "size_bytes": "size",
    "wasm_length_bytes": "wasm_length",
    "replica": "replica_id",
    "filter": "filter_opts",
    "seconds": "secs",
    "nanoseconds": "nanos",
    "derived_stream": "derivedstream",
}
WORDS_OF: Final[dict[type[Any], dict[str, str]]] = {
    spu.TopicProduceData: {"topic": "name"},
    spu.TopicProduceResponse: {"topic": "name"},
    spu.PartitionProduceData: {"partition": "partition_index"},
    spu.PartitionProduceResponse: {"partition": "partition_index"},
    spu.ProduceResponse: {"topics": "responses"},
    spu.FetchRequest: {"max_wait_ms": "max_wait", "isolation": "isolation_level"},
    spu.FetchTopic: {"topic": "name", "partitions": "fetch_partitions"},
    spu.FetchPartition: {"partition": "partition_index"},
    spu.FetchedTopic: {"topic": "name"},
    spu.FetchablePartition: {"partition": "partition_index"},
    spu.OffsetsTopic: {"topic": "name"},
    spu.PartitionIndex: {"partition": "partition_index"},
    spu.FetchedOffsetsTopic: {"topic": "name"},
    spu.PartitionOffsets: {"partition": "partition_index"},
    spu.UpdateOffsetsResponse: {"statuses": "status"},
    spu.OffsetUpdateStatus: {"error": "error"},
    smartmodule_io.SmartModuleInput: {"records": "raw_bytes"},
    smartmodule_io.SmartModuleOutput: {"error": "error"},
    modules.AdHoc: {"module": "bytes"},
    error_codes.InvalidModulePayload: {"text": "error"},
    specs.ReplicaStatus: {"high_watermark": "hw", "log_end": "leo"},
    topic_specs.Deduplication: {"params": "with"},
}
# A variant's tag, and its name in the vectors.
VARIANTS: Final[dict[type[Any], tuple[int, str]]] = {
    modules.Predefined: (0, "Predefined"),
    modules.AdHoc: (1, "AdHoc"),
    modules.Filter: (0, "Filter"),
    modules.Map: (1, "Map"),
    topic_specs.AssignedReplicas: (0, "Assigned"),
    topic_specs.ComputedReplicas: (1, "Computed"),
    topic_specs.MirrorReplicas: (2, "Mirror"),
    topic_specs.RemoteMirror: (0, "Remote"),
    topic_specs.HomeMirror: (1, "Home"),
    topic_specs.SegmentPolicy: (0, "Segment"),
    sc.AddPartitions: (0, "AddPartition"),
    sc.AddMirror: (1, "AddMirror"),
    offsets.Updated: (0, "updated"),
    offsets.Deleted: (1, "deleted"),
    offsets.Checkpoint: (2, "checkpoint"),
}
# Error codes whose payload has one text, with another name in the vectors.
TEXT_WORDS: Final = {6001: "name"}
ENVELOPED: Final = (
    sc.CreateRequest,
    sc.DeleteRequest,
    sc.ListRequest,
    sc.ListResponse,
    sc.WatchRequest,
    sc.WatchResponse,
    sc.UpdateRequest,
)
HEADER_WORDS: Final = {
    "leader_epoch": "partition_leader_epoch",
    "first_timestamp_ms": "first_timestamp",
    "max_timestamp_ms": "max_time_stamp",
}


def in_words(value: Any, version: int) -> Any:
    """Convert a decoded value to the form of the vectors."""
    if isinstance(value, ENVELOPED):
        return enveloped(value, version)
    if isinstance(value, msgspec.Struct):
        return fields_in_words(value, version)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, IntEnum):
        return int(value)
    if isinstance(value, tuple | list):
        return [in_words(element, version) for element in value]
    if isinstance(value, dict):
        pairs = [(key, in_words(element, version)) for key, element in value.items()]
        has_text_keys = all(isinstance(key, str) for key in value)
        has_numbers = bool(value) and not has_text_keys
        return [list(pair) for pair in pairs] if has_numbers else dict(pairs)
    return value


def fields_in_words(value: Any, version: int) -> dict[str, Any]:
    cls = type(value)
    result: dict[str, Any] = {}
    if cls in VARIANTS:
        result["tag"], result["variant"] = VARIANTS[cls]
    hints = get_type_hints(cls, include_extras=True)
    for name in cls.__struct_fields__:
        marks = getattr(hints[name], "__metadata__", ())
        if not all(mark.holds(version) for mark in marks if isinstance(mark, since)):
            continue
        word = WORDS_OF.get(cls, {}).get(name) or WORDS.get(name, name)
        element = getattr(value, name)
        if isinstance(element, ErrorCode):
            result.update(error_in_words(element, version, word))
        elif any(mark is RECORD_SET for mark in marks):
            result[word] = record_set_in_words(element)
        elif isinstance(value, smartmodule_io.SmartModuleInput) and name == "records":
            records = decode(RECORDS, element, 0)
            result[word] = {"length": len(element), "records": in_words(records, 0)}
        elif isinstance(element, dict) and not element:
            result[word] = empty_map_in_words(name)
        else:
            result[word] = in_words(element, version)
    return {"length": record_length(value), **result} if cls is ModuleRecord else result


def empty_map_in_words(name: str) -> dict[str, Any] | list[Any]:
    return [] if name in ("replica_map", "mirror_map") else {}


def record_length(record: ModuleRecord) -> int:
    return read_varint(Reader(encode(RECORD, record, 0)))


def error_in_words(code: ErrorCode, version: int, word: str = "error_code") -> dict[str, Any]:
    result: dict[str, Any] = {word: code.code}
    if code.payload is not None:
        payload = fields_in_words(code.payload, version)
        if code.code in TEXT_WORDS:
            payload = {TEXT_WORDS[code.code]: payload["text"]}
        result["error_payload"] = payload
    return result


def record_set_in_words(data: bytes) -> dict[str, Any]:
    batches = [batch_in_words(data, at, header) for header, at in whole_batches(data)]
    return {"length": len(data), "batches": batches}


def batch_in_words(data: bytes, at: int, header: BatchHeader) -> dict[str, Any]:
    result = {
        HEADER_WORDS.get(name, name): number
        for name, number in msgspec.structs.asdict(header).items()
    }
    if header.records_at > HEADER_BYTES:
        id_at = at + HEADER_BYTES
        result["schema_id"] = int.from_bytes(data[id_at : at + header.records_at], "big")
    plain, start, end = plain_records(data, at, header)
    result["records"] = in_words(decode(RECORDS, plain[start:end], 0), 0)
    return result


def enveloped(value: Any, version: int) -> dict[str, Any]:
    kind = value.kind
    result = object_body(value, version)
    if isinstance(value, sc.CreateRequest) and version < control_layouts.ENVELOPE_SINCE:
        return result
    envelope = {"type": kind.name, "body": result}
    if version >= control_layouts.ENVELOPE_SINCE:
        envelope["body_length"] = len(wire_bytes(value, version)) - len(kind.name) - 6
    return envelope


def wire_bytes(value: Any, version: int) -> bytes:
    wires: dict[type[Any], Any] = {
        sc.CreateRequest: control_layouts.CREATE_REQUEST,
        sc.DeleteRequest: control_layouts.DELETE_REQUEST,
        sc.ListRequest: control_layouts.LIST_REQUEST,
        sc.ListResponse: control_layouts.LIST_RESPONSE,
        sc.WatchRequest: control_layouts.WATCH_REQUEST,
        sc.WatchResponse: control_layouts.WATCH_RESPONSE,
        sc.UpdateRequest: control_layouts.UPDATE_REQUEST,
    }
    return encode(wires[type(value)], value, version)


def object_body(value: Any, version: int) -> dict[str, Any]:
    match value:
        case sc.CreateRequest(kind, name, spec, dry_run, timeout_ms):
            result = {"name": name, "dry_run": dry_run, "timeout": timeout_ms}
            if version < control_layouts.ENVELOPE_SINCE:
                result["create_type"] = kind.classic_tag
            return result | {"spec": in_words(spec, version)}
        case sc.DeleteRequest(_, key, force):
            return {"key": key_in_words(key)} | ({"force": force} if version >= 13 else {})
        case sc.ListRequest(_, filters, summary, system):
            names = [{"name": name} for name in filters]
            return {"filters": names, "summary": summary, "system": system}
        case sc.ListResponse(_, items):
            return {"items": in_words(items, version)}
        case sc.WatchRequest(_, epoch, summary):
            return {"epoch": epoch, "summary": summary}
        case sc.WatchResponse(_, epoch, changes, everything):
            return {
                "epoch": epoch,
                "changes": [
                    {"kind": int(change.is_delete), **in_words(change.item, version)}
                    for change in changes
                ],
                "all": in_words(everything, version),
            }
        case sc.UpdateRequest(_, key, action):
            return {"key": key, "action": in_words(action, version)}
    raise AssertionError(f"no conversion for {value!r}")


def key_in_words(key: str | sc.SpuName | sc.SpuId) -> Any:
    match key:
        case sc.SpuName(name):
            return {"variant": "Name", "value": name}
        case sc.SpuId(number):
            return {"variant": "Id", "value": number}
        case _:
            return key
