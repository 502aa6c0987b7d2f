"""A disk that can fail on demand and records its calls.

A write that makes its file longer counts as two calls, "write" and "grow": a full disk fails
only the second.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from streamkit.env import Disk

# Returns the errno of a call from its name and the path of the file; 0 lets it succeed.
Fault = Callable[[str, Path], int]


def no_fault(call: str, path: Path) -> int:
    return 0


def on_segments(call: str, number: int) -> Fault:
    """Fail one kind of call on the records of partitions."""
    return lambda made, path: number if made == call and path.suffix == ".log" else 0


def on_file(name: str, call: str, number: int) -> Fault:
    """Fail one kind of call on one file, or on the file that will replace it."""
    return lambda made, path: number if made == call and path.stem == name else 0


class FailingDisk(Disk):
    """A disk that fails if ``fault`` is set; `no_fault` makes it work again."""

    def __init__(self) -> None:
        self.fault: Fault = no_fault
        self.calls: list[tuple[str, Path]] = []
        self.failed: list[tuple[str, Path]] = []
        self._paths: dict[int, Path] = {}

    def path_of(self, fd: int) -> Path:
        return self._paths[fd]

    def _pass(self, call: str, path: Path) -> None:
        self.calls.append((call, path))
        number = self.fault(call, path)
        if number:
            self.failed.append((call, path))
            raise OSError(number, os.strerror(number))

    def open_append(self, path: Path) -> int:
        self._pass("open", path)
        fd = super().open_append(path)
        self._paths[fd] = path
        return fd

    def write_at(self, fd: int, data: bytes | bytearray | memoryview, position: int) -> None:
        try:
            self._pass("write", self._paths[fd])
            if position + len(data) > self.size_bytes(fd):
                self._pass("grow", self._paths[fd])
        except OSError:
            super().write_at(fd, bytes(data)[: len(data) // 2], position)
            raise
        super().write_at(fd, data, position)

    def allocate(self, fd: int, position: int, size_bytes: int) -> None:
        self._pass("grow", self._paths[fd])
        super().allocate(fd, position, size_bytes)

    def truncate(self, fd: int, size_bytes: int) -> None:
        self._pass("truncate", self._paths[fd])
        super().truncate(fd, size_bytes)

    def sync(self, fd: int) -> None:
        self._pass("sync", self._paths[fd])
        super().sync(fd)

    def sync_folder(self, path: Path) -> None:
        self._pass("sync folder", path)
        super().sync_folder(path)

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        for fd, path in self._paths.items():
            if path == source:
                self._paths[fd] = target

    def syncs(self) -> int:
        """Count the attempted syncs of records."""
        return sum(call == "sync" and path.suffix == ".log" for call, path in self.calls)
