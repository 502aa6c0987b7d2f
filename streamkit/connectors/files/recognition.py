"""Recognises files that were read before, under their old path or another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamkit.connectors.files.found import FoundFile
from streamkit.connectors.files.open_file import Position
from streamkit.connectors.files.places import HEAD_BYTES, Places, is_compressed
from streamkit.connectors.files.urls import is_object
from streamkit.errors import DataError


class Recognition:
    """Compares files with the positions in them.

    Args:
        places: Where the files are.
        grows: Whether rows may be appended to files of the format.
    """

    def __init__(self, places: Places, *, grows: bool) -> None:
        self._places = places
        self._grows = grows
        # The ids of files that were opened in this run.
        self.ids_of_run: set[str] = set()

    def is_same(self, found: FoundFile, position: Position) -> bool:
        """Return whether a position is one in this file."""
        least = position.size if is_compressed(found.path) else position.byte
        if found.size_bytes < least or not (self._grows or found.size_bytes == position.size):
            return False
        is_same_id = found.id == position.id
        if is_object(found.path) and is_same_id:
            return True
        try:
            # To compare a whole log whenever it has grown would cost too much.
            is_followed = is_same_id and found.id in self.ids_of_run
            has_prefix = position.prefix.size >= max(position.byte, 1)  # older positions have none
            if not self._grows or is_followed or not has_prefix:
                return self.checksum(found, position.size) == position.head
            facts = (found.size_bytes, found.modified_ns)
            if is_same_id and facts == (position.size, position.modified):
                return True
            return self._places.begins_with(found, position.prefix)
        except (OSError, DataError):
            return False

    def checksum(self, found: FoundFile, size_bytes: int) -> int:
        """Return a checksum of the first bytes; of the last ones too if the format does not grow.

        Raises:
            OSError: The file cannot be read.
        """
        return self._places.checksum(found, size_bytes, with_end=not self._grows)

    def renamed(
        self, files: Sequence[FoundFile], reached: Mapping[str, Position]
    ) -> dict[str, str]:
        """Return the old paths of files that have another path now, by their new paths."""
        now = {found.path: found.id for found in files}
        gone = {
            position.id: path
            for path, position in reached.items()
            if now.get(path) != position.id and not is_object(path)
        }
        olds: dict[str, str] = {}
        for found in files:
            old, known = gone.get(found.id), reached.get(found.path)
            if old is None or (known is not None and known.id == found.id):
                continue
            if self._was_renamed(found, reached[old]):
                olds[found.path] = old
        return olds

    def _was_renamed(self, found: FoundFile, position: Position) -> bool:
        """Return whether a file with another path is the one of a position.

        A new file often gets the id of one that was deleted, and may begin like it. Taken for the
        old file, it would lose its rows; an old file that is taken for a new one is read twice.
        """
        if (found.size_bytes, found.modified_ns) == (position.size, position.modified):
            return self.is_same(found, position)
        # A rotation comes between two looks, often after lines that are not read yet.
        if found.id not in self.ids_of_run or found.size_bytes <= position.size:
            return False
        try:
            return position.prefix.size >= HEAD_BYTES and self._places.begins_with(
                found, position.prefix
            )
        except (OSError, DataError):
            return False
