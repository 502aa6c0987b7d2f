"""Flow control of a stream: one unacknowledged response at a time. Pure.

Source: docs/protocol/produce-and-fetch.md, "Flow control". One deliberate
difference: an acknowledgement beyond the end is treated as one at the end; a stock server sends
nothing more after it.
"""

from __future__ import annotations

from dataclasses import dataclass

IGNORED_OFFSET = -1


@dataclass(slots=True)
class StreamFlow:
    """The state of a consumer. Some methods return the offset to send from, or None.

    ``known`` is the offset that the consumer has reached; None while a response is not
    acknowledged. ``last`` is the end of the log at the last decision.
    """

    known: int | None
    last: int

    @classmethod
    def starting_at(cls, offset: int) -> StreamFlow:
        return cls(offset, offset)

    def sent(self, end: int) -> None:
        """Record that a response was sent while the log ended at ``end``."""
        self.known = None
        self.last = end

    def found_nothing(self, offset: int) -> None:
        """Record that the log has no records at or after ``offset``."""
        self.known = self.last = offset

    def acknowledge(self, offset: int, end: int) -> int | None:
        """Handle an acknowledgement: the next offset that the consumer needs."""
        if offset == IGNORED_OFFSET:
            return None
        offset = min(offset, end)
        if offset >= end:
            self.known = self.last = offset
            return None
        return offset

    def end_moved(self, end: int) -> int | None:
        """Update the end of the log, because it has new records."""
        self.last = end
        return self.known if self.known is not None and end > self.known else None
