"""Finds where a coroutine of the user waits, to report it when a job stops too slowly."""

from __future__ import annotations

import asyncio
import traceback
from itertools import dropwhile
from pathlib import Path
from types import CoroutineType, FrameType
from typing import Any, Final

from streamkit.runtime.failures import users_line

_STREAMKIT: Final = f"{Path(__file__).parents[1]}/"


def awaiting_line() -> str:
    """Return the line of user code that a call from streamkit waits in; empty if there is none.

    The program that contains the job may have tasks of its own in the running event loop. Their
    lines are not called from streamkit.
    """
    for task in asyncio.all_tasks():
        ours = dropwhile(_is_outside, _awaiting(task.get_coro()))
        lines = ((frame, frame.f_lineno) for frame in ours)
        if line := users_line(traceback.StackSummary.extract(lines)):
            return line
    return ""


def _is_outside(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith(_STREAMKIT)


def _awaiting(coroutine: Any) -> list[FrameType]:
    """Return the frames of a coroutine and of those that it waits for, the innermost last."""
    frames = []
    while isinstance(coroutine, CoroutineType) and coroutine.cr_frame is not None:
        frames.append(coroutine.cr_frame)
        coroutine = coroutine.cr_await
    return frames
