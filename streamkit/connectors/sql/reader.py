"""Reads a table or a query in rounds: each reads the rows up to the last one that has settled.

| step of a round | why |
|---|---|
| find the last row | the round ends there, so it ends also if rows are added all the time |
| wait for open transactions | they may still commit rows that come before the last one |
| read pages up to the last row | |
| wait for the time of ``every`` | or end, if the source ends |
"""

from __future__ import annotations

from collections import deque
from typing import Final

import anyio

from streamkit.connectors.sql.delays import newest
from streamkit.connectors.sql.opening import session_for
from streamkit.connectors.sql.pages import (
    Place,
    Position,
    differ_in_texts,
    named_rows,
    next_page_rows,
    refuse_unordered,
    two_at,
)
from streamkit.connectors.sql.parts import Part, committed_parts, new_parts
from streamkit.connectors.sql.plan import ReadPlan, query_plan, refuse_missing, table_plan
from streamkit.connectors.sql.positions import encode_position
from streamkit.connectors.sql.queries import Statement
from streamkit.connectors.sql.session import Range, Result, Session
from streamkit.connectors.sql.sources import SqlQuery, SqlTable
from streamkit.connectors.sql.worker import SessionWorker
from streamkit.dataflow.contracts import ConnectorEnv, Positions, SourceFacts, SourceReader
from streamkit.errors import DataError, shown
from streamkit.record import Chunk

# A row that is written all the time may change between two queries, but not for ever.
_LOOKS_MAX: Final = 100
_SETTLE_PAUSE_S_MIN: Final = 0.01
_SETTLE_PAUSE_S_MAX: Final = 0.5


