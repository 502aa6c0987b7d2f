"""Converts watch responses to events, with the last known state of each object. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from streamkit.protocol.control_plane import Metadata, WatchResponse

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """All existing objects, sorted by name. It replaces everything received before."""

    items: tuple[T, ...]


@dataclass(frozen=True, slots=True)
class Added(Generic[T]):
    """An object was created."""

    item: T


@dataclass(frozen=True, slots=True)
class Changed(Generic[T]):
    """An object changed."""

    item: T
    before: T


@dataclass(frozen=True, slots=True)
class Removed(Generic[T]):
    """An object was deleted. ``item`` is its last known state."""

    item: T


WatchEvent = Listed[T] | Added[T] | Changed[T] | Removed[T]


class WatchState(Generic[T]):
    """The last known state of all objects of one kind.

    A change that ``describe`` does not show is dropped, because servers report some changes
    several times.
    """

    def __init__(self, describe: Callable[[Metadata], T]) -> None:
        self._describe = describe
        self._seen: dict[str, T] | None = None

    def forget(self) -> None:
        """Discard the state, because changes may have been missed; a full list comes next."""
        self._seen = None

    def take(self, response: WatchResponse) -> list[WatchEvent[T]]:
        """Return the events of a response.

        The list in the first response is the full list, even if it is empty. In a later response
        it is a full list only if it is not empty.
        """
        events: list[WatchEvent[T]] = []
        if self._seen is None or response.all:
            self._seen = {item.name: self._describe(item) for item in response.all}
            events.append(Listed(tuple(self._seen[name] for name in sorted(self._seen))))
        for change in response.changes:
            event = self._change(self._seen, change.item, is_delete=change.is_delete)
            if event is not None:
                events.append(event)
        return events

    def _change(
        self, known: dict[str, T], item: Metadata, *, is_delete: bool
    ) -> WatchEvent[T] | None:
        before = known.get(item.name)
        if is_delete:
            # In a deletion only the name is reliable; other fields may have any value.
            return None if before is None else Removed(known.pop(item.name))
        now = known[item.name] = self._describe(item)
        if before is None:
            return Added(now)
        return None if now == before else Changed(now, before)
