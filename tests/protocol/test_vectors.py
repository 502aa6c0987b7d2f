"""Every vector: read, compared field by field, written again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from streamkit.protocol import codec
from streamkit.protocol.batch import (
    Stamp,
    assemble_batch,
    check_crc,
    decode_batch,
    read_batch_header,
    with_base_offset,
)
from streamkit.protocol.compression import Codec, compress, decompress
from streamkit.protocol.connection import ServerConnection, encode_response
from streamkit.protocol.consumer_offset_log import ENTRY
from streamkit.protocol.data_plane import OffsetUpdate
from streamkit.protocol.error_codes import ERROR_CODE
from streamkit.protocol.frames import FrameDecoder, frame
from streamkit.protocol.record_set import RECORD_SET
from streamkit.protocol.schema import (
    BOOL,
    BYTES,
    I8,
    I16,
    I32,
    I64,
    STRING,
    U16,
    U64,
    Reader,
    Wire,
    decode,
    encode,
    mapping,
    option,
    struct,
    union,
    vec,
    wire_of,
)
from streamkit.protocol.smartmodule_io import (
    INIT_OUTPUT,
    RECORD,
    RECORDS,
    SMARTMODULE_INPUT,
    SMARTMODULE_OUTPUT,
)
from streamkit.protocol.smartmodules import Duration, ExtraParams, NoFields
from streamkit.protocol.varint import OPTIONAL_RECORD_DATA, RECORD_DATA, VARINT
from tests.protocol.recorded import APIS, Vector, body_at, read_json, vectors
from tests.protocol.vector_words import (
    batch_in_words,
    error_in_words,
    in_words,
    record_set_in_words,
)

ALL: Final = vectors("data_plane.json", "control_plane.json", "varints.json")
SIPHASH: Final = read_json("siphash.json")

# Parts that cannot be decoded alone, so they have their own tests; `why` in the file explains it.
PARTIAL: Final = {
    "request-header-consumer-1": "a header without a body; completed here by an empty one",
    "record-key-very-old-client": "one byte of a record",
    "produce-acks-read-committed": "one field of a Produce request",
    "produce-timeout-7000": "one field of a Produce request",
    "batch-attributes-gzip": "one field of a batch",
}
# Complete values for which the product has no layout.
NO_WIRE: Final = {
    "f32-103": "no message has a float",
    "f64-123": "no message has a float",
}
# Decoded, but not encoded again.
READ_ONLY: Final = {
    "batch-schema-id-42": "a stock SPU closes the connection for a batch with a schema id",
    "varint-miscoded-2147483648": "shows a defect of the upstream encoder",
    "varint-miscoded-1099511627776": "shows a defect of the upstream encoder",
}


class One(NoFields, frozen=True):
    """The variant with tag 1 of an enum without fields."""


PRIMITIVES: Final[dict[str, Wire[Any]]] = {
    "bool": BOOL,
    "i8": wire_of(I8),
    "i16": wire_of(I16),
    "i32": wire_of(I32),
    "i64": wire_of(I64),
    "u64": wire_of(U64),
    "Duration": struct(Duration),
    "String": STRING,
    "Option[String]": option(STRING),
    "Option[u16]": option(U16),
    "Vec[String]": vec(STRING),
    "Vec[u8]": BYTES,
    "BTreeMap[String,String]": mapping(STRING, STRING),
    "BTreeMap[i32,Vec[i32]]": mapping(I32, vec(I32)),
    "Vec[{offset i64, id u32}]": vec(OffsetUpdate),
    "enum u8": union({1: One}),
    "RecordData": RECORD_DATA,
    "Option[RecordData]": OPTIONAL_RECORD_DATA,
    "RecordSet": RECORD_SET,
}
IN_WORDS: Final[dict[str, Callable[[Any], Any]]] = {
    "RecordSet": record_set_in_words,
    "Vec[{offset i64, id u32}]": lambda found: [
        {"offset": update.offset, "id": update.session_id} for update in found
    ],
    "enum u8": lambda found: {"tag": 1} if found == One() else found,
}
MODULE_OUTPUTS: Final[dict[str, Wire[Any]]] = {
    "filter": SMARTMODULE_OUTPUT,
    "array_map": SMARTMODULE_OUTPUT,
    "init": INIT_OUTPUT,
}
UNITS: Final[dict[str, Wire[Any]]] = {
    "record": RECORD,
    "records_payload": RECORDS,
    "params": struct(ExtraParams),
    "smartmodule_input": SMARTMODULE_INPUT,
    "other": ENTRY,
    "varint": VARINT,
}


def group(*kinds: str) -> list[Vector]:
    return [
        vector
        for vector in ALL
        if vector.kind in kinds and not vector.is_partial and vector.id not in NO_WIRE
    ]


REQUEST_FRAMES: Final = group("frame_request")
RESPONSE_FRAMES: Final = group("frame_response")
BODIES: Final = group("body_request", "body_response")
PRIMITIVE_VALUES: Final = group("primitive")
UNIT_VALUES: Final = group(*UNITS)
OUTPUTS: Final = group("smartmodule_output")
BATCHES: Final = group("batch")
PAYLOADS: Final = group("payload")
ERRORS: Final = group("error_code")
TESTED: Final = (
    REQUEST_FRAMES,
    RESPONSE_FRAMES,
    BODIES,
    PRIMITIVE_VALUES,
    UNIT_VALUES,
    OUTPUTS,
    BATCHES,
    PAYLOADS,
    ERRORS,
)


def each(group: list[Vector]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", group, ids=[vector.id for vector in group])


def check_both_ways(wire: Wire[Any], vector: Vector, expect: Any, convert: Any = None) -> None:
    reader = Reader(vector.data)
    value = wire.read(reader, vector.version)
    assert reader.remaining() == 0
    found = convert(value) if convert else in_words(value, vector.version)
    assert found == expect
    if vector.id not in READ_ONLY:
        assert encode(wire, value, vector.version) == vector.data


def test_no_vector_is_left_out() -> None:
    tested = [vector.id for group in TESTED for vector in group]
    assert len(tested) == len(set(tested))
    assert set(tested) | set(PARTIAL) | set(NO_WIRE) == {vector.id for vector in ALL}
    assert len(ALL) == len({vector.id for vector in ALL}) == 158
    assert {vector.id for vector in ALL if vector.is_partial} == set(PARTIAL)
    assert set(READ_ONLY) < set(tested)
    assert len(SIPHASH) == 27


@each(REQUEST_FRAMES)
def test_a_request_is_read_and_written_as_in_the_reference(vector: Vector) -> None:
    (request,) = ServerConnection(APIS[vector.raw["port"]]).receive(vector.data)
    assert vector.expect["header"] == {
        "length": request.size_bytes,
        "api_key": request.api.key,
        "api_version": request.version,
        "correlation_id": request.correlation_id,
        "client_id": request.client_id,
    }
    assert in_words(request.body, request.version) == vector.expect["body"]
    body = encode(request.api.request, request.body, request.version)
    assert body == vector.data[body_at(vector.data, "request") :]


@each(RESPONSE_FRAMES)
def test_a_response_is_read_and_written_as_in_the_reference(vector: Vector) -> None:
    (payload,) = FrameDecoder().receive(vector.data)
    correlation_id = int.from_bytes(payload[:4], "big")
    header = {"length": len(payload), "correlation_id": correlation_id}
    assert header == vector.expect["header"]
    body = decode(vector.api.response, bytes(payload), vector.version, at=4)
    assert in_words(body, vector.version) == vector.expect["body"]
    out = bytearray(payload[:4])
    vector.api.response.write(out, body, vector.version)
    assert frame(bytes(out)) == vector.data


def test_a_response_is_encoded_in_the_version_of_its_request() -> None:
    by_id = {vector.id: vector for vector in ALL}
    request_vector, response_vector = (
        by_id["fetch-offsets-request-v24"],
        by_id["fetch-offsets-response"],
    )
    (request,) = ServerConnection(APIS["spu"]).receive(request_vector.data)
    body = decode(response_vector.api.response, response_vector.data, response_vector.version, at=8)
    assert encode_response(request, body) == response_vector.data


@each(BODIES)
def test_a_body_is_read_and_written_as_in_the_reference(vector: Vector) -> None:
    is_request = vector.kind == "body_request"
    wire = vector.api.request if is_request else vector.api.response
    check_both_ways(wire, vector, vector.expect)


@each(PRIMITIVE_VALUES)
def test_a_primitive_is_read_and_written_as_in_the_reference(vector: Vector) -> None:
    kind = vector.expect["type"]
    check_both_ways(PRIMITIVES[kind], vector, vector.expect["value"], IN_WORDS.get(kind))


@each(UNIT_VALUES)
def test_a_part_of_a_message_is_read_and_written_as_in_the_reference(vector: Vector) -> None:
    expect = vector.expect["value"] if vector.kind == "varint" else vector.expect
    check_both_ways(UNITS[vector.kind], vector, expect)


@each(OUTPUTS)
def test_smartmodule_output_is_read_and_written(vector: Vector) -> None:
    check_both_ways(MODULE_OUTPUTS[vector.raw["function"]], vector, vector.expect)


@each(ERRORS)
def test_an_error_code_is_read_and_written_with_its_payload(vector: Vector) -> None:
    check_both_ways(ERROR_CODE, vector, vector.expect, lambda code: error_in_words(code, 0))


@each(BATCHES)
def test_a_batch_is_read_and_written_as_in_the_reference(vector: Vector) -> None:
    header = read_batch_header(vector.data)
    check_crc(vector.data, 0, header)
    assert header.size_bytes == len(vector.data)
    assert batch_in_words(vector.data, 0, header) == vector.expect
    columns = decode_batch(vector.data, 0, header)
    assert [value.hex() for value in columns.values] == [
        record["value"] for record in vector.expect["records"]
    ]
    if vector.id in READ_ONLY:
        return
    payload = encode(RECORDS, decode(RECORDS, vector.data, 0, at=header.records_at), 0)
    written = assemble_batch(
        payload,
        record_count=header.record_count,
        codec_used=Codec.NONE,
        first_timestamp_ms=header.first_timestamp_ms,
        max_timestamp_ms=header.max_timestamp_ms,
        stamp=Stamp(header.producer_id, header.producer_epoch, header.first_sequence),
    )
    assert with_base_offset(written, header.base_offset) == vector.data


@each(PAYLOADS)
def test_a_payload_compressed_by_the_official_client_is_read(vector: Vector) -> None:
    used, plain = Codec.parse(vector.raw["codec"]), bytes.fromhex(vector.raw["plain_hex"])
    assert vector.expect == {
        "codec": used.name.lower(),
        "attributes": int(used),
        "payload_bytes": len(vector.data),
        "plain_bytes": len(plain),
    }
    assert decompress(used, vector.data) == plain
    assert decompress(used, compress(used, plain)) == plain


@each(group("records_payload"))
def test_records_decoded_to_columns_encode_to_the_same_bytes(vector: Vector) -> None:
    values, keys, stamps = codec.decode_records(vector.data, 0, len(vector.data), 1)
    assert [value.hex() for value in values] == [record["value"] for record in vector.expect]
    end, size = codec.fit_rows(values, keys, stamps, 0, 10_000, 100)
    assert codec.encode_records(values, keys, stamps, 0, end, size) == vector.data


@pytest.mark.parametrize("vector", [v for v in ALL if "type" in v.expect and v.id in PARTIAL])
def test_a_single_field_is_read_and_written(vector: Vector) -> None:
    check_both_ways(PRIMITIVES[vector.expect["type"]], vector, vector.expect["value"])


def test_the_empty_key_of_very_old_clients_is_read_as_no_key() -> None:
    (vector,) = (v for v in ALL if v.id == "record-key-very-old-client")
    assert decode(OPTIONAL_RECORD_DATA, vector.data, 0) == vector.expect["key"]


def test_a_request_header_is_read_regardless_of_what_follows() -> None:
    (vector,) = (v for v in ALL if v.id == "request-header-consumer-1")
    (request,) = ServerConnection(APIS["spu"]).receive(frame(vector.data + bytes(6)))
    assert vector.expect == {
        "api_key": request.api.key,
        "api_version": request.version,
        "correlation_id": request.correlation_id,
        "client_id": request.client_id,
    }


def of_kind(kind: str) -> list[Any]:
    return [pytest.param(raw, id=raw["id"]) for raw in SIPHASH if raw["kind"] == kind]


@pytest.mark.parametrize("raw", of_kind("keyed"))
def test_a_key_is_hashed_as_the_stock_partitioner_does(raw: dict[str, Any]) -> None:
    key = bytes.fromhex(raw["key_hex"])
    assert f"{codec.siphash(key):016x}" == raw["hash_hex"]
    for partitions, partition in raw["mods"].items():
        assert codec.partition_rows([key], int(partitions), 0) == ([partition], 0)


@pytest.mark.parametrize("raw", of_kind("keyed_partition"))
def test_a_key_goes_to_the_same_partition_as_with_the_stock_client(raw: dict[str, Any]) -> None:
    key = bytes.fromhex(raw["key_hex"])
    assert codec.partition_rows([key], raw["partition_count"], 0) == ([raw["partition"]], 0)


@pytest.mark.parametrize("raw", of_kind("round_robin"))
def test_rows_without_a_key_are_assigned_round_robin(raw: dict[str, Any]) -> None:
    available = raw["available"] or list(range(raw["partition_count"]))
    keys = [None] * len(raw["partitions"])
    turns, _ = codec.partition_rows(keys, len(available), raw["counter_start"])
    assert [available[turn] for turn in turns] == raw["partitions"]


def test_every_kind_of_siphash_vector_is_tested() -> None:
    assert sum(len(of_kind(kind)) for kind in ("keyed", "keyed_partition", "round_robin")) == len(
        SIPHASH
    )
