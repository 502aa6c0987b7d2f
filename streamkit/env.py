"""Time, randomness and disk for the engine, the client and the broker.

They receive these as arguments, so tests can replace them; the linter refuses an import of `time`
or `random` in those packages. Commands, benchmarks and the exit of the process read the clock
directly.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Protocol

import anyio

# Constants of glibc's malloc.h; 32 MiB is the largest threshold that it accepts.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BUFFER_BYTES = 32 << 20
_KEPT_BYTES = 128 << 20


class Clock(Protocol):
    """A source of time, which tests can replace."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never moves back. For deadlines."""

    def wall_ms(self) -> int:
        """Milliseconds since the epoch. For timestamps; may jump in either direction."""

    async def sleep(self, seconds: float) -> None:
        """Wait for at least this time."""


class SystemClock:
    """The clock of the machine."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(0.0, seconds))


def random_bits(bits: int) -> int:
    """Return a random number from the system's generator, for ids that must not collide."""
    return random.SystemRandom().getrandbits(bits)


def machine_memory_bytes() -> int:
    """Return the size of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def raise_open_files_limit() -> None:
    """Raise the limit of open files of this process to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        pass  # macOS reports a hard limit that it does not grant


def keep_freed_memory() -> None:
    """Make glibc reuse the memory of large buffers instead of returning it to the kernel.

    Otherwise the kernel clears every page again for each buffer: with requests of 1 MiB that
    was half of the broker's time. With another C library, this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    mallopt(_M_MMAP_THRESHOLD, _KEPT_BUFFER_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def open_files_limit() -> int:
    """Return the current limit of open files of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


class Disk:
    """The file operations of the log. A test may record each call or make it fail.

    Every write is complete when its call returns, but it is durable only after a sync.
    """

    def open_append(self, path: Path) -> int:
        """Open for reading and writing; create the file if it is missing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def open_read(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        os.close(fd)

    def write_at(self, fd: int, data: bytes | bytearray | memoryview, position: int) -> None:
        """Write all of ``data`` at ``position``.

        Raises:
            OSError: The write failed; a part of the data may have been written.
        """
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, position)
            view, position = view[written:], position + written

    def read_at(self, fd: int, size_bytes: int, position: int) -> bytes:
        """Read up to ``size_bytes``; fewer only at the end of the file."""
        data = os.pread(fd, size_bytes, position)
        if len(data) == size_bytes or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size_bytes and (data := os.pread(fd, size_bytes - got, position + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def size_bytes(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def truncate(self, fd: int, size_bytes: int) -> None:
        os.ftruncate(fd, size_bytes)

    def allocate(self, fd: int, position: int, size_bytes: int) -> None:
        """Reserve disk space for bytes that are written later; until then they read as zeros.

        Raises:
            OSError: The disk has not enough space.
        """
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, position, size_bytes)
        else:
            self.write_at(fd, bytes(size_bytes), position)

    def sync(self, fd: int) -> None:
        """Return when everything written to the file is on disk."""
        if sys.platform == "darwin":
            # On macOS, fsync does not flush the cache of the drive.
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def sync_folder(self, path: Path) -> None:
        """Return when the file names in the folder are on disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def make_folder(self, path: Path) -> None:
        """Create a folder if it is missing; its parent must exist."""
        path.mkdir(exist_ok=True)

    def remove_folder(self, path: Path) -> None:
        """Remove a folder and everything in it; files that cannot be removed stay."""
        shutil.rmtree(path, ignore_errors=True)
