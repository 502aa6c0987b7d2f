"""Inputs of `produce`: files, pipes, standard input, terminals. A stop does not lose input.

Every input is a file descriptor that is waited for before it is read. So a pipe whose writer is
slow, or not connected yet, delays neither earlier records nor Ctrl-C.
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
# Makes zlib expect a gzip header and trailer, and check them.
_GZIP: Final = 16 + zlib.MAX_WBITS
# At the end of each gzip member the rest of the piece is copied. Members may be tiny, so a larger
# piece would be copied many times.
_PIECE_BYTES: Final = 1 << 16
_STANDARD_INPUT: Final = 0
_STANDARD_INPUT_PATHS: Final = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_OPENING: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class Stop:
    """A request to stop reading, because of a signal or an error.

    It interrupts only the wait for input.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.failure: StreamKitError | None = None
        self._waiting: anyio.CancelScope | None = None

    @property
    def is_requested(self) -> bool:
        return self.signal != 0 or self.failure is not None

    def request(self, number: int) -> None:
        self.signal = number
        self._end_wait()

    def fail(self, failure: StreamKitError) -> None:
        """Stop reading because of an error; only the first one is kept."""
        self.failure = self.failure or failure
        self._end_wait()

    def _end_wait(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    async def until_readable(self, fd: int) -> None:
        """Wait for input or for the stop, whichever comes first."""
        with anyio.CancelScope() as self._waiting:
            await anyio.wait_readable(fd)
        self._waiting = None


class Input(Protocol):
    """An input that is read block by block."""

    name: str
    size_bytes: int | None
    is_terminal: bool

    async def read(self, stop: Stop) -> bytes:
        """Return the next block; an empty one at the end or after a stop.

        Raises:
            DataError: The input cannot be read to its end.
        """

    def position_bytes(self) -> int:
        """Return how much of ``size_bytes`` is read."""

    def close(self) -> None: ...


class DescriptorInput:
    """An open descriptor of a file, pipe, socket, terminal or device.

    Args:
        fd: The descriptor.
        name: The name for messages.
        owns_fd: Whether `close` closes the descriptor.

    Raises:
        UsageError: It is a folder.
    """

    def __init__(self, fd: int, name: str, *, owns_fd: bool) -> None:
        self.name = name
        self._fd = fd
        self._owns_fd = owns_fd
        mode = os.fstat(fd)
        self.is_terminal = os.isatty(fd)
        is_file = stat.S_ISREG(mode.st_mode)
        # Files that the system generates when they are read, as in /proc, have no size.
        self.size_bytes: int | None = (mode.st_size or None) if is_file else None
        self._waits = not is_file
        self._read_bytes = 0
        if stat.S_ISDIR(mode.st_mode):
            self.close()
            raise UsageError(f"cannot read {name}: it is a folder", hint="choose a file in it")

    async def read(self, stop: Stop) -> bytes:
        await anyio.lowlevel.checkpoint()
        while True:
            # Polling first is cheaper than a wait on the event loop. A pipe without a writer must
            # not be read: it would report its end before the writer has opened it.
            if self._waits and not _is_readable(self._fd):
                await stop.until_readable(self._fd)
            if stop.is_requested:
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
        if self._owns_fd:
            os.close(self._fd)
            self._owns_fd = False


class GzipInput:
    """Decompresses another input, which may consist of several gzip members."""

    is_terminal = False

    def __init__(self, packed: Input) -> None:
        self.name = packed.name
        self.size_bytes = packed.size_bytes
        self._packed = packed
        self._block = b""
        self._position = 0
        self._inflate = zlib.decompressobj(_GZIP)
        self._is_inside_member = False

    async def read(self, stop: Stop) -> bytes:
        while True:
            if self._position == len(self._block):
                self._block, self._position = await self._packed.read(stop), 0
            if not self._block:
                if self._is_inside_member and not stop.is_requested:
                    raise DataError(f"cannot read {self.name}: the gzip data are incomplete")
                return b""
            block = self._decompress()
            if block:
                return block

    def _decompress(self) -> bytes:
        piece = self._block[self._position : self._position + _PIECE_BYTES]
        self._position += len(piece)
        if not self._is_inside_member:
            piece = piece.lstrip(b"\0")  # padding that some tools write
        if not piece:
            return b""
        self._is_inside_member = True
        try:
            block = self._inflate.decompress(piece, BLOCK_BYTES)
        except zlib.error as error:
            raise DataError(f"cannot read {self.name}: {error}") from error
        self._position -= len(self._inflate.unconsumed_tail) + len(self._inflate.unused_data)
        if self._inflate.eof:
            self._inflate = zlib.decompressobj(_GZIP)
            self._is_inside_member = False
        return block

    def position_bytes(self) -> int:
        return self._packed.position_bytes()

    def close(self) -> None:
        self._packed.close()


def open_file(path: Path, *, decompress: bool = True) -> Input:
    """Open a file, a named pipe or a device, without waiting for the writer of a pipe.

    A file whose name ends with ``.gz`` is decompressed, unless ``decompress`` is False.

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
    found = DescriptorInput(fd, str(path), owns_fd=True)
    return GzipInput(found) if path.suffix == ".gz" and decompress else found


def standard_input() -> Input:
    """Return standard input.

    Raises:
        UsageError: It is closed.
    """
    _check_standard_input()
    return DescriptorInput(_STANDARD_INPUT, "standard input", owns_fd=False)


def _check_standard_input() -> None:
    if sys.stdin is None:
        raise UsageError("standard input is closed", hint="read from a file with --file")


def _opened(path: Path) -> int:
    try:
        return os.open(path, _OPENING)
    except OSError as error:
        # Standard input may be a socket: it cannot be opened by its path, but it can be read.
        if error.errno == errno.ENXIO and str(path) in _STANDARD_INPUT_PATHS:
            return os.dup(_STANDARD_INPUT)
        raise


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
