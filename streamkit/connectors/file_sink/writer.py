"""Writes files aside, and shows each of them whole, once.

| a file | on disk | in the position of the sink |
|---|---|---|
| open | its spool has the rows up to the last commit, and maybe more | its rows and bytes |
| full, or the job ends | the spool is synced | closed |
| the job has committed | the file is written aside, then shown; the spool is removed | closed |
| the next commit | | not there |

After a crash, the spool of an open file is cut to its bytes, and continued. A closed file is
written and shown, unless that has happened: its spool is removed after that. So each row is in one
file, once. If a large file takes longer than a stop may take, the next run writes it at its start.
"""

from __future__ import annotations

import errno
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

import msgspec

from streamkit.connectors.file_sink.content import Content
from streamkit.connectors.file_sink.paths import PathTemplate
from streamkit.connectors.file_sink.spools import SpooledFile, Spools
from streamkit.connectors.file_sink.targets import Target
from streamkit.connectors.own_thread import OwnThread
from streamkit.dataflow.contracts import AcknowledgedWriter, ConnectorEnv, Positions, Prepared
from streamkit.dataflow.steps import RowFailed
from streamkit.env import Disk, random_bits
from streamkit.errors import DataError, RowError, StateMismatch, StreamKitError
from streamkit.record import Chunk

_PART: Final = "files"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_RETRY_S: Final = 1.0


class Limits(msgspec.Struct, frozen=True):
    """When a file is full. ``open_max`` is the most files that are open at a time."""

    rows: int
    size_bytes: int
    age_ms: int
    open_max: int = 500


class _Position(msgspec.Struct):
    """The position of the sink in a commit."""

    next_id: int = 0
    open: list[SpooledFile] = []
    closed: list[SpooledFile] = []


