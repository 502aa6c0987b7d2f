"""Files as sinks."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec

from streamkit.errors import ConfigError, StreamKitError
from streamkit.forks import close_in_children
from streamkit.record import Chunk
from streamkit.runtime.contracts import AcknowledgedWriter, Positions, Prepared
from streamkit.serde.finite import Fault, lost_float
from streamkit.serde.json_values import dumps

_T = TypeVar("_T")
_PART = "file"
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class JsonLines:
    """A file with one JSON value per line, appended to and synced at each commit.

    After a crash, records behind the last commit are written again (at least once); a line of
    ours that the crash cut in the middle is removed at the start. What others have written is
    never touched. ``bytes`` are taken for JSON already. A pipe or a device may stand for a file.
    """

    path: str | Path

    def __str__(self) -> str:
        return f"file {self.path}"

    def encode(self, value: Any) -> bytes:
        """Write one value as JSON; the engine does so before it hands anything to a sink.

        Raises:
            TypeError: It cannot be written as JSON.
        """
        return value if type(value) is bytes else dumps(value)

    def fault(self, values: Sequence[Any], encoded: Sequence[bytes]) -> Fault | None:
        """Find the first row that JSON cannot hold, among values and what `encode` made of them."""
        return lost_float(values, encoded)

    def resource(self) -> str:
        """Name the file, which no other sink may write."""
        return f"file {os.path.realpath(self.path)}"

    def writer(self) -> JsonLinesWriter:
        """Make the port that the engine writes to."""
        return JsonLinesWriter(Path(self.path))


class _Mark(msgspec.Struct, frozen=True):
    """What a commit keeps of a file: which it is, and how far it was written and synced.

    ``is_closed``: the job has ended since, so that nothing after ``end`` is its own.
    """

    device: int
    inode: int
    end: int
    is_closed: bool


class JsonLinesWriter(AcknowledgedWriter):
    """Appends lines. What is written is on disk when a commit has been waited for.

    | the file, at a commit | what happens |
    |---|---|
    | is where it was | synced |
    | was moved away | synced; later lines go to a new file of the name |
    | was deleted, or cut short | the job fails; the next run writes again what may be gone |
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._is_regular = False
        self._share: Callable[[], None] = lambda: None
        self._written = 0
        self._synced = 0
        self._end = 0
        self._marked: _Mark | None = None
        # A file that was moved is changed for another in one thread while a sync may go on.
        self._changing_file = threading.Lock()
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
        return chunk  # the values were encoded by a step before

    async def write(self, chunk: Chunk) -> None:
        data = b"\n".join([*chunk.values, b""])
        self._written += len(chunk)
        await self._in_thread(self._write_all, data)

    def prepare_commit(self, *, is_last: bool) -> Prepared:
        written = self._written
        if not self._is_regular:
            self._synced = written  # a pipe has what it was given, and keeps nothing
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
            self._share()
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
                    hint="the folder must be there, and the file must be yours to write",
                ) from error
        self._share = close_in_children(self._fd)
        found = os.fstat(self._fd)
        self._is_regular = stat.S_ISREG(found.st_mode)
        if not self._is_regular:
            return
        self._lock()
        is_ours = mark is not None and (mark.device, mark.inode) == (found.st_dev, found.st_ino)
        own_from = mark.end if mark is not None and is_ours and not mark.is_closed else None
        _mend_last_line(self._fd, own_from)
        self._end = os.fstat(self._fd).st_size

    def _open_write_only(self) -> bool:
        """Open a pipe or device that nobody may read from."""
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
                hint="give each job, and each sink, a file of its own",
            ) from None
        except OSError:
            pass  # some network file systems have no locks; then the user must see to it

    def _write_all(self, data: bytes) -> None:
        if self._is_regular and not self._is_in_place():
            self._open_again()
        view = memoryview(data)
        while view:
            count = os.write(self._fd, view)
            view = view[count:]
        self._end = os.fstat(self._fd).st_size if self._is_regular else 0

    def _sync(self, mark: _Mark) -> None:
        with self._changing_file:
            found = os.fstat(self._fd)
            if found.st_ino == mark.inode:  # else it was moved away, and synced then
                self._sync_up_to(mark.end)

    def _sync_up_to(self, end: int) -> None:
        os.fsync(self._fd)
        found = os.fstat(self._fd)
        if found.st_nlink == 0 or found.st_size < end:
            what = "deleted" if found.st_nlink == 0 else "cut short"
            raise StreamKitError(
                f"{self._path} was {what} by somebody else while the job wrote to it",
                hint="start the job again: it writes again what came after its last commit",
            )

    def _is_in_place(self) -> bool:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False
        mine = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def _open_again(self) -> None:
        """Go on in a new file of the name, after the old one was moved away."""
        with self._changing_file:
            self._sync_up_to(self._end)
            self._close()
            self._open_file(None)


async def _nothing_to_wait_for() -> None:
    pass


def _mend_last_line(fd: int, own_from: int | None) -> None:
    """See that the file ends with a whole line.

    A crash may have left a line of ours half written: it begins at or behind what we committed,
    and is removed. Any other last line without its end is somebody else's, and gets one.
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
    """Return where the bytes after the last line end begin; the size, if there are none."""
    end = size
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
