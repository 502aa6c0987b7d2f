"""A file with one JSON value per line as a sink."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec

from streamkit.connectors.files.urls import is_object, shown
from streamkit.dataflow.contracts import (
    AcknowledgedWriter,
    ConnectorEnv,
    Positions,
    Prepared,
    Sink,
)
from streamkit.errors import ConfigError, StreamKitError, TopologyError, UsageError
from streamkit.forks import close_in_children
from streamkit.record import Chunk
from streamkit.serde.binding import Serde
from streamkit.serde.finite import lost_float
from streamkit.serde.json_values import dumps
from streamkit.serde.values import ValueEncoder

_T = TypeVar("_T")
_PART = "file"
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class JsonLines(Sink[Any]):
    """A file with one JSON value per line, appended to and synced at each commit.

    After a crash, records after the last commit are written again (at least once). If the crash
    left a half-written line of this job, the next start removes it. Lines of other programs are
    never changed. ``bytes`` are written as they are, as JSON. The path may also be a pipe or a
    device.

    Attributes:
        path: The file; it is created if it does not exist, but its folder must exist.
    """

    path: str | Path

    def __post_init__(self) -> None:
        if is_object(str(self.path)):
            raise UsageError(
                f"{shown(str(self.path))}: JsonLines appends to files of this machine",
                hint="FileSink writes objects: FileSink(path, Jsonl())",
            )

    def __str__(self) -> str:
        return f"file {self.path}"

    def encoder(self, kind: Any, serde: Serde | None) -> ValueEncoder:
        """Return how values are encoded: as JSON, unless they are bytes."""
        if serde is not None:
            raise TopologyError("value= is not possible here: a file of JSON lines has JSON")
        return ValueEncoder(_encode, lost_float)

    def resource(self) -> str:
        """Return the name of the file, which no other sink may write to."""
        return f"file {os.path.realpath(self.path)}"

    def writer(self, env: ConnectorEnv) -> JsonLinesWriter:
        """Create the writer that the engine uses."""
        return JsonLinesWriter(Path(self.path))


def _encode(value: Any) -> bytes:
    return value if type(value) is bytes else dumps(value)


class _Mark(msgspec.Struct, frozen=True):
    """The position of a file in a commit: which file it is, and how far it is written and synced.

    ``is_closed``: the job ended after this commit, so nothing after ``end`` belongs to the job.
    """

    device: int
    inode: int
    end: int
    is_closed: bool


class JsonLinesWriter(AcknowledgedWriter):
    """Appends lines. They are on disk when the commit is done.

    | the file, at a commit | what happens |
    |---|---|
    | is unchanged | synced |
    | was moved away | synced; later lines go to a new file with the old name |
    | was deleted or truncated | the job fails; the next run writes the lost lines again |
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._is_regular = False
        self._unregister: Callable[[], None] = lambda: None
        self._written = 0
        self._synced = 0
        self._end = 0
        self._marked: _Mark | None = None
        # One thread may switch to a new file while another one syncs.
        self._file_lock = threading.Lock()
        self.description = f"file {path} (at least once)"

    @property
    def unacknowledged(self) -> int:
        return self._written - self._synced

    async def open(self, committed: Positions) -> None:
        mark = committed.get(_PART)
        await self._in_thread(
            self._open_file, None if mark is None else msgspec.json.decode(mark, type=_Mark)
        )

    def on_chunk(self, chunk: Chunk) -> Chunk:
        return chunk  # an earlier step has encoded the values

    async def write(self, chunk: Chunk) -> None:
        data = b"\n".join([*chunk.values, b""])
        self._written += len(chunk)
        await self._in_thread(self._write_all, data)

    def prepare_commit(self, *, is_last: bool) -> Prepared:
        written = self._written
        if not self._is_regular:
            self._synced = written  # a pipe cannot be synced
            return Prepared(_nothing_to_wait_for, {})
        found = os.fstat(self._fd)
        mark = _Mark(found.st_dev, found.st_ino, self._end, is_last)
        positions = {} if mark == self._marked else {_PART: msgspec.json.encode(mark).decode()}
        self._marked = mark

        async def wait() -> None:
            if written > self._synced:
                await self._in_thread(self._sync, mark)
                self._synced = max(self._synced, written)

        return Prepared(wait, positions)

    async def close(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            self._unregister()
            os.close(self._fd)
            self._fd = -1

    async def _in_thread(self, call: Callable[[_T], None], argument: _T) -> None:
        try:
            await anyio.to_thread.run_sync(call, argument)
        except OSError as error:
            raise StreamKitError(f"cannot write to {self._path}: {error.strerror}") from error

    # --- in a thread ------------------------------------------------------------------

    def _open_file(self, mark: _Mark | None) -> None:
        try:
            self._fd = os.open(
                self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
        except OSError as error:
            if error.errno is None or not self._open_write_only():
                raise ConfigError(
                    f"cannot write to {self._path}: {error.strerror}",
                    hint="the folder must exist, and you need permission to write the file",
                ) from error
        self._unregister = close_in_children(self._fd)
        found = os.fstat(self._fd)
        self._is_regular = stat.S_ISREG(found.st_mode)
        if not self._is_regular:
            return
        self._lock()
        is_ours = mark is not None and (mark.device, mark.inode) == (found.st_dev, found.st_ino)
        own_from = mark.end if mark is not None and is_ours and not mark.is_closed else None
        _repair_last_line(self._fd, own_from)
        self._end = os.fstat(self._fd).st_size

    def _open_write_only(self) -> bool:
        """Open a pipe or device that cannot be opened for reading."""
        try:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            return False
        return True

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            raise ConfigError(
                f"another job writes to {self._path}",
                hint="use another file for each job and each sink",
            ) from None
        except OSError:
            pass  # some network file systems have no locks

    def _write_all(self, data: bytes) -> None:
        if self._is_regular and not self._is_in_place():
            self._open_again()
        view = memoryview(data)
        while view:
            count = os.write(self._fd, view)
            view = view[count:]
        self._end = os.fstat(self._fd).st_size if self._is_regular else 0

    def _sync(self, mark: _Mark) -> None:
        with self._file_lock:
            found = os.fstat(self._fd)
            if found.st_ino == mark.inode:  # otherwise it was moved away and synced
                self._sync_up_to(mark.end)

    def _sync_up_to(self, end: int) -> None:
        os.fsync(self._fd)
        found = os.fstat(self._fd)
        if found.st_nlink == 0 or found.st_size < end:
            what = "deleted" if found.st_nlink == 0 else "truncated"
            raise StreamKitError(
                f"{self._path} was {what} by another program while the job wrote to it",
                hint="restart the job: it writes the records after its last commit again",
            )

    def _is_in_place(self) -> bool:
        try:
            at_path = os.stat(self._path)
        except FileNotFoundError:
            return False
        opened = os.fstat(self._fd)
        return (at_path.st_dev, at_path.st_ino) == (opened.st_dev, opened.st_ino)

    def _open_again(self) -> None:
        """Continue in a new file with the same name, after the old one was moved away."""
        with self._file_lock:
            self._sync_up_to(self._end)
            self._close()
            self._open_file(None)


async def _nothing_to_wait_for() -> None:
    pass


def _repair_last_line(fd: int, own_from: int | None) -> None:
    """Make the file end with a complete line.

    A crash may have left a half-written line of this job. It begins at or after the committed
    end, and is removed. Any other incomplete last line is from another program and gets a newline.
    """
    size = os.fstat(fd).st_size
    begin = _last_line_begin(fd, size)
    if begin == size:
        return
    if own_from is not None and begin >= own_from:
        os.ftruncate(fd, begin)
    else:
        os.write(fd, b"\n")


def _last_line_begin(fd: int, size: int) -> int:
    """Return where the incomplete last line begins; the size if the last line is complete."""
    end = size
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
