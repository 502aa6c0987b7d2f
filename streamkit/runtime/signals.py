"""Signals to stop, and the deadline that holds even when the event loop does not turn.

The handler runs between two bytecodes of the main thread, so it is called also while a
function of the user's computes. The watchdog is a thread of its own; behind it stands the
fault handler, which needs no interpreter.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from streamkit.runtime.shutdown import EXIT_LATE, EXIT_SIGNAL_BASE, FORCED_CLOSING_S

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How long the loop may take to carry out what the deadline decided, before it is not asked.
_GRACE_S = 1.0


class Watchdog:
    """Ends the process when it has not ended by itself."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def arm(self, seconds: float, code: int) -> None:
        """Leave with ``code`` after so many seconds, whatever goes on."""
        self.disarm()
        self._timer = threading.Timer(seconds, self._leave, (code,))
        self._timer.daemon = True
        self._timer.start()
        faulthandler.dump_traceback_later(seconds + _GRACE_S, exit=True)

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            faulthandler.cancel_dump_traceback_later()

    def _leave(self, code: int) -> None:
        sys.stderr.write(f"the job did not stop in time; leaving with exit code {code}\n")
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def stop_signals(on_signal: Callable[[int], None], *, deadline_s: float) -> Iterator[Watchdog]:
    """Handle SIGINT and SIGTERM while the block runs; main thread only.

    Args:
        on_signal: Called with the signal's number, between two bytecodes of any code.
        deadline_s: How long stopping may take after the first one.
    """
    watchdog = Watchdog()
    count = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 1:
            watchdog.arm(deadline_s + _GRACE_S, EXIT_LATE)
        elif count == 2:
            watchdog.arm(FORCED_CLOSING_S, EXIT_SIGNAL_BASE + number)
        else:
            os._exit(EXIT_SIGNAL_BASE + number)
        on_signal(number)

    before: dict[int, Any] = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield watchdog
    finally:
        watchdog.disarm()
        for number, handler in before.items():
            signal.signal(number, handler)
