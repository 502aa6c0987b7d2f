"""Standard output of a command: if it cannot be written to, the command ends with an error."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

import click

from streamkit.errors import StreamKitError
from streamkit.observe.streams import wait_for_room

if TYPE_CHECKING:
    from typing_extensions import Buffer

_CLOSED: Final = "it is closed"


class OutputFailed(StreamKitError, OSError):
    """Standard output cannot be written to, so the command's output would be lost."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot write to standard output: {reason}")


@contextmanager
def guarded_output() -> Iterator[None]:
    """Make `sys.stdout` raise `OutputFailed` if it is closed or cannot be written to.

    A broken pipe still raises BrokenPipeError. It is not a failure: the reader needs no more.
    """
    before = sys.stdout
    sys.stdout = _guarded(before)
    try:
        yield
    finally:
        sys.stdout = before


@contextmanager
def unguarded_output() -> Iterator[None]:
    """Set `sys.stdout` to the interpreter's own stream, for the user's program."""
    before = sys.stdout
    before.flush()
    sys.stdout = sys.__stdout__
    try:
        yield
    finally:
        sys.stdout = before


def check_output() -> None:
    """Check that standard output is open, before work whose result is printed there.

    Raises:
        OutputFailed: It is closed.
    """
    if isinstance(getattr(sys.stdout.buffer, "raw", None), _Closed):
        raise OutputFailed(_CLOSED)


def print_line(text: str) -> None:
    """Print text and an end of line. Characters that the encoding lacks become escapes."""
    encoding = sys.stdout.encoding
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def _guarded(out: TextIO | None) -> TextIO:
    if out is None:
        return io.TextIOWrapper(io.BufferedWriter(_Closed()), "utf-8", write_through=True)
    if type(out) is not io.TextIOWrapper:
        return out  # another object has replaced the interpreter's stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(out.fileno(), "w", closefd=False)),
        encoding=out.encoding,
        errors=out.errors,
        line_buffering=out.line_buffering,
        write_through=out.write_through,
    )


class _Output(io.FileIO):
    """The file of standard output. If it is non-blocking and full, a write waits."""

    def write(self, data: Buffer, /) -> int:
        try:
            while (written := super().write(data)) is None:
                wait_for_room(self.fileno())
        except BrokenPipeError as error:
            # Without the error number: with it, click itself would exit with 1.
            raise BrokenPipeError("the reader of the output closed the pipe") from error
        except OSError as error:
            raise OutputFailed(error.strerror or str(error)) from error
        return written


class _Closed(io.RawIOBase):
    """Standard output that was closed before the command began."""

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        raise OutputFailed(_CLOSED)
