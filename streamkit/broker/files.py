"""A limited number of open files, by path."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from streamkit.env import Disk, open_files_limit
from streamkit.limits import OPEN_FILES_MAX


def make_folders(disk: Disk, path: Path) -> None:
    """Create a folder and its missing parents, durably."""
    if path.is_dir():
        return
    make_folders(disk, path.parent)
    disk.make_folder(path)
    disk.sync_folder(path.parent)


class OpenFiles:
    """A cache of descriptors that closes the least recently used. For one thread only."""

    def __init__(self, disk: Disk, *, is_writer: bool, files_max: int | None = None) -> None:
        self._disk = disk
        self._is_writer = is_writer
        # One reader, one writer and the sockets of the connections share the limit.
        share = max(1, open_files_limit() // 4)
        self._files_max = min(OPEN_FILES_MAX, share) if files_max is None else files_max
        self._fds: OrderedDict[Path, int] = OrderedDict()

    def get(self, path: Path) -> int:
        """Return a descriptor that is valid until the next call."""
        fd = self._fds.get(path)
        if fd is not None:
            self._fds.move_to_end(path)
            return fd
        while len(self._fds) >= self._files_max:
            self._disk.close(self._fds.popitem(last=False)[1])
        fd = self._disk.open_append(path) if self._is_writer else self._disk.open_read(path)
        self._fds[path] = fd
        return fd

    def forget(self, path: Path) -> None:
        """Close a file that is about to be deleted."""
        fd = self._fds.pop(path, None)
        if fd is not None:
            self._disk.close(fd)

    def close(self) -> None:
        while self._fds:
            self._disk.close(self._fds.popitem()[1])
