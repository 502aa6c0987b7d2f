"""The formats of files that are read: what rows are, and how they become values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, Protocol, TypeVar, cast

import msgspec

from streamkit.connectors.file_sink.content import Content
from streamkit.connectors.file_sink.rows import csv_content, json_content, text_content
from streamkit.connectors.files.csv_rows import CsvDialect, CsvReader
from streamkit.connectors.files.csv_values import csv_decoder, csv_row
from streamkit.connectors.files.lines import LineReader, Mark
from streamkit.dataflow.contracts import Decoder
from streamkit.errors import DataError, TopologyError, UsageError
from streamkit.line_block import LineBlock
from streamkit.record import Kind, Value
from streamkit.serde.values import encode_as, format_for

if TYPE_CHECKING:  # Python 3.11 does not have it
    from typing_extensions import TypeForm

T = TypeVar("T")
_UTF8 = "utf-8"
# Every byte below 0x80 has the meaning of ASCII in these, so lines can be found in the bytes.
_ENCODINGS = ("utf-8", "ascii", "iso8859", "cp125", "latin", "koi8", "cp85", "cp437")
_ARRAY_BYTES_MAX = 1 << 28


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a file in order, before they are decoded.

    ``numbers`` are their lines, or their places in the file from 1. ``end`` is where the next rows
    begin.
    """

    values: Sequence[Value]
    numbers: Sequence[int]
    end: Mark


class RowReader(Protocol):
    """Reads the rows of one open file; its calls may block."""

    def read(self, rows_max: int, *, is_complete: bool) -> Rows | None:
        """Return the next rows; None if there are no more now.

        With ``is_complete``, nothing will be appended, so a last line may have no line end.

        Raises:
            DataError: The file is damaged.
        """


class FileFormat(ABC, Generic[T]):
    """How the rows of a file are found, and how they become values."""

    # What `Rows.numbers` count.
    unit = "line"
    # Whether compression is a part of the format, not of the name of a file.
    compresses_itself = False
    # Whether rows may be appended to a file. Otherwise a file that changes is another file, and
    # one that is followed is read when it is complete.
    grows = True
    # Whether the rows are columns of Arrow.
    gives_columns = False

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """The type of the values; None if the stream names it."""

    def for_type(self, kind: Kind) -> FileFormat[Any]:
        """Return the format for a run, whose values have a type; None if it is not known."""
        return self

    @abstractmethod
    def decoder(self, kind: Kind) -> Decoder | None:
        """Return how rows become values of a type.

        Raises:
            TopologyError: Values of the type cannot be made.
        """

    @abstractmethod
    def encoded(self, value: Value, kind: Kind) -> Value:
        """Return the row that is decoded to a value."""

    @abstractmethod
    def rows_of(self, file: BinaryIO, start: Mark, reopen: Callable[[], BinaryIO]) -> RowReader:
        """Return the reader of an open file, which stands at ``start``.

        ``reopen`` opens it once more at its beginning, where it may have a header.
        """

    def content(self, kind: Kind) -> Content:
        """Return how values of a type are written to files.

        Raises:
            TopologyError: The format is only read, or values of the type cannot be written.
        """
        raise TopologyError(f"{type(self).__name__} files can be read, but not written")


def _ascii_compatible(encoding: str) -> str:
    if not encoding.lower().replace("_", "-").startswith(_ENCODINGS):
        raise UsageError(
            f"encoding={encoding!r} is not possible: the lines of such a file cannot be found "
            "without decoding it",
            hint="convert the file to UTF-8; UTF-8, ASCII, ISO 8859 and Windows code pages work",
        )
    return encoding


@dataclass(frozen=True)
class Csv(FileFormat[T]):
    """CSV: one row per line, or more lines if a quoted field has line ends.

    Texts are converted to the types of the fields. A row that has too many or too few fields, or
    a text that is not valid, fails alone.

    Attributes:
        type: The type of the values: a class with fields, ``dict`` for texts by column name, or
            ``list`` for a list of texts.
        header: ``True``: the first line of each file names the columns. A list of names: the files
            have no such line.
        delimiter: The character between fields; ``"\\t"`` for TSV.
        quotechar: The character around fields; None if quotes have no meaning.
        escapechar: The character before a character without its meaning.
        missing: Texts that mean None, in fields that allow None.
        encoding: The encoding of the file: UTF-8, or one with the same ASCII characters.
    """

    type: TypeForm[T] | None = None
    header: bool | tuple[str, ...] | list[str] = True
    delimiter: str = ","
    quotechar: str | None = '"'
    escapechar: str | None = None
    missing: tuple[str, ...] = ("", "NA")
    encoding: str = _UTF8

    def __post_init__(self) -> None:
        _ascii_compatible(self.encoding)
        if self.header is False:
            raise UsageError(
                "header=False does not say what the columns are",
                hint='name them: header=["origin", "delay"]',
            )
        self._dialect().check()

    @property
    def kind(self) -> Kind:
        return self.type

    def decoder(self, kind: Kind) -> Decoder:
        return csv_decoder(kind, self.missing)

    def encoded(self, value: Value, kind: Kind) -> Value:
        return csv_row(value)

    def rows_of(self, file: BinaryIO, start: Mark, reopen: Callable[[], BinaryIO]) -> RowReader:
        names = None if self.header is True else tuple(cast("Sequence[str]", self.header))
        if names is None and start.byte:
            with reopen() as beginning:
                names = CsvReader(beginning, Mark(), self._dialect(), None).read_header()
        return CsvReader(file, start, self._dialect(), names)

    def content(self, kind: Kind) -> Content:
        if self.header is not True and kind in (None, Any, dict):
            raise TopologyError(
                "CSV without a line of names needs the type of the rows",
                hint="annotate the stage that makes them",
            )
        has_header = self.header is True
        return csv_content(kind, self._dialect().options(), self.encoding, has_header=has_header)

    def _dialect(self) -> CsvDialect:
        return CsvDialect(self.delimiter, self.quotechar, self.escapechar, self.encoding)


