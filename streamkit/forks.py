"""What a child that user code forks must not share with a running job.

A child gets copies of everything: of signal handlers and the pipe they write to, so that a signal
to the child would stop the job; of locks and connections, which stay held as long as it lives.
Whoever owns such a thing says here how a child gives up its copy.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

# What a shell calls a software error; nothing of ours has this code.
EXIT_FORKED = 70

_in_child: dict[int, Callable[[], None]] = {}
_is_registered = False
_mask: set[int | signal.Signals] | None = None
_blocked = (signal.SIGINT, signal.SIGTERM)


def in_children(give_up: Callable[[], None]) -> Callable[[], None]:
    """Call ``give_up`` in every child that is forked from now on.

    Returns:
        A function that takes it back, for when there is nothing to give up any more.
    """
    _register()
    number = max(_in_child, default=0) + 1
    _in_child[number] = give_up
    return lambda: _in_child.pop(number, None) and None


def close_in_children(fd: int) -> Callable[[], None]:
    """Close a descriptor in every child that is forked; returns a function to take it back."""
    meant = _file_of(fd)

    def close() -> None:
        with suppress(OSError):
            if _file_of(fd) == meant:  # else the number stands for something else by now
                os.close(fd)

    return in_children(close)


def _file_of(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


class SameProcess:
    """Notices a forked child that came back into our code instead of ending."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def check(self) -> None:
        """End a child at once: a second process must not go on with the job."""
        if os.getpid() == self._pid:
            return
        text = b"a process forked by user code came back into the job; it ends here\n"
        with suppress(OSError):
            os.write(2, text)
        os._exit(EXIT_FORKED)


def _register() -> None:
    global _is_registered
    if not _is_registered:
        os.register_at_fork(
            before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
        )
        _is_registered = True


def _before() -> None:
    """Keep a signal to the child waiting until the child has handlers of its own."""
    global _mask
    _mask = signal.pthread_sigmask(signal.SIG_BLOCK, _blocked) if _in_child else None


def _after_in_parent() -> None:
    if _mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask)


def _after_in_child() -> None:
    for give_up in list(_in_child.values()):
        give_up()
    _in_child.clear()
    if _mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask)
