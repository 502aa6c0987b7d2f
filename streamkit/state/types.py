"""Types of state: how values are stored, and whether a stored type can still be read.

A field with a default may be added to a stored type. Every other change is refused, because it
would change values that are already stored.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import types
import typing
import uuid
from dataclasses import replace
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import msgpack

from streamkit.errors import TopologyError
from streamkit.state.change_log import StateFormat

# A type as JSON: its kind, and its name, fields or the types inside it.
_Described = dict[str, Any]
_SCALARS = (
    *(bool, int, float, str, bytes, type(None), decimal.Decimal, uuid.UUID),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
)


def format_of(kind: object, name: str) -> StateFormat:
    """Choose how the values of a state are stored.

    Args:
        kind: Their type.
        name: The stage's name, for the error.

    Raises:
        TopologyError: Values of this type cannot be stored.
    """
    try:
        decode = msgpack.Decoder(kind).decode
        description = describe(kind)
    except (TypeError, ValueError) as error:
        raise TopologyError(
            f"the state of {name!r} cannot be stored: {error}",
            hint="use int, float, str, bytes, list, dict, a dataclass or a msgspec.Struct",
        ) from error
    return StateFormat(
        msgpack.Encoder().encode,
        decode,
        is_immutable(kind),
        description,
        is_untyped='"any"' in description,
    )


def windowed_format(form: StateFormat, window: str) -> StateFormat:
    """Return the format of values that are kept for each window; ``window`` describes those."""
    inner = msgspec.Raw(form.description.encode())
    described = msgspec.json.encode({"type": "windows", "window": window, "of": [inner]}).decode()
    return replace(form, description=described)


def describe(kind: object) -> str:
    """Write a type with all its fields as JSON, to compare it with later versions.

    Raises:
        TypeError: msgspec does not support the type.
    """
    return msgspec.json.encode(_described(kind, ()), order="sorted").decode()


def type_change(stored: str, wanted: str) -> str | None:
    """Return why values of a stored type cannot be read as another type; None if they can."""
    return _change(msgspec.json.decode(stored), msgspec.json.decode(wanted), "")


def is_immutable(kind: object) -> bool:
    """Return whether no value of a type can be changed in place."""
    return _is_immutable(kind, ())


def _is_immutable(kind: object, parents: tuple[object, ...]) -> bool:
    if kind in parents:
        return True
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is typing.Annotated:
        return _is_immutable(arguments[0], parents)
    if origin in (typing.Union, types.UnionType, tuple, frozenset):
        inner = [each for each in arguments if each is not Ellipsis]
        return all(_is_immutable(each, parents) for each in inner)
    if origin is typing.Literal:
        return True
    if not isinstance(kind, type):
        return False
    if kind in _SCALARS or issubclass(kind, enum.Enum):
        return True
    settings = (
        getattr(kind, "__struct_config__", None),  # of a msgspec.Struct
        getattr(kind, "__dataclass_params__", None),
    )
    if not any(getattr(each, "frozen", False) for each in settings):
        return False
    fields = get_type_hints(kind, include_extras=True)
    return all(_is_immutable(each, (*parents, kind)) for each in fields.values())


def _described(kind: object, parents: tuple[object, ...]) -> object:
    found = msgspec.inspect.type_info(kind)
    return _of_info(found, parents)


def _of_info(info: msgspec.inspect.Type, parents: tuple[object, ...]) -> object:
    name = type(info).__name__.removesuffix("Type").lower()
    cls = getattr(info, "cls", None)
    if cls is not None and cls in parents:
        return {"type": name, "name": cls.__name__}
    inner = (*parents, cls)
    match info:
        case (
            msgspec.inspect.StructType(fields=fields)
            | msgspec.inspect.DataclassType(fields=fields)
            | msgspec.inspect.TypedDictType(fields=fields)
            | msgspec.inspect.NamedTupleType(fields=fields)
        ):
            return {
                "type": name,
                "name": info.cls.__name__,
                "fields": [
                    {
                        "name": field.encode_name,
                        "type": _of_info(field.type, inner),
                        "required": field.required,
                    }
                    for field in fields
                ],
            }
        case msgspec.inspect.UnionType(types=members):
            described = [_of_info(each, parents) for each in members]
            return {"type": name, "of": sorted(described, key=str)}
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return {"type": name, "of": [_of_info(key, parents), _of_info(value, parents)]}
        case msgspec.inspect.TupleType(item_types=items):
            return {"type": name, "of": [_of_info(each, parents) for each in items]}
        case msgspec.inspect.EnumType():
            return {"type": name, "of": sorted(repr(each.value) for each in info.cls)}
        case msgspec.inspect.LiteralType(values=values):
            return {"type": name, "of": sorted(map(repr, values))}
        case msgspec.inspect.CustomType():
            raise TypeError(f"{info.cls.__name__} is not a type that msgspec can store")
    item = getattr(info, "item_type", None)
    return {"type": name} if item is None else {"type": name, "of": [_of_info(item, parents)]}


def _change(stored: _Described, wanted: _Described, path: str) -> str | None:
    where = path or "the value"
    if stored["type"] != wanted["type"]:
        return f"{where} was {shown(stored)}, now it is {shown(wanted)}"
    if stored.get("window") != wanted.get("window"):
        return f"the window was {stored.get('window')}, now it is {wanted.get('window')}"
    if "fields" in wanted:
        return _change_of_fields(stored, wanted, path)
    if stored["type"] in ("union", "enum", "literal"):
        lost = [each for each in stored.get("of", []) if each not in wanted.get("of", [])]
        return f"{where} no longer accepts {shown(lost[0])}" if lost else None
    before, after = stored.get("of", []), wanted.get("of", [])
    if len(before) != len(after):
        return f"{where} was {shown(stored)}, now it is {shown(wanted)}"
    for old, new in zip(before, after, strict=True):
        if problem := _change(old, new, f"{where}, an item"):
            return problem
    return None


def _change_of_fields(stored: _Described, wanted: _Described, path: str) -> str | None:
    before = {each["name"]: each for each in stored.get("fields", [])}
    after = {each["name"]: each for each in wanted["fields"]}
    prefix = f"{path}." if path else ""
    for name in before:
        if name not in after:
            return f"the field {prefix}{name} is missing now"
    for name, field in after.items():
        if name not in before:
            if field["required"]:
                return f"the new field {prefix}{name} has no default"
        elif problem := _change(before[name]["type"], field["type"], f"{prefix}{name}"):
            return problem
    if stored["type"] == "namedtuple" and list(before) != list(after)[: len(before)]:
        return "the fields are in another order"
    return None


def shown_description(description: str) -> str:
    """Write the stored description of a type for people."""
    described = msgspec.json.decode(description)
    window = described.get("window")
    return f"{shown(described)} ({window})" if window else shown(described)


def shown(described: object) -> str:
    """Write a described type for people: ``list of int``, ``Visits``."""
    if not isinstance(described, dict):
        return str(described)
    if "name" in described:
        return str(described["name"])
    inner = described.get("of", [])
    if not inner:
        return str(described["type"])
    separator = " or " if described["type"] == "union" else ", "
    text = separator.join(map(shown, inner))
    return text if described["type"] == "union" else f"{described['type']} of {text}"
