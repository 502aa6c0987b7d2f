"""Runs a graph of two sources slice by slice: cut anywhere, committed, crashed, started again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from hypothesis import strategies as st

from streamkit import App
from streamkit.dataflow.endpoints import TopicSink
from streamkit.dataflow.topology import Node
from streamkit.record import Chunk
from streamkit.runtime.task import Task
from streamkit.runtime.work import Work
from streamkit.state.keyed import Keyed
from streamkit.state.states import TIME_STATE, States
from streamkit.state.store import Store

# What happens, the number of a partition, how many rows, and how many of them are undone.
Action = tuple[str, int, int, int]
_ROWS_AT_END: Final = 3
NEVER: Final = -(10**12)


class Row(msgspec.Struct, frozen=True):
    """A record: a number of its own, its key, its event time in ms, and the key of a lookup."""

    id: int
    key: str
    at: int
    on: str | None = None
    is_deletion: bool = False


class Pair(msgspec.Struct, frozen=True):
    """The numbers of the rows that a join has put together."""

    left: int | None
    right: int | None


class Output(NamedTuple):
    """A record that the job has written."""

    topic: str
    key: bytes | None
    time_ms: int
    value: Any

    @property
    def pair(self) -> tuple[int | None, int | None]:
        return self.value["left"], self.value["right"]


def paired(left: Row | None, right: Row | None) -> Pair:
    return Pair(None if left is None else left.id, None if right is None else right.id)


class Lane(NamedTuple):
    """The rows of one partition of a source."""

    source: str
    partition: int
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Case:
    """Rows of partitions, what happens to the job that reads them, and its options in ms."""

    lanes: list[Lane]
    actions: list[Action]
    out_of_order: int
    late: int

    def marked(self, source: str) -> list[tuple[Row, int]]:
        """Return each row of a source with the watermark of its partition before it."""
        found = []
        for lane in self.lanes:
            times: list[int] = []
            for row in lane.rows if lane.source == source else ():
                found.append((row, max(times) - self.out_of_order if times else NEVER))
                times.append(row.at)
        return found


@dataclass(slots=True)
class _Commit:
    """How far each partition was read, and how many outputs and rows there were."""

    at: list[int]
    outputs: int = 0
    rows: int = 0


@dataclass(slots=True)
class Run:
    """One job, whatever happens to it.

    ``outputs`` are without those that a crash has lost. ``order`` has the rows in the order in
    which they were read.
    """

    app: App
    lanes: Sequence[Lane]
    store: Store
    outputs: list[Output] = field(default_factory=list)
    order: list[Row] = field(default_factory=list)
    task: Task = field(init=False)
    at: list[int] = field(init=False)
    last: _Commit = field(init=False)

    def __post_init__(self) -> None:
        self.at = [0] * len(self.lanes)
        self.last = _Commit(list(self.at))
        for name in self.store.state_types():  # of an earlier job
            self.store.delete_state(name)
        self.task = self._opened()

    def to_the_end(self, actions: Sequence[Action]) -> Run:
        """Do what the actions say, then read all that is left and drain."""
        for action in actions:
            self.act(*action)
        while unread := self._unread_lanes():
            self.read(unread[0], _ROWS_AT_END, 0)
        self._deliver(self.task.drain(), 0)
        return self

    def act(self, kind: str, number: int, rows: int, undone: int) -> None:
        unread = self._unread_lanes()
        if kind == "read" and unread:
            self.read(unread[number % len(unread)], rows, undone)
        elif kind == "tick":
            self._deliver(self.task.tick(), undone)
        elif kind == "commit":
            self.store.commit({}, {}, self.task.states.prepare())
            self.last = _Commit(list(self.at), len(self.outputs), len(self.order))
        elif kind == "crash":
            self.at = list(self.last.at)
            del self.outputs[self.last.outputs :]
            del self.order[self.last.rows :]
            self.task = self._opened()

    def read(self, number: int, rows: int, undone: int) -> None:
        """Process a slice of a partition, of which the last rows are not delivered."""
        lane, start = self.lanes[number], self.at[number]
        taken = lane.rows[start : start + rows]
        part = Chunk(
            [b"" if each.is_deletion else msgspec.json.encode(each) for each in taken],
            [each.key.encode() for each in taken],
            [each.at for each in taken],
            range(start, start + len(taken)),
            lane.source,
            lane.partition,
        )
        source = self.app.topology.get(lane.source)
        reached = self._deliver(self.task.process(source, part), undone)
        self.order += taken[: reached - start]
        self.at[number] = reached

    def waiting(self) -> dict[str, int]:
        """Return how much each stage keeps."""
        return {
            name: len(state)
            for name, state in self.task.states.by_name.items()
            if name != TIME_STATE and not isinstance(state, Keyed)
        }

    def outputs_of(self, topic: str) -> list[Output]:
        return [each for each in self.outputs if each.topic == topic]

    def _unread_lanes(self) -> list[int]:
        sizes = [len(lane.rows) - at for lane, at in zip(self.lanes, self.at, strict=True)]
        return [number for number, size in enumerate(sizes) if size]

    def _backlog(self, source: Node) -> Mapping[int, int]:
        return {
            self.lanes[number].partition: len(self.lanes[number].rows) - self.at[number]
            for number in self._unread_lanes()
            if self.lanes[number].source == source.name
        }

    def _deliver(self, work: Work | None, undone: int) -> int:
        if work is None:
            return 0
        assert work.failure is None
        reached = max(work.part.offsets[0], work.end - undone)
        for output in work.outputs:
            assert isinstance(output.sink.endpoint, TopicSink)
            topic, chunk = output.sink.endpoint.topic, output.chunk
            columns = zip(chunk.offsets, chunk.keys, chunk.timestamps_ms, chunk.values, strict=True)
            self.outputs += [
                Output(topic, key, time_ms, msgspec.json.decode(value))
                for offset, key, time_ms, value in columns
                if offset < reached
            ]
        self.task.account(work, reached)
        self.task.settle(work, reached)
        return reached

    def _opened(self) -> Task:
        states = States(self.store.state_rows, self.store.state_types())
        task = Task(self.app.topology, states=states, never_idle=True)
        assert task.time is not None, "joins wait for time"
        task.time.backlog = self._backlog
        return task


@contextmanager
def store_in(folder: Path) -> Iterator[Store]:
    """Open a store for the runs of a test file."""
    found = Store(folder / "main.sqlite")
    found.open(app="model", cluster="c")
    yield found
    found.close()


def _lanes(partitions: list[tuple[str, list[tuple[Any, ...]]]]) -> list[Lane]:
    """Number rows given as key, step forward, step back and more; times are around 1,000 ms."""
    found: list[Lane] = []
    numbers: dict[str, int] = {}
    row_id = 0
    for source, steps in partitions:
        partition = numbers[source] = numbers.get(source, -1) + 1
        time, rows = 1_000, []
        for key, forward, back, on, is_deletion in steps:
            time += forward
            rows.append(Row(row_id, key, time - back, on, is_deletion and source == "table"))
            row_id += 1
        found.append(Lane(source, partition, rows))
    return found


_steps: Final = st.tuples(
    st.sampled_from("ab"),
    st.sampled_from([0, 0, 1, 2, 3, 5, 9, 20]),
    st.sampled_from([0, 0, 0, 1, 2, 4, 8, 15, 40]),
    st.sampled_from(["a", "a", "b", None]),
    st.sampled_from([False, False, False, True]),
)
_actions: Final = st.tuples(
    st.sampled_from(["read", "read", "read", "read", "read", "tick", "commit", "crash"]),
    st.integers(0, 3),
    st.integers(1, 6),
    st.sampled_from([0, 0, 0, 1, 2, 6]),
)


def cases_of(*sources: str) -> st.SearchStrategy[Case]:
    """Return cases with one or two partitions of each source."""
    lanes = st.tuples(
        *(
            st.tuples(st.just(source), st.lists(_steps, max_size=12))
            for source in (*sources, *sources)
        )
    )
    return st.builds(
        Case,
        lanes.map(list).map(_lanes),
        st.lists(_actions, max_size=30),
        st.sampled_from([0, 0, 2, 5, 12]),
        st.sampled_from([0, 0, 3, 10, 30]),
    )
