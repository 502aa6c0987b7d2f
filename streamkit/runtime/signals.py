"""Signals to stop, and the deadline that holds even when the event loop does not turn.

A thread of its own hears of signals, through the descriptor that the interpreter writes to: the
main thread may be in a call that sleeps, and a signal that comes just before such a call does
not end it. The watchdog is another thread; behind it stands the fault handler, which needs no
interpreter.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from streamkit.observe.streams import say
from streamkit.runtime.shutdown import EXIT_LATE, EXIT_SIGNAL_BASE, FORCED_CLOSING_S

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How long the loop may take to carry out what the deadline decided, before it is not asked.
_GRACE_S = 1.0


class Watchdog:
    """Ends the process when it has not ended by itself.

    Args:
        last_words: Called with the exit code before; in another thread than the loop's.
    """

    def __init__(self, last_words: Callable[[int], None]) -> None:
        self._last_words = last_words
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
        try:
            say(f"the job did not stop in time; leaving with exit code {code}")
            self._last_words(code)
        finally:
            os._exit(code)


def main_thread_stack() -> traceback.StackSummary:
    """Return what the main thread is doing right now."""
    main = threading.main_thread().ident
    assert main is not None, "it has started"
    return traceback.extract_stack(sys._current_frames()[main])


@contextmanager
def stop_signals(
    on_signal: Callable[[int], None],
    *,
    on_interrupt: Callable[[], None],
    deadline_s: float,
    last_words: Callable[[int], None],
) -> Iterator[Watchdog]:
    """Handle SIGINT and SIGTERM while the block runs; main thread only.

    Args:
        on_signal: Called with the signal's number, in another thread.
        on_interrupt: Called in the main thread, between two bytecodes; it may raise.
        deadline_s: How long stopping may take after the first one.
        last_words: Called with the exit code before the process is ended by force.
    """
    watchdog = Watchdog(last_words)
    hearing, told = os.pipe()
    os.set_blocking(told, False)

    def interrupt(number: int, frame: FrameType | None) -> None:
        on_interrupt()

    def listen() -> None:
        count = 0
        while numbers := os.read(hearing, 64):
            for number in filter(SIGNALS.__contains__, numbers):
                count += 1
                _arm(watchdog, count, number, deadline_s)
                on_signal(number)

    listener = threading.Thread(target=listen, name="stop signals", daemon=True)
    listener.start()
    fd_before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    before: dict[int, Any] = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield watchdog
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(fd_before)
        os.close(told)
        listener.join()
        os.close(hearing)
        watchdog.disarm()


def _arm(watchdog: Watchdog, count: int, number: int, deadline_s: float) -> None:
    if count == 1:
        watchdog.arm(deadline_s + _GRACE_S, EXIT_LATE)
    elif count == 2:
        watchdog.arm(FORCED_CLOSING_S, EXIT_SIGNAL_BASE + number)
    else:
        os._exit(EXIT_SIGNAL_BASE + number)
