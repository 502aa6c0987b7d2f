"""What `produce` reads: files, pipes, standard input, terminals; stopped without losing a byte.

Everything is a descriptor to wait for and to read from, so that a pipe whose writer is slow, or
has not come yet, holds up neither the records before it nor Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import zlib
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.lowlevel

from streamkit.errors import DataError, StreamKitError, UsageError

BLOCK_BYTES: Final = 1 << 20
# With a header and a trailer of gzip, which is checked.
_GZIP: Final = 16 + zlib.MAX_WBITS
# What is left of a piece is copied at the end of each member, and those may be tiny.
_PIECE_BYTES: Final = 1 << 16
_STANDARD_INPUT: Final = 0
_STANDARD_INPUT_PATHS: Final = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_OPENING: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class Stop:
    """Whether to read no more: a signal asks for it, or no record would be stored any more.

    Ends the waiting for input, and nothing else.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.failure: StreamKitError | None = None
        self._waiting: anyio.CancelScope | None = None

    @property
    def is_asked(self) -> bool:
        return self.signal != 0 or self.failure is not None

    def ask(self, number: int) -> None:
        self.signal = number
        self._wake()

    def fail(self, failure: StreamKitError) -> None:
        """Read no more, since of what this says; the first cause counts."""
        self.failure = self.failure or failure
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    async def until_readable(self, fd: int) -> None:
        """Wait for input or for the stop, whichever comes first."""
        with anyio.CancelScope() as self._waiting:
            await anyio.wait_readable(fd)
        self._waiting = None


class Input(Protocol):
    """Something to read block by block."""

    name: str
    size_bytes: int | None
    is_terminal: bool

    async def read(self, stop: Stop) -> bytes:
        """Return the next block; nothing at the end, or when stopped.

        Raises:
            DataError: It cannot be read to its end.
        """

    def position_bytes(self) -> int:
        """How much of ``size_bytes`` is read."""

    def close(self) -> None: ...


class DescriptorInput:
    """An open descriptor, whatever it leads to.

    Raises:
        UsageError: It leads to a folder.
    """

    def __init__(self, fd: int, name: str, *, is_ours: bool) -> None:
        self.name = name
        self._fd = fd
        self._is_ours = is_ours
        mode = os.fstat(fd)
        self.is_terminal = os.isatty(fd)
        is_file = stat.S_ISREG(mode.st_mode)
        # Files that the system makes up as they are read have no size.
        self.size_bytes: int | None = (mode.st_size or None) if is_file else None
        self._waits = not is_file
        self._read_bytes = 0
        if stat.S_ISDIR(mode.st_mode):
            self.close()
            raise UsageError(f"cannot read {name}: it is a folder", hint="name a file in it")

    async def read(self, stop: Stop) -> bytes:
        await anyio.lowlevel.checkpoint()
        while True:
            # Only where nothing is there yet, something has to be set up to wait for it. A pipe
            # without a writer is not asked before one has come: it would say that this is its end.
            if self._waits and not _is_readable(self._fd):
                await stop.until_readable(self._fd)
            if stop.is_asked:
                return b""
            try:
                block = os.read(self._fd, BLOCK_BYTES)
            except BlockingIOError:
                continue  # another process was faster
            except OSError as error:
                raise DataError(f"cannot read {self.name}: {error.strerror}") from error
            self._read_bytes += len(block)
            return block

    def position_bytes(self) -> int:
        return self._read_bytes

    def close(self) -> None:
        if self._is_ours:
            os.close(self._fd)
            self._is_ours = False


class GzipInput:
    """What another input holds, decompressed; members may follow one another."""

    is_terminal = False

    def __init__(self, packed: Input) -> None:
        self.name = packed.name
        self.size_bytes = packed.size_bytes
        self._packed = packed
        self._held = b""
        self._taken = 0
        self._inflate = zlib.decompressobj(_GZIP)
        self._is_inside = False

    async def read(self, stop: Stop) -> bytes:
        while True:
            if self._taken == len(self._held):
                self._held, self._taken = await self._packed.read(stop), 0
            if not self._held:
                if self._is_inside and not stop.is_asked:
                    raise DataError(f"cannot read {self.name}: it ends inside of gzip's data")
                return b""
            block = self._decompress()
            if block:
                return block

    def _decompress(self) -> bytes:
        piece = self._held[self._taken : self._taken + _PIECE_BYTES]
        self._taken += len(piece)
        if not self._is_inside:
            piece = piece.lstrip(b"\0")  # some pad with those
        if not piece:
            return b""
        self._is_inside = True
        try:
            block = self._inflate.decompress(piece, BLOCK_BYTES)
        except zlib.error as error:
            raise DataError(f"cannot read {self.name}: {error}") from error
        self._taken -= len(self._inflate.unconsumed_tail) + len(self._inflate.unused_data)
        if self._inflate.eof:
            self._inflate = zlib.decompressobj(_GZIP)
            self._is_inside = False
        return block

    def position_bytes(self) -> int:
        return self._packed.position_bytes()

    def close(self) -> None:
        self._packed.close()


def open_file(path: Path, *, as_it_is: bool = False) -> Input:
    """Open a file, a named pipe or a device; one named ``.gz`` is decompressed.

    Does not wait for the writer of a named pipe.

    Raises:
        UsageError: It cannot be opened.
    """
    if str(path) in _STANDARD_INPUT_PATHS:
        _check_standard_input()
    try:
        fd = _opened(path)
    except OSError as error:
        raise UsageError(f"--file: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--file: cannot read {str(path)!r}: {error}") from error
    found = DescriptorInput(fd, str(path), is_ours=True)
    return GzipInput(found) if path.suffix == ".gz" and not as_it_is else found


def standard_input() -> Input:
    """Return standard input, whatever it leads to.

    Raises:
        UsageError: It is closed.
    """
    _check_standard_input()
    return DescriptorInput(_STANDARD_INPUT, "standard input", is_ours=False)


def _check_standard_input() -> None:
    if sys.stdin is None:
        raise UsageError("standard input is closed", hint="name what to read with --file")


def _opened(path: Path) -> int:
    try:
        return os.open(path, _OPENING)
    except OSError as error:
        # A socket cannot be opened by its name, but it can be read.
        if error.errno == errno.ENXIO and str(path) in _STANDARD_INPUT_PATHS:
            return os.dup(_STANDARD_INPUT)
        raise


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
