"""Lets a job signal itself at a chosen place: nothing aims better than the target.

``AIM`` is ``PLACE:COUNT:SIGNAL``; at the so manieth pass by that place the signal is sent, and
the time is written to ``signalled-at``.
"""

import os
import time
from pathlib import Path

_place, _count, _signal = (os.environ.get("AIM") or "nowhere:0:0").split(":")
_left = int(_count)


def passing(place: str) -> None:
    """Pass by a place; be signalled if it was aimed at."""
    global _left
    if place != _place:
        return
    _left -= 1
    if _left == 0:
        Path("signalled-at").write_text(str(time.monotonic()))
        os.kill(os.getpid(), int(_signal))
