"""Writes rows to a table, each exactly once.

The rows and the number of a commit are written when the job prepares its own commit, in a
transaction that is committed after it; see `TransactionalWriter`. So a row that the database
refuses is usually found before the job has committed it. If another transaction holds a lock, the
rows are written after it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Final

from streamkit.connectors.sql.blocks import (
    Block,
    BlockDecoder,
    decode_head,
    encode_block,
    encode_head,
)
from streamkit.connectors.sql.columns import RowType
from streamkit.connectors.sql.commits import Commit, CommitNumbers
from streamkit.connectors.sql.dialects import Dialect
from streamkit.connectors.sql.opening import session_for
from streamkit.connectors.sql.session import DatabaseBusy, Session
from streamkit.connectors.sql.sinks import SqlSink
from streamkit.connectors.sql.tables import Table
from streamkit.connectors.sql.worker import SessionWorker
from streamkit.connectors.sql.written import RowMaker, row_maker, table_of, untyped_row_maker
from streamkit.connectors.transactional import StoredCommit, TransactionalWriter
from streamkit.dataflow.contracts import ConnectorEnv
from streamkit.errors import StateInUse
from streamkit.record import Chunk

Finish = Callable[[], Awaitable[None]]

# A server needs a moment to notice that a run has ended, and to end its transaction.
_LOCKED_S_MAX: Final = 3.0
_LOCKED_PAUSE_S: Final = 0.1


class SqlWriter(TransactionalWriter[Block]):
    """Writes to one table."""

    def __init__(self, sink: SqlSink, rows: RowType | None, env: ConnectorEnv) -> None:
        super().__init__(env, str(sink))
        self._sink = sink
        self.doubles_rows = sink.mode == "insert"
        self._rows = rows
        self._clock = env.clock
        session = session_for(sink.database, creates=True)
        self._worker = SessionWorker(session, env.clock, env.note, f"sink {env.name}")
        self._numbers = CommitNumbers(env.app, env.name)
        self._dialect: Dialect = session.dialect
        self._table: Table | None = None
        # For rows without a declared type, the first ones decide how rows are made.
        self._maker: RowMaker | None = None
        self._number_in_transaction: int | None = None
        # The sinks of this run that have a transaction with a prepared commit in the database.
        self._begun_commits: dict[str, Finish] = env.shared.setdefault(
            ("sql", sink.database.url), {}
        )

    # --- the database -----------------------------------------------------------------

    async def connect(self) -> int:
        """Open the table, and return the number of the last commit that the database has.

        Raises:
            StateInUse: Another transaction keeps the lock of the sink.
        """
        self._begun_commits.pop(self._numbers.sink, None)
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

    async def begin(self, commit: StoredCommit[Block]) -> None:
        await self._worker.repeat(partial(self._begin, _commit_of(commit)))
        if self._number_in_transaction is not None:
            self._begun_commits[self._numbers.sink] = partial(self._finished, commit)

    async def publish(self, commit: StoredCommit[Block]) -> None:
        # This sink may need locks that others hold until they publish too. The job has stored its
        # commit, which is that of all its sinks, so they may do so now.
        for finish_begun in list(self._begun_commits.values()):
            await finish_begun()
        await self._finished(commit)

    async def disconnect(self) -> None:
        self._begun_commits.pop(self._numbers.sink, None)
        await self._worker.close()

    async def _finished(self, commit: StoredCommit[Block]) -> None:
        await self._worker.repeat(partial(self._finish, _commit_of(commit)))
        self._begun_commits.pop(self._numbers.sink, None)

    # --- the rows ---------------------------------------------------------------------

    def on_chunk(self, chunk: Chunk) -> Chunk:
        if self._maker is None:
            assert self._table is not None, "open comes first"
            self._maker = untyped_row_maker(self._dialect, self._sink, self._table, chunk.values)
        return self._maker.on_chunk(chunk)

    def start(self) -> bytes:
        return encode_head(self._open_maker.head)

    def block(self, chunk: Chunk) -> Block:
        return self._open_maker.block(chunk.values)

    def packed(self, block: Block) -> bytes:
        return encode_block(block)

    def unpacked(self, start: bytes, stored: Iterator[bytes]) -> Iterator[Block]:
        return map(BlockDecoder(decode_head(start), self._dialect).decode, stored)

    @property
    def _open_maker(self) -> RowMaker:
        assert self._maker is not None, "open and on_chunk come first"
        return self._maker

    # --- in the thread of the session -------------------------------------------------

    def _prepare(self, session: Session) -> int:
        self._table = table_of(session, self._sink, self._rows)
        if self._rows is not None:
            self._maker = row_maker(session.dialect, self._sink, self._table, self._rows)
        return self._numbers.prepare(session)

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
            raise self.other_run(commit.number, commit.number - 1)
        self._number_in_transaction = commit.number

    def _finish(self, commit: Commit, session: Session) -> None:
        is_written = self._number_in_transaction == commit.number
        # If the commit fails, its outcome is not known: the next attempt begins again.
        self._number_in_transaction = None
        if (is_written and session.is_in_transaction) or commit.write(session, self._numbers):
            session.commit()


def _commit_of(commit: StoredCommit[Block]) -> Commit:
    return Commit(commit.number, decode_head(commit.start), commit.blocks)
