"""Finds lines in a file, and remembers where each block of them begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from streamkit.errors import DataError

if TYPE_CHECKING:
    from streamkit.connectors.files.formats import Rows

BLOCK_BYTES: Final = 1 << 18
_LINE_BYTES_MAX: Final = 1 << 26
BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file between two rows: bytes from the start, without compression, and the
    number of the next line. ``within``: how many rows after the byte come before it."""

    byte: int = 0
    line: int = 1
    within: int = 0


class Lines:
    """Complete lines of a file, as a list per block, without their ``\\n``."""

    def __init__(self, file: BinaryIO, start: Mark) -> None:
        self._file = file
        self._at_start = start.byte == 0
        self._tail = b""
        # Where the next block of lines begins.
        self.end = start
        # Whether a line of the last block may end with ``\r``.
        self.has_returns = False

    def next_block(self, *, is_complete: bool) -> list[bytes]:
        """Return the next lines; an empty list if no complete line follows now.

        With ``is_complete``, what follows the last line end is a line too.

        Raises:
            DataError: A line is too long.
        """
        while True:
            data = self._file.read(BLOCK_BYTES)
            cut = data.rfind(b"\n")
            if cut < 0 and data:
                self._tail += data
                if len(self._tail) > _LINE_BYTES_MAX:
                    raise DataError(
                        f"line {self.end.line} has more than {_LINE_BYTES_MAX} bytes",
                        hint="the file may have another format",
                    )
                continue
            if not data and not (is_complete and self._tail):
                return []
            block, self._tail = self._tail + data[: max(0, cut)], data[cut + 1 :]
            lines = block.split(b"\n")
            self.has_returns = b"\r" in block
            self.end = Mark(self.end.byte + len(block) + (cut >= 0), self.end.line + len(lines))
            if self._at_start:
                self._at_start = False
                lines[0] = lines[0].removeprefix(BOM)
            return lines


class LineReader:
    """Reads each line as a row, without ``\\r`` at its end."""

    def __init__(self, file: BinaryIO, start: Mark, *, has_empty: bool) -> None:
        self._lines = Lines(file, start)
        self._has_empty = has_empty
        self._rest: list[bytes] = []
        self._end = start

    def read(self, rows_max: int, *, is_complete: bool) -> Rows | None:
        """Return the next rows; see `RowReader`."""
        from streamkit.connectors.files.formats import Rows

        while True:
            if not self._rest:
                self._rest = self._lines.next_block(is_complete=is_complete)
            if not self._rest:
                return None
            lines, self._rest = self._rest[:rows_max], self._rest[rows_max:]
            first = self._end.line
            self._end = self._lines.end if not self._rest else self._after(lines)
            numbers: range | list[int] = range(first, first + len(lines))
            if self._lines.has_returns:
                lines = [line.removesuffix(b"\r") for line in lines]
            if not (self._has_empty or all(lines)):
                numbers = [number for number, line in zip(numbers, lines, strict=True) if line]
                lines = [line for line in lines if line]
            if lines:
                return Rows(lines, numbers, self._end)

    def _after(self, lines: list[bytes]) -> Mark:
        size_bytes = sum(map(len, self._rest)) + len(self._rest)
        has_end = self._lines.end.byte - size_bytes
        return Mark(has_end, self._end.line + len(lines))
