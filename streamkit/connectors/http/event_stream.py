"""The format of server-sent events, from bytes to events.

The format is described at https://html.spec.whatwg.org/multipage/server-sent-events.html. Its rules
apply however the bytes are cut.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final

from streamkit.errors import StreamKitError

_END_OF_LINE: Final = re.compile(rb"\r\n|\n|\r")
_RETRY_MS_MAX: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Event:
    """An event; ``last_id`` is the id of it, or of the last one before it that had one."""

    data: bytes
    kind: str = "message"
    last_id: str = ""


class EventStream:
    """Reads the events of one connection.

    Args:
        last_id: The id of the last event of earlier connections.
        max_event_bytes: The maximum size of an event.
    """

    def __init__(self, last_id: str = "", *, max_event_bytes: int) -> None:
        self.last_id = last_id
        self.retry_s: float | None = None
        self._id = last_id
        self._max_event_bytes = max_event_bytes
        self._rest = b""
        self._is_start = True
        self._data: list[bytes] = []
        self._kind = b""
        self._size = 0

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that are complete with these bytes.

        Raises:
            StreamKitError: An event is too large.
        """
        rest = self._rest + data
        if self._is_start:
            if len(rest) < len(codecs.BOM_UTF8) and codecs.BOM_UTF8.startswith(rest):
                self._rest = rest
                return []
            rest = rest.removeprefix(codecs.BOM_UTF8)
            self._is_start = False
        events: list[Event] = []
        at = 0
        for found in _END_OF_LINE.finditer(rest):
            if found[0] == b"\r" and found.end() == len(rest):
                break  # the other half of CRLF may follow
            self._line(rest[at : found.start()], events)
            at = found.end()
        self._rest = rest[at:]
        self._check(len(self._rest))
        return events

    def end(self) -> list[Event]:
        """Return the event that the end of the connection completes, if its lines end with CR."""
        events: list[Event] = []
        if self._rest.endswith(b"\r"):
            self._line(self._rest[:-1], events)
        self._rest = b""
        return events

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value) + 1
            self._check(0)
            self._data.append(value)
        elif name == b"event":
            self._kind = value
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self.retry_s = min(int(value), _RETRY_MS_MAX) / 1_000

    def _dispatch(self, events: list[Event]) -> None:
        self.last_id = self._id
        if self._data:
            kind = self._kind.decode("utf-8", "replace") or "message"
            events.append(Event(b"\n".join(self._data), kind, self.last_id))
        self._data, self._kind, self._size = [], b"", 0

    def _check(self, more: int) -> None:
        if self._size + more > self._max_event_bytes:
            raise StreamKitError(
                f"an event is larger than {self._max_event_bytes} bytes",
                hint="increase max_event_bytes=",
            )
