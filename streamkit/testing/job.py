"""Runs a graph in memory with the engine's own task and delivery, without a broker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, TypeVar, overload

from streamkit.dataflow.decorated_function import Sink
from streamkit.dataflow.endpoints import (
    FileTable,
    FunctionSource,
    TopicSource,
)
from streamkit.dataflow.event_time import time_ms
from streamkit.dataflow.join_stream import Table
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.topology import Node, Topology
from streamkit.env import SystemClock
from streamkit.errors import NotFlushed, UsageError
from streamkit.record import Chunk, Record
from streamkit.runtime.called_sinks import CalledWriter, called_functions, own_writer
from streamkit.runtime.contracts import AtOnceWriter, SinkWriter
from streamkit.runtime.delivery import Delivery
from streamkit.runtime.file_table_reader import chunks_of
from streamkit.runtime.function_source import FunctionReader
from streamkit.runtime.isolation import ValueCopy
from streamkit.runtime.letters import JobFacts
from streamkit.runtime.task import Task
from streamkit.runtime.task_env import TaskEnv
from streamkit.runtime.work import Work
from streamkit.serde.values import encode_as, encode_key
from streamkit.state.states import States
from streamkit.state.store import Store
from streamkit.testing.finding import kept_value, nodes_of, source_of
from streamkit.testing.loop import Loop
from streamkit.testing.pending_work import NewLifespan, PendingWork
from streamkit.testing.settings import TestSettings

T = TypeVar("T")
_START_MS = 1_356_998_400_000


class TestJob:
    """Returned by `App.test`. Records go through the same stages as in a run, immediately.

    Sinks that are functions or classes are really called: opened when the block begins, written
    to by `send` and `read`, flushed by `commit`, flushed and closed when the block ends. Records
    for topics and connectors are kept in memory, for `output` and `records`.
    """

    __test__ = False  # pytest would collect the class because of its name

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
        self._pending = PendingWork(self._env, called_functions(self._writers))
        self._next_offset: dict[tuple[Node, int], int] = {}
        self._positions: dict[Node, dict[str, str]] = {}
        self._loop = Loop()
        self._is_open = False

    def __enter__(self) -> TestJob:
        try:
            self._open()
        except BaseException:
            self._settings.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._flush(is_last=True)
        finally:
            self.close()

    def close(self) -> None:
        """Close the sinks; the end of the block does it too."""
        was_open, self._is_open = self._is_open, False
        self._settings.begin()
        try:
            if was_open:
                self._loop.run(self._pending.close_calls())
                for writer in self._writers.values():
                    self._loop.run(writer.close())
                self._loop.run(self._pending.leave())
        finally:
            self._loop.close()
            self._settings.end()
            if self._store is not None and self._folder is not None:
                self._store.close()
                self._folder.cleanup()
                self._store = None

    def send(
        self, source: Stream[Any] | Table[Any] | str, *values: Any, partition: int = 0
    ) -> None:
        """Send values to a partition of a source, given by its stream or its topic.

        Values are encoded as a topic stores them, then decoded with the format of the source. A
        `Record` has its own key and timestamp.

        Raises:
            StageError: A stage with ``on_error="fail"`` failed; nothing of this call is kept. Or a
                sink failed; it was called with the records before the failed one.
            UsageError: The graph has no such source.
        """
        node = source_of(self._topology, source)
        records = [each if isinstance(each, Record) else Record(each) for each in values]
        is_topic = isinstance(node.endpoint, TopicSource)
        first = self._next_offset.get((node, partition), 0)
        self._next_offset[node, partition] = first + len(records)
        chunk = Chunk(
            [
                encode_as(each.value, node.input_type, node.endpoint.format)
                if is_topic
                else each.value
                for each in records
            ],
            [encode_key(each.key) for each in records],
            [self._now_ms if each.timestamp_ms < 0 else each.timestamp_ms for each in records],
            range(first, first + len(records)),
            node.endpoint.topic if is_topic else node.name,
            partition,
        )
        self._process(lambda: self._task.process(node, chunk))

    def read(self, source: Stream[Any], limit: int | None = None) -> int:
        """Run a generator source, and process the values it yields.

        It resumes after the last value that was read, as after a commit, and is closed at the end.

        Args:
            source: The decorated generator.
            limit: How many values to read; by default all of them.

        Returns:
            How many values were read.

        Raises:
            StageError: The generator, a stage or a sink failed.
            UsageError: The source is not a generator.
        """
        node = source.node
        if not isinstance(node.endpoint, FunctionSource):
            raise UsageError(f"{node.name!r} is not a generator source", hint="use send for topics")
        self._settings.begin()
        chunks = self._loop.run(self._read(node, node.endpoint, limit))
        for chunk in chunks:
            self._process(lambda chunk=chunk: self._task.process(node, chunk))  # type: ignore[misc]
        return sum(map(len, chunks))

    def commit(self) -> None:
        """Flush the sinks that are functions or classes, as a commit does.

        Raises:
            StreamKitError: A sink could not be flushed.
        """
        self._flush(is_last=False)
        problem = self._task.pending.problem()
        if problem is not None:
            node, text = problem
            raise NotFlushed(f"records wait in {node.name!r} that cannot be stored: {text}")
        self._opened_store().commit({}, {}, self._task.states.prepare())

    def restart(self) -> None:
        """Commit, then continue with a new task that has only what was committed.

        Raises:
            StreamKitError: A sink could not be flushed, or a state could not be read again.
        """
        self.commit()
        store = self._opened_store()
        self._loop.run(self._pending.close_calls())
        self._task = self._new_task(States(store.state_rows, store.state_types()))
        self._delivery = Delivery(self._writers, self._clock.monotonic_s, self._task)
        self._load_tables()
        self._run_calls()

    def state(self, stage: Stream[Any] | Table[Any] | str, key: Any) -> Any:
        """Return what a stage keeps for a key; None if it keeps nothing.

        Args:
            stage: The stage, or its name.
            key: As `key_by` returns it.

        Raises:
            UsageError: The stage keeps no state.
        """
        return kept_value(self._task.states, stage, key)

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

    def _opened_store(self) -> Store:
        if self._store is None:
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

    def _run_calls(self) -> None:
        """Make the calls of stages, and process their results, until only retries are left."""
        task = self._task
        while task.pending and (releases := self._loop.run(self._pending.ready(task))):
            for release in releases:
                self._finish(task.resume(release))

    async def _read(self, node: Node, source: FunctionSource, limit: int | None) -> list[Chunk]:
        reader = FunctionReader(node.name, source, self._clock)
        found: list[Chunk] = []
        remaining = limit
        try:
            await reader.open(self._positions.get(node, {}))
            while remaining != 0 and (chunk := await reader.next()) is not None:
                part = chunk if remaining is None else chunk.slice(0, remaining)
                remaining = None if remaining is None else remaining - len(part)
                found.append(part)
                key, position = reader.position_after(part)
                self._positions[node] = {key: position}
        finally:
            await reader.close()
        return found

    def _process(self, make: Callable[[], Work | None]) -> None:
        self._open()
        kept = {each: list(chunks) for each, chunks in self._given.items()}
        work = make()
        if work is not None:
            self._finish(work, kept)
        self._run_calls()

    def _finish(self, work: Work, kept: dict[Node, list[Chunk]] | None = None) -> None:
        if work.failure is not None:
            self._given = kept or self._given
            self._task.settle(work, work.counted_to)
            raise work.failure
        if self._writers and len(work.part):
            self._loop.run(self._deliver(work))
        self._task.account(work, work.end)
        self._task.settle(work, work.end)

    async def _deliver(self, work: Work) -> None:
        reached = work.part.offsets[0]
        for output in work.outputs if self._is_isolated else ():
            if output.sink in self._writers:  # a copy, so a sink cannot change another's values
                output.chunk = ValueCopy(output.chunk).copy
        while reached < work.end:
            reached = await self._delivery.round(work, reached)
        if work.failure is not None:
            self._task.account(work, reached)
            self._task.settle(work, reached)
            raise work.failure

    @overload
    def output(self, stream: Stream[T]) -> list[T]: ...
    @overload
    def output(self, stream: Sink[..., Any] | str) -> list[Any]: ...
    def output(self, stream: Stream[Any] | Sink[..., Any] | str) -> list[Any]:
        """Return the values that a stage has produced so far, or that a topic has received."""
        return [record.value for record in self.records(stream)]

    @overload
    def records(self, stream: Stream[T]) -> list[Record[T]]: ...
    @overload
    def records(self, stream: Sink[..., Any] | str) -> list[Record[Any]]: ...
    def records(self, stream: Stream[Any] | Sink[..., Any] | str) -> list[Record[Any]]:
        """Return whole records; those of a topic have the bytes that would be stored."""
        return [
            record
            for node in nodes_of(self._topology, stream)
            for chunk in chunks_given(self._given, node)
            for record in chunk.records()
        ]

    def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0) -> None:
        """Move the clock, which no test waits for.

        It gives timestamps to values without one. A partition without records for the time
        ``idle`` of its source becomes quiet, so windows may close.

        Raises:
            StageError: A result that became complete failed.
        """
        seconds += 60 * minutes + 3_600 * hours
        self._now_ms += round(seconds * 1_000)
        if self._task.time is not None:
            self._task.time.elapse(seconds)
        self._process(self._task.tick)

    def watermark(
        self, source: Stream[Any] | Table[Any] | str, time: datetime | int, *, partition: int = 0
    ) -> None:
        """Set the watermark of a partition: what waits for this time becomes complete.

        Args:
            source: The source, given by its stream or its topic.
            time: A datetime with a time zone, or ms since 1970.
            partition: The partition.

        Raises:
            StageError: A result that became complete failed.
            UsageError: No stage waits for the watermark of the source.
        """
        node = source_of(self._topology, source)
        times = self._task.time
        if times is None or not times.is_used(node):
            raise UsageError(f"no stage waits for the watermark of {node.name!r}")
        times.set_partition(node, partition, time_ms(time))
        self._process(self._task.tick)

    def drain(self) -> None:
        """Complete all that waits for the watermark, as the end of a run with ``--drain`` does.

        Raises:
            StageError: A result failed.
        """
        self._process(self._task.drain)


def chunks_given(given: dict[Node, list[Chunk]], node: Node) -> list[Chunk]:
    """Return what a node has given.

    Raises:
        UsageError: The test does not know the node.
    """
    if node not in given:
        raise UsageError(
            f"{node.name!r} was added to the app after app.test()",
            hint="use .late and other methods that add stages before it",
        )
    return given[node]


def _own_writers(topology: Topology, clock: SystemClock) -> dict[Node, SinkWriter]:
    """Create the writers of sinks that are functions or classes; connectors are left out."""
    sinks = topology.of_kind("sink")
    writers = {node: own_writer(node, clock) for node in sinks}
    return {node: writer for node, writer in writers.items() if writer is not None}
