"""Releases the resources of a running job in child processes that user code forks.

A child gets a copy of everything. It has the signal handlers and the pipe they write to, so a
signal to the child would stop the job. It also has the locks and connections, which stay open as
long as the child runs. The owner of such a resource registers here how a child releases its copy.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

# EX_SOFTWARE of sysexits.h; streamkit uses this code for nothing else.
EXIT_FORKED = 70

# Several threads may register and fork at the same time, each with a job of its own.
_numbers = itertools.count()
_in_child: dict[int, Callable[[], None]] = {}
_is_registered = False


class _OfThread(threading.local):
    mask: set[int | signal.Signals] | None = None


_forking = _OfThread()
_blocked = (signal.SIGINT, signal.SIGTERM)


def in_children(release: Callable[[], None]) -> Callable[[], None]:
    """Call ``release`` in every child that is forked from now on.

    Returns:
        A function that removes the registration.
    """
    _register()
    number = next(_numbers)
    _in_child[number] = release
    return lambda: _in_child.pop(number, None) and None


def close_in_children(fd: int) -> Callable[[], None]:
    """Close a descriptor in every forked child; return a function that cancels this."""
    expected = _file_of(fd)

    def close() -> None:
        with suppress(OSError):
            if _file_of(fd) == expected:  # otherwise another file has this number by now
                os.close(fd)

    return in_children(close)


def _file_of(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


class SameProcess:
    """Detects a forked child that returns from user code into streamkit instead of exiting."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def check(self) -> None:
        """End the process if it is a child: two processes must not run the same job."""
        if os.getpid() == self._pid:
            return
        text = b"a process forked by user code returned into the job; it exits here\n"
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
    """Block signals to the child until it has its own handlers."""
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _blocked) if _in_child else None


def _after_in_parent() -> None:
    if _forking.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _after_in_child() -> None:
    for release in list(_in_child.values()):
        release()
    _in_child.clear()
    if _forking.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)
