"""Paths that depend on values, such as ``out/{origin}/part-{n}.parquet``.

A *route* is a path without the number of the file: the rows with the same route go to one file
until it is full.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from string import Formatter
from typing import Any, Final

import msgspec

from streamkit.errors import DataError, TopologyError, UsageError
from streamkit.record import Kind, Value
from streamkit.serde.kinds import bare

# What other tools read as the folder of rows without a value.
NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"
_NUMBER: Final = "n"
_OF_RECORD: Final = ("key", "timestamp")
_NAME: Final = re.compile(r"[^\W\d]\w*")
# Characters that are not possible in a name on every system, and the one that escapes them.
_ESCAPED: Final = re.compile(r'[\x00-\x1f/\\:*?"<>|%]')
_SEGMENT_BYTES_MAX: Final = 200
_KNOWN_MAX: Final = 10_000
_COMPARABLE: Final = (str, int, bool, type(None), date)
# Where the number of the file belongs; no path contains it.
_MARK: Final = "\0"


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    spec: str


class PathTemplate:
    """A path with fields in braces, in the form of `str.format`.

    Raises:
        UsageError: It is not a valid path with fields.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = _parts_of(text)
        fields = [part for part in self._parts if isinstance(part, _Field)]
        names = {field.name for field in fields}
        self.has_number = _NUMBER in names
        self._number = next((field for field in fields if field.name == _NUMBER), None)
        self._of_record = [field for field in fields if field.name in _OF_RECORD]
        special = (_NUMBER, *_OF_RECORD)
        self._of_value = [field for field in fields if field.name not in special]
        self._known: dict[tuple[Any, ...], str] = {}
        self._check_number()

    @property
    def folder(self) -> str:
        """The folder that all files are in or below."""
        first = self._parts[0]
        return (first if isinstance(first, str) else "").rpartition("/")[0] or "/"

    @property
    def uses_values(self) -> bool:
        """Whether the path has a field of the values."""
        return bool(self._of_value)

    @property
    def uses_records(self) -> bool:
        """Whether the path has the key or the timestamp of the record."""
        return bool(self._of_record)

    def check_type(self, kind: Kind) -> None:
        """Refuse a type that does not have the fields of the path.

        Raises:
            TopologyError: A field is missing.
        """
        known = _fields_of(bare(kind))
        missing = [each.name for each in self._of_value if known is not None]
        for name in missing:
            if known is not None and name not in known and not hasattr(bare(kind), name):
                raise TopologyError(
                    f"the path {self.text!r} has the field {name!r}, but the values do not",
                    hint=f"fields are {', '.join(sorted(known))}; {{n}} is the number of the "
                    "file, {key} and {timestamp} are those of the record",
                )

    def values_of(self, value: Value) -> tuple[Value, ...]:
        """Return the fields of a value that the path has.

        Raises:
            DataError: The value has no such field.
        """
        get: Callable[[str], Value] = (
            value.__getitem__ if isinstance(value, Mapping) else value.__getattribute__
        )
        try:
            return tuple(get(field.name) for field in self._of_value)
        except (AttributeError, KeyError) as error:
            name = error.args[0] if isinstance(error, KeyError) else error.name
            raise DataError(f"the value has no field {name!r}, which the path has") from None

    def route(self, values: Sequence[Value], key: bytes | None, timestamp_ms: int) -> str:
        """Return the path of a row, with a mark for the number.

        Raises:
            DataError: A value cannot be a part of a path.
        """
        found = (*values, *self._record_values(key, timestamp_ms))
        known = tuple(map(_identity, found))
        if None in known:
            return self._rendered(found)
        if known in self._known:
            return self._known[known]
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[known] = path = self._rendered(found)
        return path

    def path_of(self, route: str, number: int) -> str:
        """Return the path of the file with this number, from 0, on a route."""
        if self._number is not None:
            return route.replace(_MARK, format(number, self._number.spec))
        if number == 0:
            return route
        folder, slash, name = route.rpartition("/")
        stem, dot, suffixes = name.partition(".")
        return f"{folder}{slash}{stem}-{number}{dot}{suffixes}"

    def _record_values(self, key: bytes | None, timestamp_ms: int) -> tuple[Value, ...]:
        return tuple(
            _text_of(key) if field.name == "key" else timestamp_ms for field in self._of_record
        )

    def _rendered(self, values: Sequence[Value]) -> str:
        found = dict(zip((*self._of_value, *self._of_record), values, strict=True))
        parts = []
        for part in self._parts:
            if isinstance(part, str):
                parts.append(part)
            elif part.name == _NUMBER:
                parts.append(_MARK)
            else:
                parts.append(_segment(part, found[part]))
        path = "".join(parts)
        try:
            too_long = [each for each in path.split("/") if len(each.encode()) > _SEGMENT_BYTES_MAX]
        except UnicodeEncodeError:
            raise DataError(f"{path!r} cannot be a path") from None
        if too_long:
            raise DataError(f"the name {too_long[0][:40]!r}... of a file or folder is too long")
        return path

    def _check_number(self) -> None:
        if self._number is None:
            return
        try:
            format(0, self._number.spec)
        except ValueError as error:
            raise UsageError(f"the path {self.text!r} is not valid: {error}") from None


