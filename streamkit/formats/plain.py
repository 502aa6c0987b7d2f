"""Text in an encoding, and plain bytes."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Any

import msgspec

from streamkit.errors import TopologyError, UsageError
from streamkit.formats.format import Format, reading, shown_type, writing
from streamkit.record import Kind, Value
from streamkit.serde.binding import BoundFormat, Usage
from streamkit.serde.kinds import RAW_KINDS, is_text


@dataclass(frozen=True)
class Text(Format):
    """Text without quotes, in an encoding.

    Args:
        encoding: Such as ``utf-8``, ``latin-1`` or ``cp1252``.

    Raises:
        UsageError: Python does not know the encoding.
    """

    type: Kind = str
    encoding: str = "utf-8"

    def __init__(self, encoding: str = "utf-8") -> None:
        try:
            is_of_text = "a".encode(encoding).decode(encoding) == "a"
        except (LookupError, UnicodeError, TypeError):
            is_of_text = False
        if not is_of_text:
            raise UsageError(
                f"{encoding!r} is not a valid encoding", hint="for example utf-8 or latin-1"
            )
        object.__setattr__(self, "encoding", encoding)

    def for_use(self, usage: Usage) -> BoundFormat:
        kind = str if usage.kind in (None, Any) else usage.kind
        if not is_text(kind):
            raise TopologyError(
                f"Text has values of type str, not {shown_type(kind)}", hint="annotate str"
            )
        name = codecs.lookup(self.encoding).name
        what = f"{name} text"

        def encode(value: Value) -> bytes:
            if not isinstance(value, str):
                raise TypeError(f"the value is {type(value).__name__}, not str")
            return value.encode(name)

        def decode(data: bytes) -> str:
            return data.decode(name)

        def converted(data: bytes) -> Value:
            return msgspec.convert(data.decode(name), kind)

        return BoundFormat(
            reading(what, decode if kind is str else converted), writing(what, encode)
        )


@dataclass(frozen=True)
class Raw(Format):
    """The bytes as they are."""

    type: Kind = bytes

    def __init__(self) -> None:
        pass

    def for_use(self, usage: Usage) -> BoundFormat:
        kind = bytes if usage.kind in (None, Any) else usage.kind
        if kind not in RAW_KINDS:
            raise TopologyError(
                f"Raw has values of type bytes, not {shown_type(kind)}", hint="annotate bytes"
            )
        return BoundFormat(kind, writing("bytes", _raw))


def _raw(value: Value) -> bytes:
    if type(value) is bytes:
        return value
    if isinstance(value, RAW_KINDS):
        return bytes(value)
    raise TypeError(f"the value is {type(value).__name__}, not bytes")
