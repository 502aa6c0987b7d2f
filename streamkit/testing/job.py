"""Runs a graph in memory with the engine's own task and delivery, without a broker."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar, overload

from streamkit.dataflow.contracts import Source, SourceReader
from streamkit.dataflow.decorated_function import Sink
from streamkit.dataflow.endpoints import (
    FunctionSource,
    TopicSource,
)
from streamkit.dataflow.event_time import time_ms
from streamkit.dataflow.join_stream import Table
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.topology import Node
from streamkit.errors import NotFlushed, UsageError
from streamkit.record import Chunk, Record
from streamkit.runtime.delivery import Delivery
from streamkit.runtime.function_source import FunctionReader
from streamkit.serde.keys import encode_key
from streamkit.state.states import States
from streamkit.testing.finding import kept_value, nodes_of, row_of, source_of
from streamkit.testing.memory import JobInMemory

T = TypeVar("T")
_START_MS = 1_356_998_400_000


class TestJob(JobInMemory):
    """Returned by `App.test`. Records go through the same stages as in a run, immediately.

    Sinks that are functions or classes are really called: opened when the block begins, written
    to by `send` and `read`, flushed by `commit`, flushed and closed when the block ends. Records
    for topics and connectors are kept in memory, for `output` and `records`.
    """

    __test__ = False  # pytest would collect the class because of its name

    def __enter__(self) -> TestJob:
        try:
            self._open()
        except BaseException as error:
            try:
                self.close()
            except Exception as failure:
                error.add_note(f"closing the sinks failed too: {failure!r}")
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

    def send(
        self, source: Stream[Any] | Table[Any] | str, *values: Any, partition: int = 0
    ) -> None:
        """Send values to a partition of a source, given by its stream or its topic.

        Values are encoded as a topic stores them, then decoded with the format of the source. A
        `Record` has its own key and timestamp.

        Raises:
            StageError: A stage with ``on_error="fail"`` failed; nothing of this call is kept. If
                the stage makes calls or has retries, what has failed is tried again after
                `restart`, as by the next run; other records go on with the next call. Or a sink
                failed; it was called with the records before the failed one.
            UsageError: The graph has no such source.
        """
        node = source_of(self._topology, source)
        records = [each if isinstance(each, Record) else Record(each) for each in values]
        is_topic = isinstance(node.endpoint, TopicSource)
        first = self._next_offset.get((node, partition), 0)
        self._next_offset[node, partition] = first + len(records)
        chunk = Chunk(
            [row_of(node, each) for each in records],
            [encode_key(each.key) for each in records],
            [self._now_ms if each.timestamp_ms < 0 else each.timestamp_ms for each in records],
            range(first, first + len(records)),
            node.endpoint.topic if is_topic else node.name,
            partition,
        )
        self._process(lambda: self._task.process(node, chunk))

    def read(self, source: Stream[Any], limit: int | None = None) -> int:
        """Read a source that is a generator or a connector, and process its values.

        It resumes after the last value that was read, as after a commit, and is closed at the end.

        Args:
            source: The source.
            limit: How many values to read; by default all of them.

        Returns:
            How many values were read.

        Raises:
            StreamKitError: The source, a stage or a sink failed.
            UsageError: The source is a topic.
        """
        node = source.node
        if not isinstance(node.endpoint, FunctionSource | Source):
            raise UsageError(f"{node.name!r} reads a topic", hint="use send for topics")
        self._settings.begin()
        chunks = self._loop.run(self._read(node, node.endpoint, limit))
        for chunk in chunks:
            self._process(lambda chunk=chunk: self._task.process(node, chunk))  # type: ignore[misc]
        return sum(map(len, chunks))

    def set_rows(self, lookup: Stream[Any] | str, rows: Mapping[Any, Any]) -> None:
        """Set the rows of a table that a stage queries where it is, by their keys.

        Args:
            lookup: What `Stream.lookup` has returned, or its name.
            rows: The rows, as ``combine=`` gets them.

        Raises:
            UsageError: The stage looks up no such rows.
        """
        name = lookup if isinstance(lookup, str) else lookup.name
        for node, given in self._lookups.items():
            if node.name == name:
                given.rows = rows
                return
        known = ", ".join(sorted(node.name for node in self._lookups)) or "none"
        raise UsageError(f"{name!r} looks up no rows of a connector", hint=f"these do: {known}")

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
        self._failed = []
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

    async def _read(
        self, node: Node, source: FunctionSource | Source[Any], limit: int | None
    ) -> list[Chunk]:
        reader: SourceReader
        if isinstance(source, Source):
            reader = source.reader(self._connector_env(node))
        else:
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
                self._positions.setdefault(node, {})[key] = position
        finally:
            await reader.close()
        return found

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
        while self._process(self._task.drain):
            pass  # results of windows went through calls, and later windows wait for them


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
