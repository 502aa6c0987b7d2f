"""What a commit keeps of sources and sinks: the changes since the one before."""

from __future__ import annotations

from streamkit.state.store import Changes


class ChangedPositions:
    """Positions that no commit has kept yet, by owner and part; all of them are text."""

    def __init__(self) -> None:
        self._changed: Changes = {}

    def note(self, owner: str, part: str, position: str) -> None:
        """Keep a position for the next commit, instead of the one before."""
        self._changed.setdefault(owner, {})[part] = position

    def take(self) -> Changes:
        """Give what has changed, once."""
        changed, self._changed = self._changed, {}
        return changed
