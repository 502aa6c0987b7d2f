"""Writes reports to a stream, without errors for the caller and without terminal escapes.

A broken report stream must not stop the job that it reports about.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import IO, Any, Final

# How long a non-blocking stream may stay full before a text is dropped.
_FULL_S_MAX: Final = 1.0
_STANDARD_DESCRIPTORS: Final = (0, 1, 2)

# All control characters except the newline.
_ESCAPED: Final = {
    number: f"\\x{number:02x}" for number in (*range(0x20), *range(0x7F, 0xA0)) if number != 0x0A
} | {0x09: "\\t", 0x0D: "\\r"}


def escaped(text: str) -> str:
    """Return a text with its control characters, other than newlines, as escape sequences."""
    return text.translate(_ESCAPED)


class ReportStream:
    """A stream for reports: writes what it can, and never raises.

    After a write fails, nothing more is written: the stream is muted. A missing or closed stream
    is muted from the start. Characters that the encoding lacks are written as backslash escapes. A
    non-blocking stream that stays full for a second loses only that text.

    Args:
        out: Where to write. None gives a muted stream; a closed `sys.stderr` is None.
    """

    def __init__(self, out: IO[str] | None) -> None:
        self._out = out
        self.is_muted = out is None
        self._fd = _own_descriptor(out)

    @property
    def is_terminal(self) -> bool:
        """Whether the stream is a terminal, where a line can be overwritten."""
        try:
            return not self.is_muted and bool(_method(self._out, "isatty")())
        except Exception:  # a stream of the user may raise anything
            return False

    def line(self, text: str) -> None:
        """Write text and an end of line; control characters are escaped."""
        self.write(f"{escaped(text)}\n")

    def write(self, text: str) -> None:
        """Write text as it is."""
        if self.is_muted:
            return
        try:
            self._write(text)
        except BlockingIOError:
            return  # only this text is lost
        except Exception:  # a stream of the user may raise anything
            self.is_muted = True

    def _write(self, text: str) -> None:
        assert self._out is not None, "a muted stream is not written to"
        text = _writable(text, self._out)
        _method(self._out, "flush")()  # text that others have buffered comes first
        if self._fd is not None:
            _write_all(self._fd, text.encode(_encoding(self._out), "backslashreplace"))
            return
        self._out.write(text)
        _method(self._out, "flush")()


def standard_error() -> ReportStream:
    """Return the current `sys.stderr` as a stream for reports."""
    return ReportStream(sys.stderr)


def say(text: str) -> None:
    """Write a line for people on standard error; never raises."""
    standard_error().line(text)


def fill_standard_descriptors() -> None:
    """Open the null device where standard input, output or error is closed.

    The system gives the lowest free number to the next file that is opened. So a socket or a
    database could get the number of standard error, and everything that is written there.
    """
    for fd in _STANDARD_DESCRIPTORS:
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # this gets the number fd


def discard(out: IO[str] | None, fd: int) -> None:
    """Discard the buffer of a broken standard stream, so that the exit does not fail on it."""
    try:
        if out is not None:
            out.flush()
    except (OSError, ValueError):
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, fd)
        os.close(null)


def _own_descriptor(out: IO[str] | None) -> int | None:
    """Return the descriptor of a plain text file, to write without its buffer.

    A text file buffers what it could not write, and the interpreter fails on that at its exit.
    Any other object is written to by its own methods, because they may not write to a descriptor.
    """
    if type(out) is not io.TextIOWrapper or os.name != "posix":
        return None
    try:
        return out.fileno()
    except (OSError, ValueError):
        return None


def _method(out: IO[str] | None, name: str) -> Any:
    return getattr(out, name, _nothing)


def _nothing() -> None:
    """Do nothing. Used for a method that an object does not have."""


def _writable(text: str, out: IO[str]) -> str:
    encoding = _encoding(out)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def _encoding(out: IO[str]) -> str:
    encoding = getattr(out, "encoding", None)
    return encoding if isinstance(encoding, str) else "utf-8"


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            if not wait_for_room(fd, _FULL_S_MAX):
                raise


def wait_for_room(fd: int, seconds: float | None = None) -> bool:
    """Wait until a descriptor can be written to; return whether it can."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(None if seconds is None else seconds * 1_000))
