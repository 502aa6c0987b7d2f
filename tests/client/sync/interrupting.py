"""Interrupts the sync client at every line, one line per run."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from streamkit import sync

_FOLDER: Final = str(Path(sync.__file__).parent)


class Interrupt(BaseException):
    """Simulates KeyboardInterrupt, which can occur at any line in the main thread."""


def is_with(frame: FrameType) -> bool:
    """Whether a ``with`` begins or ends here: Python handles no signal between its two steps."""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return line.lstrip().startswith("with ")


@contextmanager
def interrupted_at(step: int, file: str = "") -> Iterator[list[bool]]:
    """Interrupt the block before line ``step`` of the client, or of one of its files.

    The returned list contains a true value afterwards if the block ended before that line.
    """
    left = step
    is_whole: list[bool] = []

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        where = frame.f_code.co_filename
        if not (where.startswith(_FOLDER) and where.endswith(file)):
            return None
        if event == "line" and not is_with(frame):
            left -= 1
            if left < 0:
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield is_whole
        is_whole.append(True)
    except Interrupt:
        pass
    finally:
        sys.settrace(before)
