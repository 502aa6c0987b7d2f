from __future__ import annotations

import json

import pytest

from streamkit.cli.consume import OUTPUTS
from streamkit.cli.formats import OUTPUTS as KNOWN_OUTPUTS
from streamkit.cli.formats import (
    before,
    format_of,
    hex_dump,
    select_until,
    suppress_unknown,
    template,
    truncated,
)
from streamkit.errors import UsageError
from streamkit.record import Chunk

MIXED = Chunk(
    ["grün".encode(), b"\xff\x00", b""], [b"k", None, b"\xfe"], [0, 1_500, -1], [7, 8, 9], "t", 2
)


def test_the_command_offers_every_output_format() -> None:
    assert OUTPUTS == KNOWN_OUTPUTS


def test_text_is_shown_unchanged_and_other_values_as_a_hex_dump() -> None:
    dump = b"00000000  ff 00                                             |..|"
    assert format_of("dynamic", with_keys=False)(MIXED) == "grün\n".encode() + dump + b"\n\n"


def test_text_output_shows_the_size_of_values_that_are_not_text() -> None:
    shown = format_of("text", with_keys=False)(MIXED)
    assert shown == "grün\nbinary: (2 bytes)\n\n".encode()


def test_terminal_escapes_in_a_table_are_escaped() -> None:
    chunk = Chunk([b'{"a":"\\u001b[2J","\\u009b1m":1}'], [None], [0], [0], "t", 0)
    shown = format_of("table", with_keys=False)(chunk).decode()
    assert "\\x1b[2J" in shown
    assert "\x1b" not in shown
    assert "\x9b" not in shown


def test_raw_output_is_the_bytes_of_the_values() -> None:
    assert format_of("raw", with_keys=False)(MIXED) == "grün\n".encode() + b"\xff\x00\n\n"


def test_keys_are_printed_in_brackets() -> None:
    shown = format_of("raw", with_keys=True)(MIXED)
    assert shown == "[k] grün\n".encode() + b"[null] \xff\x00\n[\xfe] \n"


def test_a_hex_dump_has_addresses_two_groups_and_ascii() -> None:
    assert hex_dump(bytes(range(60, 78))).decode().splitlines() == [
        "00000000  3c 3d 3e 3f 40 41 42 43  44 45 46 47 48 49 4a 4b  |<=>?@ABCDEFGHIJK|",
        "00000010  4c 4d                                             |LM|",
    ]


def test_json_output_has_one_object_per_record() -> None:
    values = [b'{"a": 1}', b"plain", b'"quoted"', b'{\n"a": 1}', b"\xff"]
    chunk = Chunk(values, [b"k", None, None, None, b"\xff"], [1_500, -1, 0, 0, 0], range(5), "t", 1)
    lines = [json.loads(line) for line in format_of("json", with_keys=False)(chunk).splitlines()]
    assert lines[0] == {
        "key": "k",
        "value": {"a": 1},
        "offset": 0,
        "partition": 1,
        "timestamp": "1970-01-01T00:00:01.500Z",
    }
    assert lines[1]["key"] is None
    assert lines[1]["timestamp"] is None
    assert [line["value"] for line in lines[1:4]] == ["plain", '"quoted"', '{\n"a": 1}']
    assert (lines[4]["value"], lines[4]["value_encoding"]) == ("/w==", "base64")
    assert (lines[4]["key"], lines[4]["key_encoding"]) == ("/w==", "base64")


def test_a_template_shows_the_fields_of_a_record() -> None:
    shown = template("{{offset}}/{{ partition }} {{time}} {x} {{key}}={{value}}")(MIXED)
    assert shown.decode().splitlines() == [
        "7/2 1970-01-01T00:00:00.000Z {x} k=grün",
        "8/2 1970-01-01T00:00:01.500Z {x} null=�\0",
        "9/2 NA {x} �=",
    ]


def test_a_template_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown field 'vlaue'") as caught:
        template("{{vlaue}}")
    assert "'value'" in caught.value.hint


@pytest.mark.parametrize(("last", "kept"), [(6, 0), (7, 1), (8, 2), (9, 3), (100, 3)])
def test_records_after_the_end_offset_are_removed(last: int, kept: int) -> None:
    assert len(select_until(MIXED, last)) == kept


@pytest.mark.parametrize(
    ("until_ms", "kept", "is_reached"), [(-1, 0, True), (0, 1, True), (1_499, 1, True)]
)
def test_a_partition_stops_at_its_first_record_after_the_time_limit(
    until_ms: int, kept: int, is_reached: bool
) -> None:
    chunk, found = before(MIXED, until_ms)
    assert (len(chunk), found) == (kept, is_reached)


def test_a_record_without_a_timestamp_does_not_stop_a_partition() -> None:
    assert before(MIXED, 1_500) == (MIXED, False)


@pytest.mark.parametrize(
    ("output", "kept"),
    [
        ("text", [0, 1, 2, 3]),
        ("json", [0, 1]),
        ("table", [0]),
        ("dynamic", [0, 1, 2, 3, 4]),
        ("raw", [0, 1, 2, 3, 4]),
    ],
)
def test_values_that_are_not_valid_in_a_format_can_be_left_out(
    output: str, kept: list[int]
) -> None:
    values = [b'{"a":1}', b'"text"', b"{}}", b"plain", b"\xff\0"]
    chunk = Chunk(values, [None] * 5, [0] * 5, range(5), "t", 0)
    assert list(suppress_unknown(output)(chunk).offsets) == kept


def test_lines_can_be_cut_to_a_width() -> None:
    chunk = Chunk([b"0123456789", "grünes".encode(), b""], [None] * 3, [0] * 3, range(3), "t", 0)
    write = truncated(format_of("dynamic", with_keys=False), 4)
    assert write(chunk).decode() == "0123\ngrün\n\n"


def rows_of(*values: bytes) -> Chunk:
    count = len(values)
    return Chunk(list(values), [None] * count, [0] * count, range(7, 7 + count), "t", 2)


def test_a_table_has_the_fields_of_the_first_object_and_one_header() -> None:
    write = format_of("table", with_keys=False)
    first = write(rows_of(b'{"a":1,"name":"Ann"}', b'{"name":"Bartholomew","b":2}'))
    assert first.decode().splitlines() == [
        "A  NAME",
        "1  Ann",
        "   Bartholomew",
    ]
    later = write(rows_of(b'{"a":12345,"name":null}', b'{"a":{"x":[1,2]},"name":"C\\nD"}'))
    assert later.decode().splitlines() == ["12345", '{"x":[1,2]}  C D']


def test_a_table_reports_values_that_are_not_objects() -> None:
    write = format_of("table", with_keys=False)
    assert write(rows_of(b"[1]", b'{"a":1}', b"\xff")).decode().splitlines() == [
        "A",
        "(not a JSON object: partition 2, offset 7, 3 bytes)",
        "1",
        "(not a JSON object: partition 2, offset 9, 1 bytes)",
    ]


def test_each_table_has_its_own_header() -> None:
    for _ in range(2):
        shown = format_of("table", with_keys=False)(rows_of(b'{"a":1}'))
        assert shown == b"A\n1\n"
