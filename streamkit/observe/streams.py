"""The one way to write reports: a stream that never fails its caller, and no terminal escapes.

A report is about the work and never part of it, so whatever is wrong with the stream that it goes
to is no reason to end the work.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import IO, Any, Final

# How long a stream that was set to non-blocking may be full before a text is dropped.
_FULL_S_MAX: Final = 1.0
_STANDARD_DESCRIPTORS: Final = (0, 1, 2)

# Everything a terminal may act on, but for the end of a line.
_ESCAPED: Final = {
    number: f"\\x{number:02x}" for number in (*range(0x20), *range(0x7F, 0xA0)) if number != 0x0A
} | {0x09: "\\t", 0x0D: "\\r"}


def escaped(text: str) -> str:
    """Return a text with its control characters, other than newlines, as escape sequences."""
    return text.translate(_ESCAPED)


class ReportStream:
    """A stream for reports: writes what it can, and never raises.

    A write that fails mutes the stream. So does a stream that is missing, closed, or cannot be
    written to. What its encoding lacks is written as a backslash escape; a non-blocking stream
    that stays full for a second loses that text alone.

    Args:
        out: Where to write; None, as `sys.stderr` is where it was closed, is a muted stream.
    """

    def __init__(self, out: IO[str] | None) -> None:
        self._out = out
        self.is_muted = out is None
        self._fd = _own_descriptor(out)

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks at it, so that a line may be written over."""
        try:
            return not self.is_muted and bool(_method(self._out, "isatty")())
        except Exception:  # of a stream of the user's own, it may be anything
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
            return  # it may take the next text
        except Exception:  # of a stream of the user's own, it may be anything
            self.is_muted = True

    def _write(self, text: str) -> None:
        assert self._out is not None, "a muted stream is not written to"
        text = _writable(text, self._out)
        _method(self._out, "flush")()  # what others have written comes first
        if self._fd is not None:
            _write_all(self._fd, text.encode(_encoding(self._out), "backslashreplace"))
            return
        self._out.write(text)
        _method(self._out, "flush")()


def standard_error() -> ReportStream:
    """Return what `sys.stderr` is now, as a stream for reports."""
    return ReportStream(sys.stderr)


def say(text: str) -> None:
    """Write a line for people on standard error; never raises."""
    standard_error().line(text)


def fill_standard_descriptors() -> None:
    """Open the null device where standard input, output or error is closed.

    The system gives the lowest free number to whatever is opened next: a socket or a database
    would take the place of standard error, and get what others still write there.
    """
    for fd in _STANDARD_DESCRIPTORS:
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free one: fd


def discard(out: IO[str] | None, fd: int) -> None:
    """Let go of what a dead standard stream still holds, so that exiting does not fail on it."""
    try:
        if out is not None:
            out.flush()
    except (OSError, ValueError):
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, fd)
        os.close(null)


def _own_descriptor(out: IO[str] | None) -> int | None:
    """Return the descriptor of a plain text file: what is written there leaves nothing behind.

    A text file keeps what it could not write, and the interpreter fails on it at its exit. Any
    other object may mean something else with its descriptor, so it is written to as it wants.
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
    """Stand in for what an object has not."""


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
    """Wait until a descriptor can be written to; tell whether it can."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(None if seconds is None else seconds * 1_000))
