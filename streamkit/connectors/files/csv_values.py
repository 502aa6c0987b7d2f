"""How texts of a row of CSV become values."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgspec

from streamkit.connectors.files.csv_rows import CsvRow, Header, InvalidRow
from streamkit.dataflow.contracts import Decoder
from streamkit.errors import DataError, TopologyError
from streamkit.record import Kind, Value
from streamkit.units import counted

_DELIMITERS: Final = ";\t|,"


def csv_decoder(kind: Kind, missing: tuple[str, ...]) -> Decoder:
    """Return how rows become values of a type.

    Raises:
        TopologyError: Values of the type cannot be made from texts.
    """
    origin: Any = typing.get_origin(kind) or kind
    if origin in (None, Any, dict):
        return Decoder(_Dicts(kind if typing.get_args(kind) else None, missing).one)
    if origin is list:
        return Decoder(lambda row: list(_fields(row)))
    fields = _fields_of(kind)
    if not fields:
        raise TopologyError(
            f"rows of CSV cannot be {kind}",
            hint="use a class with fields, such as a msgspec.Struct, or dict or list",
        )
    rows = _Objects(kind, fields, frozenset(missing))
    return Decoder(rows.one, rows.many)


def csv_row(value: Value) -> CsvRow:
    """Return the row that is decoded to a value, with every field as text."""
    if isinstance(value, list):
        return tuple(map(str, range(len(value)))), list(map(_text, value))
    found = msgspec.to_builtins(value)
    return tuple(found), [_text(each) for each in found.values()]


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _fields(row: CsvRow | InvalidRow) -> list[str]:
    if isinstance(row, InvalidRow):
        raise DataError(row.problem)
    header, fields = row
    if len(fields) != len(header):
        found, columns = counted(len(fields), "field"), counted(len(header), "column")
        raise DataError(f"the row has {found}, but the file has {columns}")
    return fields


def _refuse_header(header: Header, column: str) -> NoReturn:
    """Refuse names of columns that do not have this one once."""
    if column in header:
        raise DataError(f"the file has several columns {column!r}")
    other = next((each for each in _DELIMITERS if each in header[0]), "")
    hint = f"if {other!r} separates the fields, use delimiter={other!r}"
    raise DataError(
        f"the file has no column {column!r}; it has {', '.join(header)}",
        hint=hint if other and len(header) == 1 else "",
    )


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of the type: its column, its type, and whether it may be None or missing."""

    name: str
    column: str
    kind: Kind
    allows_none: bool
    is_required: bool
    is_json: bool


def _fields_of(kind: Kind) -> tuple[_Field, ...]:
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except (TypeError, NameError):
        return ()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        required = {each.name for each in msgspec.structs.fields(kind) if each.required}
        columns = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    elif dataclasses.is_dataclass(kind):
        given = (dataclasses.MISSING, dataclasses.MISSING)
        found = dataclasses.fields(kind)
        required = {each.name for each in found if (each.default, each.default_factory) == given}
        columns = {each.name: each.name for each in found}
    elif typing.is_typeddict(kind):
        required = set(kind.__required_keys__)
        columns = {name: name for name in hints}
    else:
        return ()
    return tuple(
        _Field(
            name,
            columns[name],
            hints[name],
            _allows_none(hints[name]),
            name in required,
            _is_json(hints[name]),
        )
        for name in columns
    )


def _read(text: str, field: _Field) -> Any:
    if not field.is_json:
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise DataError(f"the column {field.column!r} is not JSON: {error}") from None


def _allows_none(kind: Kind) -> bool:
    try:
        msgspec.convert(None, kind)
    except (msgspec.ValidationError, TypeError):
        return False
    return True


def _is_json(kind: Kind) -> bool:
    """Return whether a field is a list or an object, which a sink of CSV writes as JSON."""
    return any(_decodes(kind, each) for each in (b"[]", b"{}")) and not _decodes(kind, b'""')


def _decodes(kind: Kind, data: bytes) -> bool:
    try:
        msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        return "missing required field" in str(error)  # an object of a class
    except TypeError:
        return False
    return True


class _Dicts:
    """Makes dicts of texts, converted if the dict has a type for its values."""

    def __init__(self, kind: Kind, missing: tuple[str, ...]) -> None:
        self._kind = kind
        self._missing = frozenset(missing)
        self._allows_none = kind is not None and _allows_none(typing.get_args(kind)[1])

    def one(self, row: CsvRow | InvalidRow) -> Any:
        fields = _fields(row)
        assert not isinstance(row, InvalidRow), "it has no fields"
        texts = dict(zip(row[0], fields, strict=True))
        if len(texts) != len(fields):
            _refuse_header(row[0], next(each for each in row[0] if row[0].count(each) > 1))
        if self._kind is None:
            return texts
        if self._allows_none:
            given = {k: None if v in self._missing else v for k, v in texts.items()}
            return msgspec.convert(given, self._kind, strict=False)
        return msgspec.convert(texts, self._kind, strict=False)


class _Objects:
    """Makes objects of a class with fields, a column of texts at a time."""

    def __init__(self, kind: Kind, fields: tuple[_Field, ...], missing: frozenset[str]) -> None:
        self._kind = kind
        self._fields = fields
        self._missing = missing
        # Its constructor takes the fields in their order, and nothing else has to be checked.
        self._is_plain = (
            isinstance(kind, type)
            and issubclass(kind, msgspec.Struct)
            and all(
                each.kind is each.POSITIONAL_OR_KEYWORD
                for each in inspect.signature(kind).parameters.values()
            )
        )

    def many(self, rows: Sequence[CsvRow]) -> list[Any]:
        header = rows[0][0]
        texts = [fields for _, fields in rows]
        columns = dict(zip(header, zip(*texts, strict=True), strict=True))
        if not self._is_plain or any(header.count(each.column) != 1 for each in self._fields):
            return [self.one(row) for row in rows]
        return list(map(self._kind, *(self._column(each, columns) for each in self._fields)))

    def _column(self, field: _Field, columns: dict[str, tuple[str, ...]]) -> Sequence[Any]:
        texts: Sequence[str | None] = columns[field.column]
        if field.kind is str:
            return texts
        if field.allows_none:
            missing = self._missing
            texts = [None if text in missing else text for text in texts]
        if field.is_json:
            decode = msgspec.json.Decoder(field.kind).decode
            return [None if text is None else decode(text) for text in texts]
        found: list[Any] = msgspec.convert(texts, list[field.kind], strict=False)  # type: ignore[name-defined]
        return found

    def one(self, row: CsvRow | InvalidRow) -> Any:
        fields = _fields(row)
        assert not isinstance(row, InvalidRow), "it has no fields"
        texts = dict(zip(row[0], fields, strict=True))
        given: dict[str, Any] = {}
        for field in self._fields:
            count = row[0].count(field.column)
            if count > 1 or (count == 0 and field.is_required):
                _refuse_header(row[0], field.column)
            if count == 0:
                continue
            text = texts[field.column]
            is_none = field.allows_none and text in self._missing
            given[field.column] = None if is_none else _read(text, field)
        return msgspec.convert(given, self._kind, strict=False)
