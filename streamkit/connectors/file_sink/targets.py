"""Where the files of a sink are: on this machine, or in an object store."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, cast

from streamkit.env import Disk
from streamkit.errors import ConfigError, StreamKitError

if TYPE_CHECKING:
    from streamkit.connectors.files.objects import ObjectPlaces


class Target(Protocol):
    """Where files are shown. All methods block."""

    def open(self, folder: str) -> None:
        """Prepare to write files below a folder.

        Raises:
            ConfigError: That is not possible.
        """

    def exists(self, path: str) -> bool:
        """Return whether something has this path."""

    def aside(self, path: str, name: str) -> Path:
        """Return where a file is written before it is shown; ``name`` is that of no other file."""

    def show(self, aside: Path, path: str) -> None:
        """Show a file under its path, whole.

        Raises:
            StreamKitError: Another program has created a file with the path.
        """

    def is_shown(self, aside: Path, path: str) -> bool:
        """Return whether a file was shown; a file that is shown twice is the same again."""

    def close(self) -> None:
        """Close connections; also called if `open` has failed, and more than once."""


class ObjectTarget:
    """Objects of a store. They are written in the data folder, and uploaded when they are shown.

    A store shows an object when its upload is complete. A repeated upload replaces it by the same.
    """

    def __init__(self, objects: ObjectPlaces, folder: Path) -> None:
        self._objects = objects
        self._folder = folder

    def open(self, folder: str) -> None:
        self._objects.check(folder)

    def exists(self, path: str) -> bool:
        return self._objects.look_up(path) is not None

    def aside(self, path: str, name: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{name}.tmp"

    def show(self, aside: Path, path: str) -> None:
        self._objects.put(aside, path)

    def is_shown(self, aside: Path, path: str) -> bool:
        return False  # an upload may be repeated

    def close(self) -> None:
        self._objects.close()


class LocalTarget:
    """Files of this machine. They are written beside their place, with a hidden name."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def open(self, folder: str) -> None:
        try:
            self._make_folders(Path(folder))
            problem = "" if os.access(folder, os.W_OK | os.X_OK) else "you may not write to it"
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            raise ConfigError(
                f"cannot write files to the folder {folder}: {problem}",
                hint="correct the path, or change the permissions of the folder",
            )

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def aside(self, path: str, name: str) -> Path:
        place = Path(path)
        self._make_folders(place.parent)
        return place.parent / f".{name}.tmp"  # short, as the name of the file may be long

    def show(self, aside: Path, path: str) -> None:
        try:
            os.link(aside, path)  # unlike a rename, it never replaces another file
        except FileExistsError:
            raise StreamKitError(
                f"{path} was created by another program while the job wrote that file",
                hint="move it away and start the job again: it has the rows, and writes them then",
            ) from None
        except OSError:
            if os.path.lexists(path):
                raise
            self._disk.replace(aside, Path(path))  # a file system without links
        self._disk.sync_folder(Path(path).parent)

    def is_shown(self, aside: Path, path: str) -> bool:
        if not os.path.lexists(path):
            return False
        return not aside.exists() or os.path.samefile(aside, path)

    def close(self) -> None:
        pass  # no file stays open

    def _make_folders(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_folders(folder.parent)
        self._disk.make_folder(folder)
        self._disk.sync_folder(folder.parent)


_OPENERS: Final[dict[str, Callable[[BinaryIO], Any]]] = {
    # Without the time, the same rows give the same bytes.
    ".gz": lambda out: gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=6, mtime=0),
    ".bz2": lambda out: bz2.BZ2File(out, "wb"),
    ".xz": lambda out: _xz(out),
    ".zst": lambda out: _zstd(out),
    ".lz4": lambda out: _lz4(out),
}
COMPRESSED: Final = tuple(_OPENERS)


def compressing(path: str, out: BinaryIO) -> BinaryIO | None:
    """Return a file that compresses into ``out``, if the name says so; None otherwise."""
    opener = _OPENERS.get(Path(path).suffix.lower())
    return None if opener is None else cast("BinaryIO", opener(out))


def _xz(out: BinaryIO) -> Any:
    return lzma.LZMAFile(out, "wb")


def _zstd(out: BinaryIO) -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdFile(out, "wb")


def _lz4(out: BinaryIO) -> Any:
    import lz4.frame

    return lz4.frame.LZ4FrameFile(out, "wb")
