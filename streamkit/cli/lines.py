"""Lines of input become rows of a topic: cut, then shaped. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from streamkit.record import TIMESTAMP_MS_MAX

Row = tuple[bytes, bytes | None, int | None]  # value, key, timestamp in ms
Shape = Callable[[bytes], Row]

# What a line can make a shape raise: it nests too deep, or a number in it is too large.
_ODD_LINE: Final = (ValueError, OverflowError, RecursionError)
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(slots=True)
class ParsedRows:
    """Columns of what can be sent, with the number of the line each row comes from."""

    values: list[bytes] = field(default_factory=list)
    keys: list[bytes | None] | None = None
    timestamps_ms: list[int] | None = None
    numbers: Sequence[int] = ()
    rejected: list[tuple[int, str]] = field(default_factory=list)

    def without(self, rows: Sequence[int]) -> ParsedRows:
        """Leave out rows."""
        gone = set(rows)
        kept = [row for row in range(len(self.values)) if row not in gone]
        return ParsedRows(
            [self.values[row] for row in kept],
            None if self.keys is None else [self.keys[row] for row in kept],
            None if self.timestamps_ms is None else [self.timestamps_ms[row] for row in kept],
            [self.numbers[row] for row in kept],
            self.rejected,
        )


class LineCutter:
    """Cuts blocks of bytes into lines, without their ends, wherever the blocks are cut.

    A byte order mark at the front, which some editors put there, is no part of the first line.

    Of a line longer than ``line_bytes_max`` one byte more than that is kept: enough to see that
    it is too long, so that a file without line ends cannot fill the memory.
    """

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._keep_bytes = line_bytes_max + 1 + len(_BYTE_ORDER_MARK)
        self._is_first = True
        self._held: list[bytes] = []
        self._held_bytes = 0

    def cut(self, block: bytes) -> list[bytes]:
        """Take a block; return the lines that are complete now."""
        lines = block.split(b"\n")
        rest = lines.pop()
        if lines and self._held:
            self._hold(lines[0])
            lines[0] = self._take()
        if rest:
            self._hold(rest)
        if lines and self._is_first:
            lines[0] = self._first(lines[0])
        has_returns = b"\r" in block or (lines and lines[0].endswith(b"\r"))
        return _without_returns(lines) if has_returns else lines

    def end(self) -> list[bytes]:
        """Return the last line, if no line end followed it."""
        last = self._take()
        if self._is_first:
            last = self._first(last)
        return _without_returns([last]) if last else []

    def _first(self, line: bytes) -> bytes:
        self._is_first = False
        self._keep_bytes = self._line_bytes_max + 1
        return line.removeprefix(_BYTE_ORDER_MARK)[: self._keep_bytes]

    def _hold(self, part: bytes) -> None:
        part = part[: self._keep_bytes - self._held_bytes]
        self._held.append(part)
        self._held_bytes += len(part)

    def _take(self) -> bytes:
        line = b"".join(self._held)
        self._held, self._held_bytes = [], 0
        return line


def _without_returns(lines: list[bytes]) -> list[bytes]:
    return [line.removesuffix(b"\r") for line in lines]


def plain(lines: list[bytes], first: int, key: bytes | None = None) -> ParsedRows:
    """Make each line a value, all with the same key or none."""
    keys: list[bytes | None] | None = None if key is None else [key] * len(lines)
    return ParsedRows(lines, keys, None, range(first, first + len(lines)))


def shaped(lines: list[bytes], first: int, shape: Shape, now_ms: int) -> ParsedRows:
    """Shape each line; a line that has not the form is rejected with its number and why.

    Args:
        lines: Without their ends.
        first: The number of the first one.
        shape: Makes a row of a line, or raises ValueError, as it does for what it cannot decode.
        now_ms: The timestamp of rows that have none.
    """
    made: list[Row] = []
    numbers: list[int] = []
    rejected: list[tuple[int, str]] = []
    at = 0
    while at < len(lines):
        before = len(made)
        try:
            made.extend(map(shape, lines[at:]))
        except _ODD_LINE as error:
            # Results come in order, so their number is the line that failed.
            good = len(made) - before
            rejected.append((first + at + good, _reason(error)))
        else:
            good = len(lines) - at
        numbers += range(first + at, first + at + good)
        at += good + 1
    if not made:
        return ParsedRows(rejected=rejected)
    values, keys, stamps = map(list, zip(*made, strict=True))
    timestamps: list[Any] | None = None
    if any(stamp is not None for stamp in stamps):
        timestamps = [now_ms if stamp is None else stamp for stamp in stamps]
    return ParsedRows(values, keys, timestamps, numbers, rejected)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return str(error)


def separated(separator: bytes) -> Shape:
    """The key stands in front of the first separator, the value behind it."""
    text = separator.decode(errors="replace")

    def shape(line: bytes) -> Row:
        key, found, value = line.partition(separator)
        if not found:
            raise ValueError(f"no separator {text!r}")
        return value, key, None

    return shape


def keyed_by_field(name: str) -> Shape:
    """The line is a JSON object; the key is one of its fields, as text."""
    # Only this field is decoded; the rest of the line is checked and skipped.
    kind = msgspec.defstruct(
        "Line",
        [("key", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)],
        rename={"key": name},
    )
    decode = msgspec.json.Decoder(kind).decode

    def shape(line: bytes) -> Row:
        try:
            found: Any = decode(line)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a JSON object: {error}") from error
        if found.key is msgspec.UNSET:
            raise ValueError(f"no field {name!r}")
        return line, _key_of(bytes(found.key)), None

    return shape


def _key_of(raw: bytes) -> bytes | None:
    if raw == b"null":
        return None
    if raw.startswith(b'"'):
        return msgspec.json.decode(raw, type=str).encode()
    return raw


class _Envelope(msgspec.Struct):
    value: msgspec.Raw
    key: str | None = None
    timestamp: int | str | None = None
    value_encoding: str | None = None
    key_encoding: str | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def enveloped(line: bytes) -> Row:
    """Read an envelope as `consume -O json` writes it.

    A value that is a string is that text; any other value is its JSON text.
    """
    try:
        found = _decode_envelope(line)
        value = bytes(found.value)
        if value.startswith(b'"'):
            value = _bytes_of(msgspec.json.decode(value, type=str), found.value_encoding)
        key = None if found.key is None else _bytes_of(found.key, found.key_encoding)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not an envelope: {error}") from error
    return value, key, None if found.timestamp is None else _milliseconds(found.timestamp)


def _bytes_of(text: str, encoding: str | None) -> bytes:
    if encoding is None:
        return text.encode()
    if encoding != "base64":
        raise ValueError(f"unknown encoding {encoding!r}, only base64 is known")
    return base64.b64decode(text, validate=True)


_HAS_ZONE: Final = re.compile(r"(?:Z|[+-]\d\d:?\d\d)$", re.IGNORECASE)


def _milliseconds(stamp: int | str) -> int:
    if isinstance(stamp, int):
        return _checked(stamp, stamp)
    if not _HAS_ZONE.search(stamp):
        raise ValueError(f"timestamp {stamp!r} has no time zone; Z stands for UTC")
    moment = datetime.fromisoformat(stamp)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    stamp_ms = (delta.days * 86_400 + delta.seconds) * 1_000 + delta.microseconds // 1_000
    return _checked(stamp_ms, stamp)


def _checked(stamp_ms: int, given: int | str) -> int:
    if stamp_ms < 0:
        raise ValueError(f"timestamp {given!r} is before 1970, which no record can say")
    if stamp_ms > TIMESTAMP_MS_MAX:
        raise ValueError(f"timestamp {given!r} is after the year 9999; numbers are milliseconds")
    return stamp_ms
