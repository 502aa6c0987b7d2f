"""Reads files one after another, and resumes at any row.

| a file, compared with its position | what is read |
|---|---|
| has no position | all of it |
| is the same, and as long | nothing |
| is the same, and longer | what was appended |
| is another file, or shorter | all of it; first the rest of the old file, if it lies beside it |
| has no position, but was renamed from a path that has one | what was not read under the old path |

A file is the same if it begins with all that was read of it. While a run lasts, a file that grows
in place is only compared by its first bytes. A file whose format does not grow is another file as
soon as it has changed.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from typing import Any, Final

import msgspec

from streamkit.connectors.files.formats import FileFormat, Rows
from streamkit.connectors.files.found import FoundFile
from streamkit.connectors.files.lines import Mark
from streamkit.connectors.files.open_file import Block, OpenFile, Position
from streamkit.connectors.files.places import Places, bytes_taken, is_compressed
from streamkit.connectors.files.prefix import Prefix, PrefixFile
from streamkit.connectors.files.recognition import Recognition
from streamkit.connectors.files.urls import shown
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
        self._recognition = Recognition(places, grows=form.grows)
        self._patterns = patterns
        self._format = form
        self._env = env
        self._follow_s = follow_s
        self._may_be_empty = may_be_empty
        # How far each file was read; only the thread uses it.
        self._reached: dict[str, Position] = {}
        # The last row that `next` has returned, and the last one that is processed.
        self._given: tuple[str, int] | None = None
        self._done: tuple[str, int] | None = None
        # Positions that have changed although no rows were read.
        self._noted: dict[str, Position] = {}
        # Files that were read to their end in this run.
        self._ended: set[FoundFile] = set()
        # Chunks that a cancelled call of `next` has left.
        self._ready: deque[Chunk] = deque()
        self._failure: StreamKitError | None = None
        # A call of the thread that was begun before its rows are wanted.
        self._ahead: asyncio.Future[None] | None = None
        self._waiting: deque[tuple[str, FoundFile, Position | None]] = deque()
        self._open: OpenFile | None = None
        self._blocks: deque[Block] = deque()
        # The bytes of all files of this run, of those read to their end, and of the open one.
        self._bytes_known = 0
        self._bytes_of_ended = 0
        self._bytes_of_open = 0
        self._thread = OwnThread(f"files-{env.name}")

    async def open(self, committed: Positions) -> SourceFacts:
        self._reached = {
            path: msgspec.json.decode(text, type=Position) for path, text in committed.items()
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
                self._given = chunk.topic, chunk.offsets[-1]
                if self._ahead is None and len(self._ready) < _CHUNKS_LEFT:
                    self._ahead = self._thread.start(self._read)
                return chunk
            if self._follow_s is None or self._env.until_end:
                return None
            await self._env.clock.sleep(self._follow_s)

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        last = chunk.offsets[-1]
        self._done = chunk.topic, last
        self._noted.pop(chunk.topic, None)
        block = self._blocks[0]
        while block.file.path != chunk.topic or block.numbers[-1] < last:
            self._blocks.popleft()
            block = self._blocks[0]
        rows = bisect_right(block.numbers, last)
        is_all = rows == len(block.numbers)
        mark = block.end if is_all else block.start
        skip = 0 if is_all else block.skipped + rows
        is_done = is_all and block.is_last
        position = block.file.position(mark, skip, block.prefix, is_done=is_done)
        return block.file.path, msgspec.json.encode(position).decode()

    def skipped_positions(self) -> Positions:
        if self._given != self._done:  # they may be positions after rows that are not processed
            return {}
        found = {}
        while self._noted:  # the thread may add some meanwhile
            path, position = self._noted.popitem()
            found[path] = msgspec.json.encode(position).decode()
        return found

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
        prefix = opened.prefix
        self._reached[opened.path] = opened.position(
            found.end, opened.skip, prefix, is_done=is_last
        )
        values, numbers = found.values, found.numbers
        if skip == len(values):
            return
        if skip:  # otherwise a block of lines would be divided
            values, numbers = values[skip:], numbers[skip:]
        self._blocks.append(Block(opened, start, found.end, skip, numbers, is_last, prefix))
        now_ms = self._env.clock.wall_ms()
        count = len(values)
        keys, times_ms = [None] * count, [now_ms] * count
        self._ready.append(Chunk(values, keys, times_ms, numbers, opened.path, _PARTITION))

    def _rows_of(self, opened: OpenFile) -> Rows | None:
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

    def _read_of(self, opened: OpenFile) -> Rows | None:
        try:
            # A file that a rotation has moved away gets no more lines.
            is_complete = self._follow_s is None or opened.path != opened.found.path
            return opened.rows.read(CHUNK_RECORDS_MAX, is_complete=is_complete)
        except StreamKitError as error:
            text = str(error).partition("\nhint:")[0].removeprefix(f"{opened.path}: ")
            raise DataError(f"{opened.path}: {text}", hint=error.hint) from error
        except OSError as error:
            raise DataError(f"cannot read {opened.path}: {error.strerror}") from error

    def _look(self) -> int:
        """Find what is to be read; return how many files match."""
        files = self._places.find(self._patterns)
        self._follow_renames(files)
        for found in files:
            self._add(found)
        return len(files)

    def _follow_renames(self, files: list[FoundFile]) -> None:
        """Give the positions of files to the paths that these files have now."""
        olds = self._recognition.renamed(files, self._reached)
        positions = {path: self._reached[old] for path, old in olds.items()}
        for path, old in olds.items():
            self._env.note(f"{old} was renamed to {path}")
            self._reached.pop(old, None)  # two new paths may be links to one file
        self._reached.update(positions)
        self._noted.update(positions)

    def _add(self, found: FoundFile) -> None:
        position = self._reached.get(found.path)
        if found in self._ended:
            return
        if position is None:
            self._wait_for(found.path, found, None)
        elif self._recognition.is_same(found, position):
            # How many bytes a compressed file has is known only at its end.
            has_more = is_compressed(found.path) or found.size_bytes > position.byte
            if has_more and not (position.done and found.size_bytes == position.size):
                self._wait_for(found.path, found, position)
            elif (position.id, position.modified) != (found.id, found.modified_ns):
                # Otherwise each run would compare the whole file.
                self._noted[found.path] = msgspec.structs.replace(
                    position, id=found.id, modified=found.modified_ns
                )
        else:
            rest = None
            if position.id != found.id:
                rest = self._places.beside(found.path, position.id)
            if rest is not None and rest.path in self._reached:
                rest = None  # it is read under its own path
            if rest is not None and self._recognition.is_same(rest, position):
                self._wait_for(found.path, rest, position)
            self._env.note(f"{found.path} is another file now, and is read from its beginning")
            self._wait_for(found.path, found, None)

    def _wait_for(self, path: str, found: FoundFile, position: Position | None) -> None:
        self._waiting.append((path, found, position))
        self._bytes_known += found.size_bytes

    def _open_next(self) -> bool:
        """Open the next file; return whether there is one."""
        if not self._waiting:
            return False
        path, found, position = self._waiting.popleft()
        mark = Mark() if position is None else position.mark
        try:
            head = self._recognition.checksum(found, found.size_bytes)
            file = self._places.open_at(found, mark)
            prefix = Prefix() if position is None else position.prefix
            if self._format.grows and prefix.size >= mark.byte:
                file = PrefixFile(file, mark.byte, prefix)
            self._recognition.ids_of_run.add(found.id)
        except FileNotFoundError:
            if self._places.look_up(found.path) is None:
                self._env.note(f"{found.path} was deleted before it was read")
                return self._open_next()
            raise
        except OSError as error:
            raise DataError(f"cannot read {found.path}: {error.strerror}") from error
        skip = 0 if position is None else position.skip
        rows = self._format.rows_of(file, mark, lambda: self._places.open_at(found, Mark()))
        self._open = OpenFile(path, found, head, file, rows, skip, mark)
        return True

    def _close_all(self) -> None:
        self._close_file()
        self._places.close()

    def _close_file(self) -> None:
        if self._open is not None:
            self._open.file.close()
            self._open = None
