"""Chooses how many rows to process next, from the time the last ones took. Pure."""

from __future__ import annotations

from typing import Final

# The size shrinks immediately after a slow turn, but grows at most by this factor per turn,
# because a single fast turn may be an exception.
_GROWTH_MAX: Final = 8


class SliceSize:
    """Adjusts the number of rows so that each turn takes about the same time.

    Args:
        target_s: How long one turn should take.
        first: Rows of the first turn.
        most: Maximum rows of a turn.
    """

    def __init__(self, target_s: float, *, first: int, most: int) -> None:
        self.rows = min(first, most)
        self._target_s = target_s
        self._most = most

    def adjust(self, rows: int, seconds: float) -> None:
        """Adjust to the time that some rows took."""
        if rows <= 0:
            return
        aim = rows * self._target_s / seconds if seconds > 0 else self._most
        self.rows = max(1, min(int(aim), rows * _GROWTH_MAX, self._most))
