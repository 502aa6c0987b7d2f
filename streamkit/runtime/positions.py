"""Collects the positions that have changed since the last commit."""

from __future__ import annotations

from streamkit.state.store import Changes


class ChangedPositions:
    """Positions that are not committed yet, by owner and part; every position is text."""

    def __init__(self) -> None:
        self._changed: Changes = {}

    def note(self, owner: str, part: str, position: str) -> None:
        """Set the position of a part for the next commit."""
        self._changed.setdefault(owner, {})[part] = position

    def take(self) -> Changes:
        """Return the changed positions and forget them."""
        changed, self._changed = self._changed, {}
        return changed
