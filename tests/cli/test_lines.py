from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.cli.formats import envelopes
from streamkit.cli.lines import (
    LineCutter,
    ParsedRows,
    enveloped,
    keyed_by_field,
    parse_lines,
    separated,
)
from streamkit.record import Chunk

BYTES_OR_NONE = st.none() | st.binary(max_size=20)


def cut_all(blocks: list[bytes], line_bytes_max: int = 1_000) -> list[bytes]:
    cutter = LineCutter(line_bytes_max)
    lines = [line for block in blocks for line in cutter.cut(block)]
    return lines + cutter.end()


@given(st.lists(st.binary(max_size=30)), st.lists(st.integers(0, 400)))
def test_lines_do_not_depend_on_how_the_input_is_cut(parts: list[bytes], cuts: list[int]) -> None:
    data = b"\r\n".join(parts)
    at = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    blocks = [data[start:stop] for start, stop in pairwise(at)]
    assert cut_all(blocks) == cut_all([data])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\n\n", [b"a", b""]),
        (b"a\r\nb\r", [b"a", b"b"]),
        (b"a\rb\n", [b"a\rb"]),
    ],
)
def test_a_line_ends_with_lf_or_crlf(data: bytes, expected: list[bytes]) -> None:
    assert cut_all([data]) == expected


def test_a_line_that_is_too_long_is_cut_one_byte_after_the_limit() -> None:
    assert cut_all([b"x" * 100] * 50 + [b"\nshort\n"], 120) == [b"x" * 121, b"short"]


def test_the_key_is_the_text_before_the_first_separator() -> None:
    rows = parse_lines([b"a:b:c", b"none", b":x", b"neither"], 10, separated(b":"), 0)
    assert (rows.keys, rows.values, rows.numbers) == ([b"a", b""], [b"b:c", b"x"], [10, 12])
    assert rows.rejected == [(11, "no separator ':'"), (13, "no separator ':'")]


def test_a_key_can_be_a_field_of_the_value() -> None:
    lines = [b'{"c":"UA","n":1}', b'{"c": 7}', b'{"c":null}', b'{"d":1}', b"[]", b"{"]
    rows = parse_lines(lines, 1, keyed_by_field("c"), 0)
    assert (rows.keys, rows.values) == ([b"UA", b"7", None], lines[:3])
    assert [number for number, _ in rows.rejected] == [4, 5, 6]
    assert rows.rejected[0][1] == "no field 'c'"


@pytest.mark.parametrize(
    ("line", "value", "key", "timestamp_ms"),
    [
        ({"value": "text"}, b"text", None, 5),
        ({"value": {"a": [1]}, "key": "k"}, b'{"a": [1]}', b"k", 5),
        ({"value": None, "timestamp": 7}, b"null", None, 7),
        ({"value": 1.50, "timestamp": "1970-01-01T00:00:01.002Z"}, b"1.5", None, 1_002),
        ({"value": "/w==", "value_encoding": "base64"}, b"\xff", None, 5),
        ({"value": "", "timestamp": "1970-01-01T02:00:00+02:00"}, b"", None, 0),
    ],
)
def test_a_json_record_has_a_value_a_key_and_a_timestamp(
    line: dict[str, object], value: bytes, key: bytes | None, timestamp_ms: int
) -> None:
    rows = parse_lines([json.dumps(line).encode(), b'{"value":1,"timestamp":1}'], 1, enveloped, 5)
    assert rows.values[0] == value
    assert rows.timestamps_ms == [timestamp_ms, 1]
    assert (rows.keys or [None])[0] == key


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{}", "missing required field `value`"),
        (b"", "not an object with value, key and timestamp"),
        (b'{"value":1,"key":2}', "not an object with value, key and timestamp"),
        (b'{"value":1,"timestamp":"yesterday"}', "has no time zone"),
        (b'{"value":1,"timestamp":"2013-01-01T00:00:00"}', "has no time zone"),
        (b'{"value":"a","value_encoding":"hex"}', "unknown encoding 'hex'"),
        (b'{"value":"?","value_encoding":"base64"}', ""),
    ],
)
def test_an_invalid_json_record_is_rejected_with_the_reason(line: bytes, reason: str) -> None:
    rows = parse_lines([line], 3, enveloped, 0)
    assert not rows.values
    ((number, text),) = rows.rejected
    assert number == 3
    assert reason in text


@given(
    st.lists(st.tuples(st.binary(max_size=20), BYTES_OR_NONE, st.integers(0, 2**41)), min_size=1)
)
def test_produce_reads_the_json_that_consume_prints(
    records: list[tuple[bytes, bytes | None, int]],
) -> None:
    values, keys, stamps = map(list, zip(*records, strict=True))
    chunk = Chunk(values, keys, stamps, range(len(values)))
    rows = parse_lines(envelopes(chunk).splitlines(), 1, enveloped, 0)
    assert (rows.values, rows.keys, rows.timestamps_ms) == (values, keys, stamps)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_json_values_are_kept_unchanged(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False).encode()
    line = envelopes(Chunk([text], [None], [0], range(1))).rstrip(b"\n")
    assert parse_lines([line], 1, enveloped, 0).values == [text]


def test_selected_rows_can_be_removed() -> None:
    rows = ParsedRows([b"a", b"b", b"c"], [None, b"k", None], [1, 2, 3], range(5, 8))
    kept = rows.without([1])
    assert (kept.values, kept.keys) == ([b"a", b"c"], [None, None])
    assert (kept.timestamps_ms, kept.numbers) == ([1, 3], [5, 7])
