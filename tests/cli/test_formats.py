from __future__ import annotations

import json

import pytest

from streamkit.cli.consume import OUTPUTS
from streamkit.cli.formats import OUTPUTS as KNOWN_OUTPUTS
from streamkit.cli.formats import format_of, hex_dump, select_until, template
from streamkit.errors import UsageError
from streamkit.record import Chunk

MIXED = Chunk(
    ["grün".encode(), b"\xff\x00", b""], [b"k", None, b"\xfe"], [0, 1_500, -1], [7, 8, 9], "t", 2
)


def test_the_command_offers_what_the_formats_can() -> None:
    assert OUTPUTS == KNOWN_OUTPUTS


def test_text_is_shown_as_it_is_and_the_rest_as_a_dump() -> None:
    dump = b"00000000  ff 00                                             |..|"
    assert format_of("dynamic", with_keys=False)(MIXED) == "grün\n".encode() + dump + b"\n\n"


def test_text_output_names_the_size_of_what_is_no_text() -> None:
    shown = format_of("text", with_keys=False)(MIXED)
    assert shown == "grün\nbinary: (2 bytes)\n\n".encode()


def test_raw_output_is_byte_exact() -> None:
    assert format_of("raw", with_keys=False)(MIXED) == "grün\n".encode() + b"\xff\x00\n\n"


def test_keys_stand_in_brackets() -> None:
    shown = format_of("raw", with_keys=True)(MIXED)
    assert shown == "[k] grün\n".encode() + b"[null] \xff\x00\n[\xfe] \n"


def test_a_dump_has_addresses_two_groups_and_ascii() -> None:
    assert hex_dump(bytes(range(60, 78))).decode().splitlines() == [
        "00000000  3c 3d 3e 3f 40 41 42 43  44 45 46 47 48 49 4a 4b  |<=>?@ABCDEFGHIJK|",
        "00000010  4c 4d                                             |LM|",
    ]


def test_json_output_is_one_envelope_a_record() -> None:
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


def test_a_template_fills_in_what_it_names() -> None:
    shown = template("{{offset}}/{{ partition }} {{time}} {x} {{key}}={{value}}")(MIXED)
    assert shown.decode().splitlines() == [
        "7/2 1970-01-01T00:00:00.000Z {x} k=grün",
        "8/2 1970-01-01T00:00:01.500Z {x} null=�\0",
        "9/2 NA {x} �=",
    ]


def test_a_template_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(UsageError, match="no field 'vlaue'") as caught:
        template("{{vlaue}}")
    assert "'value'" in caught.value.hint


@pytest.mark.parametrize(("last", "kept"), [(6, 0), (7, 1), (8, 2), (9, 3), (100, 3)])
def test_records_behind_the_last_offset_wanted_are_left_out(last: int, kept: int) -> None:
    assert len(select_until(MIXED, last)) == kept
