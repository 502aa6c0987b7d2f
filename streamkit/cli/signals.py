"""Ctrl-C and SIGTERM: the first one asks to stop, the second one ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def cancelled_by_signals(ask: Callable[[int], object]) -> Iterator[None]:
    """Call ``ask`` on the event loop with the number of the first signal.

    SIGINT that was ignored when the command began stays ignored, as everywhere: a shell script
    starts what it puts into the background so, and Ctrl-C is not meant for that. SIGTERM is always
    handled.

    Not the loop's own signal handlers: those do not run while a write to a full pipe blocks,
    and then a second Ctrl-C must still end the process.
    """
    loop = asyncio.get_running_loop()
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True
        loop.call_soon_threadsafe(ask, number)

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
