"""A file that is being read, the rows of it that were handed over, and the position after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from streamkit.connectors.files.formats import RowReader, Rows
from streamkit.connectors.files.found import FoundFile
from streamkit.connectors.files.lines import Mark
from streamkit.connectors.files.places import is_compressed
from streamkit.connectors.files.prefix import Prefix, PrefixFile
from streamkit.connectors.files.urls import is_object


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a file was read.

    ``byte``, ``line`` and ``within`` are where a block of rows begins, as in `Mark`; ``skip`` is
    how many of its rows were read. ``head`` is a checksum of the first bytes, of which ``size``
    says how many there were; of the last ones too if the format does not grow. ``done``: nothing
    follows, which the size shows only of files that are not compressed. ``modified`` is the time of
    the last change. ``prefix`` is at least all that was read, if the format grows.
    """

    id: str
    size: int
    head: int
    byte: int = 0
    line: int = 1
    skip: int = 0
    within: int = 0
    done: bool = False
    modified: int = 0
    prefix: Prefix = Prefix()

    @property
    def mark(self) -> Mark:
        return Mark(self.byte, self.line, self.within)


@dataclass(slots=True)
class OpenFile:
    """A file that is being read, or was."""

    path: str
    found: FoundFile
    head: int
    file: BinaryIO
    rows: RowReader
    skip: int
    at: Mark
    # The rows after those read last, or the error instead, if it is known at once that none follow.
    ahead: Rows | Exception | None = None

    @property
    def shows_end(self) -> bool:
        """Whether the end of the file cannot be seen from its size."""
        return is_compressed(self.found.path) or is_object(self.found.path)

    @property
    def prefix(self) -> Prefix:
        """What was read of the file up to now; nothing if its format does not grow."""
        return self.file.prefix if isinstance(self.file, PrefixFile) else Prefix()

    def position(self, mark: Mark, skip: int, prefix: Prefix, *, is_done: bool = False) -> Position:
        """Return the position some rows after a mark."""
        found = self.found
        return Position(
            found.id,
            found.size_bytes,
            self.head,
            mark.byte,
            mark.line,
            skip,
            mark.within,
            is_done,
            found.modified_ns,
            prefix,
        )


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that were handed over, and where they lie."""

    file: OpenFile
    start: Mark
    end: Mark
    skipped: int
    numbers: Sequence[int]
    is_last: bool
    prefix: Prefix
