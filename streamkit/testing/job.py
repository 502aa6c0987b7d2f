"""Run a graph in memory: the engine's own task, without a broker and without waiting."""

from __future__ import annotations

from types import TracebackType
from typing import Any, TypeVar, overload

from streamkit.dataflow.endpoints import TopicSink, TopicSource
from streamkit.dataflow.stream import Sink, Stream
from streamkit.dataflow.topology import Node, Topology
from streamkit.errors import UsageError
from streamkit.record import Chunk, Record
from streamkit.runtime.task import Task
from streamkit.serde.values import encode_as, encode_key

T = TypeVar("T")
_START_MS = 1_356_998_400_000


class TestJob:
    """What `App.test` gives. Records go through the same stages as in a run, at once."""

    __test__ = False  # it is no test, whatever pytest thinks of the name

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._given: dict[Node, list[Chunk]] = {node: [] for node in topology.nodes}
        self._task = Task(topology, on_result=self._note)
        self._now_ms = _START_MS
        self._next_offset: dict[Node, int] = {}

    def __enter__(self) -> TestJob:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass  # nothing is held

    def send(self, source: Stream[Any] | str, *values: Any) -> None:
        """Put values into a source, by its stream or its topic.

        Values are encoded as a topic holds them, then decoded as the source says. A `Record`
        brings its own key and timestamp.

        Raises:
            StageError: A stage failed, and says ``fail``; nothing of this call is kept.
            UsageError: There is no such source.
        """
        node = self._source(source)
        records = [each if isinstance(each, Record) else Record(each) for each in values]
        is_topic = isinstance(node.endpoint, TopicSource)
        first = self._next_offset.get(node, 0)
        self._next_offset[node] = first + len(records)
        chunk = Chunk(
            [
                encode_as(each.value, node.input_type) if is_topic else each.value
                for each in records
            ],
            [encode_key(each.key) for each in records],
            [self._now_ms if each.timestamp_ms < 0 else each.timestamp_ms for each in records],
            range(first, first + len(records)),
            node.endpoint.topic if is_topic else node.name,
            0,
        )
        kept = {each: list(chunks) for each, chunks in self._given.items()}
        work = self._task.process(node, chunk)
        if work.failure is not None:
            self._given = kept
            raise work.failure
        self._task.account(work, work.end)

    @overload
    def output(self, stream: Stream[T]) -> list[T]: ...
    @overload
    def output(self, stream: Sink[..., Any] | str) -> list[Any]: ...
    def output(self, stream: Stream[Any] | Sink[..., Any] | str) -> list[Any]:
        """Return the values that a stage has given so far, or that a topic has got."""
        return [record.value for record in self.records(stream)]

    @overload
    def records(self, stream: Stream[T]) -> list[Record[T]]: ...
    @overload
    def records(self, stream: Sink[..., Any] | str) -> list[Record[Any]]: ...
    def records(self, stream: Stream[Any] | Sink[..., Any] | str) -> list[Record[Any]]:
        """Return whole records: of a topic, with the bytes as they would be stored."""
        return [
            record
            for node in self._nodes(stream)
            for chunk in self._given[node]
            for record in chunk.records()
        ]

    def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0) -> None:
        """Move the clock that values without a timestamp are stamped by."""
        self._now_ms += round((seconds + 60 * minutes + 3_600 * hours) * 1_000)

    def _note(self, node: Node, chunk: Chunk) -> None:
        self._given[node].append(chunk)

    def _source(self, source: Stream[Any] | str) -> Node:
        if not isinstance(source, str):
            return source.node
        for node in self._topology.of_kind("source"):
            if isinstance(node.endpoint, TopicSource) and node.endpoint.topic == source:
                return node
        raise UsageError(f"no source reads the topic {source!r}")

    def _nodes(self, stream: Stream[Any] | Sink[..., Any] | str) -> list[Node]:
        if not isinstance(stream, str):
            return [stream.node]
        found = [
            node
            for node in self._topology.of_kind("sink")
            if isinstance(node.endpoint, TopicSink) and node.endpoint.topic == stream
        ]
        if not found:
            raise UsageError(f"no sink writes to the topic {stream!r}")
        return found
