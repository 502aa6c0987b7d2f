"""Converts what is set in files, variables and options to the type of a setting."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

import msgspec
from msgspec import inspect as shape

from streamkit.errors import shown
from streamkit.settings.fields import SettingField
from streamkit.settings.secret import HIDDEN, Secret

_AS_LIST: Final = """write it as JSON, such as '["a", "b"]'"""
_AS_OBJECT: Final = """write it as JSON, such as '{"name": "value"}'"""
_LISTS = (shape.CollectionType, shape.TupleType)
_OBJECTS = (
    shape.DictType,
    shape.StructType,
    shape.DataclassType,
    shape.TypedDictType,
    shape.NamedTupleType,
)
_FORMS: Final[dict[type[shape.Type], str]] = {
    shape.BoolType: "use true or false",
    shape.IntType: "use a whole number, such as 5",
    shape.FloatType: "use a number, such as 0.5",
    shape.TimeDeltaType: "use seconds, such as 300, or an ISO 8601 duration, such as PT5M",
    shape.DateTimeType: "use RFC 3339, such as 2024-01-31T12:00:00Z",
    shape.DateType: "use a date, such as 2024-01-31",
    shape.TimeType: "use a time, such as 12:00:00",
    shape.BytesType: "use base64",
}


class NotValid(Exception):
    """A value does not have the type of its setting; the text never contains a secret."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


def converted(field: SettingField, value: object, *, is_text: bool) -> object:
    """Return a value as the type of its setting.

    Args:
        field: The setting.
        value: Text of a variable, an option or a file, or a value of a TOML file or of JSON.
        is_text: Whether lists and objects are written as JSON in it.

    Raises:
        NotValid: It cannot be converted.
    """
    if is_text and isinstance(value, str) and _is_json(field.shape, value):
        value = decoded(field, value)
    try:
        return msgspec.convert(value, field.info.type, strict=False, dec_hook=_from_text)
    except (ValueError, TypeError, RecursionError) as error:  # msgspec's error is a ValueError
        reason = str(error)
    raise NotValid(_reason(field, value, reason), form_of(field))


def decoded(field: SettingField, text: str) -> object:
    """Return what a setting contains that is written as JSON.

    Raises:
        NotValid: It is not JSON.
    """
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        pass
    raise NotValid(_reason(field, text, "not valid JSON"), form_of(field))


def form_of(field: SettingField) -> str:
    """Return how to write a value of a setting, or empty text."""
    for kind in _members(field.shape):
        if isinstance(kind, _LISTS):
            return _AS_LIST
        if isinstance(kind, _OBJECTS):
            return _AS_OBJECT
        if isinstance(kind, shape.LiteralType):
            return f"use one of: {', '.join(map(str, kind.values))}"
        if isinstance(kind, shape.EnumType):
            return f"use one of: {', '.join(str(each.value) for each in kind.cls)}"
        if type(kind) in _FORMS:
            return _FORMS[type(kind)]
    return ""


def shown_setting(value: object) -> str:
    """Return a value for a report, as JSON; a secret as ``***``."""
    try:
        text = msgspec.json.encode(value, enc_hook=_as_shown).decode()
    except Exception:  # the value of a user's type: `repr` of a Secret inside hides it, too
        return shown(value)
    text = HIDDEN if isinstance(value, Secret) else text
    return text if len(text) <= 80 else f"{text[:77]}..."


def _from_text(kind: type, value: object) -> object:
    if not isinstance(value, str):
        raise TypeError("Expected `str`")
    return Secret(value) if kind is Secret else kind(value)


def _as_shown(value: object) -> object:
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, PurePath):
        return str(value)
    return repr(value)


def _members(kind: shape.Type) -> tuple[shape.Type, ...]:
    return kind.types if isinstance(kind, shape.UnionType) else (kind,)


def _is_json(kind: shape.Type, text: str) -> bool:
    """Return whether text is JSON: its type is a list or an object, or it looks like one of them.

    The second case is for types that may also be plain text.
    """
    members = [each for each in _members(kind) if not isinstance(each, shape.NoneType)]
    nested = [isinstance(each, (*_LISTS, *_OBJECTS)) for each in members]
    return all(nested) or (any(nested) and text.lstrip()[:1] in ("[", "{"))


def _reason(field: SettingField, value: object, reason: str) -> str:
    if field.is_secret:
        return f"the value is not valid for {field.name!r} ({field.type_name}); it is not shown"
    # "got `str`" says nothing about a value that was written as text.
    reason = reason.replace(", got `str`", "") if isinstance(value, str) else reason
    return f"{shown(value)} is not valid for {field.name!r} ({field.type_name}): {reason}"