class FileWriter(AcknowledgedWriter):
    """The writer of a `FileSink`. Files are touched in a thread of its own."""

    def __init__(
        self,
        template: PathTemplate,
        content: Content,
        target: Target,
        limits: Limits,
        env: ConnectorEnv,
        disk: Disk | None = None,
    ) -> None:
        self.description = f"files {template.text} (exactly once)"
        self._template = template
        self._content = content
        self._target = target
        self._limits = limits
        self._env = env
        self._spools = Spools(env.folder, content, target, disk or Disk())
        self._thread = OwnThread(f"files-{env.name}")
        self._next_id = 0
        self._open: dict[str, SpooledFile] = {}
        self._closed: list[SpooledFile] = []
        # Those of the commit in progress, until they are shown.
        self._showing: list[SpooledFile] = []
        # The next number to try for each route, while its rows come.
        self._numbers: dict[str, int] = {}
        # The values that were checked last, as rows and with their routes.
        self._checked: tuple[object, Any, list[str]] = ((), (), [])
        # Rows that were taken and not added yet: their places in ``_rows``, by route.
        self._rows: Any = ()
        self._taken: deque[tuple[str, Sequence[int]]] = deque()
        self._written = 0
        self._synced = 0
        self._marked = ""

    @property
    def unacknowledged(self) -> int:
        return self._written - self._synced

    async def open(self, committed: Positions) -> None:
        text = committed.get(_PART)
        position = _Position() if text is None else msgspec.json.decode(text, type=_Position)
        self._next_id = position.next_id
        self._open = {each.route: each for each in position.open}
        for file in (*position.open, *position.closed):
            _refuse_other_format(file, self._content)
        await self._call(lambda: self._target.open(self._template.folder))
        await self._call(lambda: self._spools.recover(position.open, position.closed))
        for file in position.open:
            if file.columns != self._content.columns:
                self._close_file(file)  # by the next commit, with the columns that it has
        self._show_notes()  # of files that were completed now

    def on_chunk(self, chunk: Chunk) -> Chunk:
        try:
            self._check(chunk)
        except RowError as error:
            before = self.on_chunk(chunk.slice(0, error.row))
            raise RowFailed(error.row, before) from (error.__cause__ or error)
        return chunk

    async def write(self, chunk: Chunk) -> None:
        self._written += len(chunk)
        await self._call(lambda: self._take(chunk))
        await self._call(self._add_taken)

    def prepare_commit(self, *, is_last: bool) -> Prepared:
        written = self._written
        now_ms = self._env.clock.wall_ms()
        for each in list(self._open.values()):
            each.since_ms = min(each.since_ms, now_ms)  # the clock was set back
            if is_last or now_ms - each.since_ms >= self._limits.age_ms:
                self._close_file(each)
        self._close_too_many()
        closed = self._showing = self._closed
        self._closed = []
        position = _Position(self._next_id, list(self._open.values()), closed)
        text = msgspec.json.encode(position).decode()
        positions = {} if text == self._marked else {_PART: text}
        self._marked = text
        unsynced = self._spools.take_unsynced()

        async def wait() -> None:
            await self._call(lambda: self._spools.sync(unsynced))
            self._synced = max(self._synced, written)

        async def publish() -> None:
            await self._call(lambda: self._show(closed))
            self._show_notes()

        return Prepared(wait, positions, publish if closed else None)

    async def close(self) -> None:
        await self._thread.close(self._target.close)

    async def _call(self, function: Callable[[], None]) -> None:
        """Call a function in the thread, again while the disk is full.

        So it must go on where it has failed.
        """
        is_noted = False
        while True:
            try:
                return await self._thread.call(function)
            except OSError as error:
                where = f" {error.filename}" if error.filename else ""
                problem = f"cannot write{where}: {error.strerror}"
                if error.errno not in _FULL:
                    raise StreamKitError(problem) from error
            if not is_noted:
                self._env.note(f"{problem}; retrying until there is space")
                is_noted = True
            await self._env.clock.sleep(_RETRY_S)

    # --- rows -------------------------------------------------------------------------

    def _check(self, chunk: Chunk) -> tuple[Any, list[str]]:
        """Return the rows in the form of the content, and the route of each.

        Raises:
            RowError: A row cannot be written.
        """
        values, rows, routes = self._checked
        if values is not chunk.values:
            given = [row for _, row in chunk.values] if self._template.uses_values else chunk.values
            rows, routes = self._content.checked(given), self._routes_of(chunk)
            self._checked = (chunk.values, rows, routes)
        return rows, routes

    def _routes_of(self, chunk: Chunk) -> list[str]:
        """Return the route of each row; only one if it is the same for all rows."""
        route = self._template.route
        if not (self._template.uses_values or self._template.uses_records):
            return [route((), None, 0)]
        given = [fields for fields, _ in chunk.values] if self._template.uses_values else None
        routes = []
        for row, (key, at) in enumerate(zip(chunk.keys, chunk.timestamps_ms, strict=True)):
            try:
                routes.append(route(() if given is None else given[row], key, at))
            except DataError as error:
                raise RowError(row, str(error)) from error
        return routes

    # --- in the thread: rows ------------------------------------------------------------

    def _take(self, chunk: Chunk) -> None:
        """Take rows in the order of their routes, for `_add_taken`."""
        self._rows, routes = self._check(chunk)
        if len(set(routes)) == 1:
            self._taken.append((routes[0], range(len(chunk))))
            return
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for row, route in enumerate(routes):
            groups[route].append(row)
        self._taken.extend(groups.items())

    def _add_taken(self) -> None:
        """Append the rows that were taken to open files, and close each file that is full."""
        while self._taken:
            route, places = self._taken[0]
            file = self._open.get(route) or self._open_file(route)
            now, rest = self._split(file, places)
            self._spools.append(file, self._content.spooled(self._content.picked(self._rows, now)))
            file.rows += len(now)
            self._taken.popleft()
            if rest:
                self._taken.appendleft((route, rest))
            if file.rows >= self._limits.rows or file.size_bytes >= self._limits.size_bytes:
                self._close_file(file)

    def _show_notes(self) -> None:
        while self._content.notes:
            self._env.note(self._content.notes.pop(0))

    def _show(self, closed: list[SpooledFile]) -> None:
        while closed:
            self._spools.show(closed[0])
            del closed[0]

    def _split(
        self, file: SpooledFile, places: Sequence[int]
    ) -> tuple[Sequence[int], Sequence[int]]:
        room = self._limits.rows - file.rows
        return places[:room], places[room:]

    def _open_file(self, route: str) -> SpooledFile:
        if len(self._numbers) > 2 * self._limits.open_max:
            self._numbers.clear()
        taken = {each.path for each in (*self._open.values(), *self._closed, *self._showing)}
        for number in count(self._numbers.get(route, 0)):
            path = self._template.path_of(route, number)
            if path not in taken and not self._target.exists(path):
                break
        self._numbers[route] = number + 1
        aside = f"{random_bits(64):016x}"
        now_ms, content = self._env.clock.wall_ms(), self._content
        file = SpooledFile(
            self._next_id, route, path, aside, now_ms, content.spool, content.columns
        )
        self._next_id += 1
        self._open[route] = file
        return file

    def _close_file(self, file: SpooledFile) -> None:
        del self._open[file.route]
        self._closed.append(file)

    def _close_too_many(self) -> None:
        """Close the oldest files if more are open than allowed."""
        for each in list(self._open.values())[: max(0, len(self._open) - self._limits.open_max)]:
            self._close_file(each)


def _refuse_other_format(file: SpooledFile, content: Content) -> None:
    """Refuse to finish a file that an earlier run has begun in another format.

    Raises:
        StateMismatch: The rows of the file are kept in another form.
    """
    if file.spool != content.spool:
        raise StateMismatch(
            f"{file.path} was begun in another format ({file.spool}, now {content.spool}), and the "
            "run that wrote it did not end normally",
            hint="run the job once with the old format or type; with --fresh-state the rows are "
            "read again",
        )
