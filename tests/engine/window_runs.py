"""Runs a graph of windows slice by slice: cut anywhere, committed, crashed, and started again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from streamkit import App
from streamkit.aggregates import CollectList, Count, Fold
from streamkit.dataflow.endpoints import TopicSink
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.topology import Node
from streamkit.dataflow.window_stream import WindowResults
from streamkit.record import Chunk
from streamkit.runtime.task import Task
from streamkit.runtime.work import Work
from streamkit.state.states import TIME_STATE, States
from streamkit.state.store import Store
from streamkit.windows import AnyWindow

# What happens, the number of a partition, how many rows, and how many of them are undone.
Action = tuple[str, int, int, int]
_ROWS_AT_END: Final = 3


class Row(msgspec.Struct, frozen=True):
    """A record: a number of its own, its key, and its event time in ms."""

    id: int
    key: str
    at: int


class Result(msgspec.Struct, frozen=True):
    key: str
    window_start: int
    window_end: int
    count: int
    ids: list[int]


@dataclass(frozen=True, slots=True)
class Windows:
    """An app with windows over rows; it writes the topics ``results`` and ``late``."""

    app: App
    rows: Stream[Row]
    results: WindowResults[str, Result, Row]


def is_refused(row: Row) -> bool:
    return row.id % 4 == 3


def plus_one(count: int, row: Row) -> int:
    if is_refused(row):
        raise ValueError
    return count + 1


def windows_app(
    window: AnyWindow,
    *,
    late: int = 0,
    out_of_order: int = 0,
    emit: Any = "final",
    refuses: bool = False,
) -> Windows:
    """Return an app that counts and lists the rows of each window; durations are in ms.

    ``refuses``: counting fails for some rows, which are skipped after they were listed.
    """
    ids = CollectList(lambda row: row.id)
    count = Fold(int, plus_one, int.__add__) if refuses else Count()
    app = App("model")
    rows = app.stream("rows", Row, event_time=lambda row: row.at, out_of_order=out_of_order / 1_000)
    results = (
        rows.key_by(lambda row: row.key)
        .window(window, late=late / 1_000, emit=emit)
        .aggregate(Result, ids=ids, count=count, name="windows", on_error="skip")
    )
    results.to("results")
    results.late.to("late")
    return Windows(app, rows, results)


@dataclass(slots=True)
class _Commit:
    """How far each partition was read, and how many outputs and rows there were."""

    at: list[int]
    outputs: int = 0
    rows: int = 0


@dataclass(slots=True)
class Run:
    """One job over partitions of rows, whatever happens to it.

    ``outputs`` are topics with values, without those that a crash has lost. ``order`` has the rows
    in the order in which they were read.
    """

    windows: Windows
    partitions: Sequence[Sequence[Row]]
    store: Store
    outputs: list[tuple[str, bytes]] = field(default_factory=list)
    order: list[Row] = field(default_factory=list)
    task: Task = field(init=False)
    at: list[int] = field(init=False)
    last: _Commit = field(init=False)

    def __post_init__(self) -> None:
        self.at = [0] * len(self.partitions)
        self.last = _Commit(list(self.at))
        for name in self.store.state_types():  # of an earlier job
            self.store.delete_state(name)
        self.task = self._opened()

    def to_the_end(self, actions: Sequence[Action]) -> None:
        """Do what the actions say, then read all that is left and drain."""
        for action in actions:
            self.act(*action)
        while unread := self.unread():
            self.read(min(unread), _ROWS_AT_END, 0)
        self._deliver(self.task.drain(), 0)
        assert not self.waits(), "a drained job waits for nothing"

    def act(self, kind: str, number: int, rows: int, undone: int) -> None:
        unread = sorted(self.unread())
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

    def read(self, partition: int, rows: int, undone: int) -> None:
        """Process a slice of a partition, of which the last rows are not delivered."""
        start = self.at[partition]
        taken = self.partitions[partition][start : start + rows]
        offsets = range(start, start + len(taken))
        part = Chunk(
            list(map(msgspec.json.encode, taken)),
            [None] * len(taken),
            [0] * len(taken),
            offsets,
            "rows",
            partition,
        )
        reached = self._deliver(self.task.process(self.windows.rows.node, part), undone)
        self.order += taken[: reached - start]
        self.at[partition] = reached

    def unread(self) -> Mapping[int, int]:
        """Return how many rows of each partition are not read yet."""
        counts = {number: len(rows) - at for number, (rows, at) in self._parts()}
        return {number: count for number, count in counts.items() if count}

    def waits(self) -> bool:
        """Return whether any stage keeps something."""
        return any(
            len(state) for name, state in self.task.states.by_name.items() if name != TIME_STATE
        )

    def values_of(self, topic: str, kind: Any) -> list[Any]:
        decode = msgspec.json.Decoder(kind).decode
        return [decode(value) for name, value in self.outputs if name == topic]

    def _parts(self) -> list[tuple[int, tuple[Sequence[Row], int]]]:
        return list(enumerate(zip(self.partitions, self.at, strict=True)))

    def _deliver(self, work: Work | None, undone: int) -> int:
        if work is None:
            return 0
        assert work.failure is None
        reached = max(work.part.offsets[0], work.end - undone)
        for output in work.outputs:
            assert isinstance(output.sink.endpoint, TopicSink)
            pairs = zip(output.chunk.offsets, output.chunk.values, strict=True)
            topic = output.sink.endpoint.topic
            self.outputs += [(topic, value) for offset, value in pairs if offset < reached]
        self.task.account(work, reached)
        self.task.settle(work, reached)
        return reached

    def _opened(self) -> Task:
        states = States(self.store.state_rows, self.store.state_types())
        task = Task(self.windows.app.topology, states=states, never_idle=True)
        assert task.time is not None, "windows wait for time"
        task.time.backlog = self._backlog
        return task

    def _backlog(self, source: Node) -> Mapping[int, int]:
        return self.unread()


@dataclass(frozen=True, slots=True)
class Case:
    """Rows of partitions, what happens to the job that reads them, and its options in ms."""

    partitions: list[list[Row]]
    actions: list[Action]
    out_of_order: int
    late: int


def _rows(partitions: list[list[tuple[str, int, int]]]) -> list[list[Row]]:
    """Number rows given as key, step forward and step back; times are around 1,000 ms."""
    found: list[list[Row]] = []
    number = 0
    for each in partitions:
        time = 1_000
        found.append([])
        for key, forward, back in each:
            time += forward
            found[-1].append(Row(number, key, time - back))
            number += 1
    return found


_steps: Final = st.tuples(
    st.sampled_from("ab"),
    st.sampled_from([0, 0, 1, 2, 3, 5, 9, 20]),
    st.sampled_from([0, 0, 0, 1, 2, 4, 8, 15, 40]),
)
_actions: Final = st.tuples(
    st.sampled_from(["read", "read", "read", "read", "tick", "commit", "crash"]),
    st.integers(0, 3),
    st.integers(1, 6),
    st.sampled_from([0, 0, 0, 1, 2, 6]),
)
cases: Final = st.builds(
    Case,
    st.lists(st.lists(_steps, max_size=18), min_size=1, max_size=4).map(_rows),
    st.lists(_actions, max_size=30),
    st.sampled_from([0, 0, 2, 5, 12]),
    st.sampled_from([0, 0, 3, 10, 30]),
)
