"""Objects in stores such as S3, and files of HTTP servers; only this module imports obstore."""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from streamkit.connectors.files.found import FoundFile
from streamkit.errors import ConfigError, DataError, StreamKitError, UsageError
from streamkit.settings import Secret

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES: Final = ("s3", "gs", "az", "abfs", "abfss", "http", "https")
_GLOB: Final = re.compile(r"[*?\[]")
# How many bytes one request asks for.
_RANGE_BYTES: Final = 4 << 20
_PART_BYTES: Final = 1 << 20


def is_object(path: str) -> bool:
    """Return whether a path is the URL of an object."""
    return "://" in path


def divided(url: str) -> tuple[str, str]:
    """Return the root of a URL, such as ``s3://bucket``, and the path in it.

    Raises:
        UsageError: The URL cannot be read.
    """
    scheme, _, rest = url.partition("://")
    root, _, path = rest.partition("/")
    if scheme not in SCHEMES or not root:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise UsageError(f"{scheme}:// of a path is not known", hint=f"there are {known}")
    if "@" in root:
        raise UsageError(
            f"the URL {scheme}://***@{root.rpartition('@')[2]} has a password",
            hint='give it in store=, for example store={"secret_access_key": Secret(...)}',
        )
    if scheme.startswith("http") and ("?" in path or "*" in path):
        raise UsageError(
            f"{scheme}://{root}: a path on an HTTP server has no pattern and no query",
            hint="name each file",
        )
    return f"{scheme}://{root}", path


class NoParts(DataError):
    """A server does not send parts of files."""


