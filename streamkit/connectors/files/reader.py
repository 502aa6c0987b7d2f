"""Reads files one after another, and resumes at any row.

| a file, compared with its position | what is read |
|---|---|
| has no position | all of it |
| is the same, and as long | nothing |
| is the same, and longer | what was appended |
| is another file, or shorter | all of it; first the rest of the old file, if it lies beside it |

A file whose format does not grow is another file as soon as it has changed.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import msgspec

from streamkit.connectors.files.formats import FileFormat, RowReader, Rows
from streamkit.connectors.files.found import FoundFile
from streamkit.connectors.files.lines import Mark
from streamkit.connectors.files.places import Places, bytes_taken, is_compressed
from streamkit.connectors.files.urls import is_object, shown
from streamkit.connectors.own_thread import OwnThread
from streamkit.dataflow.contracts import ConnectorEnv, Positions, SourceFacts, SourceReader
from streamkit.errors import DataError, StreamKitError
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.units import counted

_PARTITION: Final = 0
# How much one call reads at most, in whole chunks; but two at least, which may be large.
_CHUNKS_AHEAD: Final = 8
_CHUNKS_AHEAD_MIN: Final = 2
_ROWS_AHEAD: Final = _CHUNKS_AHEAD * CHUNK_RECORDS_MAX
# With fewer chunks left, the next ones are read while these are processed.
_CHUNKS_LEFT: Final = 6


class _Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a file was read.

    ``byte``, ``line`` and ``within`` are where a block of rows begins, as in `Mark`; ``skip`` is
    how many of its rows were read. ``head`` is a checksum of the first bytes, of which ``size``
    says how many there were; of the last ones too if the format does not grow. ``done``: nothing
    follows, which the size shows only of files that are not compressed.
    """

    id: str
    size: int
    head: int
    byte: int = 0
    line: int = 1
    skip: int = 0
    within: int = 0
    done: bool = False

    @property
    def mark(self) -> Mark:
        return Mark(self.byte, self.line, self.within)


