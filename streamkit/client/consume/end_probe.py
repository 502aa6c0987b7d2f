"""How a reader detects that SmartModules dropped all records up to the end. Pure.

A stock server sends no response if a chain drops every record. So when nothing arrives, the
server may still be working, or it may have finished. But a stream processes acknowledgements
only when it has nothing else to do. So the reader acknowledges an offset that does not exist:
when the server has finished, it rejects that offset and ends the stream.

This is reliable only on a stream that has sent no response yet. After a response, the real
acknowledgement may still be unread, and of two acknowledgements the server uses only the last.

Source: docs/protocol/produce-and-fetch.md, "Flow control";
docs/protocol/limits.md, "A filter that drops everything".
"""

from __future__ import annotations

from typing import Final

from streamkit.protocol.error_codes import Code, ErrorCode

# Not -1, which servers ignore.
END_PROBE_OFFSET: Final = -2
_PATIENCE_S: Final = 0.2
_PATIENCE_S_MAX: Final = 30.0


class EndProbe:
    """The probes of one reader. ``patience_s`` is how long it waits before it sends a probe."""

    def __init__(self) -> None:
        self.patience_s = _PATIENCE_S
        self._has_response = False

    def record_open(self) -> None:
        """Record that a stream was opened, on its own connection."""
        self._has_response = False

    def record_response(self) -> None:
        """Record that the stream has sent a response."""
        self._has_response = True

    @staticmethod
    def is_refusal(error: ErrorCode) -> bool:
        """Whether an error is the response to a probe."""
        return error.code == Code.OFFSET_EVICTED and error.payload.offset == END_PROBE_OFFSET

    def proves_end(self) -> bool:
        """Whether a refused probe proves that the server has processed everything.

        If not, the stream must be reopened and probed again.
        """
        if self._has_response:
            # The probe may have arrived while the server worked; wait longer the next time.
            self.patience_s = min(self.patience_s * 2, _PATIENCE_S_MAX)
        return not self._has_response
