"""One file of a partition's log: batches in wire format. Its name is its first offset."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from pathlib import Path

from streamkit.limits import INDEX_INTERVAL_BYTES

_NAME_DIGITS = 20
SUFFIX = ".log"
_HINTS_MAX = 64


class SparseIndex:
    """The offsets and positions of some batches, in order."""

    __slots__ = ("_offsets", "_positions")

    def __init__(self) -> None:
        self._offsets = array("q")
        self._positions = array("q")

    def add(self, base_offset: int, position: int) -> None:
        if not self._positions or position - self._positions[-1] >= INDEX_INTERVAL_BYTES:
            self._positions.append(position)
            self._offsets.append(base_offset)

    def before(self, offset: int) -> int | None:
        """Return the position of an indexed batch at or before ``offset``."""
        row = bisect_right(self._offsets, offset) - 1
        return self._positions[row] if row >= 0 else None

    def cut(self, position: int) -> None:
        """Remove the batches that start at or after ``position``."""
        while self._positions and self._positions[-1] >= position:
            self._positions.pop()
            self._offsets.pop()


class Segment:
    """One segment, and the positions of its batches.

    ``size_bytes`` includes everything the writer has appended; readers stop at the durable end.
    The indexes are caches, each with one owner: the writer indexes what it appends, and a reader
    indexes the earlier batches, up to ``found_bytes``, when it first needs them.
    """

    __slots__ = ("_hints", "base_offset", "found_bytes", "older", "path", "size_bytes", "written")

    def __init__(self, path: Path, base_offset: int, found_bytes: int = 0) -> None:
        self.path = path
        self.base_offset = base_offset
        self.size_bytes = self.found_bytes = found_bytes
        self.written = SparseIndex()
        self.older: SparseIndex | None = None
        self._hints: dict[int, int] = {}

    @classmethod
    def path_in(cls, folder: Path, base_offset: int) -> Path:
        return folder / f"{base_offset:0{_NAME_DIGITS}d}{SUFFIX}"

    @classmethod
    def found(cls, path: Path, size_bytes: int) -> Segment:
        """Create the segment of an existing file."""
        return cls(path, int(path.stem), size_bytes)

    def position_before(self, offset: int) -> int:
        """Return the nearest known position of a batch at or before ``offset``."""
        exact = self._hints.get(offset)
        if exact is not None:
            return exact
        position = self.written.before(offset)
        if position is None and self.older is not None:
            position = self.older.before(offset)
        return position or 0

    def remember_next(self, offset: int, position: int) -> None:
        """Cache the position of ``offset``, which a reader will probably read next."""
        if len(self._hints) >= _HINTS_MAX:
            self._hints.pop(next(iter(self._hints)))
        self._hints[offset] = position

    def cut(self, position: int) -> None:
        """Remove everything at or after ``position``; readers have never seen it."""
        self.size_bytes = position
        self.found_bytes = min(self.found_bytes, position)
        self.written.cut(position)


def segment_files(folder: Path) -> list[Path]:
    """Return the segments of a folder in order of their offsets."""
    named = (path for path in folder.iterdir() if path.suffix == SUFFIX and path.stem.isdigit())
    return sorted(named, key=lambda path: int(path.stem))
