"""One line of CSV per record: the fields of a Struct or dataclass in their order.

An empty cell is None, and an empty text is written as ``""``. Source of the rules for quotes:
RFC 4180.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec import inspect as shape

from streamkit.errors import TopologyError, UsageError
from streamkit.formats.format import Format, described, reading, shown_type, writing
from streamkit.record import Kind, Value
from streamkit.serde.binding import BoundFormat, Usage

_ROWS: Final = shape.StructType | shape.DataclassType | shape.NamedTupleType
_CELLS: Final = (
    shape.BoolType | shape.IntType | shape.FloatType | shape.StrType | shape.BytesType
    | shape.DateTimeType | shape.DateType | shape.TimeType | shape.TimeDeltaType | shape.UUIDType
    | shape.DecimalType | shape.EnumType | shape.LiteralType
)  # fmt: skip
Split = Callable[[str], list[str | None]]


@dataclass(frozen=True)
class CsvLine(Format):
    """A line of CSV in UTF-8 without a header, with the fields in the order of the type.

    An empty cell is None, or an empty text if the field does not allow None.

    Args:
        type: A Struct, dataclass or NamedTuple whose fields are texts, numbers, dates, enums and
            so on, or None; by default the annotated one.
        delimiter: One character between cells.

    Raises:
        UsageError: The delimiter is not valid.
    """

    delimiter: str = ","

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise UsageError(
                f"delimiter={self.delimiter!r} is not valid", hint="use one character, such as ;"
            )

    def for_use(self, usage: Usage) -> BoundFormat:
        kind = self._kind(usage)
        if kind is None or kind is Any:
            raise TopologyError(
                "CsvLine needs the type of a row", hint="name it: CsvLine(Order), or annotate it"
            )
        fields = _fields_of(kind)
        what = described("CSV", kind)
        split = _splitter(self.delimiter, [each.keeps_empty for each in fields])
        names = [each.encode_name for each in fields]
        return BoundFormat(
            reading(what, _row_reader(kind, names, split)),
            writing(what, _row_writer(self.delimiter, [each.name for each in fields])),
        )


@dataclass(frozen=True, slots=True)
class _Field:
    """``keeps_empty``: an empty cell is an empty text, not None."""

    name: str
    encode_name: str
    keeps_empty: bool


def _row_reader(kind: Kind, names: list[str], split: Split) -> Callable[[bytes], Value]:
    count = len(names)

    def read(data: bytes) -> Value:
        cells = split(data.decode())
        if len(cells) != count:
            raise ValueError(f"the line has {len(cells)} cells instead of {count}")
        return msgspec.convert(dict(zip(names, cells, strict=True)), kind, strict=False)

    return read


def _row_writer(delimiter: str, names: list[str]) -> Callable[[Value], bytes]:
    needs_quotes = re.compile(f'[{re.escape(delimiter)}"\r\n]').search
    of = attrgetter(*names)
    is_one = len(names) == 1

    def cell(value: Value) -> str:
        if value is None:
            return ""
        if type(value) is str:
            if value and needs_quotes(value) is None:
                return value
            doubled = value.replace('"', '""')
            return f'"{doubled}"'
        if type(value) is bool:
            return "true" if value else "false"
        text = str(value)
        return text if needs_quotes(text) is None else f'"{text}"'

    def write(row: Value) -> bytes:
        values = msgspec.to_builtins((of(row),) if is_one else of(row))
        return delimiter.join(map(cell, values)).encode()

    return write


def _splitter(delimiter: str, keeps_empty: list[bool]) -> Split:
    """Return a function that splits a line into cells; it raises ValueError for wrong quotes."""
    of_cell = re.compile(
        f'(?:"([^"]*(?:""[^"]*)*)"|([^"{re.escape(delimiter)}\r\n]*))({re.escape(delimiter)}|$)'
    )

    def given(text: str, number: int) -> str | None:
        return text if text or (number < len(keeps_empty) and keeps_empty[number]) else None

    def quoted(line: str) -> Iterator[str | None]:
        start, number = 0, 0
        while True:
            found = of_cell.match(line, start)
            if found is None:
                raise ValueError(f"the quotes or line breaks are not valid after character {start}")
            text, plain, end = found.groups()
            yield given(plain, number) if text is None else text.replace('""', '"')
            if not end:
                return
            start, number = found.end(), number + 1

    def split(line: str) -> list[str | None]:
        line = line.removesuffix("\n").removesuffix("\r")
        if '"' in line:
            return list(quoted(line))
        if "\n" in line or "\r" in line:
            raise ValueError("the value has several lines")
        return [given(text, number) for number, text in enumerate(line.split(delimiter))]

    return split


def _fields_of(kind: Kind) -> list[_Field]:
    """Return the fields of a type in their order.

    Raises:
        TopologyError: The type has no fields, or a field does not fit into a cell.
    """
    try:
        found = shape.type_info(kind)
    except Exception as error:  # an annotation that cannot be resolved
        raise TopologyError(f"CsvLine cannot represent values of {kind}: {error}") from None
    if not isinstance(found, _ROWS) or not found.fields:
        raise TopologyError(
            f"CsvLine cannot represent values of type {shown_type(kind)}",
            hint="make it a msgspec.Struct or a dataclass with fields",
        )
    return [_field(kind, each) for each in found.fields]


def _field(kind: Kind, field: shape.Field) -> _Field:
    parts = field.type.types if isinstance(field.type, shape.UnionType) else (field.type,)
    parts = tuple(each.type if isinstance(each, shape.Metadata) else each for each in parts)
    cells = [each for each in parts if not isinstance(each, shape.NoneType)]
    if len(cells) != 1 or not isinstance(cells[0], _CELLS):
        raise TopologyError(
            f"the field {field.name!r} of {shown_type(kind)} does not fit into one cell of CSV",
            hint="use text, numbers, dates, enums and the like, each with None if it may be empty",
        )
    is_text = isinstance(cells[0], shape.StrType)
    return _Field(field.name, field.encode_name, is_text and len(parts) == 1)
