"""Timers of stages: calls at an event time, for one key.

| event | what happens |
|---|---|
| a call sets a timer | it is kept with the state, if the call succeeds |
| a call sets it again, by the same name | the new time replaces the old one |
| the watermark reaches the time | the function for timers is called; the timer is gone |
| the time of a new timer is before the watermark | it is that of the watermark |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar

from streamkit.dataflow.due_keys import DueKeys
from streamkit.dataflow.event_time import time_ms
from streamkit.dataflow.steps import Room
from streamkit.record import Value
from streamkit.state.keyed import Keyed
from streamkit.state.types import format_of

K_co = TypeVar("K_co", covariant=True)
_Kept = tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Timer(Generic[K_co]):
    """A timer whose time has come."""

    key: K_co
    time: datetime
    name: str


@dataclass(slots=True)
class TimerHook:
    """The function that a stage calls for its timers; it is added after the stage."""

    function: Callable[..., Value] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A timer that a call has set, or removed if it has no time."""

    key: bytes
    at_ms: int | None
    name: str


class TimerRequests:
    """What the calls of one chunk have asked for."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._key = b""
        self._least_ms = 0
        # How many of them are from calls before the present one.
        self._settled = 0

    def begin(self, key: bytes | None, least_ms: int) -> None:
        """Begin a call for a key, whose timers come at ``least_ms`` at the earliest."""
        self._key = key or b""
        self._least_ms = least_ms
        self._settled = len(self.requests)

    def undo(self) -> None:
        """Take back what the present call has asked for."""
        del self.requests[self._settled :]

    def take(self) -> list[Request]:
        """Return what was asked for, and begin again."""
        requests, self.requests = self.requests, []
        self._settled = 0
        return requests

    def set(self, at: datetime | int, name: str) -> None:
        at_ms = max(time_ms(at), self._least_ms)
        self.requests.append(Request(self._key, at_ms, name))

    def cancel(self, name: str) -> None:
        self.requests.append(Request(self._key, None, name))


class Timers:
    """The timers of one stage.

    Args:
        name: The name of the stage.
        room: Where they are kept.
    """

    def __init__(self, name: str, room: Room) -> None:
        self._keyed = room.state(Keyed, f"{name}/timers", _FORM)
        self._undo_number = -1
        self._due = DueKeys()

    def apply(self, requests: Iterable[Request]) -> None:
        """Set and remove timers."""
        self._find_due()
        for each in requests:
            kept: _Kept = self._keyed.values.get(each.key, ())
            others = [timer for timer in kept if timer[1] != each.name]
            if each.at_ms is not None:
                others.append((each.at_ms, each.name))
                self._due.add(each.key, each.at_ms)
            self._set(each.key, tuple(sorted(others)))

    def due_ms(self) -> int | None:
        """Return the time of the next timer; it may have been removed since."""
        self._find_due()
        return self._due.first_ms()

    def take(self, watermark_ms: int) -> list[tuple[int, bytes, str]]:
        """Remove the timers that are due, and return them in order of time."""
        self._find_due()
        taken: list[tuple[int, bytes, str]] = []
        for key in self._due.take(watermark_ms):
            kept: _Kept = self._keyed.values.get(key, ())
            due = [timer for timer in kept if timer[0] <= watermark_ms]
            later = tuple(timer for timer in kept if timer[0] > watermark_ms)
            if due:
                taken += [(at_ms, key, name) for at_ms, name in due]
                self._set(key, later)
            if later:
                self._due.add(key, later[0][0])
        taken.sort(key=lambda each: each[0])
        return taken

    def _set(self, key: bytes, timers: _Kept) -> None:
        self._keyed.touch(key)
        if timers:
            self._keyed.values[key] = timers
        else:
            self._keyed.values.pop(key, None)

    def _find_due(self) -> None:
        """Find again which timers are next, at the start and if a slice was undone."""
        if self._undo_number == self._keyed.undo_number:
            return
        self._undo_number = self._keyed.undo_number
        self._due.reset(
            (key, at_ms) for key, timers in self._keyed.values.items() for at_ms, _ in timers
        )


_FORM: Final = format_of(tuple[tuple[int, str], ...], "timers")
