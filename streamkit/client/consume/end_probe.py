"""How a reader learns that SmartModules have left nothing up to the end. Pure.

A stock server sends nothing at all where a chain leaves nothing, so that silence may mean that it
still works, or that it is through. But a stream looks at acknowledgements only when it has
nothing else to do. So a reader that hears nothing acknowledges an offset that no log has: the
refusal comes when everything is done, and ends the stream.

Only a stream that has brought nothing so far tells the truth by it. On one that has, the true
acknowledgement may still be unread; of two the server takes the last.

Source: data plane reference, 5.5 and 9.6.
"""

from __future__ import annotations

from typing import Final

from streamkit.protocol.error_codes import Code, ErrorCode

# -1 means nothing to servers.
END_PROBE_OFFSET: Final = -2
_PATIENCE_S: Final = 0.2
_PATIENCE_S_MAX: Final = 30.0


class EndProbe:
    """What one reader knows by asking. ``patience_s`` is the silence before it asks."""

    def __init__(self) -> None:
        self.patience_s = _PATIENCE_S
        self._has_heard = False

    def opened(self) -> None:
        """Learn that a stream was opened, on a connection of its own."""
        self._has_heard = False

    def heard(self) -> None:
        """Learn that the stream has brought something."""
        self._has_heard = True

    @staticmethod
    def is_refusal(error: ErrorCode) -> bool:
        """Whether an error is the answer to FENCE_OFFSET."""
        return error.code == Code.OFFSET_EVICTED and error.payload.offset == END_PROBE_OFFSET

    def is_through(self) -> bool:
        """Tell, at a refusal, whether all that there was has been worked through.

        Else the stream must be opened anew and asked again.
        """
        if self._has_heard:
            # It may have been asked while it worked; the next one gets more time for that.
            self.patience_s = min(self.patience_s * 2, _PATIENCE_S_MAX)
        return not self._has_heard
