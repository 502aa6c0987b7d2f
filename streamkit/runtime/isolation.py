"""Detects stages that change a value in place while other branches read the same value."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from streamkit.record import Chunk


class ChangedInPlace(Exception):
    """A stage changed a value that other branches of the graph read as well."""

    def __init__(self) -> None:
        super().__init__(
            "it changed its input in place, but other branches read the same object: create a new "
            "value instead"
        )


class ValueCopy:
    """Copies of values, to detect later changes."""

    def __init__(self, chunk: Chunk) -> None:
        self._before = [deepcopy(value) for value in chunk.values]
        self._chunk = chunk

    @property
    def copy(self) -> Chunk:
        """The chunk with the copied values."""
        return self._chunk.with_values(self._before)

    def changed_row(self) -> int | None:
        """Return the first row whose value has changed, or None."""
        for row, (before, after) in enumerate(zip(self._before, self._chunk.values, strict=True)):
            if not _is_same(before, after):
                return row
        return None


def _is_same(before: Any, after: Any) -> bool:
    if getattr(type(after), "__eq__", None) is object.__eq__:  # compares identity only
        return bool(getattr(before, "__dict__", None) == getattr(after, "__dict__", None))
    return bool(before == after)
