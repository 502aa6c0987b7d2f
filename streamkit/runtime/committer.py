"""Commits: one at a time, by interval while the job runs, and a last one when it stops.

| state | event | next |
|---|---|---|
| idle | the interval is over, between two rounds | prepared: each sink has drawn its line |
| prepared | every sink has acknowledged | storing |
| | a sink refuses | failed, and the job knows at once |
| storing | the store has it | idle |
| | the disk is full | storing, again after a pause |
| any but failed | stop | the one in progress is finished, then a last one is prepared |
| failed | | nothing is committed any more |

Nothing of a commit is cancelled and begun again: what a sink of the user's has begun, it finishes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio

from streamkit.dataflow.topology import Node
from streamkit.env import Clock
from streamkit.runtime.contracts import (
    AcknowledgedWriter,
    AtOnceWriter,
    SinkWriter,
    SourceReader,
)
from streamkit.runtime.positions import ChangedPositions
from streamkit.state.store import Changes, Store

# A commit that the disk refuses is tried again until the job is stopped.
_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Line:
    """A line after what has been done: what to await, and what to keep then."""

    waits: list[Callable[[], Awaitable[None]]]
    sources: Changes
    sinks: Changes


class Committer:
    """Commits the positions of one task.

    Args:
        store: Where they are kept.
        positions: What has changed.
        readers: Told what has been committed.
        writers: Awaited before.
        boundary: Free between two rounds.
        clock: Time.
        note: Told of trouble that passes.
    """

    def __init__(
        self,
        store: Store,
        positions: ChangedPositions,
        readers: Mapping[Node, SourceReader],
        writers: Mapping[Node, SinkWriter],
        boundary: anyio.Lock,
        clock: Clock,
        note: Callable[[str], None],
    ) -> None:
        self._store = store
        self._positions = positions
        self._readers = readers
        self._writers = writers
        self._boundary = boundary
        self._clock = clock
        self._note = note
        self._pause = anyio.CancelScope()
        self._is_ending = False
        self._has_ended = anyio.Event()
        self._failure: BaseException | None = None
        self._last: _Line | None = None
        self.on_failure: Callable[[BaseException], None] = lambda error: None
        self.commits = 0

    async def run(self, interval_s: float) -> None:
        """Commit now and then, until `finish` or a failure."""
        try:
            while not (self._is_ending or self._failure):
                with anyio.CancelScope() as self._pause:  # a scope is for one block alone
                    await self._clock.sleep(interval_s)
                if self._is_ending:
                    break
                await self._commit_once()
        finally:
            self._has_ended.set()

    async def finish(self) -> None:
        """Let the commit in progress end, then draw the last line and wait for the sinks.

        Raises:
            Exception: A sink refused something, now or before.
        """
        self._is_ending = True
        self._pause.cancel()
        await self._has_ended.wait()
        if self._failure is None:
            line = await self._draw_line(is_last=True)
            await self._wait_for_sinks(line)
            self._last = line
        if self._failure is not None:
            raise self._failure

    async def commit_last(self) -> None:
        """Keep what `finish` waited for."""
        assert self._last is not None, "the sinks were waited for"
        await self._keep(self._last)

    async def _commit_once(self) -> None:
        try:
            line = await self._draw_line(is_last=False)
            await self._wait_for_sinks(line)
            if self._failure is None:
                await self._keep(line)
        except Exception as error:  # whatever it is, nothing may be committed any more
            self._fail(error)

    async def _draw_line(self, *, is_last: bool) -> _Line:
        async with self._boundary:
            waits: list[Callable[[], Awaitable[None]]] = []
            sinks: Changes = {}
            for node, writer in self._writers.items():
                if isinstance(writer, AcknowledgedWriter):
                    prepared = writer.prepare_commit(is_last=is_last)
                    waits.append(prepared.wait)
                    if prepared.positions:
                        sinks[node.name] = dict(prepared.positions)
                elif isinstance(writer, AtOnceWriter):
                    waits.append(partial(writer.flush, is_last=is_last))
            return _Line(waits, self._positions.take(), sinks)

    async def _wait_for_sinks(self, line: _Line) -> None:
        """Await all sinks side by side; the first refusal is made known while others still work."""

        async def wait_for(wait: Callable[[], Awaitable[None]]) -> None:
            try:
                await wait()
            except Exception as error:
                self._fail(error)

        async with anyio.create_task_group() as tasks:
            for wait in line.waits:
                tasks.start_soon(wait_for, wait)

    async def _keep(self, line: _Line) -> None:
        if not (line.sources or line.sinks):
            return
        await self._store_changes(line)
        if not line.sources:
            return
        self.commits += 1
        for node, reader in self._readers.items():
            if node.name in line.sources:
                await reader.committed(line.sources[node.name])

    async def _store_changes(self, line: _Line) -> None:
        while True:
            try:
                # A thread cannot be cancelled: whoever waits for it must know that it is done.
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._store.commit, line.sources, line.sinks)
                return
            except sqlite3.OperationalError as error:
                self._note(f"the commit waits: {error} ({self._store.path}); it is tried again")
                await self._clock.sleep(_RETRY_S)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            self.on_failure(error)
