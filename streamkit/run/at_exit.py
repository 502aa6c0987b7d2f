"""Stops the jobs that still run when the program ends.

The interpreter calls functions of `atexit` late: no thread can start then, and thread pools refuse
work, so a job could not stop in order. `threading` has an earlier list, which the thread pools of
Python use. Its functions are called when the main thread has ended. Other threads of the program
may go on after that and use their jobs, so the jobs are stopped after the last of them has ended.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401  the functions are called in reverse order
import threading
import time
from typing import Final, Protocol

from streamkit.observe.streams import say

_CHECK_S: Final = 0.1
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
    if _other_threads_run():
        threading.Thread(target=_stop_when_alone, name=_EXIT_THREAD, daemon=False).start()
    else:
        _stop_all()


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