class ObjectPlaces:
    """Finds and opens objects.

    Args:
        options: The configuration of the store, as obstore names it; the rest is taken from the
            environment.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        self._options = {
            name: each.reveal() if isinstance(each, Secret) else each
            for name, each in options.items()
        }
        self._secrets = [
            each.reveal() for each in options.values() if isinstance(each, Secret) and each.reveal()
        ]
        self._stores: dict[str, ObjectStore] = {}

    def find(self, pattern: str) -> Iterator[FoundFile]:
        """Yield the objects that match a pattern, in the order of the store."""
        root, path = divided(pattern)
        first = _GLOB.search(path)
        if first is None:
            found = self.look_up(pattern)
            yield from () if found is None else (found,)
            return
        obstore = _obstore()

        prefix = path[: first.start()].rpartition("/")[0]
        wanted = re.compile(_regex(path))
        with self._errors(root):
            for page in obstore.list(self._store(root), prefix or None, chunk_size=1000):
                for meta in page:
                    # Stores mark folders with empty objects, which are not valid files.
                    if meta["size"] and wanted.fullmatch(meta["path"]):
                        yield _found(root, meta)

    def look_up(self, url: str) -> FoundFile | None:
        """Return an object; None if there is none."""
        obstore = _obstore()

        root, path = divided(url)
        try:
            with self._errors(url):
                return _found(root, obstore.head(self._store(root), path))
        except FileNotFoundError:
            if root.startswith("http"):
                return None
        with self._errors(root):  # to tell a missing object from a missing bucket
            next(iter(obstore.list(self._store(root), path, chunk_size=1)), None)
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
        obstore = _obstore()

        root, path = divided(found.path)
        options: Any = {"range": (start, end), **_condition(found)}
        # obstore sends a request again that fails, and asks for the rest of an answer that is cut.
        with self._errors(found.path):
            data = bytes(obstore.get(self._store(root), path, options=options).bytes())
        if len(data) != end - start:
            raise DataError(f"{found.path} is shorter than {found.size_bytes} bytes")
        return data

    def whole(self, found: FoundFile) -> Iterator[bytes]:
        """Read an object from its beginning, in parts."""
        obstore = _obstore()

        root, path = divided(found.path)
        options: Any = _condition(found)
        with self._errors(found.path):
            for each in obstore.get(self._store(root), path, options=options).stream(_PART_BYTES):
                yield bytes(each)

    def check(self, url: str) -> None:
        """Find out whether a bucket can be reached.

        Raises:
            StreamKitError: It cannot.
        """
        obstore = _obstore()
        root, path = divided(url)
        with self._errors(root):
            next(iter(obstore.list(self._store(root), path or None, chunk_size=1)), None)

    def put(self, file: Path, url: str) -> None:
        """Write a file as an object, which appears whole.

        Raises:
            StreamKitError: The store refuses it.
        """
        obstore = _obstore()
        root, path = divided(url)
        with self._errors(url, "written"), file.open("rb") as opened:
            obstore.put(self._store(root), path, opened)

    def _store(self, root: str) -> ObjectStore:
        store = self._stores.get(root)
        if store is None:
            store = self._stores[root] = self._opened(root)
        return store

    def _opened(self, root: str) -> ObjectStore:
        from obstore.store import from_url

        endpoint = str(self._options.get("endpoint", self._options.get("aws_endpoint", root)))
        is_plain = endpoint.startswith("http://")
        config: Any = self._options if not root.startswith("http") else None
        try:
            return from_url(root, config=config, client_options={"allow_http": is_plain})
        except Exception as error:  # obstore has several kinds for options that are not valid
            raise ConfigError(
                f"store= for {root} is not valid: {self._hidden(error)}",
                hint="the names are those of obstore's configuration",
            ) from None

    @contextmanager
    def _errors(self, place: str, done: str = "read") -> Iterator[None]:
        """Turn errors of obstore into ours, without secrets."""
        from obstore import exceptions

        try:
            yield
        except (FileNotFoundError, exceptions.NotFoundError):
            if place.count("/") > 2:
                raise FileNotFoundError(errno.ENOENT, "there is no such object", place) from None
            raise ConfigError(f"{place} does not exist", hint="correct the name") from None
        except exceptions.PreconditionError:
            raise DataError(
                f"{place} was replaced by another object while it was read",
                hint="run the job again: it reads the new object from its beginning",
            ) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise self._denied(place, done, error) from None
        except exceptions.NotSupportedError as error:
            raise NoParts(self._hidden(error)) from None
        except exceptions.BaseError as error:
            # A list of objects has only the common error.
            if "404 Not Found" in str(error):
                raise ConfigError(f"{place} does not exist", hint="correct the name") from None
            if "403 Forbidden" in str(error) or "401 Unauthorized" in str(error):
                raise self._denied(place, done, error) from None
            raise DataError(f"{place} cannot be {done}: {self._hidden(error)}") from None

    def _denied(self, place: str, done: str, error: Exception) -> StreamKitError:
        return ConfigError(
            f"{place} cannot be {done}: access is denied: {self._hidden(error)}",
            hint="give the credentials in store= or in the environment",
        )

    def _hidden(self, error: Exception) -> str:
        text = str(error).partition("\n\nDebug source:")[0].strip()
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())


def _obstore() -> ModuleType:
    try:
        import obstore
    except ImportError as error:
        raise ConfigError(
            f"URLs of objects need the library obstore, which cannot be imported: {error}",
            hint="it needs `pip install 'fluvio-streamkit[objects]'`",
        ) from None
    return obstore


def _condition(found: FoundFile) -> dict[str, Any]:
    tag = found.id.removeprefix(_TAG) if found.id.startswith(_TAG) else ""
    # A server never matches a weak tag.
    return {"if_match": tag} if tag and not tag.startswith("W/") else {}


_TAG: Final = "etag:"


def _found(root: str, meta: Any) -> FoundFile:
    changed_ns = int(meta["last_modified"].timestamp() * 1_000_000_000)
    tag = meta["e_tag"]
    file_id = f"{_TAG}{tag}" if tag else f"changed:{changed_ns}:{meta['size']}"
    return FoundFile(f"{root}/{meta['path']}", meta["size"], file_id, changed_ns)


def _regex(pattern: str) -> str:
    """Return a pattern of paths as a regular expression."""
    found = re.sub(
        r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|.",
        lambda match: _REGEX.get(match[0]) or _plain(match[0]),
        pattern,
        flags=re.DOTALL,
    )
    return found


_REGEX: Final = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _plain(text: str) -> str:
    if len(text) == 1:
        return re.escape(text)
    return f"[{'^' if text[1] == '!' else ''}{re.escape(text[1:-1].lstrip('!'))}]".replace(
        r"\-", "-"
    )


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
