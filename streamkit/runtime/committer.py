"""Commits: one at a time, at an interval while the job runs, and a last one when it stops.

| state | event | next |
|---|---|---|
| idle | the interval is over, between two rounds | prepared: each sink has prepared the commit |
| prepared | every sink has acknowledged | storing |
| | a sink fails | failed, and the job is notified immediately |
| storing | the store has committed | stored |
| | the disk is full | storing, retried after a pause |
| stored | every sink has published what it wrote | idle |
| | a sink fails | failed; the next run publishes it |
| any except failed | stop | the commit in progress finishes, then the last one is prepared |
| failed | | no further commits |

A commit is never cancelled and restarted: a flush of a user's sink that has begun is finished.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio

from streamkit.dataflow.contracts import (
    AcknowledgedWriter,
    AtOnceWriter,
    SinkWriter,
    SourceReader,
)
from streamkit.dataflow.topology import Node
from streamkit.env import Clock
from streamkit.errors import NotFlushed
from streamkit.runtime.positions import ChangedPositions
from streamkit.runtime.runner import Runner
from streamkit.runtime.task import Task
from streamkit.state.change_log import StateChange
from streamkit.state.store import Changes, Store

# The pause before a failed write to the disk is retried. Retries end when the job is stopped.
_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _PreparedCommit:
    """A commit in progress: what to wait for, the positions to store, and what to publish then."""

    waits: list[Callable[[], Awaitable[None]]]
    sources: Changes
    sinks: Changes
    states: list[StateChange]
    publishes: list[Callable[[], Awaitable[None]]]


class Committer:
    """Commits the positions of one task.

    Args:
        store: Where positions are stored.
        positions: The positions changed since the last commit.
        readers: The sources; `committed` is called after each commit.
        writers: The sinks; a commit waits for them.
        runner: Its boundary lock is free between two rounds.
        clock: Source of time.
        note: Called with messages about errors that are retried.
        task: The values that stages keep by key, and the records that wait in them.
    """

    def __init__(
        self,
        store: Store,
        positions: ChangedPositions,
        readers: Mapping[Node, SourceReader],
        writers: Mapping[Node, SinkWriter],
        runner: Runner,
        clock: Clock,
        note: Callable[[str], None],
        task: Task,
    ) -> None:
        self._store = store
        self._task = task
        self._runner = runner
        self._waits_noted: set[Node] = set()
        self._positions = positions
        self._readers = readers
        self._writers = writers
        self._clock = clock
        self._note = note
        self._pause = anyio.CancelScope()
        self._is_ending = False
        self._has_ended = anyio.Event()
        self._failure: BaseException | None = None
        self._last: _PreparedCommit | None = None
        self.on_failure: Callable[[BaseException], None] = lambda error: None
        self.commits = 0

    async def run(self, interval_s: float) -> None:
        """Commit at the interval, until `finish` or a failure."""
        try:
            while not (self._is_ending or self._failure):
                with anyio.CancelScope() as self._pause:  # a scope can be entered only once
                    await self._clock.sleep(interval_s)
                if self._is_ending:
                    break
                await self._commit_once()
        finally:
            self._has_ended.set()

    async def finish(self) -> None:
        """Wait for the commit in progress, then prepare the last one and wait for the sinks.

        Raises:
            Exception: A sink failed, now or before.
        """
        self._is_ending = True
        self._pause.cancel()
        await self._has_ended.wait()
        if self._failure is None:
            prepared = await self._prepare(is_last=True)
            assert prepared is not None, "only a commit that is not the last one is left out"
            await self._wait_for_sinks(prepared)
            self._last = prepared
        if self._failure is not None:
            raise self._failure

    async def commit_last(self) -> None:
        """Store the positions of the commit that `finish` has prepared."""
        assert self._last is not None, "finish has prepared the last commit"
        await self._store_prepared(self._last)

    async def _commit_once(self) -> None:
        try:
            prepared = await self._prepare(is_last=False)
            if prepared is None:
                return
            await self._wait_for_sinks(prepared)
            if self._failure is None:
                await self._store_prepared(prepared)
        except Exception as error:  # after any failure, nothing may be committed
            self._fail(error)

    async def _prepare(self, *, is_last: bool) -> _PreparedCommit | None:
        """Prepare a commit between two rounds; None if the job ends, and the last one follows.

        Raises:
            NotFlushed: Records wait in a stage that cannot be stored, and no run is left for them.
        """
        with ExitStack() as stack:
            while True:
                async with self._runner.boundary:
                    problem = self._task.pending.problem()
                    if problem is None:
                        return self._prepared(is_last=is_last)
                node, text = problem
                if is_last:
                    raise NotFlushed(
                        f"{len(self._task.pending.by_node[node])} records wait in the stage "
                        f"{node.name!r} and cannot be stored: {text}; nothing of them is committed",
                        hint="the next run reads them again",
                    )
                if self._runner.has_ended:
                    return None
                self._note_wait(node, text)
                stack.enter_context(self._runner.paused())
                await self._runner.released.wait()

    def _note_wait(self, node: Node, text: str) -> None:
        if node not in self._waits_noted:
            self._waits_noted.add(node)
            self._note(
                f"each commit waits for the calls of the stage {node.name!r}, because {text}"
            )

    def _prepared(self, *, is_last: bool) -> _PreparedCommit:
        self._task.check_counts()
        waits: list[Callable[[], Awaitable[None]]] = []
        publishes: list[Callable[[], Awaitable[None]]] = []
        sinks: Changes = {}
        for node, writer in self._writers.items():
            if isinstance(writer, AcknowledgedWriter):
                part = writer.prepare_commit(is_last=is_last)
                waits.append(part.wait)
                if part.positions:
                    sinks[node.name] = dict(part.positions)
                if part.publish is not None:
                    publishes.append(part.publish)
            elif isinstance(writer, AtOnceWriter):
                waits.append(partial(writer.flush, is_last=is_last))
        for node, reader in self._readers.items():
            for key, position in reader.skipped_positions().items():
                self._positions.note(node.name, key, position)
        states = self._task.states.prepare()
        return _PreparedCommit(waits, self._positions.take(), sinks, states, publishes)

    async def _wait_for_sinks(self, prepared: _PreparedCommit) -> None:
        """Wait for all sinks concurrently; report the first failure while others still work."""

        async def wait_for(wait: Callable[[], Awaitable[None]]) -> None:
            try:
                await wait()
            except Exception as error:
                self._fail(error)

        async with anyio.create_task_group() as tasks:
            for wait in prepared.waits:
                tasks.start_soon(wait_for, wait)

    async def _store_prepared(self, prepared: _PreparedCommit) -> None:
        if prepared.sources or prepared.sinks or prepared.states:
            await self._store_changes(prepared)
            self.commits += 1
        for publish in prepared.publishes:
            await publish()
        for node, reader in self._readers.items():
            if node.name in prepared.sources:
                await reader.committed(prepared.sources[node.name])

    async def _store_changes(self, prepared: _PreparedCommit) -> None:
        while True:
            try:
                # A thread cannot be cancelled, so this waits until the commit has ended.
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(
                        self._store.commit, prepared.sources, prepared.sinks, prepared.states
                    )
                return
            except sqlite3.OperationalError as error:
                self._note(f"the commit failed and is retried: {error} ({self._store.path})")
                await self._clock.sleep(_RETRY_S)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            self.on_failure(error)
