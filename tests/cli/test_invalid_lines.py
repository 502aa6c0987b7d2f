"""Every line is stored or rejected, and an invalid line or record never ends a command."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.cli.formats import OUTPUTS, format_of, suppress_unknown, template
from streamkit.cli.lines import (
    LineCutter,
    Parser,
    enveloped,
    keyed_by_field,
    parse_lines,
    separated,
)
from streamkit.record import Chunk
from tests.cli.conftest import Run

MARK = b"\xef\xbb\xbf"
DEEP = b"[" * 100_000
DEEP_OBJECT = b'{"a":' * 100_000
PARSERS = {
    "--key-separator": separated(b":"),
    "--key-field": keyed_by_field("a"),
    "--key-field, empty": keyed_by_field(""),
    "--input json": enveloped,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["", "a", "value", "key", "timestamp"]), inner)
    ),
    max_leaves=8,
)
ENVELOPES = st.fixed_dictionaries(
    {"value": JSON},
    optional={
        "key": st.none() | st.text(max_size=3) | JSON,
        "timestamp": st.integers() | st.datetimes().map(lambda time: f"{time}Z") | JSON,
        "value_encoding": st.sampled_from(["base64", "other"]) | JSON,
    },
)
LINES = st.lists(
    st.binary(max_size=20)
    | (JSON | ENVELOPES).map(json.dumps).map(str.encode)
    | st.sampled_from(
        [DEEP, DEEP_OBJECT, b'{"a":1e999}', b'"\\ud800"', b'{"a":"\\ud800"}', b"9" * 5_000]
    )
)


@pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS)
@given(lines=LINES)
def test_every_line_becomes_a_row_or_is_rejected_with_its_number(
    parse: Parser, lines: list[bytes]
) -> None:
    rows = parse_lines(lines, 1, parse, 0)
    numbers = [*rows.numbers, *(number for number, _ in rows.rejected)]
    assert sorted(numbers) == list(range(1, len(lines) + 1))
    assert len(rows.values) == len(rows.numbers)
    assert all(reason for _, reason in rows.rejected)
    assert all(0 <= stamp < 2**63 for stamp in rows.timestamps_ms or [])


@pytest.mark.parametrize("output", [*OUTPUTS, "template", "suppress"])
@given(values=LINES, stamps=st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_every_record_is_printed(output: str, values: list[bytes], stamps: list[int]) -> None:
    count = min(len(values), len(stamps))
    if not count:
        return
    chunk = Chunk(values[:count], [None] * count, stamps[:count], list(range(count)), "t", 0)
    if output == "template":
        assert template("{{time}} {{key}} {{value}}")(chunk)
    elif output == "suppress":
        for each in ("text", "json", "table"):
            assert len(suppress_unknown(each)(chunk)) <= count
    else:
        assert format_of(output, with_keys=False)(chunk).endswith(b"\n")


@pytest.mark.parametrize(
    ("timestamp", "words"),
    [
        ("-1", "before 1970"),
        ('"1969-12-31T23:59:59Z"', "before 1970"),
        ("1700000000000000000", "after the year 9999 (a number is in milliseconds)"),
        ("9" * 400, ""),
        ("1e400", ""),
        ('"2024-13-01T00:00:00Z"', "month"),
        ('"0001-01-01T00:00:00+23:59"', ""),
        ('"9999-12-31T23:59:59-23:59"', "after the year 9999"),
    ],
)
def test_a_line_with_an_invalid_timestamp_is_rejected(timestamp: str, words: str) -> None:
    rows = parse_lines([b'{"value":1,"timestamp":%b}' % timestamp.encode()], 7, enveloped, 0)
    ((number, reason),) = rows.rejected
    assert number == 7
    assert words in reason


def test_valid_lines_around_invalid_ones_are_stored_and_printed(on_cluster: Run) -> None:
    on_cluster("topic", "create", "odd")
    late = b'{"value":2,"timestamp":9223372036854775808}'
    lines = [b'{"value":1}', DEEP, late, b'{"value":%b}' % DEEP, b'{"value":3}']
    produced = on_cluster("produce", "odd", "--input", "json", given=b"\n".join(lines))
    assert produced.code == 1
    for number in (2, 3, 4):
        assert f"rejected standard input line {number}: " in produced.err
    assert "2 records produced to odd" in produced.err
    on_cluster("produce", "odd", given=DEEP + b"\n4")
    for output in ("dynamic", "json", "table"):
        printed = on_cluster("consume", "odd", "-B", "-d", "-O", output)
        assert (printed.code, printed.err) == (0, "")
        assert len(printed.lines) >= 4


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (MARK, []),
        (MARK + b"\n", [b""]),
        (MARK + b"a\n" + MARK + b"b", [b"a", MARK + b"b"]),
        (MARK + MARK + b"a", [MARK + b"a"]),
        (b"a" + MARK, [b"a" + MARK]),
        (MARK[:2], [MARK[:2]]),
    ],
)
@given(cuts=st.lists(st.integers(0, 12)))
def test_only_the_first_byte_order_mark_is_removed(
    data: bytes, expected: list[bytes], cuts: list[int]
) -> None:
    at = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    cutter = LineCutter(100)
    blocks = [data[start:stop] for start, stop in pairwise(at)]
    lines = [line for block in blocks for line in cutter.cut(block)]
    assert lines + cutter.end() == expected


def test_a_line_of_the_largest_size_may_follow_a_byte_order_mark() -> None:
    cutter = LineCutter(4)
    assert cutter.cut(MARK + b"abcd") + cutter.cut(b"\nabcdefgh\n") == [b"abcd", b"abcdefgh"]