@dataclass(slots=True)
class _OpenFile:
    """A file that is being read, or was."""

    path: str
    found: FoundFile
    head: int
    file: BinaryIO
    rows: RowReader
    skip: int
    at: Mark
    # The rows after those read last, or the error instead, if it is known at once that none follow.
    ahead: Rows | Exception | None = None

    @property
    def shows_end(self) -> bool:
        """Whether the end of the file cannot be seen from its size."""
        return is_compressed(self.found.path) or is_object(self.found.path)

    def position(self, mark: Mark, skip: int, *, is_done: bool = False) -> _Position:
        """Return the position some rows after a mark."""
        found = self.found
        return _Position(
            found.id, found.size_bytes, self.head, mark.byte, mark.line, skip, mark.within, is_done
        )


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows that were handed over, and where they lie."""

    file: _OpenFile
    start: Mark
    end: Mark
    skipped: int
    numbers: Sequence[int]
    is_last: bool


class FilesReader(SourceReader):
    """Reads files in a thread of its own; see `Files`."""

    def __init__(
        self,
        patterns: tuple[str, ...],
        form: FileFormat[Any],
        env: ConnectorEnv,
        *,
        follow_s: float | None,
        may_be_empty: bool,
        places: Places,
    ) -> None:
        self._places = places
        self._patterns = patterns
        self._format = form
        self._env = env
        self._follow_s = follow_s
        self._may_be_empty = may_be_empty
        # How far each file was read; only the thread uses it.
        self._reached: dict[str, _Position] = {}
        # Files that were read to their end in this run.
        self._ended: set[FoundFile] = set()
        # Chunks that a cancelled call of `next` has left.
        self._ready: deque[Chunk] = deque()
        self._failure: StreamKitError | None = None
        # A call of the thread that was begun before its rows are wanted.
        self._ahead: asyncio.Future[None] | None = None
        self._waiting: deque[tuple[str, FoundFile, _Position | None]] = deque()
        self._open: _OpenFile | None = None
        self._blocks: deque[_Block] = deque()
        # The bytes of all files of this run, of those read to their end, and of the open one.
        self._bytes_known = 0
        self._bytes_of_ended = 0
        self._bytes_of_open = 0
        self._thread = OwnThread(f"files-{env.name}")

    async def open(self, committed: Positions) -> SourceFacts:
        self._reached = {
            path: msgspec.json.decode(text, type=_Position) for path, text in committed.items()
        }
        count = await self._thread.call(self._look)
        if count == 0 and not self._may_be_empty:
            raise DataError(
                f"no file matches {shown(', '.join(self._patterns))}",
                hint="correct the path, or set may_be_empty=True if that can happen",
            )
        resumes = ", resumes after the last commit" if committed else ""
        follows = ", followed" if self._follow_s is not None else ""
        paths = shown(", ".join(self._patterns))
        return SourceFacts(f"files {paths} ({counted(count, 'file')}{follows}{resumes})")

    async def next(self) -> Chunk | None:
        while True:
            if not self._ready and self._ahead is not None:
                ahead, self._ahead = self._ahead, None
                await ahead
            if not self._ready:  # a call that began earlier may have read nothing
                await self._thread.call(self._read)
            if self._ready:
                chunk = self._ready.popleft()
                if self._ahead is None and len(self._ready) < _CHUNKS_LEFT:
                    self._ahead = self._thread.start(self._read)
                return chunk
            if self._follow_s is None or self._env.until_end:
                return None
            await self._env.clock.sleep(self._follow_s)

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        last = chunk.offsets[-1]
        block = self._blocks[0]
        while block.file.path != chunk.topic or block.numbers[-1] < last:
            self._blocks.popleft()
            block = self._blocks[0]
        rows = bisect_right(block.numbers, last)
        is_all = rows == len(block.numbers)
        mark = block.end if is_all else block.start
        skip = 0 if is_all else block.skipped + rows
        position = block.file.position(mark, skip, is_done=is_all and block.is_last)
        return block.file.path, msgspec.json.encode(position).decode()

    def bytes_read(self) -> tuple[int, int]:
        return self._bytes_of_ended + self._bytes_of_open, self._bytes_known

    @property
    def ends_for_good(self) -> bool:
        return self._follow_s is None

    async def close(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead.cancel():
            ahead.exception()  # of rows that nobody wants any more
        await self._thread.close(self._close_all)

    # --- in the thread ----------------------------------------------------------------

    def _read(self) -> None:
        """Read the next rows, if there are any now.

        Each call reads several small chunks: to change to another thread costs more than a chunk.
        """
        has_looked = self._follow_s is None
        if self._failure is not None:
            raise self._failure
        while self._has_room():
            try:
                if self._open is not None or self._open_next():
                    self._read_rows()
                    continue
            except StreamKitError as error:
                if not self._ready:
                    raise
                self._failure = error  # the rows before it come first
                return
            if self._ready or has_looked:
                return
            has_looked = True
            self._look()

    def _has_room(self) -> bool:
        ready = list(self._ready)  # the event loop takes chunks meanwhile
        is_small = len(ready) < _CHUNKS_AHEAD and sum(map(len, ready)) < _ROWS_AHEAD
        return is_small or len(ready) < _CHUNKS_AHEAD_MIN

    def _read_rows(self) -> None:
        """Read the next rows of the open file; close it if it has no more now."""
        opened = self._open
        assert opened is not None, "a file is open"
        found = self._rows_of(opened)
        self._bytes_of_open = min(bytes_taken(opened.file), opened.found.size_bytes)
        if found is None:
            self._ended.add(opened.found)
            self._bytes_of_ended += opened.found.size_bytes
            self._bytes_of_open = 0
            self._close_file()
            return
        start, opened.at = opened.at, found.end
        skip = min(opened.skip, len(found.values))
        opened.skip -= skip
        is_last = opened.shows_end and opened.ahead is None
        self._reached[opened.path] = opened.position(found.end, opened.skip, is_done=is_last)
        values, numbers = found.values, found.numbers
        if skip == len(values):
            return
        if skip:  # otherwise a block of lines would be divided
            values, numbers = values[skip:], numbers[skip:]
        self._blocks.append(_Block(opened, start, found.end, skip, numbers, is_last))
        now_ms = self._env.clock.wall_ms()
        count = len(values)
        keys, times_ms = [None] * count, [now_ms] * count
        self._ready.append(Chunk(values, keys, times_ms, numbers, opened.path, _PARTITION))

    def _rows_of(self, opened: _OpenFile) -> Rows | None:
        """Return the next rows of a file; read ahead where only that shows its end."""
        found, opened.ahead = opened.ahead, None
        if found is None:
            found = self._read_of(opened)
        if isinstance(found, Exception):
            raise found
        if found is not None and opened.shows_end:
            try:
                opened.ahead = self._read_of(opened)
            except StreamKitError as error:  # the rows before it come first
                opened.ahead = error
        return found

    def _read_of(self, opened: _OpenFile) -> Rows | None:
        try:
            return opened.rows.read(CHUNK_RECORDS_MAX, is_complete=self._follow_s is None)
        except StreamKitError as error:
            text = str(error).partition("\nhint:")[0].removeprefix(f"{opened.path}: ")
            raise DataError(f"{opened.path}: {text}", hint=error.hint) from error
        except OSError as error:
            raise DataError(f"cannot read {opened.path}: {error.strerror}") from error

    def _look(self) -> int:
        """Find what is to be read; return how many files match."""
        files = self._places.find(self._patterns)
        for found in files:
            self._add(found)
        return len(files)

    def _add(self, found: FoundFile) -> None:
        position = self._reached.get(found.path)
        if found in self._ended:
            return
        if position is None:
            self._wait_for(found.path, found, None)
        elif self._is_same(found, position):
            if position.done and found.size_bytes == position.size:
                return
            # How many bytes a compressed file has is known only at its end.
            if is_compressed(found.path) or found.size_bytes > position.byte:
                self._wait_for(found.path, found, position)
        else:
            rest = None
            if position.id != found.id:
                rest = self._places.beside(found.path, position.id)
            if rest is not None and self._is_same(rest, position):
                self._wait_for(found.path, rest, position)
            self._env.note(f"{found.path} is another file now, and is read from its beginning")
            self._wait_for(found.path, found, None)

    def _wait_for(self, path: str, found: FoundFile, position: _Position | None) -> None:
        self._waiting.append((path, found, position))
        self._bytes_known += found.size_bytes

    def _is_same(self, found: FoundFile, position: _Position) -> bool:
        least = position.size if is_compressed(found.path) else position.byte
        if found.size_bytes < least or not (
            self._format.grows or found.size_bytes == position.size
        ):
            return False
        if is_object(found.path) and found.id == position.id:
            return True
        try:
            return self._checksum(found, position.size) == position.head
        except OSError:
            return False

    def _checksum(self, found: FoundFile, size_bytes: int) -> int:
        """Return what a file is recognised by."""
        return self._places.checksum(found, size_bytes, with_end=not self._format.grows)

    def _open_next(self) -> bool:
        """Open the next file; return whether there is one."""
        if not self._waiting:
            return False
        path, found, position = self._waiting.popleft()
        mark = Mark() if position is None else position.mark
        try:
            head = self._checksum(found, found.size_bytes)
            file = self._places.open_at(found, mark)
        except FileNotFoundError:
            if self._places.look_up(found.path) is None:
                self._env.note(f"{found.path} was deleted before it was read")
                return self._open_next()
            raise
        except OSError as error:
            raise DataError(f"cannot read {found.path}: {error.strerror}") from error
        skip = 0 if position is None else position.skip
        rows = self._format.rows_of(file, mark, lambda: self._places.open_at(found, Mark()))
        self._open = _OpenFile(path, found, head, file, rows, skip, mark)
        return True

    def _close_all(self) -> None:
        self._close_file()
        self._places.close()

    def _close_file(self) -> None:
        if self._open is not None:
            self._open.file.close()
            self._open = None
