"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest

from streamkit.units import parse_duration_s, parse_size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("500ms", 0.5),
        ("1h 30m", 5_400),
        ("2 weeks", 1_209_600),
        ("7days", 604_800),
        (" 1.5 Min ", 90),
    ],
)
def test_a_duration_is_numbers_with_units(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "  ", "h", "1 fortnight", "-1s", "1h30x"])
def test_an_invalid_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="1h, 7days"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("16384", 16_384),
        ("10b", 10),
        ("64KiB", 65_536),
        ("10MB", 10_000_000),
        ("1.0 KB", 1_000),
        ("1.5Gi", 1_610_612_736),
        ("2 Ki", 2_048),
    ],
)
def test_a_size_is_a_number_with_a_unit(text: str, size_bytes: int) -> None:
    assert parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "KB", "1.5", "-1", "1 XB", "1e3"])
def test_an_invalid_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="64KiB"):
        parse_size_bytes(text)
