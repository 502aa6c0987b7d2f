"""Writes rows to a table, each exactly once.

| step of a commit | what happens |
|---|---|
| rows come | they are checked, and added to the file of the commit |
| wait | the file is synced, and a transaction writes the rows and the commit's number |
| the job commits | its state has the number and the size of the file |
| publish | the transaction is committed, and the file is removed |
| open, after a crash | if the database does not have the number yet, the file is written again |

So a row that the database refuses is usually found before the job has committed it. If another
transaction holds a lock, the rows are written in the step ``publish``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import anyio
import msgspec

from streamkit.connectors.sql.blocks import (
    Block,
    BlockDecoder,
    decode_head,
    encode_block,
    encode_head,
)
from streamkit.connectors.sql.columns import RowType
from streamkit.connectors.sql.commits import Commit, CommitNumbers, other_run
from streamkit.connectors.sql.dialects import Dialect
from streamkit.connectors.sql.opening import session_for
from streamkit.connectors.sql.session import DatabaseBusy, Session
from streamkit.connectors.sql.sinks import SqlSink
from streamkit.connectors.sql.spool import Spool
from streamkit.connectors.sql.tables import Table
from streamkit.connectors.sql.worker import SessionWorker
from streamkit.connectors.sql.written import RowMaker, row_maker, table_of, untyped_row_maker
from streamkit.dataflow.contracts import AcknowledgedWriter, ConnectorEnv, Positions, Prepared
from streamkit.errors import StateInUse, StreamKitError
from streamkit.record import Chunk

T = TypeVar("T")
Publish = Callable[[], Awaitable[None]]

_PART: Final = "commit"
# Rows of a commit that are kept in memory too; the rest is read from the file.
_KEPT_BYTES_MAX: Final = 64 << 20
# A server needs a moment to notice that a run has ended, and to end its transaction.
_LOCKED_S_MAX: Final = 3.0
_LOCKED_PAUSE_S: Final = 0.1


class _Mark(msgspec.Struct, frozen=True):
    """The position of a sink: the number of its last commit, and the size of its file."""

    number: int
    size_bytes: int = 0


@dataclass(slots=True)
class _File:
    """The rows of the next commit. ``kept`` is None if they are only in the file."""

    number: int
    size_bytes: int = 0
    kept: list[Block] | None = field(default_factory=list)


class SqlWriter(AcknowledgedWriter):
    """Writes to one table."""

    def __init__(self, sink: SqlSink, rows: RowType | None, env: ConnectorEnv) -> None:
        self._sink = sink
        self._rows = rows
        self._clock = env.clock
        session = session_for(sink.database, creates=True)
        self._worker = SessionWorker(session, env.clock, env.note, f"sink {env.name}")
        self._spool = Spool(env.folder)
        self._numbers = CommitNumbers(env.app, env.name)
        self._dialect = session.dialect
        self._table: Table | None = None
        # For rows without a declared type, the first ones decide how rows are made.
        self._maker: RowMaker | None = None
        self._file = _File(0)
        # Given to the first commit, so that a run that ends early has the number to continue from.
        self._begun: Positions = {}
        self._number_in_transaction: int | None = None
        # The sinks of this run that have a transaction with a prepared commit in the database.
        self._begun_commits: dict[str, Publish] = env.shared.setdefault(
            ("sql", sink.database.url), {}
        )
        self._written = self._safe = 0
        self.description = f"{sink} (exactly once)"

    @property
    def unacknowledged(self) -> int:
        return self._written - self._safe

    async def open(self, committed: Positions) -> None:
        try:
            await self._open(committed)
        except BaseException:
            await self.close()
            raise

    async def _open(self, committed: Positions) -> None:
        self._begun_commits.pop(self._numbers.sink, None)
        found = await self._opened()
        mark = committed.get(_PART)
        number = found
        if mark is None:
            self._begun = {_PART: _encoded(_Mark(found))}
        else:
            number = await self._catch_up(msgspec.json.decode(mark, type=_Mark), found)
        await _in_thread(self._spool.remove_all)
        self._file = _File(number + 1)

    def on_chunk(self, chunk: Chunk) -> Chunk:
        if self._maker is None:
            assert self._table is not None, "open comes first"
            self._maker = untyped_row_maker(self._dialect, self._sink, self._table, chunk.values)
        return self._maker.on_chunk(chunk)

    async def write(self, chunk: Chunk) -> None:
        self._written += len(chunk)
        block = self._open_maker.block(chunk.values)
        await _in_thread(partial(self._append, self._file, block, encode_block(block)))

    def prepare_commit(self, *, is_last: bool) -> Prepared:
        file, written = self._file, self._written
        if not file.size_bytes:
            positions, self._begun = self._begun, {}
            return Prepared(_nothing_to_wait_for, positions)
        self._begun = {}
        self._file = _File(file.number + 1)
        commit = Commit(file.number, self._open_maker.head, partial(self._blocks, file))

        async def wait() -> None:
            await _in_thread(partial(self._spool.sync, file.number))
            await self._worker.repeat(partial(self._begin, commit))
            if self._number_in_transaction is not None:
                self._begun_commits[self._numbers.sink] = finish
            self._safe = written

        async def finish() -> None:
            await self._worker.repeat(partial(self._finish, commit))
            self._begun_commits.pop(self._numbers.sink, None)

        async def publish() -> None:
            # This sink may need locks that others hold until they publish too. The job has stored
            # its commit, which is that of all its sinks, so they may do so now.
            for finish_begun in list(self._begun_commits.values()):
                await finish_begun()
            await finish()
            await _in_thread(partial(self._spool.remove, file.number))

        mark = _Mark(file.number, file.size_bytes)
        return Prepared(wait, {_PART: _encoded(mark)}, publish)

    async def close(self) -> None:
        self._begun_commits.pop(self._numbers.sink, None)
        await self._worker.close()
        self._spool.close()

    @property
    def _open_maker(self) -> RowMaker:
        assert self._maker is not None, "open and on_chunk come first"
        return self._maker

    async def _opened(self) -> int:
        """Open the table, and return the number of the last commit that the database has.

        Raises:
            StateInUse: Another transaction keeps the lock of the sink.
        """
        end_s = self._clock.monotonic_s() + _LOCKED_S_MAX
        while True:
            try:
                return await self._worker.repeat(self._prepare, waits=False)
            except DatabaseBusy as error:
                if self._clock.monotonic_s() >= end_s:
                    raise StateInUse(
                        f"{self._sink} is locked by another transaction: {error}",
                        hint="end the other run of this job, or the program that holds the lock",
                    ) from error
                await self._clock.sleep(_LOCKED_PAUSE_S)

    async def _catch_up(self, mark: _Mark, found: int) -> int:
        """Write the last commit again if the database does not have it; return its number.

        Raises:
            StateMismatch: The database has not the commits of this run.
        """
        if mark.number == found + 1 and mark.size_bytes:
            await self._worker.repeat(partial(self._write_again, mark))
        elif mark.number != found:
            raise other_run(self._numbers, found, mark.number)
        return mark.number

    # --- in a thread ------------------------------------------------------------------

    def _prepare(self, session: Session) -> int:
        self._table = table_of(session, self._sink, self._rows)
        if self._rows is not None:
            self._maker = row_maker(session.dialect, self._sink, self._table, self._rows)
        return self._numbers.prepare(session)

    def _append(self, file: _File, block: Block, data: bytes) -> None:
        if not file.size_bytes:
            self._spool.append(file.number, encode_head(self._open_maker.head))
        file.size_bytes = self._spool.append(file.number, data)
        if file.kept is not None:
            file.kept.append(block)
            if file.size_bytes > _KEPT_BYTES_MAX:
                file.kept = None

    def _blocks(self, file: _File) -> Iterator[Block]:
        if file.kept is not None:
            return iter(file.kept)
        mark = _Mark(file.number, file.size_bytes)
        return self._stored_blocks(mark, self._dialect)

    def _stored_blocks(self, mark: _Mark, dialect: Dialect) -> Iterator[Block]:
        blocks = self._spool.blocks(mark.number, mark.size_bytes)
        return map(BlockDecoder(decode_head(next(blocks)), dialect).decode, blocks)

    def _begin(self, commit: Commit, session: Session) -> None:
        """Write the rows in a transaction that `_finish` commits.

        Another sink of this job may hold a lock until all sinks have come so far, so this does not
        wait for locks: then `_finish` writes the rows.
        """
        self._number_in_transaction = None
        try:
            is_new = commit.write(session, self._numbers, waits=False)
        except DatabaseBusy:
            session.rollback()
            return
        if not is_new:
            raise other_run(self._numbers, commit.number, commit.number - 1)
        self._number_in_transaction = commit.number

    def _finish(self, commit: Commit, session: Session) -> None:
        is_written = self._number_in_transaction == commit.number
        # If the commit fails, its outcome is not known: the next attempt begins again.
        self._number_in_transaction = None
        if (is_written and session.is_in_transaction) or commit.write(session, self._numbers):
            session.commit()

    def _write_again(self, mark: _Mark, session: Session) -> None:
        head = decode_head(next(self._spool.blocks(mark.number, mark.size_bytes)))
        blocks = partial(self._stored_blocks, mark, session.dialect)
        if Commit(mark.number, head, blocks).write(session, self._numbers):
            session.commit()


def _encoded(mark: _Mark) -> str:
    return msgspec.json.encode(mark).decode()


async def _nothing_to_wait_for() -> None:
    pass


async def _in_thread(call: Callable[[], T]) -> T:
    try:
        return await anyio.to_thread.run_sync(call)
    except OSError as error:
        raise StreamKitError(f"rows cannot be kept on disk: {error}") from error
