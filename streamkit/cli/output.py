"""Standard output of a command: one that cannot be written to ends it with one line of error."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from streamkit.errors import StreamKitError
from streamkit.observe.streams import wait_for_room

if TYPE_CHECKING:
    from typing_extensions import Buffer

_CLOSED: Final = "it is closed"


class OutputFailed(StreamKitError, OSError):
    """Standard output cannot be written to, so what was asked for would be lost."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot write to standard output: {reason}")


@contextmanager
def guarded_output() -> Iterator[None]:
    """Let `sys.stdout` raise `OutputFailed` where it cannot be written to, or was closed.

    A broken pipe stays what it is: whoever read it has seen enough, which is no failure.
    """
    before = sys.stdout
    sys.stdout = _guarded(before)
    try:
        yield
    finally:
        sys.stdout = before


@contextmanager
def unguarded_output() -> Iterator[None]:
    """Let `sys.stdout` be what the interpreter made it, for programs of the user's."""
    before = sys.stdout
    before.flush()
    sys.stdout = sys.__stdout__
    try:
        yield
    finally:
        sys.stdout = before


def check_output() -> None:
    """Refuse to begin what would be printed on a standard output that is closed.

    Raises:
        OutputFailed: It is.
    """
    if isinstance(getattr(sys.stdout.buffer, "raw", None), _Closed):
        raise OutputFailed(_CLOSED)


def _guarded(out: TextIO | None) -> TextIO:
    if out is None:
        return io.TextIOWrapper(io.BufferedWriter(_Closed()), "utf-8", write_through=True)
    if type(out) is not io.TextIOWrapper:
        return out  # it was replaced by something that has its own ways
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(out.fileno(), "w", closefd=False)),
        encoding=out.encoding,
        errors=out.errors,
        line_buffering=out.line_buffering,
        write_through=out.write_through,
    )


class _Output(io.FileIO):
    """The file of standard output; waits where it was set to non-blocking and is full."""

    def write(self, data: Buffer, /) -> int:
        try:
            while (written := super().write(data)) is None:
                wait_for_room(self.fileno())
        except BrokenPipeError as error:
            # Without its number: click would take it for a failure and exit with 1 by itself.
            raise BrokenPipeError("whoever read the output is gone") from error
        except OSError as error:
            raise OutputFailed(error.strerror or str(error)) from error
        return written


class _Closed(io.RawIOBase):
    """Standard output that was closed before the command began."""

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        raise OutputFailed(_CLOSED)