class SqlReader(SourceReader):
    """Reads one source. A position is the place of a row and the number of rows until there."""

    def __init__(self, source: SqlTable | SqlQuery, env: ConnectorEnv) -> None:
        self._source = source
        self._clock = env.clock
        self._note = env.note
        self._name = f"source {env.name}"
        self._ends = env.until_end or source.every is None
        self._workers: list[SessionWorker] = []
        self._plan: ReadPlan | None = None
        self._parts: list[Part] = []
        # The parts of this round that are not read to its end, with the size of their next page.
        self._page_rows: dict[int, int] = {}
        # Those of which no page was read yet.
        self._new: set[int] = set()
        self._end: Place = ()
        self._chunks: deque[Chunk] = deque()
        self._ignored: frozenset[str] = frozenset()
        self._rounds = 0
        self._due_s = 0.0

    async def open(self, committed: Positions) -> SourceFacts:
        self._add_worker()
        self._plan = plan = await self._workers[0].repeat(self._make_plan)
        self._parts = committed_parts(plan.order, committed) or await self._new_parts()
        while len(self._workers) < len(self._parts):
            self._add_worker()
        for part in self._parts:
            if any(isinstance(value, str) for value in part.read.place):
                await self._rows_at(part.read.place)
        begun = sum(part.read.rows for part in self._parts)
        return SourceFacts(
            f"{self._source} in order of {', '.join(plan.order)}, "
            + (f"after {begun:,} rows" if begun else "from the beginning"),
            start_offsets={part.name: str(part.read) for part in self._parts},
        )

    async def next(self) -> Chunk | None:
        while not self._chunks:
            if self._page_rows:
                await self._read_pages()
            elif self._rounds and self._ends:
                return None
            else:
                await self._begin_round()
        return self._chunks.popleft()

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        (place,) = self._open_plan.pages.places(chunk.values[-1:])
        return self._parts[chunk.partition].name, str(Position(chunk.offsets[-1] + 1, place))

    async def close(self) -> None:
        for worker in self._workers:
            await worker.close()

    @property
    def _open_plan(self) -> ReadPlan:
        assert self._plan is not None, "open comes first"
        return self._plan

    def _add_worker(self) -> None:
        session = session_for(self._source.database, creates=False)
        self._workers.append(SessionWorker(session, self._clock, self._note, self._name))

    def _make_plan(self, session: Session) -> ReadPlan:
        if isinstance(self._source, SqlQuery):
            plan = query_plan(self._source, session.dialect)
            refuse_missing(self._source, plan, session.query(plan.selection.page(0)).names)
            return plan
        return table_plan(self._source, session.dialect, session.describe(self._source.table))

    async def _new_parts(self) -> list[Part]:
        plan, low, high = self._open_plan, None, None
        splits = self._source.splits if isinstance(self._source, SqlTable) else 1
        if splits > 1:
            ((low, high),) = (await self._query(plan.selection.key_range())).rows
        return new_parts(plan.order, splits, low, high)

    async def _begin_round(self) -> None:
        """Begin a round; if this is cancelled, the next call begins it again."""
        if self._rounds:
            await self._clock.sleep(self._due_s - self._clock.monotonic_s())
        every_s = self._source.every
        assert every_s is None or isinstance(every_s, float), "it was converted to seconds"
        due_s = self._clock.monotonic_s() + (every_s or 0.0)
        await self._refuse_nulls()
        if (end := await self._last_found()) is not None:
            await self._settle()
            self._end = end
            rows = next_page_rows((), self._source.batch_rows)
            self._page_rows = {part.number: rows for part in self._parts}
            self._new = set(self._page_rows)
        self._rounds += 1
        self._due_s = due_s

    async def _last_found(self) -> Place | None:
        """Return the place of the last row, which the queries of pages find there.

        Raises:
            DataError: They do not, so it would not be read; or there are several.
        """
        previous, place = "", await self._last()
        for _ in range(_LOOKS_MAX):
            if place is None:
                return None
            text = encode_position(place)
            if set(map(type, place)) == {int} or await self._rows_at(place):
                return place
            if text == previous:
                break
            # The row has changed since, or its values are others in each query.
            previous, place = text, await self._last()
        order = ", ".join(self._open_plan.order)
        raise DataError(
            f"{self._source} has a row with ({order}) = {shown(place)}, which the database does "
            "not find by these values, so it cannot be read in order",
            hint="use an SqlQuery that casts the column to a type that Python has, such as DOUBLE, "
            "DECIMAL or text; it must have the same values in each query",
        )

    async def _rows_at(self, place: Place) -> int:
        """Return how many rows are at a place.

        Raises:
            DataError: There are several, so the database takes different texts for equal ones.
        """
        count = len((await self._query(self._open_plan.selection.at(place))).rows)
        if count > 1:
            raise two_at(self._open_plan.order, place)
        return count

    async def _last(self) -> Place | None:
        """Return the place of the last row to read now; None if there is none."""
        selection, delay_s = self._open_plan.selection, self._source.delay
        assert isinstance(delay_s, float), "it was converted to seconds"
        found = (await self._query(selection.last())).rows
        if found and delay_s:
            now = await self._query(Statement(selection.dialect.now))
            bound = newest(found[0][0], now, delay_s, is_instant=self._open_plan.is_instant)
            found = (await self._query(selection.last(bound))).rows
        return tuple(found[0]) if found else None

    async def _refuse_nulls(self) -> None:
        """Refuse rows that have no place in the order, since no page would have them.

        Raises:
            DataError: There is such a row.
        """
        for column in self._open_plan.nullable:
            if (await self._query(self._open_plan.selection.null_in(column))).rows:
                raise DataError(
                    f"{self._source} has rows whose column {column!r} is NULL, so they have no "
                    "place in the order",
                    hint="fill the column, or leave these rows out with an SqlQuery",
                )

    async def _settle(self) -> None:
        """Wait until the transactions that are open now have ended, for a limited time."""
        limit_s = self._source.settle
        assert isinstance(limit_s, float), "it was converted to seconds"
        if limit_s == 0:
            return
        found = await self._open_transactions()
        self._ignored &= found
        waiting = found - self._ignored
        end_s, pause_s = self._clock.monotonic_s() + limit_s, _SETTLE_PAUSE_S_MIN
        while waiting and self._clock.monotonic_s() < end_s:
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, _SETTLE_PAUSE_S_MAX)
            waiting &= await self._open_transactions()
        if waiting:
            self._ignored |= waiting
            self._note(
                f"{self._name}: a transaction of the database is open for more than {limit_s:g} s, "
                "and is not waited for any more; if it commits rows that come before those read "
                "now, they are not read"
            )

    async def _open_transactions(self) -> frozenset[str]:
        found = await self._workers[0].repeat(lambda session: session.open_transactions())
        return found or frozenset()

    async def _read_pages(self) -> None:
        """Read the next page of each part at the same time."""
        parts = [self._parts[number] for number in self._page_rows]
        errors: list[Exception] = []

        async def read(part: Part) -> None:
            try:
                await self._read_page(part)
            except Exception as error:  # raised below, not as a group of errors
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            for part in parts:
                tasks.start_soon(read, part)
        if errors:
            raise errors[0]

    async def _read_page(self, part: Part) -> None:
        limit = self._page_rows[part.number]
        wanted = Range(
            self._open_plan.selection, part.begin(), part.end(self._end), part.number in self._new
        )
        page = await self._workers[part.number].repeat(lambda session: session.read(wanted, limit))
        self._new.discard(part.number)
        rows = named_rows(page.result)
        following = [] if page.following is None else [page.following]
        pages = self._open_plan.pages
        places = pages.places(rows)
        after = pages.places(named_rows(Result(page.result.names, following)))
        refuse_unordered(self._open_plan.order, part.read.place or None, [*places, *after])
        if after and differ_in_texts(places[-1], after[0]):
            await self._rows_at(places[-1])
        if page.is_last:
            del self._page_rows[part.number]
        else:
            self._page_rows[part.number] = next_page_rows(rows, self._source.batch_rows)
        if rows:
            first, now_ms = part.read.rows, self._clock.wall_ms()
            self._chunks += pages.chunks(rows, first, part.number, now_ms)
            part.read = Position(first + len(rows), places[-1])

    async def _query(self, statement: Statement) -> Result:
        return await self._workers[0].repeat(lambda session: session.query(statement))
