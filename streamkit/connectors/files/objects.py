"""Objects in stores such as S3, and files of HTTP servers."""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from streamkit.connectors.files.found import FoundFile
from streamkit.connectors.files.stores import CutAnswer, NoParts, Replaced, Stores, obstore
from streamkit.connectors.files.urls import (
    divided,
    fixed_folder,
    is_http,
    matching,
    without_query,
)
from streamkit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# How many bytes one request asks for.
_RANGE_BYTES: Final = 4 << 20
_PART_BYTES: Final = 1 << 20
# Uploads have parts of this size, or larger ones, because stores accept 10,000 parts.
_UPLOAD_BYTES: Final = 5 << 20
_UPLOAD_PARTS_MAX: Final = 9_000
_LIST_ATTEMPTS: Final = 3


class ObjectPlaces:
    """Finds and opens objects. The path of a file of an HTTP server has no query.

    Args:
        options: The configuration of the store, as obstore names it; the rest is taken from the
            environment.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        self._stores = Stores(options)
        # The URLs of files of HTTP servers, by their paths.
        self._urls: dict[str, str] = {}

    def find(self, pattern: str) -> list[FoundFile]:
        """Return the objects that match a pattern, in the order of the store."""
        root, path = divided(pattern)
        folder = None if is_http(pattern) else fixed_folder(path)
        if folder is None:
            plain = without_query(pattern)
            self._urls[plain] = pattern
            found = self.look_up(plain)
            return [] if found is None else [found]

        wanted = matching(path)
        for left in reversed(range(_LIST_ATTEMPTS)):
            try:
                return self._listed(root, folder, wanted)
            except CutAnswer:  # obstore sends a request again that fails, but not for this
                if not left:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _listed(self, root: str, folder: str, wanted: re.Pattern[str]) -> list[FoundFile]:
        pages = obstore().list(self._stores.of(root), folder or None, chunk_size=1000)
        with self._stores.errors(root):
            return [
                _found(f"{root}/{meta['path']}", meta)
                for page in pages
                for meta in page
                # Stores mark folders with empty objects, which are not valid files.
                if meta["size"] and wanted.fullmatch(meta["path"])
            ]

    def look_up(self, url: str) -> FoundFile | None:
        """Return an object; None if there is none."""
        library = obstore()
        store, path = self._located(url)
        try:
            with self._stores.errors(url):
                return _found(url, self._meta(url, store, path))
        except FileNotFoundError:
            if is_http(url):
                return None
        root = divided(url)[0]
        with self._stores.errors(root):  # to tell a missing object from a missing bucket
            next(iter(library.list(store, path, chunk_size=1)), None)
        return None

    def opened(self, found: FoundFile) -> BinaryIO:
        """Open an object; its first bytes are read with the first call of `read`."""
        return _ObjectFile(self, found)

    def part(self, found: FoundFile, start: int, end: int) -> bytes:
        """Read a part of an object.

        Raises:
            NoParts: The server does not send parts of files.
            FileNotFoundError: It was deleted.
            DataError: It was replaced by another one.
        """
        library = obstore()
        store, path = self._located(found.path)
        options: Any = {"range": (start, end), **_condition(found)}
        # obstore sends a request again that fails, and asks for the rest of an answer that is cut.
        with self._read(found.path):
            data = bytes(library.get(store, path, options=options).bytes())
        if len(data) != end - start:
            raise DataError(f"{found.path} is shorter than {found.size_bytes} bytes")
        return data

    def whole(self, found: FoundFile) -> Iterator[bytes]:
        """Read an object from its beginning, in parts."""
        library = obstore()
        store, path = self._located(found.path)
        options: Any = _condition(found)
        with self._read(found.path):
            for each in library.get(store, path, options=options).stream(_PART_BYTES):
                yield bytes(each)

    def check(self, url: str) -> None:
        """Find out whether a bucket can be reached.

        Raises:
            StreamKitError: It cannot.
        """
        library = obstore()
        root, path = divided(url)
        with self._stores.errors(root):
            next(iter(library.list(self._stores.of(root), path or None, chunk_size=1)), None)

    def put(self, file: Path, url: str) -> None:
        """Write a file as an object, which appears whole.

        Raises:
            StreamKitError: The store refuses it.
        """
        library = obstore()
        root, path = divided(url)
        size = max(_UPLOAD_BYTES, file.stat().st_size // _UPLOAD_PARTS_MAX)
        try:
            with self._stores.errors(url, "written"), file.open("rb") as opened:
                library.put(self._stores.of(root), path, opened, chunk_size=size)
        except FileNotFoundError as error:
            if error.filename != url:
                raise
            raise ConfigError(f"{root} does not exist", hint="correct the name") from None

    def close(self) -> None:
        """Close the connections to all stores."""
        self._stores.close()

    @contextmanager
    def _read(self, url: str) -> Iterator[None]:
        try:
            with self._stores.errors(url):
                yield
        except Replaced:
            if self.look_up(url) is None:
                raise FileNotFoundError(errno.ENOENT, "there is no such object", url) from None
            raise

    def _located(self, url: str) -> tuple[ObjectStore, str]:
        """Return the store of an object, and the path in it."""
        if is_http(url):  # as a store of its own, because a path of obstore has no query
            return self._stores.of(self._urls.get(url, url)), ""
        root, path = divided(url)
        return self._stores.of(root), path

    def _meta(self, url: str, store: ObjectStore, path: str) -> Any:
        library = obstore()
        if self._urls.get(url, url) == url:
            return library.head(store, path)
        # A signature is often valid only for GET.
        try:
            return library.get(store, path, options={"range": (0, 1)}).meta
        except library.exceptions.BaseError:  # the file is empty, or the server has no parts
            return library.get(store, path).meta


def _condition(found: FoundFile) -> dict[str, Any]:
    tag = found.id.removeprefix(_TAG) if found.id.startswith(_TAG) else ""
    # A server never matches a weak tag.
    return {"if_match": tag} if tag and not tag.startswith("W/") else {}


_TAG: Final = "etag:"


def _found(url: str, meta: Any) -> FoundFile:
    changed_ns = int(meta["last_modified"].timestamp() * 1_000_000_000)
    tag = meta["e_tag"]
    if tag and not tag.startswith(('"', "W/")):
        tag = f'"{tag}"'  # a list of Azure has tags without quotes
    file_id = f"{_TAG}{tag}" if tag else f"changed:{changed_ns}:{meta['size']}"
    return FoundFile(url, meta["size"], file_id, changed_ns)


class _ObjectFile(io.RawIOBase, BinaryIO):
    """An object as a file. One part of it is in memory."""

    def __init__(self, places: ObjectPlaces, found: FoundFile) -> None:
        self._places = places
        self._found = found
        self._at = 0
        self._start = 0
        self._part = b""
        # The rest of the object, from a server that does not support parts.
        self._rest: Iterator[bytes] | None = None

    @property
    def mode(self) -> str:
        return "rb"  # pyarrow asks for it

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, to: int, whence: int = 0, /) -> int:
        base = (0, self._at, self._found.size_bytes)[whence]
        self._at = max(0, base + to)
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._found.size_bytes - self._at)
        size = left if size < 0 else min(size, left)
        parts = []
        while size:
            offset = self._at - self._start
            if not 0 <= offset < len(self._part):
                self._load()
                offset = self._at - self._start
            part = self._part[offset : offset + size]
            parts.append(part)
            self._at += len(part)
            size -= len(part)
        return b"".join(parts)

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _load(self) -> None:
        """Read the part that begins at the present place."""
        if self._rest is None:
            end = min(self._at + _RANGE_BYTES, self._found.size_bytes)
            try:
                self._part = self._places.part(self._found, self._at, end)
                self._start = self._at
                return
            except NoParts:
                self._rest, self._start, self._part = self._places.whole(self._found), 0, b""
        if self._at < self._start:
            raise DataError(
                f"the server of {self._found.path} does not send parts of files, so the file can "
                "only be read from beginning to end",
                hint="download it first",
            )
        while self._at >= self._start + len(self._part):
            self._start += len(self._part)
            part = next(self._rest, None)
            if part is None:
                raise DataError(f"{self._found.path} ends before byte {self._found.size_bytes}")
            self._part = part
