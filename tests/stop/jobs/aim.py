"""Lets a job send itself a signal at a chosen place.

``AIM`` is ``PLACE:COUNT:SIGNAL``. When the job passes the place for the COUNT-th time, it writes
the time to the file ``signalled-at``, logs "at its aim" on standard error, and sends itself the
signal. Signal 0 does nothing: then the test waits for the line and sends a signal from outside.
"""

import os
import sys
import time
from pathlib import Path

_place, _count, _signal = (os.environ.get("AIM") or "nowhere:0:0").split(":")
_left = int(_count)


def passing(place: str) -> None:
    """Count each pass of a place; send the signal if this is the chosen one."""
    global _left
    if place != _place:
        return
    _left -= 1
    if _left == 0:
        Path("signalled-at").write_text(str(time.monotonic()))
        sys.stderr.write("at its aim\n")
        sys.stderr.flush()
        os.kill(os.getpid(), int(_signal))
