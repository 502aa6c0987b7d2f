"""How many rows come next, from the time that the last ones took. Pure: the time is given."""

from __future__ import annotations

from typing import Final

# That rows are slow is believed at once, that they are quick by degrees: it may be chance.
_GROWTH_MAX: Final = 8


class SliceSize:
    """Aims at a time per turn.

    Args:
        target_s: How long one turn should take.
        first: Rows of the first turn, when nothing is known.
        most: Rows of a turn at the most.
    """

    def __init__(self, target_s: float, *, first: int, most: int) -> None:
        self.rows = min(first, most)
        self._target_s = target_s
        self._most = most

    def took(self, rows: int, seconds: float) -> None:
        """Learn how long some rows took."""
        if rows <= 0:
            return
        aim = rows * self._target_s / seconds if seconds > 0 else self._most
        self.rows = max(1, min(int(aim), rows * _GROWTH_MAX, self._most))
