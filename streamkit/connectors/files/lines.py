"""Finds lines in a file, and remembers where each block of them begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from streamkit.errors import DataError
from streamkit.line_block import LineBlock

if TYPE_CHECKING:
    from streamkit.connectors.files.formats import Rows

BLOCK_BYTES: Final = 1 << 18
_AIMED_PERCENT: Final = 97
_LINE_BYTES_MAX: Final = 1 << 26
BOM: Final = b"\xef\xbb\xbf"
_BOMS_OF_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file between two rows: bytes from the start, without compression, and the
    number of the next line. ``within``: how many rows after the byte come before it."""

    byte: int = 0
    line: int = 1
    within: int = 0


class Lines:
    """Complete lines of a file, in blocks without their last line end."""

    def __init__(self, file: BinaryIO, start: Mark) -> None:
        self._file = file
        self._at_start = start.byte == 0
        self._tail = b""
        # Where the next block of lines begins.
        self.end = start
        # How much is read for the next block.
        self.block_bytes = BLOCK_BYTES

    def next_block(self, *, is_complete: bool) -> LineBlock | None:
        """Return the next lines; None if no complete line follows now.

        With ``is_complete``, what follows the last line end is a line too.

        Raises:
            DataError: A line is too long, or the file is in UTF-16.
        """
        while True:
            data = self._file.read(self.block_bytes)
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
                return None
            text, self._tail = self._tail + data[: max(0, cut)], data[cut + 1 :]
            lines = text.count(b"\n") + 1
            self.end = Mark(self.end.byte + len(text) + (cut >= 0), self.end.line + lines)
            if self._at_start:
                self._at_start = False
                if text.startswith(_BOMS_OF_UTF_16):
                    raise DataError(
                        "the file is in UTF-16",
                        hint="convert it, for example with iconv -f UTF-16 -t UTF-8",
                    )
                text = text.removeprefix(BOM)
            return LineBlock(text, lines)

    def aim_at(self, rows: int, block: LineBlock) -> None:
        """Choose how much to read, so that the next block has about as many rows.

        Its lines are assumed to be as long as those of ``block``.
        """
        wanted = len(block.text) * rows // len(block) * _AIMED_PERCENT // 100
        self.block_bytes = max(1, BLOCK_BYTES // 4, min(BLOCK_BYTES * 4, wanted))


class LineReader:
    """Reads each line as a row, without ``\\r`` at its end."""

    def __init__(self, file: BinaryIO, start: Mark, *, has_empty: bool) -> None:
        self._lines = Lines(file, start)
        self._has_empty = has_empty
        self._rest: LineBlock | None = None
        self._end = start

    def read(self, rows_max: int, *, is_complete: bool) -> Rows | None:
        """Return the next rows; see `RowReader`."""
        from streamkit.connectors.files.formats import Rows

        while True:
            block = self._rest
            if block is None:
                block = self._lines.next_block(is_complete=is_complete)
                if block is None:
                    return None
                self._lines.aim_at(rows_max, block)
            block, self._rest = _divided(block, rows_max)
            first = self._end.line
            self._end = self._lines.end if self._rest is None else self._before(self._rest)
            lines, numbers = self._rows_of(block, range(first, first + len(block)))
            if lines:
                return Rows(lines, numbers, self._end)

    def _rows_of(self, block: LineBlock, numbers: range) -> tuple[Sequence[bytes], Sequence[int]]:
        """Return the lines that are rows, and their numbers."""
        text = block.text
        lines: Sequence[bytes] = block
        if not self._has_empty and block.are_braced:
            return block, numbers
        if b"\r" in text:
            lines = [line.removesuffix(b"\r") for line in block]
        elif not (b"\n\n" in text or text[:1] in (b"", b"\n") or text.endswith(b"\n")):
            return block, numbers
        if self._has_empty or all(lines):
            return lines, numbers
        found = [(line, number) for line, number in zip(lines, numbers, strict=True) if line]
        return [line for line, _ in found], [number for _, number in found]

    def _before(self, rest: LineBlock) -> Mark:
        """Return the place before the last lines of the block that was read."""
        end = self._lines.end
        return Mark(end.byte - len(rest.text) - 1, end.line - len(rest))


def _divided(block: LineBlock, rows_max: int) -> tuple[LineBlock, LineBlock | None]:
    """Return the first lines of a block, up to ``rows_max``, and the rest."""
    if len(block) <= rows_max:
        return block, None
    text = block.text
    parts = -(-len(block) // rows_max)
    cut = text.rfind(b"\n", 0, len(text) // parts + 1)
    count = text.count(b"\n", 0, cut) + 1
    if cut < 0 or count > rows_max:  # the lines differ in length
        count = rows_max
        cut = len(b"\n".join(block[:count]))
    return LineBlock(text[:cut], count), LineBlock(text[cut + 1 :], len(block) - count)
