"""How rows are kept while a file is open, and how they become the file.

Rows are kept in a *spool*, a file that is only appended to. It may be cut after any row that was
added, so the rows after a commit can be removed from it.
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, Final

import msgspec

from streamkit.errors import DataError
from streamkit.record import Value
from streamkit.serde.values import ValueEncoder

LineOf = Callable[[Sequence[Value]], bytes]

_COPY_BYTES: Final = 1 << 20


class Content(ABC):
    """The content of the files of a sink.

    ``encoder`` says what a row is before it gets to the writer; with None, it stays as it is.
    ``columns`` names what all rows of a file have in common; a file with other columns is not
    continued. ``start`` is the beginning of each spool.
    """

    encoder: ValueEncoder | None
    columns: str = ""
    # Messages to the user, which the writer shows and removes.
    notes: list[str] = []  # noqa: RUF012  # only a content with messages has its own list
    start: bytes = b""

    @property
    def spool(self) -> str:
        """A name for what is in a spool, which only the same kind of content can finish."""
        return type(self).__name__

    def checked(self, rows: Sequence[Value]) -> Any:
        """Return rows in the form that `spooled` takes.

        Raises:
            RowError: A row cannot be written.
        """
        return rows

    def picked(self, rows: Any, places: Sequence[int]) -> Any:
        """Return some of the rows that `checked` has returned."""
        return [rows[each] for each in places]

    def spooled(self, rows: Any) -> bytes:
        """Return the bytes to append to the spool."""
        return b"\n".join([*rows, b""])

    @abstractmethod
    def finish(self, spool: BinaryIO, out: BinaryIO) -> None:
        """Write the file whose rows are in a spool.

        Raises:
            DataError: The rows do not fit together in one file.
        """


class Lines(Content):
    """One line for each row, after a first line."""

    def __init__(self, encoder: ValueEncoder, columns: str = "", header: bytes = b"") -> None:
        self.encoder = encoder
        self.columns = columns
        self.start = header

    def finish(self, spool: BinaryIO, out: BinaryIO) -> None:
        while data := spool.read(_COPY_BYTES):
            out.write(data)


class Array(Content):
    """A JSON array with one item on each line."""

    def __init__(self, encoder: ValueEncoder) -> None:
        self.encoder = encoder

    def finish(self, spool: BinaryIO, out: BinaryIO) -> None:
        before = b"["
        for line in spool:
            out.write(before + b"\n" + line.removesuffix(b"\n"))
            before = b","
        out.write(b"\n]\n" if before == b"," else b"[]\n")


class CsvOfDicts(Content):
    """CSV of dicts, whose columns are known when all rows of a file are there."""

    def __init__(self, encoder: ValueEncoder, line_of: LineOf) -> None:
        self.encoder = encoder
        self._line_of = line_of

    def finish(self, spool: BinaryIO, out: BinaryIO) -> None:
        names = list(dict.fromkeys(name for row in decoded(spool) for name in row))
        out.write(self._line_of(names))
        spool.seek(0)
        for row in decoded(spool):
            out.write(self._line_of([cell(row.get(name)) for name in names]))


def decoded(spool: BinaryIO) -> Iterator[dict[str, Value]]:
    """Return the dicts of a spool of JSON lines.

    Raises:
        DataError: A row is not a dict.
    """
    decode = msgspec.json.Decoder().decode
    for line in spool:
        row = decode(line)
        if not isinstance(row, dict):
            raise DataError(f"a row is {type(row).__name__}, but columns need a dict or an object")
        yield row


def cell(value: Value) -> Value:
    """Return a value as a cell of CSV."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return msgspec.json.encode(value).decode()
    return value


def csv_line(dialect: dict[str, Any], encoding: str) -> LineOf:
    """Return what makes a line of CSV from the cells of a row, with its line end."""
    # The writer puts quotes around every character of its line end, so this is not only a newline.
    # It returns what its file returns: the line.
    write: Any = csv.writer(_Returned(), lineterminator="\r\n", **dialect).writerow

    def line(cells: Sequence[Value]) -> bytes:
        text: str = write(cells)
        return (text.removesuffix("\r\n") + "\n").encode(encoding)

    return line


class _Returned:
    """A file that returns the text it is given, instead of writing it."""

    def write(self, text: str, /) -> str:
        return text
