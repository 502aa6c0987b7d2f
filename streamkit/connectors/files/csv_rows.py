"""Rows of CSV files: where they begin, and how their texts become values."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec

from streamkit.connectors.files.lines import Lines, Mark
from streamkit.dataflow.contracts import Decoder
from streamkit.errors import DataError, TopologyError, UsageError
from streamkit.limits import CHUNK_BYTES_MAX
from streamkit.record import Kind, Value

if TYPE_CHECKING:
    from streamkit.connectors.files.formats import Rows

_ROWS_FIRST: Final = 256

Header = tuple[str, ...]
# A row with the names of its columns. The names are the same object for all rows of a file.
CsvRow = tuple[Header, list[str]]


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A row that cannot be read; it fails when it is decoded."""

    problem: str


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How fields are separated and quoted."""

    delimiter: str
    quotechar: str | None
    escapechar: str | None
    encoding: str

    def check(self) -> None:
        """Refuse a dialect that cannot be used.

        Raises:
            UsageError: A character is not a single one.
        """
        try:
            self.reader(iter(()))
        except (TypeError, ValueError) as error:
            raise UsageError(f"this CSV dialect is not valid: {error}") from None

    def reader(self, lines: Iterator[str]) -> Any:
        """Return a reader of the standard library."""
        return csv.reader(lines, **self.options())

    def options(self) -> dict[str, Any]:
        """Return the options of readers and writers of the standard library."""
        return {
            "delimiter": self.delimiter,
            "quotechar": self.quotechar,
            "escapechar": self.escapechar,
            "quoting": csv.QUOTE_NONE if self.quotechar is None else csv.QUOTE_MINIMAL,
        }


class CsvReader:
    """Reads the rows of one file.

    The reader of the standard library takes only the lines of the rows that it returns, so the
    place between two rows is known from the number of lines it took.
    """

    def __init__(
        self, file: BinaryIO, start: Mark, dialect: CsvDialect, header: Header | None
    ) -> None:
        self._lines = Lines(file, start)
        self._dialect = dialect
        self._header = header
        # The lines that the rows read last came from, by blocks, and the ends of the blocks.
        self._blocks: list[tuple[Sequence[bytes], Mark]] = [([], start)]
        self._end = start
        self._is_complete = False
        # Whether the last rows were read up to the present end of the file.
        self._has_ended = False
        self._is_valid = True  # until a block is not
        self._reader = dialect.reader(chain.from_iterable(self._texts()))
        self._taken = 0
        # How many rows have about the bytes of a chunk, estimated from the rows read last.
        self._rows_next = _ROWS_FIRST

    def read(self, rows_max: int, *, is_complete: bool) -> Rows | None:
        """Return the next rows; see `RowReader`."""
        from streamkit.connectors.files.formats import Rows

        self._is_complete = is_complete
        if self._header is None and self.read_header() is None:
            return None
        while True:
            start_byte = self._end.byte
            rows, first = self._next(min(rows_max, self._rows_next))
            if not rows:
                return None
            mean_bytes = max(1, (self._end.byte - start_byte) // len(rows))
            self._rows_next = max(1, min(2 * self._rows_next, CHUNK_BYTES_MAX // mean_bytes))
            numbers: Sequence[int] = range(first, first + len(rows))
            if self._end.line != first + len(rows):
                numbers = _numbers(rows, first)
            values: list[Any] = list(zip(repeat(self._header), rows))
            if not self._is_valid:
                values = [_checked(each, self._dialect.encoding) for each in values]
            if not all(rows):  # an empty line
                numbers = [at for at, row in zip(numbers, rows, strict=True) if row]
                values = [each for each, row in zip(values, rows, strict=True) if row]
            if values:
                return Rows(values, numbers, self._end)

    def read_header(self) -> Header | None:
        """Read the names of the columns; None if the file has no line now.

        Raises:
            DataError: The first line does not name them.
        """
        rows, _ = self._next(1)
        if not rows:
            return None
        names = [name.strip() for name in rows[0]]
        if not names or len(set(names)) != len(names) or not all(names):
            raise DataError(
                f"the first line does not name the columns: {rows[0]}",
                hint='if the file has no such line, name them: header=["origin", "delay"]',
            )
        self._header = tuple(names)
        return self._header

    def _next(self, rows_max: int) -> tuple[list[list[str]], int]:
        """Return rows and the line of the first one."""
        first = self._end.line
        self._has_ended = False
        del self._blocks[:-1]
        try:
            rows = list(islice(self._reader, rows_max))
        except csv.Error as error:
            at = first + self._reader.line_num - self._taken
            raise DataError(
                f"a row that ends at line {at} cannot be read: {error}",
                hint="a quote may be missing",
            ) from None
        if not rows:
            # The reader has ended, but lines may be appended to the file.
            self._reader = self._dialect.reader(chain.from_iterable(self._texts()))
            self._taken = 0
            return [], first
        lines = self._reader.line_num - self._taken
        self._taken = self._reader.line_num
        if self._has_ended and (unfinished := _unfinished(rows, lines)):
            lines -= unfinished
            self._refuse_unfinished(first + lines)
            rows.pop()
        self._end = self._after(first + lines)
        return rows, first

    def _refuse_unfinished(self, line: int) -> None:
        """Refuse a row that the end of the file has cut off, unless more of it may follow."""
        if self._is_complete:
            raise DataError(
                f"the row at line {line} is not complete: a quoted field has no end",
                hint="a quote may be missing, or the file is not completely written",
            )

    def _after(self, line: int) -> Mark:
        """Return the place before a line."""
        for block, end in reversed(self._blocks):
            left = end.line - line
            if left == 0:
                return end
            if left <= len(block):
                return Mark(end.byte - sum(len(each) + 1 for each in block[-left:]), line)
        raise AssertionError(f"line {line} is not among the lines read last")

    def _texts(self) -> Iterator[list[str]]:
        while block := self._lines.next_block(is_complete=self._is_complete):
            self._blocks.append((block, self._lines.end))
            try:
                text = block.text.decode(self._dialect.encoding)
            except UnicodeDecodeError:
                text = block.text.decode(self._dialect.encoding, "surrogateescape")
                self._is_valid = False
            yield [f"{line}\n" for line in text.split("\n")]
        self._has_ended = True


def _unfinished(rows: list[list[str]], lines: int) -> int:
    """Return how many lines the last row has, if the end of the file is in a quoted field of it.

    Otherwise 0. Each complete row has one line end more than its fields.
    """
    if sum(map(_lines_in, rows)) == lines:
        return 0
    return _lines_in(rows[-1]) - 1


def _lines_in(row: list[str]) -> int:
    return 1 + sum(field.count("\n") for field in row)


def _numbers(rows: list[list[str]], first: int) -> list[int]:
    """Return the first line of each row, if rows have line ends in their fields."""
    numbers = []
    for row in rows:
        numbers.append(first)
        first += _lines_in(row)
    return numbers


def _checked(row: CsvRow, encoding: str) -> CsvRow | InvalidRow:
    for name, field in zip(row[0], row[1], strict=False):
        if any("\udc80" <= character <= "\udcff" for character in field):
            return InvalidRow(f"the column {name!r} is not valid {encoding}: {field!r}")
    return row


# --- decoding ------------------------------------------------------------------------


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
        raise DataError(f"the row has {len(fields)} fields, but there are {len(header)} columns")
    return fields


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of the type: its column, its type, and whether it may be None or missing."""

    name: str
    column: str
    kind: Kind
    allows_none: bool
    is_required: bool


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
        _Field(name, columns[name], hints[name], _allows_none(hints[name]), name in required)
        for name in columns
    )


