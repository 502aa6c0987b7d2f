"""The records that wait in the stages of a task, and how a slice adds and removes them. No I/O."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import attrgetter, le
from typing import Any, Final

from streamkit.dataflow.calling import Called, called_step
from streamkit.dataflow.dead_letters import input_kind
from streamkit.dataflow.pending_columns import records_in, values_of
from streamkit.dataflow.topology import Node, Topology
from streamkit.errors import StateMismatch, TopologyError
from streamkit.frames.column_rows import ColumnRows
from streamkit.record import Chunk
from streamkit.runtime.call_queue import CallLimits, CallQueue
from streamkit.runtime.pending_queue import PendingQueue
from streamkit.runtime.retry_queue import RetryQueue
from streamkit.runtime.task_env import TaskEnv
from streamkit.runtime.work import Work
from streamkit.state.change_log import StateFormat
from streamkit.state.pending import PendingRecord
from streamkit.state.states import PENDING, States
from streamkit.state.types import format_of

# How many results begin one slice.
_RELEASED_MAX: Final = 1_024
_place: Final = attrgetter("topic", "partition")
_arrival: Final = attrgetter("number")


@dataclass(frozen=True, slots=True)
class Release:
    """Records of one stage and one partition that are next there, in order of their offsets."""

    node: Node
    part: Chunk
    records: Sequence[PendingRecord]


@dataclass(slots=True)
class PendingQueues:
    """The queues of all stages that have calls or retries.

    Args:
        by_node: The queues.
        now_s: Returns the monotonic time.
    """

    by_node: Mapping[Node, CallQueue | RetryQueue]
    now_s: Callable[[], float]

    def __bool__(self) -> bool:
        return bool(self.by_node)

    @property
    def is_full(self) -> bool:
        """Whether the task should take no more records."""
        return any(each.is_full for each in self.by_node.values())

    @property
    def is_working(self) -> bool:
        """Whether something happens without a wait for a retry."""
        return any(each.is_working for each in self.by_node.values())

    @property
    def is_calling(self) -> bool:
        """Whether calls are in progress."""
        return any(each.running for each in self.by_node.values())

    @property
    def count(self) -> int:
        """How many records wait."""
        return sum(map(len, self.by_node.values()))

    def next_s(self) -> float | None:
        """Return when something happens without an event; None if nothing does."""
        found = [each.next_s() for each in self.by_node.values() if not each.is_held]
        return min((each for each in found if each is not None), default=None)

    def hold(self) -> None:
        """Let nothing begin any more in stages whose records can be stored; the job stops.

        Call it again when records have come.
        """
        for queue in self.by_node.values():
            queue.is_held = queue.records.problem() is None

    def stop(self) -> None:
        """Let nothing begin any more; the job ends."""
        for queue in self.by_node.values():
            queue.is_held = True

    def written(self) -> list[Release]:
        """Return what sinks have written and is still here, in slices for the task.

        Its turn has not come, because the order of results does not matter when the job ends. The
        next run would write it again.
        """
        found: list[Release] = []
        for node, queue in self.by_node.items():
            called = called_step(node)
            if called is not None and called.is_sink and isinstance(queue, CallQueue):
                found += _releases(node, queue, queue.take_called())
        return found

    def release(self) -> list[Release]:
        """Return the records that are next, in slices for the task."""
        found: list[Release] = []
        now_s = self.now_s()
        for node, queue in self.by_node.items():
            if isinstance(queue, RetryQueue):
                queue.poll(now_s)
            if queue.has_ready:
                found += _releases(node, queue, queue.take(_RELEASED_MAX))
        return found

    def account(self, work: Work, start: int, reached: int) -> None:
        """Add and remove the records of a work from one offset up to another."""
        for fed in work.fed:
            offsets = fed.chunk.offsets
            first, stop = bisect_left(offsets, start), bisect_left(offsets, reached)
            if first < stop:
                marks_ms = None if fed.marks_ms is None else fed.marks_ms[first:stop]
                records = records_of(fed.chunk.slice(first, stop), marks_ms)
                self.by_node[fed.node].add(records, self.now_s())
        asides = [each for each in work.asides if start <= each.record.offset < reached]
        if work.node is not None and work.records:
            waits = {each.record.number for each in asides}
            done = [
                each
                for each in work.records
                if start <= each.offset < reached and each.number not in waits
            ]
            self.by_node[work.node].remove(done)
        # A later step of a stage may fail for an earlier row.
        for aside in sorted(asides, key=attrgetter("row")):
            queue = self.by_node[aside.node]
            assert isinstance(queue, RetryQueue), "only the task puts records aside"
            queue.put_aside(aside.record, aside.later, self.now_s())

    def give_back(self, work: Work) -> None:
        """Take back the records of a work that were not delivered."""
        if work.node is not None:
            rest = [each for each in work.records if each.offset >= work.counted_to]
            self.by_node[work.node].give_back(rest)

    def problem(self) -> tuple[Node, str] | None:
        """Return which stage has records that a commit cannot store, and why; None if none has."""
        for node, queue in self.by_node.items():
            problem = queue.records.problem()
            if problem is not None:
                return node, problem
        return None


def groups_of(chunk: Chunk) -> list[Hashable]:
    """Return what the order of each row is kept by; see `PendingRecord`."""
    of_partition = (chunk.topic, chunk.partition)
    return [of_partition if key is None else key for key in chunk.keys]


def open_queues(topology: Topology, states: States, env: TaskEnv) -> PendingQueues:
    """Open the queue of each stage that has calls or retries, or records of the last run.

    Raises:
        StateMismatch: Records of the last run cannot be read, or belong to no stage.
    """
    found: dict[Node, CallQueue | RetryQueue] = {}
    for node in topology.nodes:
        called = called_step(node)
        name = f"{node.name}{PENDING}"
        if called is None and node.on_error.retry is None and not states.has_rows(name):
            continue
        form = _format_of(node)
        records = states.open_pending(name, form)
        common = (node.on_error, env.chances, env.now_s())
        found[node] = (
            RetryQueue(records, *common)
            if called is None
            else CallQueue(records, _limits_of(called, env), *common)
        )
    for name in states.unused_pending():
        stage = name.removesuffix(PENDING)
        raise StateMismatch(
            f"records wait for a stage {stage!r}, which this app does not have",
            hint=f'if you renamed it, set name="{stage}"; to give the records up, run '
            f"streamkit state delete {env.job.app or 'APP'} {name}",
        )
    return PendingQueues(found, env.now_s)


def _limits_of(called: Called, env: TaskEnv) -> CallLimits:
    spec = called.spec
    return CallLimits(
        spec.order,
        spec.concurrency,
        spec.rate_per_s,
        spec.batch,
        spec.max_wait_s,
        writes=called.is_sink,
        finds_failed=env.poison is not None,
    )


def _format_of(node: Node) -> StateFormat | None:
    kind = input_kind(node)
    try:
        return format_of(Any if kind is None else kind, node.name)
    except TopologyError:
        return None  # then each commit waits until no record is pending


def records_of(chunk: Chunk, marks_ms: Sequence[int] | None) -> list[PendingRecord]:
    """Return the rows of a chunk as records that can wait.

    ``marks_ms`` are the watermarks by which later stages judge them; None if none does.
    """
    others = (
        chunk.keys,
        chunk.timestamps_ms,
        chunk.offsets,
        repeat(chunk.topic),
        repeat(chunk.partition),
    )
    values = chunk.values
    if type(values) is ColumnRows:
        records = records_in(values, *others)
    else:
        records = list(map(PendingRecord, values, *others))
    if marks_ms is not None:
        for record, mark_ms in zip(records, marks_ms, strict=True):
            record.mark_ms = mark_ms
    return records


def _releases(node: Node, queue: PendingQueue, taken: Sequence[PendingRecord]) -> list[Release]:
    parts, rest = _divided(sorted(taken, key=_arrival))
    queue.give_back(rest)
    return [_released(node, each) for each in parts]


def _divided(
    records: list[PendingRecord],
) -> tuple[list[list[PendingRecord]], list[PendingRecord]]:
    """Divide records by partition, and return those that must wait until these are delivered.

    The offsets of a part do not descend; those of window results may. The records of a group are
    in one part: a later part is processed even if something of an earlier one has to wait.
    """
    offsets = [each.offset for each in records]
    if len(set(map(_place, records))) == 1 and all(map(le, offsets, offsets[1:])):
        return [records], []
    parts: dict[tuple[str, int], list[PendingRecord]] = {}
    places: dict[Hashable, tuple[str, int]] = {}
    blocked: set[Hashable] = set()
    rest = []
    for record in records:
        place = _place(record)
        part = parts.get(place)
        is_first = part is None or part[-1].offset <= record.offset
        if (
            not is_first
            or record.group in blocked
            or places.setdefault(record.group, place) != place
        ):
            blocked.add(record.group)
            rest.append(record)
        elif part is None:
            parts[place] = [record]
        else:
            part.append(record)
    return list(parts.values()), rest


def _released(node: Node, records: list[PendingRecord]) -> Release:
    first = records[0]
    part = Chunk(
        values_of(records),
        [each.key for each in records],
        [each.timestamp_ms for each in records],
        [each.offset for each in records],
        first.topic,
        first.partition,
    )
    return Release(node, part, records)
