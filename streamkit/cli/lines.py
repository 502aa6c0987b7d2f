"""Turns lines of input into rows for a topic: cuts the lines, then parses each. Pure."""

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
Parser = Callable[[bytes], Row]

# What parsers raise for invalid lines, numbers that are too large, and nesting that is too deep.
_INVALID_LINE: Final = (ValueError, OverflowError, RecursionError)
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(slots=True)
class ParsedRows:
    """The columns of valid rows with their line numbers, and the rejected lines."""

    values: list[bytes] = field(default_factory=list)
    keys: list[bytes | None] | None = None
    timestamps_ms: list[int] | None = None
    numbers: Sequence[int] = ()
    rejected: list[tuple[int, str]] = field(default_factory=list)

    def without(self, rows: Sequence[int]) -> ParsedRows:
        """Return a copy without these rows."""
        removed = set(rows)
        kept = [row for row in range(len(self.values)) if row not in removed]
        return ParsedRows(
            [self.values[row] for row in kept],
            None if self.keys is None else [self.keys[row] for row in kept],
            None if self.timestamps_ms is None else [self.timestamps_ms[row] for row in kept],
            [self.numbers[row] for row in kept],
            self.rejected,
        )


class LineCutter:
    """Cuts blocks of bytes into lines without their line ends; a line may span blocks.

    A byte order mark at the start, which some editors write, is removed.

    A longer line is cut to ``line_bytes_max`` + 1 bytes. That is enough to see that it is too
    long, and a file without line ends cannot fill the memory.
    """

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._keep_bytes = line_bytes_max + 1 + len(_BYTE_ORDER_MARK)
        self._is_first = True
        self._parts: list[bytes] = []
        self._parts_bytes = 0

    def cut(self, block: bytes) -> list[bytes]:
        """Add a block; return the lines that are now complete."""
        lines = block.split(b"\n")
        rest = lines.pop()
        if lines and self._parts:
            self._add_part(lines[0])
            lines[0] = self._join_parts()
        if rest:
            self._add_part(rest)
        if lines and self._is_first:
            lines[0] = self._first(lines[0])
        has_returns = b"\r" in block or (lines and lines[0].endswith(b"\r"))
        return _without_returns(lines) if has_returns else lines

    def end(self) -> list[bytes]:
        """Return the last line, if it has no line end."""
        last = self._join_parts()
        if self._is_first:
            last = self._first(last)
        return _without_returns([last]) if last else []

    def _first(self, line: bytes) -> bytes:
        self._is_first = False
        self._keep_bytes = self._line_bytes_max + 1
        return line.removeprefix(_BYTE_ORDER_MARK)[: self._keep_bytes]

    def _add_part(self, part: bytes) -> None:
        part = part[: self._keep_bytes - self._parts_bytes]
        self._parts.append(part)
        self._parts_bytes += len(part)

    def _join_parts(self) -> bytes:
        line = b"".join(self._parts)
        self._parts, self._parts_bytes = [], 0
        return line


def _without_returns(lines: list[bytes]) -> list[bytes]:
    return [line.removesuffix(b"\r") for line in lines]


def plain(lines: list[bytes], first: int, key: bytes | None = None) -> ParsedRows:
    """Use each line as a value, with the same key for all or none."""
    keys: list[bytes | None] | None = None if key is None else [key] * len(lines)
    return ParsedRows(lines, keys, None, range(first, first + len(lines)))


def parse_lines(lines: list[bytes], first: int, parse: Parser, now_ms: int) -> ParsedRows:
    """Parse each line; an invalid line is rejected with its number and the reason.

    Args:
        lines: Lines without their line ends.
        first: The number of the first line.
        parse: Returns the row of a line, or raises ValueError if the line is not valid.
        now_ms: The timestamp of rows that have none.
    """
    parsed: list[Row] = []
    numbers: list[int] = []
    rejected: list[tuple[int, str]] = []
    at = 0
    while at < len(lines):
        before = len(parsed)
        try:
            parsed.extend(map(parse, lines[at:]))
        except _INVALID_LINE as error:
            # Results come in order, so their count is the index of the line that failed.
            valid = len(parsed) - before
            rejected.append((first + at + valid, _reason(error)))
        else:
            valid = len(lines) - at
        numbers += range(first + at, first + at + valid)
        at += valid + 1
    if not parsed:
        return ParsedRows(rejected=rejected)
    values, keys, stamps = map(list, zip(*parsed, strict=True))
    timestamps: list[Any] | None = None
    if any(stamp is not None for stamp in stamps):
        timestamps = [now_ms if stamp is None else stamp for stamp in stamps]
    return ParsedRows(values, keys, timestamps, numbers, rejected)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)


def separated(separator: bytes) -> Parser:
    """Return a parser that splits a line into key and value at the first separator."""
    text = separator.decode(errors="replace")

    def parse(line: bytes) -> Row:
        key, found, value = line.partition(separator)
        if not found:
            raise ValueError(f"no separator {text!r}")
        return value, key, None

    return parse


def keyed_by_field(name: str) -> Parser:
    """Return a parser of JSON objects that uses the text of one field as the key."""
    # Only this field is decoded; the rest of the line is validated and skipped.
    kind = msgspec.defstruct(
        "Line",
        [("key", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)],
        rename={"key": name},
    )
    decode = msgspec.json.Decoder(kind).decode

    def parse(line: bytes) -> Row:
        try:
            found: Any = decode(line)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a JSON object: {error}") from error
        if found.key is msgspec.UNSET:
            raise ValueError(f"no field {name!r}")
        return line, _key_of(bytes(found.key)), None

    return parse


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
    """Parse an envelope as `consume -O json` writes it.

    If the value is a JSON string, the record's value is that text; otherwise it is the JSON text.
    """
    try:
        found = _decode_envelope(line)
        value = bytes(found.value)
        if value.startswith(b'"'):
            value = _bytes_of(msgspec.json.decode(value, type=str), found.value_encoding)
        key = None if found.key is None else _bytes_of(found.key, found.key_encoding)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not an object with value, key and timestamp: {error}") from error
    return value, key, None if found.timestamp is None else _milliseconds(found.timestamp)


def _bytes_of(text: str, encoding: str | None) -> bytes:
    if encoding is None:
        return text.encode()
    if encoding != "base64":
        raise ValueError(f"unknown encoding {encoding!r}; only base64 is supported")
    return base64.b64decode(text, validate=True)


_HAS_ZONE: Final = re.compile(r"(?:Z|[+-]\d\d:?\d\d)$", re.IGNORECASE)


def _milliseconds(stamp: int | str) -> int:
    if isinstance(stamp, int):
        return _checked(stamp, stamp)
    if not _HAS_ZONE.search(stamp):
        raise ValueError(f"timestamp {stamp!r} has no time zone (for UTC, add Z)")
    moment = datetime.fromisoformat(stamp)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    stamp_ms = (delta.days * 86_400 + delta.seconds) * 1_000 + delta.microseconds // 1_000
    return _checked(stamp_ms, stamp)


def _checked(stamp_ms: int, given: int | str) -> int:
    if stamp_ms < 0:
        raise ValueError(f"timestamp {given!r} is before 1970")
    if stamp_ms > TIMESTAMP_MS_MAX:
        raise ValueError(
            f"timestamp {given!r} is after the year 9999 (a number is in milliseconds)"
        )
    return stamp_ms
