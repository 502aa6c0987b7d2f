"""Layouts: what each kind of field accepts and refuses."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any

import msgspec
import pytest

from streamkit.errors import LocalProtocolError, RemoteProtocolError
from streamkit.limits import MAP_ENTRIES_MAX, NESTING_MAX, STRING_BYTES_MAX
from streamkit.protocol.record_set import RECORD_SET
from streamkit.protocol.schema import (
    BOOL,
    BYTES,
    I8,
    I16,
    STRING,
    U8,
    U16,
    U32,
    Reader,
    Str,
    converted,
    decode,
    encode,
    mapping,
    option,
    since,
    sized,
    struct,
    union,
    vec,
    wire_of,
)
from streamkit.protocol.varint import OPTIONAL_RECORD_DATA, RECORD_DATA, VARINT


class Point(msgspec.Struct, frozen=True):
    x: I16
    name: Str
    depth: Annotated[I8, since(3)] = -1
    old: Annotated[U8, since(0, 1)] = 0


class Nothing(msgspec.Struct, frozen=True):
    pass


class Colour(IntEnum):
    RED = 0
    BLUE = 1


POINT = struct(Point)


# --- Versions --------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "data"),
    [(0, "0007 0001 61 05"), (1, "0007 0001 61 05"), (2, "0007 0001 61"), (3, "0007 0001 61 09")],
)
def test_a_field_is_encoded_only_in_its_versions(version: int, data: str) -> None:
    value = Point(7, "a", depth=9, old=5)
    wire = bytes.fromhex(data)
    assert encode(POINT, value, version) == wire
    read = decode(POINT, wire, version)
    assert read == Point(7, "a", 9 if version >= 3 else -1, 5 if version <= 1 else 0)


def test_bytes_after_a_message_are_ignored() -> None:
    assert decode(POINT, bytes.fromhex("0007 0001 61 ffff"), 2) == Point(7, "a")


def test_a_truncated_message_is_refused() -> None:
    data = encode(POINT, Point(7, "abc", 9), 3)
    for end in range(len(data)):
        with pytest.raises(RemoteProtocolError, match="bytes announced") as caught:
            decode(POINT, data[:end], 3)
        assert caught.value.at <= end


# --- Single values ---------------------------------------------------------


@pytest.mark.parametrize("byte", [2, 0x7F, 0xFF])
def test_a_boolean_is_0_or_1(byte: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"boolean {byte}"):
        decode(BOOL, bytes([byte]), 0)
    with pytest.raises(RemoteProtocolError, match=f"boolean {byte}"):
        decode(option(STRING), bytes([byte]), 0)


def test_a_string_has_at_most_32767_bytes() -> None:
    longest = "x" * STRING_BYTES_MAX
    assert decode(STRING, encode(STRING, longest, 0), 0) == longest
    with pytest.raises(LocalProtocolError, match="string of 32768 bytes"):
        encode(STRING, longest + "x", 0)
    with pytest.raises(LocalProtocolError, match="string of 32768 bytes"):
        encode(STRING, "é" * 16_384, 0)
    with pytest.raises(RemoteProtocolError, match="string length -32768"):
        decode(STRING, (STRING_BYTES_MAX + 1).to_bytes(2, "big") + bytes(40_000), 0)


@pytest.mark.parametrize("data", ["0001ff", "0002c328", "0003eda080"])
def test_a_string_that_is_not_utf_8_is_refused(data: str) -> None:
    with pytest.raises(RemoteProtocolError, match="not UTF-8"):
        decode(STRING, bytes.fromhex(data), 0)


@pytest.mark.parametrize("wire", [STRING, mapping(STRING, STRING)])
def test_text_that_utf_8_cannot_encode_is_refused(wire: Any) -> None:
    value = "\ud800" if wire is STRING else {"\ud800": ""}
    with pytest.raises(LocalProtocolError, match="is not text"):
        encode(wire, value, 0)


@pytest.mark.parametrize(("kind", "lowest", "highest"), [(I8, -128, 127), (U16, 0, 65_535)])
def test_a_number_must_fit_its_field(kind: Any, lowest: int, highest: int) -> None:
    wire = wire_of(kind)
    for number in (lowest, highest):
        assert decode(wire, encode(wire, number, 0), 0) == number
    for number in (lowest - 1, highest + 1):
        with pytest.raises(LocalProtocolError, match="does not fit"):
            encode(wire, number, 0)


def test_an_unknown_enum_number_is_refused_with_its_position() -> None:
    wire = converted[Colour](U8, Colour, int)
    assert decode(wire, b"\x01", 0) is Colour.BLUE
    with pytest.raises(RemoteProtocolError, match="2 is not a valid Colour") as caught:
        decode(wire, b"\xff\x02", 0, at=1)
    assert caught.value.at == 1


def test_an_unknown_tag_is_refused_with_its_position() -> None:
    wire = union[Any]({0: Nothing, 2: Point})
    assert decode(wire, b"\0", 0) == Nothing()
    with pytest.raises(RemoteProtocolError, match="unknown tag 1") as caught:
        decode(wire, b"\x01", 0)
    assert caught.value.at == 0


# --- Varints ---------------------------------------------------------------


def test_a_varint_has_at_most_ten_bytes_and_64_bits() -> None:
    for data, number in (("ff" * 9 + "01", -(2**63)), ("fe" + "ff" * 8 + "01", 2**63 - 1)):
        assert decode(VARINT, bytes.fromhex(data), 0) == number
    for data in ("ff" * 9 + "02", "80" * 10 + "00", "ff" * 11):
        with pytest.raises(RemoteProtocolError, match="more than 64 bits") as caught:
            decode(VARINT, bytes.fromhex(data), 0)
        assert caught.value.at == 9


def test_a_varint_of_more_than_32_bits_cannot_be_encoded() -> None:
    for number in (-(2**31), 2**31 - 1):
        assert decode(VARINT, encode(VARINT, number, 0), 0) == number
    for number in (-(2**31) - 1, 2**31):
        with pytest.raises(LocalProtocolError, match="32 bits"):
            encode(VARINT, number, 0)


@pytest.mark.parametrize("data", ["01", "feffffff0f", "06 6162"])
def test_truncated_record_data_are_refused(data: str) -> None:
    with pytest.raises(RemoteProtocolError, match="bytes announced"):
        decode(RECORD_DATA, bytes.fromhex(data), 0)
    with pytest.raises(RemoteProtocolError, match="bytes announced"):
        decode(OPTIONAL_RECORD_DATA, b"\x01" + bytes.fromhex(data), 0)


# --- Lists, maps and lengths -----------------------------------------------


@pytest.mark.parametrize("count", [6, 2**31 - 1])
def test_a_list_longer_than_the_bytes_left_is_refused(count: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{count} elements announced, 5 bytes left"):
        decode(vec(U8), count.to_bytes(4, "big") + bytes(5), 0)


@pytest.mark.parametrize("count", [2**31, 2**32 - 1])
def test_a_negative_count_is_an_empty_list(count: int) -> None:
    data = count.to_bytes(4, "big")
    assert decode(vec(U8), data, 0) == ()
    assert decode(BYTES, data, 0) == b""
    assert decode(RECORD_SET, data, 0) == b""


@pytest.mark.parametrize("wire", [BYTES, RECORD_SET])
def test_a_length_above_the_bytes_left_is_refused(wire: Any) -> None:
    for length in (4, 2**31 - 1):
        with pytest.raises(RemoteProtocolError, match=f"{length} bytes announced, 3 left"):
            decode(wire, length.to_bytes(4, "big") + b"abc", 0)


def test_a_map_is_written_in_key_order_and_read_in_any_order() -> None:
    wire = mapping[str, int](STRING, U8)
    written = encode(wire, {"é": 1, "z": 2, "a": 3}, 0)
    assert written == bytes.fromhex("0003 000161 03 00017a 02 0002c3a9 01")
    shuffled = bytes.fromhex("0003 00017a 02 000161 00 000161 03")
    assert decode(wire, shuffled, 0) == {"z": 2, "a": 3}, "the last of two equal keys counts"


def test_a_map_has_at_most_65535_entries() -> None:
    wire = mapping[int, int](U32, U8)
    largest = dict.fromkeys(range(MAP_ENTRIES_MAX), 0)
    assert decode(wire, encode(wire, largest, 0), 0) == largest
    with pytest.raises(LocalProtocolError, match="map of 65536 entries"):
        encode(wire, largest | {MAP_ENTRIES_MAX: 0}, 0)


def test_a_sized_value_stays_within_its_length() -> None:
    wire = sized[Point](Point)
    data = encode(wire, Point(7, "a"), 2)
    assert data == bytes.fromhex("00000005 0007 0001 61")
    reader = Reader(bytes.fromhex("00000007 0007 0001 61 ffff 09"))
    assert wire.read(reader, 2) == Point(7, "a")
    assert reader.remaining() == 1
    with pytest.raises(RemoteProtocolError, match="1 bytes announced, 0 left"):
        decode(wire, bytes.fromhex("00000004 0007 0001 61"), 2)


def nested(levels: int) -> Any:
    inner: Any = struct(Nothing)
    for _ in range(levels - 1):
        cls = msgspec.defstruct("Level", [("inner", Annotated[Any, inner])], frozen=True)
        inner = struct(cls)
    return inner


def test_messages_are_nested_at_most_16_levels_deep() -> None:
    assert decode(nested(NESTING_MAX), b"", 0) is not None
    with pytest.raises(RemoteProtocolError, match=f"nested deeper than {NESTING_MAX}"):
        decode(nested(NESTING_MAX + 1), b"", 0)
    assert len(decode(vec(POINT), (20).to_bytes(4, "big") + bytes(80), 2)) == 20, "side by side"
