"""Inspects value types once, while the graph is built."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, LiteralString, NewType, TypeVar, get_args, get_origin

import msgspec
from msgspec import inspect as shape

from streamkit.record import Record

_UNIONS = (typing.Union, types.UnionType)
RAW_KINDS = (bytes, bytearray, memoryview)


def bare(kind: Any) -> Any:
    """Return the underlying type of a NewType, an alias or an Annotated without constraints.

    None means that the type is not known, Any means every type.
    """
    while True:
        if isinstance(kind, NewType):
            kind = kind.__supertype__
        elif type(kind).__name__ == "TypeAliasType":
            kind = kind.__value__
        elif get_origin(kind) is Annotated and not _constraints(kind):
            kind = get_args(kind)[0]
        elif isinstance(kind, TypeVar):
            kind = kind.__bound__
        elif kind is LiteralString:
            return str
        else:
            return Any if kind is object else kind


def is_text(kind: Any) -> bool:
    """Return whether a type is str, possibly with constraints such as a length."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return bare(kind) is str


def members(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union; for any other type, only the type itself."""
    kind = bare(kind)
    if get_origin(kind) in _UNIONS:
        return tuple(each for member in get_args(kind) for each in members(member))
    return (kind,)


def in_record(kind: Any) -> Any:
    """Return the type of the values that are written: for a `Record`, that of its value.

    None means that the type is not known.
    """
    found = []
    for each in members(kind):
        if each is None or (isinstance(each, type) and issubclass(each, Record)):
            return None
        origin = get_origin(each)
        is_record = isinstance(origin, type) and issubclass(origin, Record)
        found.append(get_args(each)[0] if is_record else each)
    return found[0] if len(found) == 1 else typing.Union[tuple(found)]  # noqa: UP007


def may_be_record(kind: Any) -> bool:
    """Return whether a value of a type may be a `Record`."""
    for each in members(kind):
        origin = get_origin(each) or each
        if each is None or each is Any or not isinstance(origin, type):
            return True
        # A Record may satisfy a protocol, and `isinstance` with one may raise.
        if origin in Record.__mro__ or Record in origin.__mro__ or is_protocol(origin):
            return True
    return False


def is_protocol(kind: type) -> bool:
    """Return whether instances of a class need not derive from it."""
    return bool(getattr(kind, "_is_protocol", False)) or inspect.isabstract(kind)


def is_pydantic(kind: Any) -> bool:
    """Return whether a class is a pydantic model or a pydantic dataclass."""
    return isinstance(kind, type) and hasattr(kind, "__pydantic_validator__")


def is_message(kind: Any) -> bool:
    """Return whether a class is one that Protobuf has generated for a message."""
    return isinstance(kind, type) and all(
        hasattr(kind, each) for each in ("DESCRIPTOR", "FromString", "SerializeToString")
    )


def may_hold_floats(kind: Any) -> bool:
    """Return whether a value of a type can contain a float."""
    try:
        return any(map(_may_be_float, _parts(kind)))
    except Exception:  # a type that msgspec does not support may contain anything
        return True


def classes_in(kind: Any) -> Iterator[Any]:
    """Yield the classes that a type consists of, including unsupported ones.

    Raises:
        Exception: msgspec cannot resolve an annotation.
    """
    for part in _parts(kind):
        if isinstance(part, shape.CustomType | shape.DataclassType):
            yield part.cls


def unsupported_in(kind: Any) -> Iterator[Any]:
    """Yield the classes in a type that cannot be written as JSON."""
    for part in _parts(kind):
        if isinstance(part, shape.CustomType):
            yield part.cls


def mixes_keys(kind: Any) -> bool:
    """Return whether a dict in a type has keys of several types; in JSON all keys are strings."""
    try:
        return any(
            isinstance(part, shape.DictType) and isinstance(part.key_type, shape.UnionType)
            for part in _parts(kind)
        )
    except Exception:  # an annotation that cannot be resolved
        return False


def _constraints(kind: Any) -> list[Any]:
    return [each for each in kind.__metadata__ if isinstance(each, msgspec.Meta)]


def _may_be_float(part: shape.Type) -> bool:
    unknown = shape.AnyType | shape.CustomType | shape.RawType
    return isinstance(part, shape.FloatType | unknown)


def _parts(kind: Any) -> Iterator[shape.Type]:
    """Yield a type and all types it consists of, each once."""
    seen: dict[int, shape.Type] = {}
    waiting: list[Any] = [shape.type_info(kind)]
    while waiting:
        each = waiting.pop()
        if isinstance(each, shape.Field):
            each = each.type
        if isinstance(each, tuple):
            waiting.extend(each)
        elif isinstance(each, shape.Type) and id(each) not in seen:
            seen[id(each)] = each
            yield each
            waiting.extend(getattr(each, name) for name in each.__struct_fields__)
