from __future__ import annotations

import click
import pytest

from streamkit.cli.options import DURATION, SIZE


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0", 0),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("1h 30m", 5_400),
        ("1h30m", 5_400),
        ("7days", 604_800),
        ("2 weeks", 1_209_600),
        ("10 Sec", 10),
    ],
)
def test_a_duration_is_seconds_or_numbers_with_units(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "x", "1x", "-1s", "1h-", "h", "1 2 y"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        DURATION.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("16384", 16_384),
        ("64KiB", 65_536),
        ("10MB", 10_000_000),
        ("1g", 10**9),
        ("5b", 5),
    ],
)
def test_a_size_is_bytes_or_a_number_with_a_unit(text: str, size_bytes: int) -> None:
    assert SIZE.convert(text, None, None) == size_bytes


@pytest.mark.parametrize("text", ["", "k", "1x", "-1", "1.5"])
def test_an_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        SIZE.convert(text, None, None)
