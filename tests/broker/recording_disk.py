"""A disk that records all calls, and a model of what a crash can leave of them.

The model allows what POSIX allows: each sector of a file has its content of the last sync or of
any later write, or zeros if the file has grown. A name in a folder is durable only after a sync
of the folder. A rename is atomic.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from streamkit.env import Disk

SECTOR_BYTES: Final = 512


# --- Recorded steps ----------------------------------------------------------------


@dataclass(frozen=True)
class Linked:
    path: Path
    node: int
    is_folder: bool


@dataclass(frozen=True)
class Unlinked:
    path: Path


@dataclass(frozen=True)
class Renamed:
    source: Path
    target: Path


@dataclass(frozen=True)
class Changed:
    """A write, or a change of the file size to ``size_bytes``."""

    node: int
    position: int
    data: bytes = b""
    size_bytes: int | None = None


@dataclass(frozen=True)
class Synced:
    """All changes of a file before the step ``since`` are on disk."""

    node: int
    since: int


@dataclass(frozen=True)
class FolderSynced:
    path: Path
    since: int


@dataclass(frozen=True)
class Mark:
    """A fact of the test: a request that was sent or got its response."""

    fact: Any


Step = Linked | Unlinked | Renamed | Changed | Synced | FolderSynced | Mark


class RecordingDisk(Disk):
    """Writes files below ``root``, does not sync them, and records all steps.

    ``loses_sync`` returns True for files and folders whose syncs are lost, to test the tests.
    """

    def __init__(self, root: Path, *, loses_sync: Callable[[Path], bool] = lambda _: False) -> None:
        root.mkdir(exist_ok=True)
        self._loses_sync = loses_sync
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._nodes: dict[Path, int] = {}
        self._open: dict[int, tuple[int, Path]] = {}
        self.steps: list[Step] = []
        for path in sorted(root.rglob("*")):
            self._link(path, is_folder=path.is_dir())
            if path.is_file():
                self.steps.append(Changed(self._nodes[path], 0, path.read_bytes()))
                self.steps.append(Synced(self._nodes[path], len(self.steps)))
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            self.steps.append(FolderSynced(folder, len(self.steps)))

    def mark(self, fact: Any) -> None:
        with self._lock:
            self.steps.append(Mark(fact))

    def _link(self, path: Path, *, is_folder: bool) -> None:
        self._nodes[path] = next(self._numbers)
        self.steps.append(Linked(path, self._nodes[path], is_folder))

    # --- the disk ------------------------------------------------------------------

    def open_append(self, path: Path) -> int:
        with self._lock:
            if not path.exists():
                self._link(path, is_folder=False)
            fd = super().open_append(path)
            self._open[fd] = self._nodes[path], path
            return fd

    def write_at(self, fd: int, data: bytes | bytearray | memoryview, position: int) -> None:
        super().write_at(fd, data, position)
        with self._lock:
            self.steps.append(Changed(self._open[fd][0], position, bytes(data)))

    def truncate(self, fd: int, size_bytes: int) -> None:
        super().truncate(fd, size_bytes)
        with self._lock:
            self.steps.append(Changed(self._open[fd][0], 0, size_bytes=size_bytes))

    def allocate(self, fd: int, position: int, size_bytes: int) -> None:
        super().allocate(fd, position, size_bytes)
        with self._lock:
            size = self.size_bytes(fd)
            self.steps.append(Changed(self._open[fd][0], 0, size_bytes=size))

    def sync(self, fd: int) -> None:
        node, path = self._open[fd]
        with self._lock:
            if not self._loses_sync(path):
                self.steps.append(Synced(node, len(self.steps)))

    def sync_folder(self, path: Path) -> None:
        with self._lock:
            if not self._loses_sync(path):
                self.steps.append(FolderSynced(path, len(self.steps)))

    def replace(self, source: Path, target: Path) -> None:
        with self._lock:
            super().replace(source, target)
            self._nodes[target] = self._nodes.pop(source)
            self.steps.append(Renamed(source, target))

    def unlink(self, path: Path) -> None:
        with self._lock:
            if path.exists():
                super().unlink(path)
                self._unlinked(path)

    def make_folder(self, path: Path) -> None:
        with self._lock:
            if not path.exists():
                super().make_folder(path)
                self._link(path, is_folder=True)

    def remove_folder(self, path: Path) -> None:
        with self._lock:
            for below in sorted(path.rglob("*"), reverse=True):
                self._unlinked(below)
            super().remove_folder(path)
            self._unlinked(path)

    def _unlinked(self, path: Path) -> None:
        self._nodes.pop(path, None)
        self.steps.append(Unlinked(path))


# --- State after a crash -------------------------------------------------------------


@dataclass
class _File:
    """Contents since the last sync, each with its step; the first content is durable."""

    versions: list[tuple[int, bytes]] = field(default_factory=lambda: [(-1, b"")])

    def changed(self, step: int, change: Changed) -> None:
        content = bytearray(self.versions[-1][1])
        if change.size_bytes is not None:
            content = content[: change.size_bytes].ljust(change.size_bytes, b"\0")
        else:
            end = change.position + len(change.data)
            content.extend(bytes(max(0, end - len(content))))
            content[change.position : end] = change.data
        self.versions.append((step, bytes(content)))

    def synced(self, since: int) -> None:
        row = max(row for row, (step, _) in enumerate(self.versions) if step < since)
        del self.versions[:row]

    def after_crash(self, share: float, random: Random) -> bytes:
        """Mix the versions sector by sector, with zeros where only the size was written."""
        contents = [content for _, content in self.versions]

        def one() -> bytes:
            return random.choice(contents[1:]) if random.random() < share else contents[0]

        if len(contents) == 1 or share in (0, 1):
            return contents[-1 if share else 0]
        size = len(one())
        parts = []
        for at in range(0, size, SECTOR_BYTES):
            width = min(SECTOR_BYTES, size - at)
            parts.append(one()[at : at + width].ljust(width, b"\0"))
        return b"".join(parts)


@dataclass
class _Folder:
    """The durable names, and the changes of names since: tuples of (name, node or None)."""

    names: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[int, tuple[tuple[str, int | None], ...]]] = field(default_factory=list)

    def synced(self, since: int) -> None:
        for step, changes in self.pending:
            if step < since:
                _apply(self.names, changes)
        self.pending = [each for each in self.pending if each[0] >= since]

    def now(self) -> dict[str, int]:
        names = dict(self.names)
        for _, changes in self.pending:
            _apply(names, changes)
        return names

    def after_crash(self, share: float, random: Random) -> dict[str, int]:
        names = dict(self.names)
        for _, changes in self.pending:
            if random.random() < share:
                _apply(names, changes)
        return names


def _apply(names: dict[str, int], changes: tuple[tuple[str, int | None], ...]) -> None:
    for name, node in changes:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class DiskModel:
    """The durable and the pending state of a disk after some steps."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[int, _File] = {}
        self._folders: dict[int, _Folder] = {0: _Folder()}
        self._count = 0

    def apply(self, step: Step) -> None:
        now = self._count
        match step:
            case Linked(path, node, is_folder):
                if is_folder:
                    self._folders[node] = _Folder()
                else:
                    self._files[node] = _File()
                self._above(path).pending.append((now, ((path.name, node),)))
            case Unlinked(path):
                self._above(path).pending.append((now, ((path.name, None),)))
            case Renamed(source, target):
                folder = self._above(source)
                moved = ((source.name, None), (target.name, folder.now()[source.name]))
                folder.pending.append((now, moved))
            case Changed(node):
                self._files[node].changed(now, step)
            case Synced(node, since):
                self._files[node].synced(since)
            case FolderSynced(path, since):
                self._at(path).synced(since)
        self._count += 1

    def _above(self, path: Path) -> _Folder:
        return self._at(path.parent)

    def _at(self, path: Path) -> _Folder:
        node = 0
        for name in path.relative_to(self._root).parts:
            node = self._folders[node].now()[name]
        return self._folders[node]

    def write_crashed_disk(self, target: Path, random: Random, share: float) -> None:
        """Write one possible state of the disk if it crashes now.

        ``share`` is the part of the pending changes that survives: 0 nothing, 1 everything.
        """
        self._write_folder(0, target, random, share)

    def _write_folder(self, node: int, target: Path, random: Random, share: float) -> None:
        target.mkdir(exist_ok=True)
        for name, below in self._folders[node].after_crash(share, random).items():
            if below in self._folders:
                self._write_folder(below, target / name, random, share)
            else:
                (target / name).write_bytes(self._files[below].after_crash(share, random))


def crashes(root: Path, steps: list[Step], points: list[int]) -> Iterator[tuple[int, DiskModel]]:
    """Apply the steps to a model and yield it before each of the points."""
    model = DiskModel(root)
    remaining = sorted(points)
    for number, step in enumerate(steps):
        while remaining and remaining[0] <= number:
            yield remaining.pop(0), model
        model.apply(step)
    while remaining:
        yield remaining.pop(0), model
