"""Values by key within panes: intervals of time that are complete, and deleted, as a whole.

| event | what happens |
|---|---|
| values change | the old values are remembered, in the order of the changes |
| a pane is closed | its values are handed out and forgotten |
| the slice is complete | its keys count as changed; those of closed panes count as deleted |
| the slice is undone | closed panes come back, and old values in reverse order |
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from functools import partial
from struct import Struct
from typing import Any, Final

from streamkit.state.change_log import MISSING, ChangeLog, StateChange, StateFormat, StateRow

# The end of the pane, and the end of the first window that counts it, both in ms.
Pane = tuple[int, int]
_PREFIX: Final = Struct(">qq")
# The old value of a key that changed before in the same slice and was copied then.
COPIED: Final = object()


class Panes:
    """Values by pane and key.

    Args:
        name: The identity of the state: the name of its stage.
        form: How values are stored.
        rows: What was committed, in any order.
    """

    def __init__(self, name: str, form: StateFormat, rows: Iterable[StateRow] = ()) -> None:
        self.name = name
        self.form = form
        self.panes: dict[Pane, dict[bytes, Any]] = {}
        # The ends of the panes as a heap. A pane that is closed and comes back is in it twice.
        self._by_end: list[Pane] = []
        # Keys by pane: those changed since the last commit, and those that the log has.
        self._changed: dict[Pane, set[bytes]] = {}
        self._stored: dict[Pane, set[bytes]] = {}
        self._updates: list[tuple[Pane, Sequence[bytes], Sequence[Any]]] = []
        self._closed: list[tuple[Pane, dict[bytes, Any]]] = []
        # How many slices were undone.
        self.undo_number = 0
        self._log = ChangeLog(name, form, partial(map, self._value_of), rows)
        for stored, data in self._log.restored.items():
            pane, key = split_stored(stored)
            self.open(pane)[key] = form.decode(data)
            self._stored.setdefault(pane, set()).add(key)
        self._log.restored = {}

    @staticmethod
    def describe(form: StateFormat) -> str:
        """Describe the type of what is stored."""
        return form.description

    def __len__(self) -> int:
        return sum(map(len, self.panes.values()))

    # --- for operators ---------------------------------------------------------------

    def open(self, pane: Pane) -> dict[bytes, Any]:
        """Return the values of a pane by key; report each change of them to `changed`."""
        found = self.panes.get(pane)
        if found is None:
            assert all(each != pane for each, _ in self._closed), "closing comes last in a slice"
            found = self.panes[pane] = {}
            heapq.heappush(self._by_end, pane)
        return found

    def first(self) -> Pane | None:
        """Return the open pane that ends first."""
        heap = self._by_end
        while heap and heap[0] not in self.panes:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def changed(self, pane: Pane, keys: Sequence[bytes], old: Sequence[Any]) -> None:
        """Remember the old value of each changed key: None if it is new."""
        self._updates.append((pane, keys, old))

    def restore(self, pane: Pane, keys: Sequence[bytes], old: Sequence[Any]) -> None:
        """Take changes back, before or after they are reported."""
        values = self.panes[pane]
        for key, value in zip(reversed(keys), reversed(old), strict=True):
            if value is None:
                values.pop(key, None)
            elif value is not COPIED:
                values[key] = value
        if not values:
            del self.panes[pane]

    def close(self, pane: Pane) -> dict[bytes, Any]:
        """Remove a pane and return its values by key."""
        values = self.panes.pop(pane)
        self._closed.append((pane, values))
        return values

    # --- for the task ----------------------------------------------------------------

    def keep_slice(self) -> None:
        """Accept the changes of this slice."""
        for pane, keys, _ in self._updates:
            self._changed.setdefault(pane, set()).update(keys)
        for pane, _ in self._closed:
            self._changed.pop(pane, None)
            stored = self._stored.pop(pane, None)
            if stored:
                self._log.note(map(_PREFIX.pack(*pane).__add__, stored), ())
        self._updates = []
        self._closed = []
        self._log.encode_some()

    def undo_slice(self) -> None:
        """Set every value back to what it was before this slice."""
        self.undo_number += 1
        for pane, closed in self._closed:
            self.panes[pane] = closed
            heapq.heappush(self._by_end, pane)
        for pane, keys, old in reversed(self._updates):
            self.restore(pane, keys, old)
        self._updates = []
        self._closed = []

    # --- for commits -----------------------------------------------------------------

    @property
    def stored_bytes(self) -> int:
        """The size of all keys and encoded values, estimated from those of the last commit."""
        return round(self._log.mean_bytes * len(self))

    def prepare(self) -> StateChange | None:
        """Return what changed since the last call, encoded; None if nothing did."""
        assert not self._updates, "a commit lies between two slices"
        for pane, keys in self._changed.items():
            prefix = _PREFIX.pack(*pane)
            stored = self._stored.setdefault(pane, set())
            new = keys - stored
            stored |= new
            self._log.note(map(prefix.__add__, keys), map(prefix.__add__, new))
        self._changed = {}
        return self._log.prepare(len(self))

    def _value_of(self, stored: bytes) -> Any:
        pane, key = split_stored(stored)
        values = self.panes.get(pane)
        return MISSING if values is None else values.get(key, MISSING)


def split_stored(stored: bytes) -> tuple[Pane, bytes]:
    """Return the pane and the key of a stored entry."""
    end, first = _PREFIX.unpack_from(stored)
    return (end, first), stored[_PREFIX.size :]
