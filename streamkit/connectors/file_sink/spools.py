"""The rows of files that are not shown yet, on disk, and how a file is shown after a commit."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec

from streamkit.connectors.file_sink.content import Content
from streamkit.connectors.file_sink.targets import Target, compressing
from streamkit.env import Disk
from streamkit.errors import StateMismatch

_SUFFIX: Final = ".spool"
# Names a file aside, so that one that is not needed after a crash is found and removed.
_ASIDE: Final = ".aside"


class SpooledFile(msgspec.Struct):
    """A file that is open, or closed but not shown yet.

    ``aside`` is its name until it is shown. Another job may write to the same folder, also one with
    the same name and another data folder, so it is random.
    """

    id: int
    route: str
    path: str
    aside: str
    since_ms: int
    spool: str
    columns: str
    rows: int = 0
    size_bytes: int = 0


class Spools:
    """The spools of one sink, in a folder. All methods block."""

    def __init__(self, folder: Path, content: Content, target: Target, disk: Disk) -> None:
        self._folder = folder
        self._content = content
        self._target = target
        self._disk = disk
        self._unsynced: set[int] = set()

    def append(self, file: SpooledFile, data: bytes) -> None:
        """Add rows to the spool of a file; if that fails, it may be repeated."""
        if not file.size_bytes:
            self._folder.mkdir(parents=True, exist_ok=True)
            data = self._content.start + data
        fd = self._disk.open_append(self._spool(file))
        try:
            self._disk.write_at(fd, data, file.size_bytes)
        finally:
            self._disk.close(fd)
        file.size_bytes += len(data)
        self._unsynced.add(file.id)

    def take_unsynced(self) -> list[int]:
        """Return the numbers of the files whose spools have changed since the last call."""
        found, self._unsynced = sorted(self._unsynced), set()
        return found

    def sync(self, numbers: list[int]) -> None:
        """Return when the spools of some files are on disk."""
        for each in numbers:
            self._sync(self._path(each, _SUFFIX))
        if numbers:
            self._disk.sync_folder(self._folder)

    def show(self, file: SpooledFile) -> None:
        """Write a closed file aside, and show it.

        Raises:
            StreamKitError: Its rows do not fit into one file, or its name is taken.
        """
        self._finish(file)
        self._target.show(self._aside(file), file.path)
        # In this order: without its spool, a file was shown.
        self._disk.unlink(self._spool(file))
        self._remove_aside(file.id)

    def recover(self, opened: list[SpooledFile], closed: list[SpooledFile]) -> None:
        """Make the files as they were at a commit, and show those that were closed by it."""
        known = {each.id for each in (*opened, *closed)}
        for path in self._folder.glob(f"*{_SUFFIX}"):
            if int(path.stem) not in known:
                self._disk.unlink(path)
        closed_ids = {each.id for each in closed}
        for path in self._folder.glob(f"*{_ASIDE}"):
            if int(path.stem) not in closed_ids:
                self._remove_aside(int(path.stem))
        for file in opened:
            self._cut(file)
        for file in closed:
            if not self._spool(file).exists() or self._is_shown(file):
                self._disk.unlink(self._spool(file))
                self._remove_aside(file.id)
            else:
                self._cut(file)
                self.show(file)

    def _finish(self, file: SpooledFile) -> None:
        aside = self._aside(file)
        self._remove_aside(file.id)
        self._path(file.id, _ASIDE).write_text(str(aside))
        with self._spool(file).open("rb") as spool, aside.open("wb") as out:
            packed = compressing(file.path, out)
            self._content.finish(cast("BinaryIO", spool), packed or out)
            if packed is not None:
                packed.close()
        self._sync(aside)
        self._disk.sync_folder(aside.parent)

    def _is_shown(self, file: SpooledFile) -> bool:
        """Return whether a file was shown before a crash that came before its spool was removed."""
        return self._path(file.id, _ASIDE).exists() and self._target.is_shown(
            self._aside(file), file.path
        )

    def _cut(self, file: SpooledFile) -> None:
        """Remove what was added to a spool after the commit.

        Raises:
            StateMismatch: The spool does not have what was committed.
        """
        path = self._spool(file)
        has_bytes = path.stat().st_size if path.exists() else 0
        if has_bytes < file.size_bytes:
            raise StateMismatch(
                f"{path} has {has_bytes} bytes of the {file.size_bytes} that are committed",
                hint="restore the file; with --fresh-state the rows are read again",
            )
        fd = self._disk.open_append(path)
        try:
            self._disk.truncate(fd, file.size_bytes)
        finally:
            self._disk.close(fd)

    def _sync(self, path: Path) -> None:
        fd = self._disk.open_append(path)
        try:
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)

    def _remove_aside(self, number: int) -> None:
        record = self._path(number, _ASIDE)
        if not record.exists():
            return
        if path := record.read_text():  # otherwise the crash came before the file
            self._disk.unlink(Path(path))
        self._disk.unlink(record)

    def _path(self, number: int, suffix: str) -> Path:
        return self._folder / f"{number}{suffix}"

    def _spool(self, file: SpooledFile) -> Path:
        return self._path(file.id, _SUFFIX)

    def _aside(self, file: SpooledFile) -> Path:
        return self._target.aside(file.path, file.aside)
