"""Ctrl-C and SIGTERM: the first requests a stop, the second ends the process immediately."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def cancelled_by_signals(request_stop: Callable[[int], object]) -> Iterator[None]:
    """Call ``request_stop`` on the event loop with the number of the first signal.

    If SIGINT was ignored when the command began, it stays ignored: a shell script starts
    background commands that way, because Ctrl-C is not meant for them. SIGTERM is always handled.

    These are not the event loop's own signal handlers, because those do not run while a write to
    a full pipe blocks, and a second Ctrl-C must end the process even then.
    """
    loop = asyncio.get_running_loop()
    is_requested = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal is_requested
        if is_requested:
            os._exit(128 + number)
        is_requested = True
        loop.call_soon_threadsafe(request_stop, number)

    before = {
        number: signal.signal(number, on_signal)
        for number in (signal.SIGINT, signal.SIGTERM)
        if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
