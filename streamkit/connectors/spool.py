"""Rows on their way to a database, in a file for each commit.

A commit of the job is stored only after its rows are in such a file, on disk. So the rows can be
written again after a crash, when the job has already moved on. The database keeps the number of the
last commit that it has, which shows whether that is needed.

A file has blocks, each after its length and its CRC-32C as two 32-bit numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import google_crc32c

from streamkit.env import Disk
from streamkit.errors import StateMismatch

_HEAD: Final = struct.Struct("<II")
_SUFFIX: Final = ".rows"


class Spool:
    """The files of one sink. Its methods block."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self._folder = folder
        self._disk = disk or Disk()
        self._open: dict[int, int] = {}
        self._sizes: dict[int, int] = {}

    def append(self, number: int, block: bytes) -> int:
        """Add a block to the file of a commit, and return the size of the file."""
        if number not in self._open:
            self._make_folder()
            self._path(number).unlink(missing_ok=True)
            self._open[number] = self._disk.open_append(self._path(number))
            self._sizes[number] = 0
        head = _HEAD.pack(len(block), google_crc32c.value(block))
        size = self._sizes[number]
        self._disk.write_at(self._open[number], head + block, size)
        self._sizes[number] = size + len(head) + len(block)
        return self._sizes[number]

    def sync(self, number: int) -> None:
        """Return when the file of a commit is on disk."""
        fd = self._open.pop(number)
        try:
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)
        self._disk.sync_folder(self._folder)

    def blocks(self, number: int, size_bytes: int) -> Iterator[bytes]:
        """Return the blocks of a file of this size.

        Raises:
            StateMismatch: The file is missing, too short, or damaged.
        """
        path = self._path(number)
        try:
            fd = self._disk.open_read(path)
        except OSError as error:
            raise _unusable(path, str(error.strerror)) from error
        try:
            at = 0
            while at < size_bytes:
                head = self._disk.read_at(fd, _HEAD.size, at)
                if len(head) < _HEAD.size:
                    raise _unusable(path, f"it ends at byte {at + len(head)} of {size_bytes}")
                length, crc = _HEAD.unpack(head)
                block = self._disk.read_at(fd, min(length, size_bytes), at + _HEAD.size)
                if len(block) != length or google_crc32c.value(block) != crc:
                    raise _unusable(path, f"the block at byte {at} is damaged")
                yield block
                at += _HEAD.size + length
        finally:
            self._disk.close(fd)

    def remove_all(self) -> None:
        """Remove the files of all commits."""
        for path in self._folder.glob(f"*{_SUFFIX}"):
            path.unlink(missing_ok=True)

    def remove(self, number: int) -> None:
        """Remove the file of a commit."""
        self._path(number).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files that are open."""
        while self._open:
            self._disk.close(self._open.popitem()[1])

    def _make_folder(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._disk.sync_folder(self._folder.parent)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}{_SUFFIX}"


def _unusable(path: Path, why: str) -> StateMismatch:
    return StateMismatch(
        f"{path} has rows that are committed but not in the database yet, and cannot be read: "
        f"{why}",
        hint="restore the file; with --fresh-state these rows are read from their sources again",
    )
