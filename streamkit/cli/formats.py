"""Output formats of `consume`: turn a chunk of records into bytes. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import lru_cache
from itertools import repeat
from typing import Any, Final

import msgspec

from streamkit.cli.tables import NOT_JSON, Table, is_row
from streamkit.errors import UsageError
from streamkit.record import Chunk

Format = Callable[[Chunk], bytes]

OUTPUTS: Final = ("dynamic", "text", "binary", "json", "raw", "table")


def format_of(output: str, *, with_keys: bool) -> Format:
    """Return the function that formats a chunk.

    Args:
        output: One of OUTPUTS.
        with_keys: Whether to print ``[key] `` before each value.
    """
    if output == "json":
        return envelopes
    if output == "table":
        return Table()
    if output == "raw" and not with_keys:
        return _raw
    return _with_keys(_SHOW[output]) if with_keys else _without_keys(_SHOW[output], output)


def _raw(chunk: Chunk) -> bytes:
    return b"\n".join(chunk.values) + b"\n"


def _without_keys(show: Callable[[bytes], bytes], output: str) -> Format:
    def write(chunk: Chunk) -> bytes:
        joined = _raw(chunk)
        # Checking the whole chunk at once is faster than checking each value.
        if output != "binary" and is_text(joined):
            return joined
        return b"\n".join(map(show, chunk.values)) + b"\n"

    return write


def _with_keys(show: Callable[[bytes], bytes]) -> Format:
    def line(key: bytes | None, value: bytes) -> bytes:
        return b"[%b] %b\n" % (b"null" if key is None else key, show(value))

    return lambda chunk: b"".join(map(line, chunk.keys, chunk.values))


def is_text(value: bytes) -> bool:
    """Return whether bytes are UTF-8 text without NUL."""
    if b"\0" in value:
        return False
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text_or_dump(value: bytes) -> bytes:
    return value if is_text(value) else hex_dump(value)


def _text_or_size(value: bytes) -> bytes:
    return value if is_text(value) else b"binary: (%d bytes)" % len(value)


_PRINTABLE: Final = bytes(byte if 32 <= byte < 127 else ord(".") for byte in range(256))


def hex_dump(value: bytes) -> bytes:
    """Return lines with an address, two groups of eight bytes in hex, and their ASCII text."""
    lines = []
    for at in range(0, len(value), 16):
        row = value[at : at + 16]
        groups = f"{row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}"
        lines.append(f"{at:08x}  {groups}  |{row.translate(_PRINTABLE).decode()}|")
    return "\n".join(lines).encode()


_SHOW: Final[dict[str, Callable[[bytes], bytes]]] = {
    "dynamic": _text_or_dump,
    "text": _text_or_size,
    "binary": hex_dump,
    "raw": bytes,
}


class _Envelope(msgspec.Struct, omit_defaults=True):
    key: str | None
    value: msgspec.Raw | str
    offset: int
    partition: int
    timestamp: str | None
    value_encoding: str | None = None
    key_encoding: str | None = None


_encode_lines = msgspec.json.Encoder().encode_lines
_as_raw = msgspec.json.Decoder(msgspec.Raw).decode


def envelopes(chunk: Chunk) -> bytes:
    """Write one JSON object per record, as `produce --input json` reads it.

    A value that is JSON is embedded unchanged. Other text, and JSON that is itself a string, is
    written as a JSON string. Other bytes are written as base64, and ``value_encoding`` is set.
    """
    return _encode_lines(
        list(
            map(
                _envelope,
                chunk.keys,
                chunk.values,
                chunk.offsets,
                repeat(chunk.partition),
                map(time_text, chunk.timestamps_ms),
            )
        )
    )


def _envelope(
    key: bytes | None, value: bytes, offset: int, partition: int, stamp: str | None
) -> _Envelope:
    key_text, key_encoding = (None, None) if key is None else _text_or_base64(key)
    found: msgspec.Raw | str | None = _json_of(value)
    encoding = None
    if found is None:
        found, encoding = _text_or_base64(value)
    return _Envelope(key_text, found, offset, partition, stamp, encoding, key_encoding)


def _json_of(value: bytes) -> msgspec.Raw | None:
    """Return a value that can be embedded in a line unchanged; None if it is not such JSON."""
    # A JSON string is written as text, with its quotes: otherwise `"a"` and `a` would look alike.
    if value[:1] in (b'"', b"") or b"\n" in value or b"\r" in value or not is_text(value):
        return None
    try:
        found = _as_raw(value)
    except NOT_JSON:
        return None
    return found if len(bytes(found)) == len(value) else None


def _text_or_base64(value: bytes) -> tuple[str, str | None]:
    try:
        return value.decode(), None
    except UnicodeDecodeError:
        return base64.b64encode(value).decode(), "base64"


@lru_cache(maxsize=4_096)
def time_text(timestamp_ms: int) -> str | None:
    """Return an RFC 3339 time with milliseconds, in UTC; None if the timestamp is not valid."""
    if timestamp_ms < 0:
        return None
    try:
        moment = datetime.fromtimestamp(timestamp_ms // 1_000, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # out of range for a date
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{timestamp_ms % 1_000:03d}Z"


_FIELDS: Final = ("key", "value", "offset", "partition", "time")
_PLACEHOLDER: Final = re.compile(r"\{\{\s*(.*?)\s*\}\}")


def template(text: str) -> Format:
    """Return a format that fills in ``{{key}} {{value}} {{offset}} {{partition}} {{time}}``.

    Raises:
        UsageError: A placeholder has another name.
    """
    for name in _PLACEHOLDER.findall(text):
        if name not in _FIELDS:
            close = get_close_matches(name, _FIELDS, 1)
            fields = ", ".join(_FIELDS)
            hint = f"did you mean {close[0]!r}?" if close else f"the fields are {fields}"
            raise UsageError(f"--format: unknown field {name!r}", hint=hint)
    parts = _PLACEHOLDER.split(text)
    literal = [part.replace("{", "{{").replace("}", "}}") for part in parts[::2]]
    names = [f"{{{_FIELDS.index(name)}}}" for name in parts[1::2]]
    pattern = "".join(map("".join, zip(literal, [*names, ""], strict=True))) + "\n"

    def write(chunk: Chunk) -> bytes:
        lines = map(
            pattern.format,
            ["null" if key is None else _lossy(key) for key in chunk.keys],
            map(_lossy, chunk.values),
            chunk.offsets,
            repeat(chunk.partition),
            [time_text(stamp) or "NA" for stamp in chunk.timestamps_ms],
        )
        return "".join(lines).encode()

    return write


def suppress_unknown(output: str) -> Callable[[Chunk], Chunk]:
    """Return a filter for records whose values are valid in a format, one of OUTPUTS."""
    is_valid = _IS_VALID.get(output)
    if is_valid is None:
        return lambda chunk: chunk
    return lambda chunk: chunk.select(list(map(is_valid, chunk.values)))


def _is_json(value: bytes) -> bool:
    try:
        _as_raw(value)
    except NOT_JSON:
        return False
    return True


_IS_VALID: Final[dict[str, Callable[[bytes], bool]]] = {
    "text": is_text,
    "json": _is_json,
    "table": is_row,
}


def truncated(write: Format, width: int) -> Format:
    """Return the same format with each line cut to ``width`` characters."""

    def cut(chunk: Chunk) -> bytes:
        lines = write(chunk).decode(errors="replace").split("\n")
        return "\n".join(line[:width] for line in lines).encode()

    return cut


def _lossy(value: bytes) -> str:
    return value.decode(errors="replace")


def before(chunk: Chunk, until_ms: int) -> tuple[Chunk, bool]:
    """Keep the records before the first one later than a time; return whether there is one."""
    for row, stamp in enumerate(chunk.timestamps_ms):
        if stamp > until_ms:
            return chunk.slice(0, row), True
    return chunk, False


def select_until(chunk: Chunk, last: int) -> Chunk:
    """Keep the records up to offset ``last``."""
    offsets: Sequence[Any] = chunk.offsets
    if offsets[-1] <= last:
        return chunk
    return chunk.slice(0, sum(offset <= last for offset in offsets))
