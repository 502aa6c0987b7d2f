"""What a watcher knows of one kind of object, and the events that a response makes of it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from streamkit.protocol.control_plane import Metadata, WatchResponse

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """All that there is now, by name. What was seen before counts no more."""

    items: tuple[T, ...]


@dataclass(frozen=True, slots=True)
class Added(Generic[T]):
    """Something new."""

    item: T


@dataclass(frozen=True, slots=True)
class Changed(Generic[T]):
    """Something is not as it was."""

    item: T
    before: T


@dataclass(frozen=True, slots=True)
class Removed(Generic[T]):
    """Something is gone. ``item`` is how it was last seen."""

    item: T


WatchEvent = Listed[T] | Added[T] | Changed[T] | Removed[T]


class WatchState(Generic[T]):
    """What a watcher has seen of one kind of object.

    A change that ``describe`` does not show is none: servers tell some of them several times.
    """

    def __init__(self, describe: Callable[[Metadata], T]) -> None:
        self._describe = describe
        self._seen: dict[str, T] | None = None

    def forget(self) -> None:
        """Learn that changes may have been missed; a full list comes next."""
        self._seen = None

    def take(self, response: WatchResponse) -> list[WatchEvent[T]]:
        """Return what a response tells.

        The first one is the full list even if it is empty; a later one only if it is not.
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
            # What stands beside the name of a deleted object may be anything.
            return None if before is None else Removed(known.pop(item.name))
        now = known[item.name] = self._describe(item)
        if before is None:
            return Added(now)
        return None if now == before else Changed(now, before)
