"""Stops the jobs that still run when the program ends.

The interpreter calls functions of `atexit` late: no thread can start then, and thread pools refuse
work, so a job could not stop in order. `threading` has an earlier list, which the thread pools of
Python use. Its functions are called when the main thread has ended. Other threads of the program
may go on after that and use their jobs, so the jobs are stopped after the last of them has ended.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401  the functions are called in reverse order
import logging
import os
import sys
import threading
import time
from typing import Final, Protocol

from streamkit.observe.streams import say
from streamkit.runtime.shutdown import EXIT_LATE

_CHECK_S: Final = 0.1
# Python 3.12.0 and 3.12.1 start no thread after the main thread has ended (CPython gh-113964).
_MAY_STOP_LATE: Final = not (3, 12, 0) <= sys.version_info[:3] < (3, 12, 2)
_EXIT_THREAD: Final = "streamkit-exit"


class Stoppable(Protocol):
    """A job that can be stopped."""

    def request_stop(self) -> None:
        """Begin to stop in order."""

    def abandon(self) -> None:
        """Abandon the work in progress."""

    def late_text(self) -> str:
        """Wait until the job is over; return a text if it did not stop in time."""


_lock = threading.Lock()
_running: set[Stoppable] = set()
_is_registered = False


def stop_at_exit(job: Stoppable) -> None:
    """Stop a job when the program ends, unless `forget` is called first."""
    global _is_registered
    with _lock:
        _running.add(job)
        if not _is_registered:
            _register()
            _is_registered = True


def forget(job: Stoppable) -> None:
    """Do not stop this job: it has ended, or belongs to another process."""
    _running.discard(job)


def _register() -> None:
    early = getattr(threading, "_register_atexit", atexit.register)
    try:
        early(_main_thread_has_ended)
    except RuntimeError:  # the main thread has ended already
        atexit.register(_stop_all)


def _main_thread_has_ended() -> None:
    if not _running:
        return
    if not _MAY_STOP_LATE:
        _end_unstopped()
    elif _other_threads_run():
        threading.Thread(target=_stop_when_alone, name=_EXIT_THREAD, daemon=False).start()
    else:
        _stop_all()


def _end_unstopped() -> None:
    """End the program with an error, because its jobs cannot be stopped in order."""
    while _running and _other_threads_run():
        time.sleep(_CHECK_S)
    if not _running:
        return
    say(
        f"error: Python {sys.version.split()[0]} cannot stop a job when the program ends, so its "
        "sinks were not flushed; the next run continues after the last commit\n"
        "  hint: use `with app.start()`, call stop(), or use Python 3.12.2 or newer"
    )
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(EXIT_LATE)


def _stop_when_alone() -> None:
    while _running and _other_threads_run():
        time.sleep(_CHECK_S)
    _stop_all()


def _other_threads_run() -> bool:
    """Return whether a thread runs for which the interpreter waits."""
    own = (threading.main_thread(), threading.current_thread())
    return any(not each.daemon and each not in own for each in threading.enumerate())


def _stop_all() -> None:
    jobs = list(_running)
    for job in jobs:
        job.request_stop()
    try:
        texts = [job.late_text() for job in jobs]
    except KeyboardInterrupt:
        for job in jobs:
            job.abandon()
        texts = [job.late_text() for job in jobs]
    for text in filter(None, texts):
        say(text)
