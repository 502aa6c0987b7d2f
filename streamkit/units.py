"""Durations, sizes and counts as people write them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS_S: Final = {
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3_600.0,
    "hr": 3_600.0,
    "hour": 3_600.0,
    "d": 86_400.0,
    "day": 86_400.0,
    "w": 604_800.0,
    "week": 604_800.0,
}
_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", re.IGNORECASE)


def parse_duration_s(text: str) -> float:
    """Read ``90`` (seconds), ``500ms``, ``1h 30m``, ``2 weeks``.

    Raises:
        ValueError: The text is not valid; the message gives examples.
    """
    rest, at, total_s = text.strip().lower(), 0, 0.0
    while at < len(rest):
        found = _DURATION.match(rest, at)
        unit_s = None if found is None else _unit_s(found[2])
        if found is None or unit_s is None:
            raise ValueError(f"{text!r} is not a valid duration (examples: 90, 500ms, 1h, 7days)")
        total_s, at = total_s + float(found[1]) * unit_s, found.end()
    if not rest:
        raise ValueError("the duration is empty (examples: 90, 500ms, 1h, 7days)")
    return total_s


def parse_size_bytes(text: str) -> int:
    """Read ``1048576``, ``64KiB``, ``10MB``, ``1.5 GiB``; a fraction of a byte is dropped.

    Raises:
        ValueError: The text is not valid; the message gives examples.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or ("." in found[1] and not found[2]):
        raise ValueError(f"{text!r} is not a valid size (examples: 16384, 64KiB, 10MB)")
    number, unit, binary = found.groups()
    if not unit:
        return int(number)
    scale: int = (1024 if binary else 1000) ** ("kmgt".index(unit.lower()) + 1)
    return int(float(number) * scale) if "." in number else int(number) * scale


def seconds_of(duration: float | timedelta) -> float:
    """Return a duration in seconds, given as a number of seconds or as a timedelta."""
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


def counted(count: int, noun: str) -> str:
    """Write a number and what it counts: ``1 commit``, ``2 commits``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shown_bytes(size: int) -> str:
    """Write a size with its unit: ``512 B``, ``1.5 MiB``."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1_024 or unit == "GiB":
            break
        amount /= 1_024
    return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"


def _unit_s(unit: str) -> float | None:
    return _UNITS_S.get(unit, _UNITS_S.get(unit.removesuffix("s"))) if unit else 1.0


def shown_ms(duration_ms: int) -> str:
    """Write a duration in its largest unit that needs no fraction: ``90 s``, ``2 h``."""
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if duration_ms and duration_ms % size_ms == 0:
            return f"{duration_ms // size_ms} {unit}"
    return f"{duration_ms} ms"


def shown_time(time_ms: int) -> str:
    """Write a time in ms since 1970 as ISO 8601 in UTC; empty text for a time before that."""
    if time_ms < 0:
        return ""
    return (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="seconds")
