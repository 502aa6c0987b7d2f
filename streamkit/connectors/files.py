"""Files as sinks."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio

from streamkit.errors import ConfigError, StreamKitError
from streamkit.record import Chunk
from streamkit.serde.finite import Fault, lost_float
from streamkit.serde.json_values import dumps

_T = TypeVar("_T")
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class JsonLines:
    """A file with one JSON value per line, appended to and synced at each commit.

    After a crash, records behind the last commit are written again (at least once); a line
    that was cut in the middle is removed at the start. ``bytes`` are taken for JSON already.
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


class JsonLinesWriter:
    """Appends lines. What is written is on disk when a seal has been awaited."""

    has_effects_at_once = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._written = 0
        self._synced = 0
        self.description = f"file {path} (at least once)"

    @property
    def unacknowledged(self) -> int:
        return self._written - self._synced

    async def open(self) -> None:
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            _cut_torn_line(self._fd)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            raise ConfigError(
                f"cannot write to {self._path}: {error.strerror}",
                hint="the folder must be there, and the file must be yours to write",
            ) from error

    async def write(self, chunk: Chunk) -> None:
        data = b"\n".join([*chunk.values, b""])
        self._written += len(chunk)
        await self._in_thread(self._write_all, data)

    def seal(self) -> Awaitable[None]:
        return self._sync(self._written)

    async def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def _sync(self, written: int) -> None:
        """Make everything up to a mark durable. Two of these may wait at once."""
        if written > self._synced:
            await self._in_thread(os.fsync, self._fd)
            self._synced = max(self._synced, written)

    async def _in_thread(self, call: Callable[[_T], None], argument: _T) -> None:
        try:
            await anyio.to_thread.run_sync(call, argument)
        except OSError as error:
            raise StreamKitError(f"cannot write to {self._path}: {error.strerror}") from error

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]


def _cut_torn_line(fd: int) -> None:
    """Remove a last line without its end: a crash left it half written."""
    size = os.fstat(fd).st_size
    end = size
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        data = os.pread(fd, end - start, start)
        newline = data.rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(fd, end)
