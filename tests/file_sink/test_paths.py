"""Paths with fields: which file a row goes to, and what is refused."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.connectors.file_sink.paths import NO_VALUE, PathTemplate
from streamkit.errors import DataError, TopologyError, UsageError

NOON = datetime.datetime(2013, 1, 2, 12, tzinfo=datetime.UTC)


@dataclass
class Row:
    origin: Any = "JFK"
    date: Any = NOON


def path(
    text: str, row: Any = None, number: int = 0, *, key: bytes | None = None, at_ms: int = -1
) -> str:
    template = PathTemplate(text)
    fields = template.values_of(row) if template.uses_values else ()
    return template.path_of(template.route(fields, key, at_ms), number)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out/{origin}/{date:%Y-%m-%d}/part-{n}.csv", "out/JFK/2013-01-02/part-0.csv"),
        ("out/{date:%Y/%m/%d}.csv", "out/2013/01/02.csv"),
        ("{{x}}/{n:05d}", "{x}/00000"),
        ("plain.json", "plain.json"),
    ],
)
def test_fields_become_parts_of_the_path(text: str, expected: str) -> None:
    assert path(text, Row()) == expected
    assert path(text, {"origin": "JFK", "date": NOON}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out/part-{n}.csv", "out/part-3.csv"),
        ("out.d/late.csv.gz", "out.d/late-3.csv.gz"),
        ("late", "late-3"),
        ("a/{n:03d}-x.csv", "a/003-x.csv"),
    ],
)
def test_a_later_file_has_its_number_in_the_name(text: str, expected: str) -> None:
    assert path(text, number=3) == expected


def test_the_key_and_the_timestamp_are_those_of_the_record() -> None:
    text = "{key}/{timestamp:%Y-%m-%dT%H}"
    assert path(text, key=b"a b", at_ms=1_357_128_000_000) == "a b/2013-01-02T12"
    assert path(text) == f"{NO_VALUE}/{NO_VALUE}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a/b", "a%2Fb"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("a\0b\n", "a%00b%0A"),
        ("", NO_VALUE),
        (None, NO_VALUE),
        ("ÄÖ 100%", "ÄÖ 100%25"),
        (7, "7"),
    ],
)
def test_a_value_never_leaves_its_part_of_the_path(value: Any, expected: str) -> None:
    assert path("x/{origin}/y", Row(value)) == f"x/{expected}/y"


@given(st.text())
def test_any_text_is_one_visible_name_in_a_folder(value: str) -> None:
    try:
        found = path("x/{origin}/y", Row(value))
    except DataError:
        assert len(value.encode(errors="surrogatepass")) > 60
        return
    first, name, last = found.split("/")
    assert (first, last) == ("x", "y")
    assert not name.startswith(".")
    assert "\0" not in name


@given(st.text(), st.text())
def test_different_texts_have_different_names(one: str, other: str) -> None:
    try:
        same = path("{origin}", Row(one)) == path("{origin}", Row(other))
    except DataError:
        return
    assert same == (one == other or {one, other} == {"", NO_VALUE})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "does not name a file"),
        ("out/", "does not name a file"),
        ("{a", "expected '}'"),
        ("{}", "not the name of a field"),
        ("{a.b}", "not the name of a field"),
        ("{a[0]}", "not the name of a field"),
        ("{a!r}", "not the name of a field"),
        ("{n}-{n}", "more than once"),
        ("{n:x-y}", "Invalid format"),
    ],
)
def test_a_path_that_is_not_valid_is_refused_when_the_graph_is_built(
    text: str, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        PathTemplate(text)


def test_a_field_that_the_type_does_not_have_is_refused_when_the_graph_is_built() -> None:
    with pytest.raises(TopologyError, match="the field 'orign'"):
        PathTemplate("{orign}.csv").check_type(Row)
    PathTemplate("{origin}.csv").check_type(Row)
    PathTemplate("{anything}.csv").check_type(dict[str, int])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (Row(date="today"), "the field 'date' of the path is 'today'"),
        (Row(origin="x" * 300), "too long"),
        (Row(origin="\ud800"), "cannot be a path"),
        ({"origin": 1}, "no field 'date'"),
    ],
)
def test_a_row_that_can_have_no_path_is_an_error_of_that_row(row: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        path("{origin}/{date:%Y}", row)


EASTERN = datetime.timezone(datetime.timedelta(hours=-5))


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("{origin}", [1, True, 1.0, 0.0, -0.0], ["1", "True", "1.0", "0.0", "-0.0"]),
        (
            "{origin:%d}",
            [NOON.replace(hour=4), NOON.replace(hour=4).astimezone(EASTERN)],
            ["02", "01"],
        ),
    ],
)
def test_equal_values_with_different_texts_have_different_paths(
    text: str, values: list[Any], expected: list[str]
) -> None:
    template = PathTemplate(text)
    assert [template.route([value], None, 0) for value in values] == expected
    assert [template.route([value], None, 0) for value in values] == expected


def test_a_timestamp_after_the_year_9999_is_an_error_of_that_row() -> None:
    with pytest.raises(DataError, match="the field 'timestamp' of the path is 1700000000000000"):
        path("{timestamp:%Y}", at_ms=1_700_000_000_000_000)