def _parts_of(text: str) -> list[str | _Field]:
    if not text or text.endswith("/") or _MARK in text:
        raise UsageError(f"the path {text!r} does not name a file")
    parts: list[str | _Field] = []
    try:
        for literal, name, spec, conversion in Formatter().parse(text):
            if literal:
                parts.append(literal)
            if name is None:
                continue
            if not _NAME.fullmatch(name) or conversion or "{" in (spec or ""):
                raise ValueError(f"{{{name}}} is not the name of a field")
            parts.append(_Field(name, spec or ""))
    except ValueError as error:
        raise UsageError(
            f"the path {text!r} is not valid: {error}",
            hint='a field is written as {origin} or {date:%Y-%m-%d}, a brace as "{{"',
        ) from None
    if sum(isinstance(part, _Field) and part.name == _NUMBER for part in parts) > 1:
        raise UsageError(f"the path {text!r} has {{n}} more than once")
    return parts


def _fields_of(kind: Kind) -> set[str] | None:
    """Return the names of the fields of a type; None if they are not known."""
    try:
        found = msgspec.inspect.type_info(kind)
    except Exception:  # the type is refused elsewhere, with a better text
        return None
    fields = getattr(found, "fields", None)
    return None if fields is None else {each.name for each in fields}


def _text_of(key: bytes | None) -> str | None:
    return None if key is None else key.decode(errors="backslashreplace")


def _identity(value: Value) -> tuple[Any, ...] | None:
    """Return what is the same only for values with the same text; None if that is not known.

    Equal values may have different texts: 1, 1.0 and True, or one instant in two time zones.
    """
    kind = type(value)
    if kind is datetime:
        return kind, value.replace(tzinfo=None), value.tzinfo
    return (kind, value) if kind in _COMPARABLE else None


def _segment(field: _Field, value: Value) -> str:
    """Return a value as a part of the name of a file or folder."""
    if value is None or (field.name == "timestamp" and value < 0):
        return NO_VALUE
    try:
        if field.name == "timestamp":
            text = format(datetime.fromtimestamp(value / 1_000, UTC), field.spec)
        else:
            text = format(value, field.spec)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise DataError(f"the field {field.name!r} of the path is {value!r}: {error}") from None
    if "/" in field.spec:  # as in {date:%Y/%m/%d}
        return "/".join(map(_escaped, text.split("/")))
    return _escaped(text)


def _escaped(text: str) -> str:
    text = _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", text)
    if text.startswith("."):  # a hidden file, or another folder
        text = f"%2E{text[1:]}"
    return text or NO_VALUE
