"""Bytes to values and back, chosen by a type: bytes raw, text as UTF-8, all else as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, get_args, get_origin

import msgspec

from streamkit.errors import TopologyError, UsageError
from streamkit.record import Record


class Serde(Protocol):
    """A format of one's own, for ``value=`` and ``key=``."""

    def loads(self, data: bytes) -> Any:
        """Read a value; raise if the bytes are none."""

    def dumps(self, value: Any) -> bytes:
        """Write a value."""


@dataclass(frozen=True, slots=True)
class ValueFormat:
    """How the values of a topic are read. ``as_record``: the stage wants the whole record."""

    loads: Callable[[bytes], Any] | None
    as_record: bool = False


def format_for(kind: Any) -> ValueFormat:
    """Choose how to read values of a type; None and Any stand for plain bytes.

    Raises:
        TopologyError: Such values cannot be told from JSON; the text says what to change.
    """
    if kind is Record:
        return ValueFormat(None, as_record=True)
    if get_origin(kind) is Record:
        return ValueFormat(format_for(get_args(kind)[0]).loads, as_record=True)
    if kind is bytes:
        return ValueFormat(None)
    if kind is str:
        return ValueFormat(bytes.decode)
    try:
        return ValueFormat(msgspec.json.Decoder(kind).decode)
    except TypeError as error:
        hint = "give the Structs of a union a tag: class A(msgspec.Struct, tag=True)"
        raise TopologyError(
            f"values of {kind} cannot be decoded: {error}",
            hint=hint if "union" in str(error).lower() else "",
        ) from None


_encode_json = msgspec.json.Encoder().encode


def encode_value(value: Any) -> bytes:
    """Write one value: bytes raw, text as UTF-8, all else as JSON.

    Raises:
        TypeError: It cannot be written as JSON.
    """
    if type(value) is bytes:
        return value
    if type(value) is str:
        return value.encode()
    return _encode_json(value)


def encoder_for(kind: Any) -> Callable[[Any], bytes]:
    """Choose the quickest way to write values that are all of one type."""
    is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    return _encode_json if is_struct and not issubclass(kind, Record) else encode_value


def encode_key(key: Any) -> bytes | None:
    """Write a key: bytes raw, text as UTF-8, None for no key.

    Raises:
        UsageError: Keys of that type need a format of their own.
    """
    if key is None or type(key) is bytes:
        return key
    if type(key) is str:
        return key.encode()
    raise UsageError(
        f"a key of type {type(key).__name__} ({key!r})",
        hint="return bytes, str or None from key=, for example key=lambda row: str(row.id)",
    )


def key_reader(kind: Any) -> Callable[[bytes | None], Any]:
    """Choose how a context shows keys: text where it is annotated so, else bytes.

    Raises:
        TopologyError: Keys are shown as ``str`` or as ``bytes`` only.
    """
    kinds = {each for each in get_args(kind) or (kind,) if each not in (None, type(None), Any)}
    if kinds == {str}:
        return _key_text
    if kinds <= {bytes}:
        return _key_bytes
    raise TopologyError(
        f"a context cannot show keys as {kind}", hint="annotate Context[str] or Context[bytes]"
    )


def _key_text(key: bytes | None) -> str | None:
    return None if key is None else key.decode()


def _key_bytes(key: bytes | None) -> bytes | None:
    return key