@dataclass(frozen=True)
class Jsonl(FileFormat[T]):
    """JSON lines: one JSON value per line. Empty lines are left out.

    Attributes:
        type: The type of the values.
    """

    type: TypeForm[T] | None = None

    @property
    def kind(self) -> Kind:
        return self.type

    def decoder(self, kind: Kind) -> Decoder | None:
        if kind is bytes:
            return None
        loads = format_for(kind).loads
        assert loads is not None, "only bytes are not decoded"
        return Decoder(loads, _lines_decoder(loads))

    def encoded(self, value: Value, kind: Kind) -> Value:
        return encode_as(value, kind)

    def rows_of(self, file: BinaryIO, start: Mark, reopen: Callable[[], BinaryIO]) -> RowReader:
        return LineReader(file, start, has_empty=False)

    def content(self, kind: Kind) -> Content:
        return json_content(kind, is_array=False)


def _lines_decoder(loads: Callable[[bytes], Any]) -> Callable[[Sequence[bytes]], list[Any]] | None:
    """Return what decodes lines with one call, if ``loads`` is of a decoder of msgspec.

    The decoder does not look at the ends of lines. So it only gets lines that begin and end as an
    object does: such a line cannot be a part of a value that goes on in the next line.
    """
    decoder = getattr(loads, "__self__", None)
    if not isinstance(decoder, msgspec.json.Decoder):
        return None
    decode_lines = decoder.decode_lines

    def many(lines: Sequence[bytes]) -> list[Any]:
        block = lines
        if not isinstance(block, LineBlock):
            block = LineBlock(b"\n".join(lines), len(lines))
        if not block.are_braced:
            return list(map(loads, lines))
        found = decode_lines(block.text)
        if len(found) != len(lines):
            raise DataError("a line has more than one JSON value")
        return found

    return many


@dataclass(frozen=True, slots=True)
class Text(FileFormat[str]):
    """Text: each line is a value, without its line end. The type is ``str`` or ``bytes``.

    Attributes:
        encoding: The encoding of the file: UTF-8, or one with the same ASCII characters.
    """

    encoding: str = _UTF8

    def __post_init__(self) -> None:
        _ascii_compatible(self.encoding)

    @property
    def kind(self) -> Kind:
        return str

    def decoder(self, kind: Kind) -> Decoder | None:
        if kind is bytes:
            return None
        if kind is not str:
            raise TopologyError(
                f"the lines of a text file cannot be {kind}", hint="use str or bytes as the type"
            )
        return Decoder(lambda line: line.decode(self.encoding))

    def encoded(self, value: Value, kind: Kind) -> Value:
        return value if type(value) is bytes else str(value).encode(self.encoding)

    def rows_of(self, file: BinaryIO, start: Mark, reopen: Callable[[], BinaryIO]) -> RowReader:
        return LineReader(file, start, has_empty=True)

    def content(self, kind: Kind) -> Content:
        return text_content(kind, self.encoding)


@dataclass(frozen=True)
class JsonArray(FileFormat[T]):
    """A file with one JSON array, whose items are the values. It is read as a whole.

    Attributes:
        type: The type of the items.
        max_bytes: The largest file that is read into memory.
    """

    unit = "item"
    type: TypeForm[T] | None = None
    max_bytes: int = _ARRAY_BYTES_MAX

    @property
    def kind(self) -> Kind:
        return self.type

    def decoder(self, kind: Kind) -> Decoder | None:
        return Jsonl[Any]().decoder(kind)

    def encoded(self, value: Value, kind: Kind) -> Value:
        return encode_as(value, kind)

    def rows_of(self, file: BinaryIO, start: Mark, reopen: Callable[[], BinaryIO]) -> RowReader:
        return _ArrayReader(file, start, self.max_bytes)

    def content(self, kind: Kind) -> Content:
        return json_content(kind, is_array=True)


class _ArrayReader:
    """Gives the items of an array, from one that was not read yet."""

    def __init__(self, file: BinaryIO, start: Mark, bytes_max: int) -> None:
        self._file = file
        self._next = start.line
        self._bytes_max = bytes_max
        self._items: list[msgspec.Raw] | None = None

    def read(self, rows_max: int, *, is_complete: bool) -> Rows | None:
        if self._items is None:
            self._items = self._load()
        first = self._next - 1
        part = self._items[first : first + rows_max]
        if not part:
            return None
        self._next += len(part)
        numbers = range(first + 1, self._next)
        return Rows([bytes(each) for each in part], numbers, Mark(0, self._next))

    def _load(self) -> list[msgspec.Raw]:
        data = self._file.read(self._bytes_max + 1)
        if len(data) > self._bytes_max:
            raise DataError(
                f"the array has more than {self._bytes_max} bytes, and it is read as a whole",
                hint="write JSON lines instead, or raise max_bytes= of JsonArray",
            )
        try:
            return msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=list[msgspec.Raw])
        except msgspec.MsgspecError as error:
            raise DataError(f"this is not a JSON array: {error}") from None
