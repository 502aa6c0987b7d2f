"""Handles stop signals, and ends the process at the deadline even if the event loop is blocked.

A separate thread receives the signals from a pipe that the interpreter writes to. The main thread
may be in a blocking call, and a signal that arrives just before such a call does not interrupt it.
The watchdog is another thread. If that fails too, the fault handler ends the process, because it
does not need the interpreter.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from streamkit.forks import in_children
from streamkit.runtime.shutdown import EXIT_LATE, EXIT_SIGNAL_BASE, FORCED_CLOSING_S

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How long after the deadline the event loop may still end the job, before the watchdog does.
_GRACE_S = 1.0
_END = b"\0"


class Watchdog:
    """Ends the process if it has not exited in time.

    Args:
        on_forced_exit: Called with the exit code before the process ends, in the watchdog's thread.
    """

    def __init__(self, on_forced_exit: Callable[[int], None]) -> None:
        self._on_forced_exit = on_forced_exit
        self._timer: threading.Timer | None = None
        # Kept open: a program may close or replace its standard error at any time.
        self._error_fd = _copy_of_standard_error()

    def arm(self, seconds: float, code: int) -> None:
        """Exit with ``code`` after ``seconds``, whatever the process is doing."""
        self.disarm()
        self._timer = threading.Timer(seconds, self._leave, (code,))
        self._timer.daemon = True
        self._timer.start()
        faulthandler.dump_traceback_later(seconds + _GRACE_S, exit=True, file=self._error_fd)

    def arm_deadline(self, deadline_s: float) -> None:
        """Start the deadline; do nothing if a signal has started it already."""
        if self._timer is None:
            self.arm(deadline_s + _GRACE_S, EXIT_LATE)

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        self.disarm()
        os.close(self._error_fd)

    def _leave(self, code: int) -> None:
        try:
            text = f"the job did not stop in time; exiting with exit code {code}\n"
            with suppress(OSError):
                os.write(self._error_fd, text.encode())
            self._on_forced_exit(code)
        finally:
            os._exit(code)


def main_thread_stack() -> traceback.StackSummary:
    """Return the current stack of the main thread."""
    return thread_stack(threading.main_thread())


def thread_stack(thread: threading.Thread) -> traceback.StackSummary:
    """Return the current stack of a thread; empty if it has ended."""
    assert thread.ident is not None, "it has started"
    frame = sys._current_frames().get(thread.ident)
    return traceback.StackSummary() if frame is None else traceback.extract_stack(frame)


@contextmanager
def stop_signals(
    on_signal: Callable[[int], None],
    *,
    on_interrupt: Callable[[], None],
    deadline_s: float,
    on_forced_exit: Callable[[int], None],
) -> Iterator[Watchdog]:
    """Handle stop signals while the block runs; main thread only.

    SIGINT and SIGHUP stay ignored if they are ignored at the start: a shell ignores SIGINT for
    background jobs, and ``nohup`` ignores SIGHUP. SIGTERM is always handled.

    Args:
        on_signal: Called with the signal's number, in another thread.
        on_interrupt: Called in the main thread, between two bytecodes; it may raise.
        deadline_s: How long stopping may take after the first signal.
        on_forced_exit: Called with the exit code before the watchdog ends the process.
    """
    watchdog = Watchdog(on_forced_exit)
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)

    def interrupt(number: int, frame: FrameType | None) -> None:
        on_interrupt()

    def listen() -> None:
        count = 0
        while numbers := os.read(read_fd, 64):
            for number in filter(SIGNALS.__contains__, numbers):
                count += 1
                on_signal(number)
                _arm(watchdog, count, number, deadline_s)
            if _END[0] in numbers:
                return

    listener = threading.Thread(target=listen, name="stop signals", daemon=True)
    listener.start()
    fd_before = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    before: dict[int, Any] = {
        number: signal.signal(number, interrupt) for number in SIGNALS if _is_handled(number)
    }

    def restore() -> None:
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def in_child() -> None:
        restore()
        for fd in (read_fd, write_fd):
            os.close(fd)

    unregister = in_children(in_child)
    try:
        yield watchdog
    finally:
        unregister()
        restore()
        # A byte ends the listener. Closing the pipe may not, because a child may have it open.
        os.write(write_fd, _END)
        listener.join()
        for fd in (read_fd, write_fd):
            os.close(fd)
        watchdog.close()


def _is_handled(number: int) -> bool:
    return number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN


def _copy_of_standard_error() -> int:
    """Return a copy of the standard error descriptor; of the null device if it is closed."""
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def _arm(watchdog: Watchdog, count: int, number: int, deadline_s: float) -> None:
    if count == 1:
        watchdog.arm_deadline(deadline_s)
    elif count == 2:
        watchdog.arm(FORCED_CLOSING_S, EXIT_SIGNAL_BASE + number)
    else:
        os._exit(EXIT_SIGNAL_BASE + number)
