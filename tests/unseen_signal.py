"""A signal that does not wake a wait of the main thread, as one that comes just before it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LATE_S: Final = 10.0


class Interrupted(Exception):
    """Raised by the handler of the signal, in the main thread."""


@contextmanager
def unseen_signal() -> Iterator[None]:
    """Send a signal to another thread, a moment after the block has begun.

    Python notes it for the main thread, but the system call of that thread is not interrupted. If
    the signal is not handled in time, the main thread is woken, and the test fails.
    """
    main, is_handled, is_late = threading.get_ident(), threading.Event(), threading.Event()

    def interrupt(*_: object) -> None:
        is_handled.set()
        raise Interrupted

    def send() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        time.sleep(0.2)  # no event says that the main thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        if not is_handled.wait(LATE_S):
            is_late.set()
            signal.pthread_kill(main, signal.SIGUSR2)

    before = [signal.signal(signal.SIGUSR1, interrupt)]
    before.append(signal.signal(signal.SIGUSR2, lambda *_: None))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # only `send` gets it
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        sender.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        for number, handler in zip((signal.SIGUSR1, signal.SIGUSR2), before, strict=True):
            signal.signal(number, handler)
    assert is_handled.is_set()
    assert not is_late.is_set(), f"the signal was not handled within {LATE_S} s"
