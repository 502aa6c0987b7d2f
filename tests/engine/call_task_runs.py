"""Runs graphs whose stages have calls and retries: slices cut anywhere, commits, and crashes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import msgspec

from streamkit import App
from streamkit.aggregates import CollectList, Count
from streamkit.dataflow.calling import called_step
from streamkit.dataflow.endpoints import TopicSink
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.topology import Node
from streamkit.policies import Retry, retry
from streamkit.record import Chunk
from streamkit.runtime.call_queue import CallQueue
from streamkit.runtime.pending_queue import Chances
from streamkit.runtime.task import Task
from streamkit.runtime.task_env import TaskEnv
from streamkit.runtime.work import Work
from streamkit.state.pending import PendingRecord, PendingRecords
from streamkit.state.states import States
from streamkit.state.store import Store
from streamkit.windows import Tumbling
from tests.engine.call_runs import Action, Passing
from tests.engine.window_runs import Result, Row

WINDOW_MS: Final = 10
_STEPS_MAX: Final = 3_000
MANY: Final = retry(10_000, delay=0.1, max_delay=1, on=Passing)
# How long a slow row takes: longer than a slice may.
_SLOW_S: Final = 1.0


class Item(msgspec.Struct, frozen=True):
    """A row on its way; ``count`` is how many of its key a stage with a state has seen."""

    id: int
    key: str
    at: int
    count: int = 0


@dataclass(slots=True)
class World:
    """What is outside of the job: a clock, and a service that fails for some rows at first.

    ``fails`` are how many calls fail for a row, ``bad`` the rows for which all do, with an error
    that is not retried, ``slow`` those that take very long in a plain stage after the calls.
    ``on_call`` is called before each call.
    """

    fails: Mapping[int, int]
    slow: frozenset[int] = frozenset()
    policy: Retry = MANY
    now_s: float = 100.0
    bad: frozenset[int] = frozenset()
    calls: Counter[tuple[str, int]] = field(default_factory=Counter)
    on_call: Callable[[], None] = lambda: None

    def call(self, stage: str, item: Item) -> Item:
        self.on_call()
        self.calls[stage, item.id] += 1
        if item.id in self.bad:
            raise ValueError
        if self.calls[stage, item.id] <= self.fails.get(item.id % 100, 0):
            raise Passing
        return item

    def pass_on(self, item: Item) -> Item:
        if item.id in self.slow:
            self.now_s += _SLOW_S
        return item


# Adds stages with calls or retries to a stream.
Shape = Callable[[App, Stream[Item], World], Stream[Item]]


# Adds a sink that writes a stream to the topic ``passed``.
Sinking = Callable[[App, Stream[Item], World], None]


def plain_sink(app: App, passed: Stream[Item], world: World) -> None:
    passed.to("passed")


@dataclass(frozen=True, slots=True)
class Graph:
    app: App
    rows: Stream[Item]
    world: World


def graph_of(
    shape: Shape,
    world: World,
    sink: Sinking = plain_sink,
    *,
    has_window: bool = True,
    out_of_order: int = 0,
    late: int = 0,
) -> Graph:
    """Return an app with stages, which writes what they give to ``passed``, and windows of it."""
    app = App("model")
    rows = app.stream(
        "rows", Item, event_time=lambda row: row.at, out_of_order=out_of_order / 1_000
    )
    passed = shape(app, rows, world).map(world.pass_on)
    sink(app, passed, world)
    if has_window:
        results = (
            passed.key_by(lambda item: item.key)
            .window(Tumbling(seconds=WINDOW_MS / 1_000), late=late / 1_000)
            .aggregate(Result, ids=CollectList(lambda item: item.id), count=Count(), name="windows")
        )
        results.to("results")
        results.late.to("late")
    return Graph(app, rows, world)


@dataclass(slots=True)
class _Commit:
    at: list[int]
    outputs: int = 0
    rows: int = 0


@dataclass(slots=True)
class TaskRun:
    """One job over partitions of rows; ``order`` has the rows as they were read.

    ``outputs`` are topics with values, without those that a crash has lost.
    """

    graph: Graph
    partitions: Sequence[Sequence[Row]]
    store: Store
    chance: Random
    outputs: list[tuple[str, bytes]] = field(default_factory=list)
    order: list[Row] = field(default_factory=list)
    calls: list[tuple[Node, list[PendingRecord]]] = field(default_factory=list)
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
        """Do what the actions say, then read the rest, finish all calls, and drain."""
        for action in actions:
            self.act(*action)
        while unread := self.unread():
            self.read(min(unread), 3, 0)
        self.finish_calls()
        while self._deliver(self.task.drain(), 0) and self.task.pending.count:
            self.finish_calls()
        states = self.task.states.by_name
        kept = [len(states[name]) for name in ("windows", "second") if name in states]
        assert not any(kept), "a drained job waits for nothing"

    def finish_calls(self) -> None:
        """Finish calls and retries until no record waits."""
        for _ in range(_STEPS_MAX):
            self.begin()
            if self.calls:
                self.end(len(self.calls) // 2)
                continue
            if self.resume(0):
                continue
            if not self.task.pending.count:
                break
            due_s = self.task.pending.next_s()
            assert due_s is not None, f"stuck: {self.stages()}"
            assert due_s > self.world.now_s, f"wakes up in vain: {self.stages()}"
            self.world.now_s = due_s
        assert not self.task.pending.count, f"stuck: {self.stages()}"

    def act(self, kind: str, number: int, size: int) -> None:
        unread = sorted(self.unread())
        if kind == "read" and unread:
            self.read(unread[number % len(unread)], 1 + 2 * size, 0)
        elif kind == "read some" and unread:
            self.read(unread[number % len(unread)], 1 + size, number)
        elif kind == "begin":
            self.begin()
        elif kind == "end" and self.calls:
            self.end(number % len(self.calls))
        elif kind == "resume":
            self.resume(0)
        elif kind == "resume some":
            self.resume(1 + number)
        elif kind == "wait":
            self.world.now_s += (0.01, 0.1, 0.5, 2.0)[number]
        elif kind == "tick":
            self._deliver(self.task.tick(), size % 2)
        elif kind == "commit":
            assert self.task.pending.problem() is None
            self.store.commit({}, {}, self.task.states.prepare())
            self.last = _Commit(list(self.at), len(self.outputs), len(self.order))
        elif kind == "crash":
            self.at = list(self.last.at)
            del self.outputs[self.last.outputs :]
            del self.order[self.last.rows :]
            self.calls = []
            self.task = self._opened()

    def read(self, partition: int, rows: int, undone: int) -> None:
        """Process a slice of a partition, of which the last rows are not delivered."""
        start = self.at[partition]
        taken = self.partitions[partition][start : start + rows]
        part = Chunk(
            list(map(msgspec.json.encode, taken)),
            [None] * len(taken),
            [0] * len(taken),
            range(start, start + len(taken)),
            "rows",
            partition,
        )
        reached = self._deliver(self.task.process(self.graph.rows.node, part), undone)
        self.order += taken[: reached - start]
        self.at[partition] = reached

    def begin(self) -> None:
        """Begin every call that may begin."""
        for node, queue in self.task.pending.by_node.items():
            step = called_step(node)
            while isinstance(queue, CallQueue) and (call := queue.next_call(self.world.now_s)):
                assert step is not None
                self.calls.append((node, call))
                running = [each for other, calls in self.calls if other is node for each in calls]
                assert len({id(each) for each in running}) == len(running)
                assert queue.running <= step.spec.concurrency
                if step.spec.order == "key":
                    assert len({each.group for each in running}) == len(running)

    def _queue_of(self, node: Node) -> CallQueue:
        queue = self.task.pending.by_node[node]
        assert isinstance(queue, CallQueue)
        return queue

    def end(self, number: int) -> None:
        node, call = self.calls.pop(number)
        step = called_step(node)
        assert step is not None
        results: Sequence[Any] = ()
        error = None
        try:
            results = step.results(call, _awaited(step.function(*step.arguments(call, None))))
        except Exception as raised:
            error = raised
        self._queue_of(node).finish(call, results, error, self.world.now_s)

    def resume(self, undone: int) -> bool:
        """Process what is ready in the stages; return whether anything was."""
        releases = self.task.pending.release()
        for release in releases:
            self._deliver(self.task.resume(release), undone)
        return bool(releases)

    @property
    def world(self) -> World:
        return self.graph.world

    def unread(self) -> Mapping[int, int]:
        """Return how many rows of each partition are not read yet."""
        parts = enumerate(zip(self.partitions, self.at, strict=True))
        counts = {number: len(rows) - at for number, (rows, at) in parts}
        return {number: count for number, count in counts.items() if count}

    def stages(self) -> dict[str, list[tuple[int, str]]]:
        """Return what waits where."""
        return {
            node.name: [(each.offset, each.stage) for each in queue.records.by_number.values()]
            for node, queue in self.task.pending.by_node.items()
        }

    def values_of(self, topic: str, kind: Any) -> list[Any]:
        decode = msgspec.json.Decoder(kind).decode
        return [decode(value) for name, value in self.outputs if name == topic]

    def _deliver(self, work: Work | None, undone: int) -> int:
        """Deliver a work in two rounds, without its last records."""
        if work is None:
            return 0
        assert work.failure is None, work.failure
        first = work.part.offsets[0]
        reached = max(first, work.end - undone)
        for output in work.outputs:
            assert isinstance(output.sink.endpoint, TopicSink)
            pairs = zip(output.chunk.offsets, output.chunk.values, strict=True)
            topic = output.sink.endpoint.topic
            self.outputs += [(topic, value) for offset, value in pairs if offset < reached]
        for end in (self.chance.randint(first, reached), reached):
            self.task.account(work, end)
            self._check_counts()
        self.task.settle(work, reached)
        return reached

    def _check_counts(self) -> None:
        for node, counts in self.task.counts.items():
            queue = self.task.pending.by_node.get(node)
            assert counts.pending == (0 if queue is None else len(queue))
            assert counts.handled >= 0
            if node.kind != "sink" and not any(step.expands for step in node.steps):
                assert counts.handled == counts.given, node.name

    def _opened(self) -> Task:
        world, chance = self.world, self.chance
        states = States(self.store.state_rows, self.store.state_types())
        env = TaskEnv(now_s=lambda: world.now_s, chances=Chances(chance.random))
        task = Task(self.graph.app.topology, states=states, never_idle=True, env=env)
        if task.time is not None:
            task.time.backlog = lambda source: self.unread()
        assert all(counts.handled == 0 for counts in task.counts.values())
        return task


def _awaited(result: Any) -> Any:
    """Return the result of a coroutine that waits for nothing."""
    if not isinstance(result, Coroutine):
        return result
    try:
        result.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for something")


def kept(task: Task) -> int:
    """Return how many records wait, as the states see it."""
    states = task.states.by_name.values()
    return sum(len(each) for each in states if isinstance(each, PendingRecords))


def by_key(items: Sequence[Any], key: Callable[[Any], object]) -> Mapping[object, list[int]]:
    """Return the numbers of items, in order, for each key."""
    found: dict[object, list[int]] = defaultdict(list)
    for each in items:
        found[key(each)].append(each.id)
    return found
