"""Finds the user's code that called this package."""

from __future__ import annotations

import sys
import types
from typing import Any

from streamkit.dataflow.topology import Location

_PACKAGE = __name__.split(".", maxsplit=1)[0]


def caller_location() -> Location:
    """Return the line of user code that called this package; none in a command of ours."""
    frame = _outer_frame()
    if frame is None or str(frame.f_globals.get("__name__", "")).startswith("click."):
        return Location()
    return Location(frame.f_code.co_filename, frame.f_lineno)


def caller_module() -> str:
    """Return the name of the module that called this package."""
    frame = _outer_frame()
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def caller_scope() -> dict[str, Any]:
    """Return the local names of the function that called this package."""
    frame = _outer_frame()
    return {} if frame is None else dict(frame.f_locals)


def _outer_frame() -> types.FrameType | None:
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module != _PACKAGE and not module.startswith(f"{_PACKAGE}."):
            return frame
        frame = frame.f_back
    return None
