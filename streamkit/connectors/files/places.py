"""Where files are: on this machine, or in an object store."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from streamkit.connectors.files.lines import Mark
from streamkit.errors import DataError

HEAD_BYTES: Final = 1 << 10
_SKIP_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that can be read. ``id`` stays the same when the file is renamed."""

    path: str
    size_bytes: int
    id: str
    modified_ns: int


def find(patterns: tuple[str, ...]) -> list[FoundFile]:
    """Return the regular files that match, each once, in the order of their paths."""
    paths = {path for pattern in patterns for path in glob.glob(pattern, recursive=True)}
    found = (look_up(path) for path in sorted(paths))
    return [each for each in found if each is not None]


def look_up(path: str) -> FoundFile | None:
    """Return a file; None if there is no regular file with this path."""
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(facts.st_mode):
        return None
    return FoundFile(path, facts.st_size, f"{facts.st_dev}:{facts.st_ino}", facts.st_mtime_ns)


def beside(path: str, file_id: str) -> FoundFile | None:
    """Return the file with this id in the folder of a path: where a rotation has moved it."""
    folder = os.path.dirname(path)
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return None
    for name in sorted(names):
        found = look_up(os.path.join(folder, name))
        if found is not None and found.id == file_id:
            return found
    return None


def head_of(path: str, size_bytes: int) -> int:
    """Return a checksum of the first bytes of a file."""
    with open(path, "rb") as file:
        return zlib.crc32(file.read(min(size_bytes, HEAD_BYTES)))


def ends_of(path: str, size_bytes: int) -> int:
    """Return a checksum of the first and the last bytes of a file."""
    with open(path, "rb") as file:
        head = file.read(min(size_bytes, HEAD_BYTES))
        file.seek(max(0, size_bytes - HEAD_BYTES))
        return zlib.crc32(file.read(HEAD_BYTES), zlib.crc32(head))


def is_compressed(path: str) -> bool:
    """Return whether the name of a file says that it is compressed."""
    return Path(path).suffix.lower() in _OPENERS


def open_at(path: str, start: Mark) -> BinaryIO:
    """Open a file, without its compression, at a place in it.

    Raises:
        DataError: The file is damaged, or ends before the place.
        OSError: It cannot be opened.
    """
    opener = _OPENERS.get(Path(path).suffix.lower())
    if opener is None:
        file: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115  # the reader closes it
        file.seek(start.byte)
        return file
    file = _Decompressed(opener(path), path)
    left = start.byte
    while left:
        skipped = len(file.read(min(left, _SKIP_BYTES)))
        if not skipped:
            file.close()
            raise DataError(f"{path} ends before byte {start.byte}, up to which it was read")
        left -= skipped
    return file


class _Decompressed(io.RawIOBase, BinaryIO):
    """A compressed file whose damage is a `DataError`."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._file.read(size)
        except (OSError, EOFError, RuntimeError, ValueError, zlib.error, lzma.LZMAError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(
                f"{self._path} cannot be decompressed: {error}",
                hint="the file may be damaged, or not completely written yet",
            ) from error

    def close(self) -> None:
        self._file.close()
        super().close()


def _zstd(path: str) -> BinaryIO:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return cast("BinaryIO", zstd.ZstdFile(path))


def _lz4(path: str) -> BinaryIO:
    import lz4.frame

    return cast("BinaryIO", lz4.frame.LZ4FrameFile(path))


def _xz(path: str) -> BinaryIO:
    return cast("BinaryIO", lzma.LZMAFile(path))  # the reader closes it


_OPENERS: Final[dict[str, Callable[[str], BinaryIO]]] = {
    ".gz": lambda path: cast("BinaryIO", gzip.GzipFile(path)),
    ".bz2": lambda path: cast("BinaryIO", bz2.BZ2File(path)),
    ".xz": _xz,
    ".zst": _zstd,
    ".lz4": _lz4,
}
