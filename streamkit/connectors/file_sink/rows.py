"""How values become the rows of text formats."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final, get_type_hints, is_typeddict

import msgspec
from msgspec import inspect as shape

from streamkit.connectors.file_sink.content import (
    Array,
    Content,
    CsvOfDicts,
    LineOf,
    Lines,
    cell,
    csv_line,
)
from streamkit.errors import DataError, TopologyError
from streamkit.record import Kind, Value
from streamkit.serde.finite import lost_float
from streamkit.serde.json_values import dumps
from streamkit.serde.kinds import bare
from streamkit.serde.values import ValueEncoder, json_encoder

# Values that `csv` writes as they are.
_PLAIN: Final = frozenset({str, int, float, type(None)})
_ROWS: Final = shape.StructType | shape.DataclassType | shape.NamedTupleType


def json_content(kind: Kind, *, is_array: bool) -> Content:
    """Return JSON, as lines or as one array.

    Raises:
        TopologyError: Values of the type cannot be written as JSON.
    """
    found = _json(kind)
    return Array(found) if is_array else Lines(found)


def _json(kind: Kind) -> ValueEncoder:
    kind = bare(kind)
    if kind in (None, bytes, Any):
        return ValueEncoder(_json_or_bytes, lost_float)
    return json_encoder(kind)


def _json_or_bytes(value: Value) -> bytes:
    if type(value) is not bytes:
        return dumps(value)
    from_json(value)
    # A JSON text may have line ends only between its parts.
    return value if b"\n" not in value else value.replace(b"\r\n", b" ").replace(b"\n", b" ")


def from_json(data: bytes) -> Value:
    """Return the value of a JSON text.

    Raises:
        DataError: It is not JSON.
    """
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise DataError(f"the value is not JSON: {error}") from None


def dict_encoder(check: Callable[[dict[str, Value]], None] | None = None) -> ValueEncoder:
    """Return an encoder of dicts, and objects of JSON, whose keys are columns.

    Each row is checked when it comes, while its error is still its own. ``check`` may raise.
    """

    def row(value: Value) -> bytes:
        data = _json_or_bytes(value)
        found = from_json(data)
        if not isinstance(found, dict):
            raise DataError(
                f"a row is {type(found).__name__}, but columns need a dict or an object"
            )
        if check is not None:
            check(found)
        return data

    return ValueEncoder(row, lost_float)


def text_content(kind: Kind, encoding: str) -> Content:
    """Return one line of text for each value.

    Raises:
        TopologyError: The values are not text.
    """
    if bare(kind) not in (None, Any, str, bytes):
        raise TopologyError(
            f"values of {kind} are not lines of text", hint="make them text, or use Jsonl()"
        )

    def line(value: Value) -> bytes:
        data = value.encode(encoding) if isinstance(value, str) else value
        if not isinstance(data, bytes):
            raise DataError(f"a line is text, not {type(value).__name__}")
        if b"\n" in data:
            raise DataError("the text has several lines", hint="write it as JSON: Jsonl()")
        return data

    return Lines(ValueEncoder(line), f"text {encoding}")


def csv_content(kind: Kind, dialect: dict[str, Any], encoding: str, *, has_header: bool) -> Content:
    """Return CSV, with the fields of the type as columns.

    Raises:
        TopologyError: The type has no fields.
    """
    line_of = csv_line(dialect, encoding)
    kind = bare(kind)
    if kind in (None, Any, bytes) or kind is dict or getattr(kind, "__origin__", None) is dict:
        return CsvOfDicts(dict_encoder(_csv_check(line_of)), line_of)
    names, cells = _fields_of(kind)

    def line(value: Value) -> bytes:
        return line_of(cells(value)).removesuffix(b"\n")

    columns = f"{names} {encoding} {sorted(dialect.items())}"
    return Lines(ValueEncoder(line), columns, line_of(names) if has_header else b"")


def _csv_check(line_of: LineOf) -> Callable[[dict[str, Value]], None]:
    def check(row: dict[str, Value]) -> None:
        try:
            line_of([*row, *map(cell, row.values())])
        except (UnicodeEncodeError, csv.Error) as error:
            raise DataError(f"the row cannot be written as CSV: {error}") from None

    return check


def _fields_of(kind: Kind) -> tuple[list[str], Callable[[Value], Sequence[Value]]]:
    """Return the names of the columns, and what makes the cells of a row."""
    if is_typeddict(kind):
        keys = list(get_type_hints(kind))
        return keys, lambda row: [cell(msgspec.to_builtins(row.get(key))) for key in keys]
    try:
        found = shape.type_info(kind)
    except Exception as error:  # an annotation that cannot be resolved
        raise TopologyError(f"values of {kind} cannot be rows of CSV: {error}") from None
    if not isinstance(found, _ROWS) or not found.fields:
        raise TopologyError(
            f"values of {kind} cannot be rows of CSV",
            hint="make them objects of a msgspec.Struct or a dataclass, or dicts",
        )
    get = attrgetter(*(each.name for each in found.fields))
    is_one = len(found.fields) == 1

    def cells(row: Value) -> Sequence[Value]:
        values = (get(row),) if is_one else get(row)
        if _PLAIN.issuperset(map(type, values)):
            return values
        plain = msgspec.to_builtins(
            tuple(None if each is msgspec.UNSET else each for each in values)
        )
        return list(map(cell, plain))

    return [each.encode_name for each in found.fields], cells
