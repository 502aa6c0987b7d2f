"""What `produce` reads: files, standard input, terminals; stopped without losing a byte."""

from __future__ import annotations

import gzip
import os
import select
import stat
import sys
import zlib
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import anyio
import anyio.lowlevel

from streamkit.errors import DataError, UsageError

BLOCK_BYTES: Final = 1 << 20


class Stop:
    """Whether the user has asked to stop; ends the waiting for input, and nothing else."""

    def __init__(self) -> None:
        self.signal = 0
        self._waiting: anyio.CancelScope | None = None

    @property
    def is_asked(self) -> bool:
        return self.signal != 0

    def ask(self, number: int) -> None:
        self.signal = number
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
        """Return the next block; nothing at the end, or when stopped."""

    def position_bytes(self) -> int:
        """How much of ``size_bytes`` is read."""

    def close(self) -> None: ...


class FileInput:
    """A file; one named ``.gz`` is decompressed."""

    is_terminal = False

    def __init__(self, path: Path, *, as_it_is: bool = False) -> None:
        self.name = str(path)
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise UsageError(f"--file: cannot read {path}: {error.strerror}") from error
        self.size_bytes: int | None = os.fstat(self._file.fileno()).st_size or None
        is_packed = path.suffix == ".gz" and not as_it_is
        self._plain = gzip.GzipFile(fileobj=self._file) if is_packed else self._file

    async def read(self, stop: Stop) -> bytes:
        # A file answers at once. The loop gets its turn, since signals arrive there.
        await anyio.lowlevel.checkpoint()
        return b"" if stop.is_asked else self._read()

    def _read(self) -> bytes:
        try:
            return self._plain.read(BLOCK_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"cannot read {self.name}: {error}") from error

    def position_bytes(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


class StandardInput:
    """Standard input, whatever is behind it."""

    name = "standard input"

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno()
        mode = os.fstat(self._fd)
        self.is_terminal = os.isatty(self._fd)
        self.size_bytes: int | None = mode.st_size if stat.S_ISREG(mode.st_mode) else None
        self._waits = not stat.S_ISREG(mode.st_mode)
        self._read_bytes = 0

    async def read(self, stop: Stop) -> bytes:
        await anyio.lowlevel.checkpoint()
        # Only where nothing is there yet, something has to be set up to wait for it.
        if self._waits and not select.select([self._fd], [], [], 0)[0]:
            await stop.until_readable(self._fd)
        if stop.is_asked:
            return b""
        block = os.read(self._fd, BLOCK_BYTES)
        self._read_bytes += len(block)
        return block

    def position_bytes(self) -> int:
        return self._read_bytes

    def close(self) -> None:
        """Leave it open: it is not ours."""
