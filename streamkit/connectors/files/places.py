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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, TypeVar, cast

from streamkit.connectors.files.found import FoundFile
from streamkit.connectors.files.lines import Mark
from streamkit.connectors.files.objects import ObjectPlaces
from streamkit.connectors.files.prefix import Prefix, PrefixFile
from streamkit.connectors.files.urls import is_object
from streamkit.errors import DataError

HEAD_BYTES: Final = 1 << 10
_SKIP_BYTES: Final = 1 << 20
_READ_BYTES: Final = 1 << 17
# How compressed files begin; text does not begin so.
_MAGIC: Final = {
    b"\x1f\x8b\x08": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"\xfd7zXZ\x00": ".xz",
    b"\x04\x22\x4d\x18": ".lz4",
}
T = TypeVar("T")


class Places:
    """Finds, compares and opens files of this machine and objects.

    Args:
        options: The configuration of the stores of objects.
    """

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        self._objects = ObjectPlaces(options or {})

    def find(self, patterns: tuple[str, ...]) -> list[FoundFile]:
        """Return what matches, each once, in the order of the paths."""
        found: dict[str, FoundFile] = {}
        for pattern in patterns:
            each = self._objects.find(pattern) if is_object(pattern) else _find(pattern)
            found.update((one.path, one) for one in each)
        return [found[path] for path in sorted(found)]

    def look_up(self, path: str) -> FoundFile | None:
        """Return a file; None if there is none with this path."""
        return self._objects.look_up(path) if is_object(path) else look_up(path)

    def beside(self, path: str, file_id: str) -> FoundFile | None:
        """Return the file with this id in the folder of a path: where a rotation has moved it."""
        return None if is_object(path) else _beside(path, file_id)

    def checksum(self, found: FoundFile, size_bytes: int, *, with_end: bool) -> int:
        """Return a checksum of the first bytes of a file, and of those before ``size_bytes``.

        Raises:
            OSError: The file cannot be read.
        """
        with self._opened(found) as file:
            checksum = zlib.crc32(file.read(min(size_bytes, HEAD_BYTES)))
            if with_end:
                file.seek(max(0, size_bytes - HEAD_BYTES))
                checksum = zlib.crc32(file.read(HEAD_BYTES), checksum)
            return checksum

    def begins_with(self, found: FoundFile, prefix: Prefix) -> bool:
        """Return whether a file begins with what was read of it before.

        Raises:
            DataError: The file is damaged.
            OSError: The file cannot be read.
        """
        with self.open_at(found, Mark()) as file:
            return prefix.is_in(file)

    def open_at(self, found: FoundFile, start: Mark) -> BinaryIO:
        """Open a file, without its compression, at a place in it.

        Raises:
            DataError: The file is damaged, or ends before the place.
            OSError: It cannot be opened.
        """
        opener = _OPENERS.get(Path(found.path).suffix.lower())
        file = self._opened(found)
        if opener is None:
            if not start.byte:
                _refuse_compressed(file, found.path)
            file.seek(start.byte)
            return file
        file = _Decompressed(opener, file, found.path)
        left = start.byte
        while left:
            skipped = len(file.read(min(left, _SKIP_BYTES)))
            if not skipped:
                file.close()
                raise DataError(
                    f"{found.path} ends before byte {start.byte}, up to which it was read"
                )
            left -= skipped
        return file

    def close(self) -> None:
        """Close the connections to stores of objects; files are closed by the reader."""
        self._objects.close()

    def _opened(self, found: FoundFile) -> BinaryIO:
        if is_object(found.path):
            return self._objects.opened(found)
        return open(found.path, "rb", buffering=0)  # the reader closes it


def _refuse_compressed(file: BinaryIO, path: str) -> None:
    """Refuse a file that is compressed although its name does not say so."""
    first = file.read(max(map(len, _MAGIC)))
    for magic, suffix in _MAGIC.items():
        if first.startswith(magic):
            file.close()
            raise DataError(
                f"{path} is compressed, but its name does not end with {suffix}",
                hint=f"rename it to {path}{suffix}",
            )


def _find(pattern: str) -> Iterator[FoundFile]:
    for path in glob.glob(pattern, recursive=True):
        found = look_up(path)
        if found is not None:
            yield found


def look_up(path: str) -> FoundFile | None:
    """Return a regular file of this machine; None if there is none with this path."""
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(facts.st_mode):
        return None
    return FoundFile(path, facts.st_size, f"{facts.st_dev}:{facts.st_ino}", facts.st_mtime_ns)


def _beside(path: str, file_id: str) -> FoundFile | None:
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


def bytes_taken(file: BinaryIO) -> int:
    """Return how many bytes were taken from a file that `Places` has opened, before decompression,
    or where a reader of columns stands."""
    if isinstance(file, PrefixFile):
        file = file.inner
    return file.bytes_taken() if isinstance(file, _Decompressed) else file.tell()


def is_compressed(path: str) -> bool:
    """Return whether the name of a file says that it is compressed."""
    return Path(path).suffix.lower() in _OPENERS


class _Decompressed(io.RawIOBase, BinaryIO):
    """A compressed file whose damage is a `DataError`."""

    def __init__(self, opener: Callable[[BinaryIO], BinaryIO], file: BinaryIO, path: str) -> None:
        self._raw = file
        self._buffered = io.BufferedReader(cast("io.RawIOBase", file), _READ_BYTES)
        self._path = path
        self._file = self._guarded(lambda: opener(cast("BinaryIO", self._buffered)))

    def read(self, size: int = -1, /) -> bytes:
        return self._guarded(lambda: self._file.read(size))

    def bytes_taken(self) -> int:
        """Return how many bytes of the compressed file were read."""
        return self._raw.tell()

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (OSError, EOFError, RuntimeError, ValueError, zlib.error, lzma.LZMAError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(
                f"{self._path} cannot be decompressed: {error}",
                hint="the file may be damaged, or not completely written yet",
            ) from error

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self._buffered.close()
            self._raw.close()
        super().close()


def _zstd(file: BinaryIO) -> BinaryIO:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return cast("BinaryIO", zstd.ZstdFile(file))


def _lz4(file: BinaryIO) -> BinaryIO:
    import lz4.frame

    return cast("BinaryIO", lz4.frame.LZ4FrameFile(file))


def _xz(file: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", lzma.LZMAFile(file))  # the reader closes it


_OPENERS: Final[dict[str, Callable[[BinaryIO], BinaryIO]]] = {
    ".gz": lambda file: cast("BinaryIO", gzip.GzipFile(fileobj=file)),
    ".bz2": lambda file: cast("BinaryIO", bz2.BZ2File(file)),
    ".xz": _xz,
    ".zst": _zstd,
    ".lz4": _lz4,
}
