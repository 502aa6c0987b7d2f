"""Ends the process after the job has ended, even if the user's threads still run.

The interpreter waits for threads that are not daemons, and for processes that were started with
`multiprocessing`. The job's data are safe by then, so this reports what the process waits for, and
ends the process at the deadline.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Final

# Thread pools usually end within this time, so nothing is reported before.
_NOTE_AFTER_S: Final = 1.0


class ExitGuard:
    """Ends the process with the job's exit code, no later than the deadline of the stop.

    Args:
        deadline_s: How long a stop may take, including the exit of the process.
        note: Called with messages about threads and processes that are still running.
    """

    def __init__(self, deadline_s: float, note: Callable[[str], None]) -> None:
        self._deadline_s = deadline_s
        self._note = note
        self._begun_s: float | None = None

    def begin(self, deadline_s: float) -> None:
        """Start counting the time: the job begins to stop."""
        self._begun_s = time.monotonic()

    def watch(self, code: int) -> None:
        """End the process with ``code`` at the deadline, if the interpreter has not exited."""
        begun_s = time.monotonic() if self._begun_s is None else self._begun_s
        due_s = max(begun_s + self._deadline_s, time.monotonic() + 2 * _NOTE_AFTER_S)
        threading.Thread(
            target=self._end_by, args=(due_s, code), name="streamkit leaving", daemon=True
        ).start()

    def _end_by(self, due_s: float, code: int) -> None:
        time.sleep(_NOTE_AFTER_S)
        for text in what_remains():
            self._note(f"the job has ended, but the process waits for {text}")
        time.sleep(max(0.0, due_s - time.monotonic()))
        self._note(f"exiting without waiting any longer, with exit code {code}")
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # an error of a stream must not prevent the exit
                stream.flush()
        os._exit(code)


def what_remains() -> list[str]:
    """Describe the threads and processes that the interpreter waits for."""
    own = (threading.main_thread(), threading.current_thread())
    frames = sys._current_frames()
    found = []
    for each in threading.enumerate():
        if each.daemon or each in own or each.ident not in frames:
            continue
        place = traceback.extract_stack(frames[each.ident])[-1]
        found.append(f"the thread {each.name!r}, at {place.filename}:{place.lineno}")
    processes = sys.modules.get("multiprocessing")
    if processes is not None:
        found += [f"the process {each.name!r}" for each in processes.active_children()]
    return found