def _allows_none(kind: Kind) -> bool:
    try:
        msgspec.convert(None, kind)
    except (msgspec.ValidationError, TypeError):
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
        if not self._is_plain or any(each.column not in columns for each in self._fields):
            return [self.one(row) for row in rows]
        return list(map(self._kind, *(self._column(each, columns) for each in self._fields)))

    def _column(self, field: _Field, columns: dict[str, tuple[str, ...]]) -> Sequence[Any]:
        texts: Sequence[str | None] = columns[field.column]
        if field.kind is str:
            return texts
        if field.allows_none:
            missing = self._missing
            texts = [None if text in missing else text for text in texts]
        found: list[Any] = msgspec.convert(texts, list[field.kind], strict=False)  # type: ignore[name-defined]
        return found

    def one(self, row: CsvRow | InvalidRow) -> Any:
        fields = _fields(row)
        assert not isinstance(row, InvalidRow), "it has no fields"
        texts = dict(zip(row[0], fields, strict=True))
        given: dict[str, Any] = {}
        for field in self._fields:
            text = texts.get(field.column)
            if text is None:
                if field.is_required:
                    raise DataError(
                        f"the file has no column {field.column!r}; it has {', '.join(row[0])}"
                    )
                continue
            given[field.column] = None if field.allows_none and text in self._missing else text
        return msgspec.convert(given, self._kind, strict=False)
