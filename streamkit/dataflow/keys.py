"""Keys that records are grouped by, as bytes: what state is kept under, and the key of results."""

from __future__ import annotations

import datetime
import decimal
import enum
import typing
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NewType, cast, get_args

import msgspec

from streamkit.dataflow.operators import fill, with_keys
from streamkit.dataflow.steps import Room, Stateless
from streamkit.record import Chunk

_encode_json = msgspec.json.Encoder(order="deterministic").encode
_AS_TEXT = (int, float, decimal.Decimal, uuid.UUID, datetime.datetime, datetime.date)


def group_key(key: object) -> bytes:
    """Return the bytes of a key: text as UTF-8, numbers and dates as text, all else as JSON.

    Raises:
        TypeError: The key is None, NaN, or a value that cannot be encoded.
    """
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, bytes):
        return key
    if key is None:
        raise TypeError("the key is None: a record without a key belongs to no group")
    if isinstance(key, float | decimal.Decimal) and key != key:
        raise TypeError("the key is NaN, which is not equal to itself")
    if isinstance(key, enum.Enum):
        return group_key(key.value)
    if isinstance(key, _AS_TEXT) and not isinstance(key, bool):
        return str(key).encode()
    try:
        return _encode_json(key)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"the key is {type(key).__name__}, which cannot be a key: {error}"
        ) from error


def group_key_reader(kind: Any) -> Callable[[bytes | None], Any]:
    """Return how the bytes of a group key become a key again.

    Args:
        kind: The type of the keys; None or Any if it is not known, which shows keys as text.
    """
    kind = _plain_type(kind)
    if kind is bytes:
        return lambda key: key
    if typing.get_origin(kind) is Literal:
        return _members(get_args(kind))
    if not isinstance(kind, type) or kind is str:
        is_container = typing.get_origin(kind) in (tuple, list, dict)
        return _json_reader(kind) if is_container else _text
    if issubclass(kind, enum.Enum):
        return _members(kind)
    if issubclass(kind, _AS_TEXT) and kind is not bool:
        return lambda key: msgspec.convert(_text(key), kind, strict=False)
    return _json_reader(kind)


def _plain_type(kind: Any) -> Any:
    """Return a type without its annotations, new names and None."""
    if isinstance(kind, NewType):
        return _plain_type(kind.__supertype__)
    if typing.get_origin(kind) is Annotated:
        return _plain_type(get_args(kind)[0])
    inner = [each for each in get_args(kind) if each is not type(None)]
    if len(inner) == 1 and type(None) in get_args(kind):
        return _plain_type(inner[0])
    return kind


def _members(values: Iterable[Any]) -> Callable[[bytes | None], Any]:
    known = {group_key(each): each for each in values}
    return lambda key: known.get(key or b"", key)


def _json_reader(kind: Any) -> Callable[[bytes | None], Any]:
    """Return a reader of keys that are JSON; keys of a type that msgspec does not know are text."""
    try:
        decode = msgspec.json.Decoder(kind).decode
    except (TypeError, ValueError):
        return _text

    def read(key: bytes | None) -> Any:
        try:
            return decode(key or b"null")
        except msgspec.MsgspecError:  # a class without fields, such as object or Hashable
            return _text(key)

    return read


def _text(key: bytes | None) -> str:
    return (key or b"").decode(errors="replace")


@dataclass(frozen=True, slots=True)
class KeyBy(Stateless):
    """Give each record the key of its group."""

    function: Callable[[Any], object]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        found: list[object] = []
        call = partial(map, self.function)
        fill(found, call, chunk, room, lambda done: _keyed(done, found, room))
        return _keyed(chunk, found, room)


def _keyed(chunk: Chunk, found: Sequence[object], room: Room) -> Chunk:
    """Return a chunk with the bytes of keys.

    Raises:
        RowFailed: A key cannot be encoded.
    """
    if set(map(type, found)) == {str}:
        try:
            return with_keys(chunk, [key.encode() for key in cast("Sequence[str]", found)])
        except UnicodeEncodeError:
            pass  # the row is found below
    keys: list[bytes | None] = []
    column = chunk.with_values(found)
    fill(keys, partial(map, group_key), column, room, lambda done: _first_keyed(chunk, keys))
    return with_keys(chunk, keys)


def _first_keyed(chunk: Chunk, keys: Sequence[bytes | None]) -> Chunk:
    return with_keys(chunk.slice(0, len(keys)), keys)
