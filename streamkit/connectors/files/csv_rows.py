"""Rows of CSV files, and where they begin."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from streamkit.connectors.csv_limit import allow_long_fields
from streamkit.connectors.files.lines import Lines, Mark
from streamkit.errors import DataError, UsageError
from streamkit.limits import CHUNK_BYTES_MAX

if TYPE_CHECKING:
    from streamkit.connectors.files.formats import Rows

_ROWS_FIRST: Final = 256

# The reader of the standard library ends at a carriage return in a field without quotes, and does
# not say where the rest of the row is. So it gets this character instead, which no text has.
_RETURN: Final = "\udc0d"
_LONE_RETURNS: Final = re.compile(r"\r(?!\n|\Z)")

Header = tuple[str, ...]
# A row with the names of its columns. The names are the same object for all rows of a file.
CsvRow = tuple[Header, list[str]]


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A row that cannot be read; it fails when it is decoded."""

    problem: str
    fields: list[str]

    def __repr__(self) -> str:
        return repr(self.fields)


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
        allow_long_fields()
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
                values = list(map(self._checked, values, numbers))
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
        if not any(names):
            raise DataError(
                f"the first line does not name the columns: {rows[0]}",
                hint='if the file has no such line, name them: header=["origin", "delay"]',
            )
        if any(_RETURN in name for name in names):
            raise DataError(
                "a carriage return is in the first line",
                hint="if all lines end with it, replace it, for example with tr '\\r' '\\n'",
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

    def _checked(self, row: CsvRow, line: int) -> CsvRow | InvalidRow:
        """Return a row as it is in the file, or why it is not valid."""
        header, fields = row
        for name, field in zip(header, fields, strict=False):
            if any("\udc80" <= character <= "\udcff" for character in field):
                problem = f"the column {name!r} is not valid {self._dialect.encoding}: {field!r}"
                return InvalidRow(problem, fields)
        if not any(_RETURN in field for field in fields):
            return row
        try:
            next(self._dialect.reader(self._lines_from(line)))
            is_quoted = True
        except csv.Error:
            is_quoted = False
        fields = [field.replace(_RETURN, "\r") for field in fields]
        if not is_quoted:
            return InvalidRow("a carriage return is in a field without quotes", fields)
        return header, fields

    def _lines_from(self, line: int) -> Iterator[str]:
        """Return the lines read last, from the one with a number, as they are in the file."""
        for block, end in self._blocks:
            for each in block[max(0, line - end.line + len(block)) :]:
                yield f"{each.decode(self._dialect.encoding, 'replace')}\n"

    def _texts(self) -> Iterator[list[str]]:
        while block := self._lines.next_block(is_complete=self._is_complete):
            self._blocks.append((block, self._lines.end))
            try:
                text = block.text.decode(self._dialect.encoding)
            except UnicodeDecodeError:
                text = block.text.decode(self._dialect.encoding, "surrogateescape")
                self._is_valid = False
            if text.count("\r") - text.endswith("\r") != text.count("\r\n"):
                text = _LONE_RETURNS.sub(_RETURN, text)
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
