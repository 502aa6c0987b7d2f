"""Runs a graph in memory: the task, its sinks and calls, and what all nodes have given."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

from streamkit.dataflow.contracts import AtOnceWriter, ConnectorEnv, SinkWriter
from streamkit.dataflow.endpoints import (
    FileTable,
)
from streamkit.dataflow.lookup_tables import RowLookup
from streamkit.dataflow.topology import Node, Topology
from streamkit.env import SystemClock
from streamkit.errors import StageError
from streamkit.record import Chunk, Value
from streamkit.runtime.called_sinks import CalledWriter, called_functions, own_writer
from streamkit.runtime.delivery import Delivery
from streamkit.runtime.file_table_reader import chunks_of
from streamkit.runtime.isolation import ValueCopy
from streamkit.runtime.letters import JobFacts
from streamkit.runtime.pending_queue import PendingQueue
from streamkit.runtime.task import Task
from streamkit.runtime.task_env import TaskEnv
from streamkit.runtime.work import Work
from streamkit.state.pending import PendingRecord
from streamkit.state.states import States
from streamkit.state.store import Store
from streamkit.testing.given_rows import GivenRows
from streamkit.testing.loop import Loop
from streamkit.testing.pending_work import NewLifespan, PendingWork
from streamkit.testing.settings import TestSettings

_START_MS = 1_356_998_400_000


class JobInMemory:
    """One run of a graph in memory, as `TestJob` drives it.

    Args:
        topology: The graph.
        settings: The values of the app's own settings.
        isolated: See `App.test`.
        job: Which job writes dead letters.
        lifespan: Opens the lifespan of the app.
    """

    _is_open = False

    def __init__(
        self,
        topology: Topology,
        settings: TestSettings,
        *,
        isolated: bool = False,
        job: JobFacts | None = None,
        lifespan: NewLifespan | None = None,
    ) -> None:
        self._topology = topology
        self._settings = settings
        self._new_lifespan = lifespan
        self._env = TaskEnv(job or JobFacts(), lambda: self._now_ms / 1_000, lambda: self._now_ms)
        self._given: dict[Node, list[Chunk]] = {node: [] for node in topology.nodes}
        self._clock = SystemClock()
        self._is_isolated = isolated
        self._folder: TemporaryDirectory[str] | None = None
        self._store: Store | None = None
        self._now_ms = _START_MS
        self._task = self._new_task(States())
        self._writers = _own_writers(topology, self._clock)
        self._delivery = Delivery(self._writers, self._clock.monotonic_s, self._task)
        self._lookups = {
            node: GivenRows(node.name, node.endpoint)
            for node in topology.of_kind("stage")
            if isinstance(node.endpoint, RowLookup)
        }
        self._pending = PendingWork(self._env, self._functions())
        self._next_offset: dict[tuple[Node, int], int] = {}
        self._positions: dict[Node, dict[str, str]] = {}
        self._loop = Loop()
        # Records that failed in calls or retries. They stay stored for the next run; this run
        # continues without them.
        self._failed: list[tuple[PendingQueue, list[PendingRecord]]] = []
        self._is_open = False
        self._opened: list[SinkWriter] = []

    def close(self) -> None:
        """Close the sinks; the end of the block does it too."""
        was_open, self._is_open = self._is_open, False
        opened, self._opened = self._opened, []
        self._settings.begin()
        try:
            if was_open:
                self._loop.run(self._pending.close_calls())
                for writer in opened:
                    self._loop.run(writer.close())
                self._loop.run(self._pending.leave())
        finally:
            self._loop.close()
            self._settings.end()
            if self._store is not None:
                self._store.close()
                self._store = None
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def _functions(self) -> dict[Node, Callable[..., Value]]:
        looked_up = {node: rows.call for node, rows in self._lookups.items()}
        return {**called_functions(self._writers), **looked_up}

    def _new_task(self, states: States) -> Task:
        task = Task(
            self._topology,
            states=states,
            is_isolated=self._is_isolated,
            env=self._env,
        )
        task.on_result = lambda node, chunk: self._given.setdefault(node, []).append(chunk)
        if task.time is not None:
            sources = self._topology.of_kind("source")
            task.time.ended = {each for each in sources if isinstance(each.endpoint, FileTable)}
        return task

    def _connector_env(self, node: Node) -> ConnectorEnv:
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="streamkit-test-")
        folder = Path(self._folder.name) / "connectors" / node.name
        # Only sources are opened here.
        return ConnectorEnv(
            node.name, "test", folder, self._clock, until_end=True, kind=node.input_type
        )

    def _opened_store(self) -> Store:
        if self._store is None:
            if self._folder is None:
                self._folder = TemporaryDirectory(prefix="streamkit-test-")
            self._store = Store(Path(self._folder.name) / "main.sqlite")
            self._store.open(app="test", cluster="test")
        return self._store

    def _open(self) -> None:
        self._settings.begin()
        if self._is_open:
            return
        self._is_open = True
        if self._new_lifespan is not None:
            self._env.lifespan.value = self._loop.run(self._pending.enter(self._new_lifespan))
        self._load_tables()
        for writer in self._writers.values():
            self._loop.run(writer.open({}))
            self._opened.append(writer)

    def _load_tables(self) -> None:
        for node in self._topology.of_kind("source"):
            if isinstance(node.endpoint, FileTable):
                rows = node.endpoint.rows(node.value_type)
                for chunk in chunks_of(node.name, rows, self._now_ms):
                    self._process(lambda chunk=chunk, node=node: self._task.process(node, chunk))  # type: ignore[misc]

    def _flush(self, *, is_last: bool) -> None:
        self._settings.begin()
        for writer in self._writers.values():
            if isinstance(writer, CalledWriter | AtOnceWriter):
                self._loop.run(writer.flush(is_last=is_last))

    def _run_calls(self) -> bool:
        """Make the calls of stages, and process their results, until only retries are left.

        Returns:
            Whether there were results.
        """
        task = self._task
        has_results = False
        while task.pending and (releases := self._loop.run(self._pending.ready(task))):
            has_results = True
            for at, release in enumerate(releases):
                work = task.resume(release)
                try:
                    self._finish(work)
                except StageError as error:
                    if error is work.failure:
                        self._keep_failed(release.node)
                    for rest in releases[at + 1 :]:
                        task.pending.by_node[rest.node].give_back(rest.records)
                    raise
            completed = task.tick()  # what no longer waits for these records
            if completed is not None:
                self._finish(completed)
        return has_results

    def _keep_failed(self, node: Node) -> None:
        """Keep the record that has just failed, and others of its call; they are next again."""
        queue = self._task.pending.by_node[node]
        first, *rest = queue.take(len(queue))
        others = list(
            takewhile(lambda each: first.error is not None and each.error is first.error, rest)
        )
        queue.give_back(rest[len(others) :])
        self._failed.append((queue, [first, *others]))

    def _process(self, make: Callable[[], Work | None]) -> bool:
        """Process a slice, then what calls have made of it; return whether there were calls."""
        self._open()
        failed, self._failed = self._failed, []
        for queue, records in failed:
            queue.pass_over(records)
        kept = {each: list(chunks) for each, chunks in self._given.items()}
        work = make()
        if work is not None:
            self._finish(work, kept)
        return self._run_calls()

    def _finish(self, work: Work, kept: dict[Node, list[Chunk]] | None = None) -> None:
        if work.failure is not None and work.node is None:
            self._given = kept or self._given
            self._task.settle(work, work.counted_to)
            raise work.failure
        reached = work.end
        if self._writers and len(work.part):
            reached = self._loop.run(self._delivered(work))
        self._task.account(work, reached)
        self._task.settle(work, reached)
        if work.failure is not None:
            raise work.failure

    async def _delivered(self, work: Work) -> int:
        """Write the outputs to the sinks; return the offset that was reached."""
        reached = work.part.offsets[0]
        for output in work.outputs if self._is_isolated else ():
            if output.sink in self._writers:  # a copy, so a sink cannot change another's values
                output.chunk = ValueCopy(output.chunk).copy
        while reached < work.end:
            reached = await self._delivery.round(work, reached)
        return reached


def _own_writers(topology: Topology, clock: SystemClock) -> dict[Node, SinkWriter]:
    """Create the writers of sinks that are functions or classes; connectors are left out."""
    sinks = topology.of_kind("sink")
    writers = {node: own_writer(node, clock) for node in sinks}
    return {node: writer for node, writer in writers.items() if writer is not None}
