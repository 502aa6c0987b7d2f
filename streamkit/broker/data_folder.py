"""The data folder: its lock, its format and its paths."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from streamkit.broker.files import make_folders
from streamkit.env import Disk
from streamkit.errors import ConfigError, DataFolderInUse, StateError

FORMAT = b"streamkit broker 1\n"
_SOCKET_PATH_BYTES_MAX = 100


class DataFolder:
    """The paths of one data folder, for the broker and for the commands that attach to it."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self.path = path
        self._disk = disk or Disk()
        self.root = path / "broker"
        self.journal = self.root / "journal"
        self.consumer_offsets = self.root / "consumer-offsets"
        self.logs = self.root / "logs"
        self.smartmodules = self.root / "smartmodules"
        self.messages = self.root / "broker.log"
        self.attach_port = self.root / "attach.port"

    @property
    def attach_socket(self) -> Path | None:
        """The Unix socket to attach to; None if its path would be too long."""
        path = (self.root / "attach.sock").absolute()
        return path if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX else None

    def make(self) -> bool:
        """Create the folder if it is missing; return whether it was missing.

        Raises:
            ConfigError: It cannot be created.
        """
        is_new = not self.path.exists()
        try:
            make_folders(self._disk, self.root)
            if is_new:
                (self.path / ".gitignore").write_text("*\n")
        except OSError as error:
            raise ConfigError(
                f"cannot create the data folder {self.path}: {error.strerror}",
                hint="use another folder with --data-dir",
            ) from error
        return is_new

    def try_lock(self) -> int | None:
        """Lock the folder for this process and for those that inherit the descriptor.

        Returns:
            The inheritable descriptor that holds the lock; None if another process holds it.
        """
        # flock belongs to the open file, so the broker process inherits it; lockf does not.
        fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        os.set_inheritable(fd, True)
        return fd

    def lock(self) -> int:
        """Lock the folder.

        Raises:
            DataFolderInUse: Another broker uses it.
        """
        fd = self.try_lock()
        if fd is None:
            raise DataFolderInUse(
                f"another broker uses the data folder {self.path}",
                hint="run commands in the same folder to attach to it, or use another folder "
                "with --data-dir",
            )
        return fd

    def check_format(self) -> None:
        """Write the format mark into a new folder, or check the existing mark.

        Raises:
            StateError: The folder was written by another version.
        """
        mark = self.root / "format"
        if not mark.exists():
            self._write_mark(mark)
            return
        found = mark.read_bytes()
        if found != FORMAT:
            raise StateError(
                f"{mark} contains {found[:40]!r}, this version reads {FORMAT!r}",
                hint="use the streamkit version that wrote this folder, or another folder",
            )

    def _write_mark(self, mark: Path) -> None:
        """Write the mark atomically, because a part of it would look like another version."""
        temporary = mark.with_suffix(".new")
        self._disk.unlink(temporary)
        fd = self._disk.open_append(temporary)
        try:
            self._disk.write_at(fd, FORMAT, 0)
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)
        self._disk.replace(temporary, mark)
        self._disk.sync_folder(self.root)
        # An earlier start may have been killed before the folder's name was on disk.
        self._disk.sync_folder(self.path)
