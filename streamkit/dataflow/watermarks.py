"""Watermarks: how far event time has come, in each partition and for each stage that waits.

| what | value |
|---|---|
| watermark of a partition | the highest event time of its records so far, less ``out_of_order`` |
| watermark of a stage | the lowest of its partitions, less what stages before it wait |
| a partition that has records to read | holds the watermark of a stage back |
| a partition that is quiet for ``idle`` | does not, unless all are quiet |
| a record waits in a stage before this one | its watermark is held where it was for that record |
| all partitions are quiet for ``idle`` | the watermark moves on with the clock |
| a partition without any records | holds nothing back |

A record is judged by the watermark of its own partition before it, which does not depend on how
fast other partitions are read. A window closes by the watermark of the stage, which is the lowest.
So no record that counts finds its window closed, and the same input gives the same windows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from operator import gt
from typing import Final

from streamkit.dataflow.steps import TimedStep
from streamkit.dataflow.topology import Node, Topology
from streamkit.record import Chunk
from streamkit.state.keyed import Keyed

NEVER_MS: Final = -(2**62)
# The watermark when no record can come any more.
FOREVER_MS: Final = 2**62


@dataclass(frozen=True, slots=True)
class NodeTime:
    """What the watermark of a node depends on: its sources, and the nodes before it that wait.

    ``hold_ms`` is how long those wait on the longest path. ``waits_for`` are the last ones on each
    path, with how far their results may lie behind their watermark. ``before`` are all nodes
    before it, and itself.
    """

    sources: tuple[Node, ...]
    hold_ms: int
    waits_for: tuple[tuple[Node, int], ...] = ()
    before: frozenset[Node] = frozenset()


@dataclass(frozen=True, slots=True)
class TimePlan:
    """The nodes that wait for watermarks, inputs first, and the times of all nodes."""

    timed: tuple[Node, ...]
    of_node: Mapping[Node, NodeTime]


def plan_time(topology: Topology) -> TimePlan:
    """Find which sources each node depends on, and how long the nodes before it wait."""
    found: dict[Node, NodeTime] = {}
    timed = []
    for node in topology.nodes:
        sources = {node: None} if node.kind == "source" else {}
        hold_ms = 0
        waits_for: dict[Node, int] = {}
        for each in node.inputs:
            sources.update(dict.fromkeys(found[each].sources))
            hold_ms = max(hold_ms, found[each].hold_ms + own_hold_ms(each))
            if timed_step(each) is None:
                waits_for.update(found[each].waits_for)
            else:
                waits_for[each] = own_hold_ms(each)
        before = frozenset({node}).union(*(found[each].before for each in node.inputs))
        found[node] = NodeTime(tuple(sources), hold_ms, tuple(waits_for.items()), before)
        if timed_step(node) is not None:
            timed.append(node)
    return TimePlan(tuple(timed), found)


def timed_step(node: Node) -> TimedStep | None:
    """Return the step of a node that waits for watermarks; it is the first one."""
    first = node.steps[0] if node.steps else None
    return first if isinstance(first, TimedStep) and first.is_timed else None


def own_hold_ms(node: Node) -> int:
    """Return how far the results of a node may lie behind its watermark."""
    step = timed_step(node)
    return 0 if step is None else step.hold_ms


@dataclass(slots=True)
class _Part:
    """A piece of the records of this slice, and the highest event time before it."""

    offsets: Sequence[int]
    times_ms: Sequence[int]
    before_ms: int
    tops_ms: list[int] = field(default_factory=list)


class Watermarks:
    """The watermarks of one task.

    Args:
        plan: Which nodes wait, and for which sources.
        kept: Where watermarks outlive the task.
        never_idle: No partition is taken for quiet: what it holds open stays open.
    """

    def __init__(self, plan: TimePlan, kept: Keyed, *, never_idle: bool = False) -> None:
        self.plan = plan
        self._kept = kept
        # How long the task has been able to get records, if there were any; see `elapse`.
        self._open_s = 0.0
        self._never_idle = never_idle
        # Unread records by source and partition, if the source knows them.
        self.backlog: Callable[[Node], Mapping[int, int]] = lambda source: {}
        self.ended: set[Node] = set()
        # The timed nodes that can get no more records, because their sources have ended.
        self._finished: set[Node] = set()
        # Whether results of timed nodes are processed, which no partition has brought.
        self.is_firing = False
        self._source: Node | None = None
        self._partition = 0
        self._parts: list[_Part] = []
        # The stage in which the records of this slice have waited.
        self._resumed: Node | None = None
        # The stages where records wait, and the lowest watermark that such a record needs.
        self.queues: dict[Node, Callable[[], int | None]] = {}
        # The same of records that begin to wait in this slice.
        self._waiting: dict[Node, int] = {}
        used = {each for node in plan.timed for each in plan.of_node[node].sources}
        self._keys = {source: _Keys(source.name) for source in used}
        self._seen_s: dict[Node, dict[int, float]] = {
            source: {number: 0.0 for number in self._stored_partitions(source)} for source in used
        }

    def elapse(self, seconds: float) -> None:
        """Let time pass, to notice quiet partitions.

        Time in which the job could not get records, because it was stopped or user code blocked
        it, must not be counted: the records of that time are still to come.
        """
        self._open_s += seconds

    # --- in a slice ------------------------------------------------------------------

    def begin(self, source: Node | None, partition: int) -> None:
        """Begin a slice of a partition; None for a slice without records."""
        self._source = source if source in self._keys else None
        self._partition = partition
        self._parts = []
        self._resumed = None
        self._waiting = {}
        self.is_firing = False

    def resume(self, node: Node, part: Chunk, marks_ms: Sequence[int | None]) -> None:
        """Begin a slice of records that have waited in a stage.

        ``marks_ms`` are the watermarks that they had there: later stages judge them by these, so
        it does not matter how long they have waited.
        """
        self.begin(None, 0)
        self._resumed = node
        tops_ms = [NEVER_MS if each is None else each for each in marks_ms]
        self._parts = [_Part(part.offsets, part.timestamps_ms, NEVER_MS, tops_ms)]

    def marks_of(self, node: Node, chunk: Chunk) -> Sequence[int]:
        """Return the watermarks by which records are judged later that wait in a stage now.

        Until they are in its queue, they hold watermarks back like those that are.
        """
        found: Sequence[int]
        if self.is_firing or not self._parts:
            waits_for = self.plan.of_node[node].waits_for
            marks_ms = [self.of_node(before) - hold_ms for before, hold_ms in waits_for]
            found = [min(marks_ms, default=NEVER_MS)] * len(chunk)
        else:
            found = self.of_rows(node, chunk)
        if found:
            self._waiting[node] = min(self._waiting.get(node, FOREVER_MS), min(found))
        return found

    def observe(self, chunk: Chunk) -> None:
        """Note the event times of records of this slice, in order."""
        if self._source is None or not len(chunk):
            return
        key = self._keys[self._source].of(self._partition)
        self._seen_s[self._source][self._partition] = self._open_s
        before_ms = self._kept.values.get(key, NEVER_MS)
        top_ms = max(chunk.timestamps_ms)
        self._parts.append(_Part(chunk.offsets, chunk.timestamps_ms, before_ms))
        if top_ms > before_ms:
            self._kept.touch(key)
            self._kept.values[key] = top_ms

    def of_node(self, node: Node) -> int:
        """Return the watermark of a timed node."""
        found: int = self._kept.values.get(_node_key(node), NEVER_MS)
        return found

    def highest_of(self, node: Node) -> int:
        """Return a time that the watermark of no record of this slice is above."""
        own_ms = self.of_node(node)
        if self.is_firing or not self._parts:
            return own_ms
        if self._source is None:
            return max(own_ms, max(self._parts[0].tops_ms) - self._behind_ms(node))
        top_ms: int = self._kept.values.get(self._keys[self._source].of(self._partition), NEVER_MS)
        return max(own_ms, top_ms - self._behind_ms(node))

    def is_in_order(self) -> bool:
        """Return whether no record of this slice comes after one of a later event time."""
        if self.is_firing or self._source is None:
            return False
        before_ms = NEVER_MS
        for part in self._parts:
            times_ms = part.times_ms
            before_ms = max(before_ms, part.before_ms)
            if times_ms[0] < before_ms or any(map(gt, times_ms, times_ms[1:])):
                return False
            before_ms = times_ms[-1]
        return True

    def of_rows(self, node: Node, chunk: Chunk) -> Sequence[int]:
        """Return, for each row, the watermark of its own partition before its record."""
        own_ms = self.of_node(node)
        if self.is_firing or not self._parts:
            return [own_ms] * len(chunk)
        behind_ms = self._behind_ms(node)
        found = []
        parts = self._parts
        number = 0
        for part in parts:
            if not part.tops_ms:
                part.tops_ms = list(accumulate(part.times_ms, max, initial=part.before_ms))
        for offset in chunk.offsets:
            while number + 1 < len(parts) and offset >= parts[number + 1].offsets[0]:
                number += 1
            part = parts[number]
            found.append(part.tops_ms[bisect_left(part.offsets, offset)] - behind_ms)
        return list(map(max, found, repeat(own_ms)))

    # --- between slices --------------------------------------------------------------

    def next_of(self, node: Node) -> int:
        """Return how far the watermark of a timed node may move now."""
        time = self.plan.of_node[node]
        now_s = self._open_s
        holding_ms: list[int] = []
        quiet_ms: list[int] = []
        tables_ms: list[int] = []
        for source in time.sources:
            if source in self.ended:
                continue
            held, quiet = self._partitions(source, now_s)
            if source.is_table:  # it holds streams back, but does not move time on for them
                tables_ms += held
            else:
                holding_ms += held
                quiet_ms += quiet
        streams_ms = min(holding_ms) if holding_ms else max(quiet_ms, default=NEVER_MS)
        if all(each.is_table or each in self.ended for each in time.sources):
            streams_ms = FOREVER_MS
        found_ms = min([streams_ms, *tables_ms]) - time.hold_ms
        # What waits in a stage before this one may come even if the source of it is quiet.
        for before, hold_ms in time.waits_for:
            if before not in self._finished:
                found_ms = min(found_ms, self.of_node(before) - hold_ms)
        for queued, lowest in self.queues.items():
            if queued in time.before:
                lowest_ms, waiting_ms = lowest(), self._waiting.get(queued, FOREVER_MS)
                mark_ms = waiting_ms if lowest_ms is None else min(lowest_ms, waiting_ms)
                # As if no later record had come.
                found_ms = min(found_ms, mark_ms - self._between_ms(queued, node))
        return max(self.of_node(node), found_ms)

    def is_held(self, node: Node) -> bool:
        """Return whether records wait in a stage before a timed node."""
        before = self.plan.of_node[node].before
        return any(
            each in before and (each in self._waiting or lowest() is not None)
            for each, lowest in self.queues.items()
        )

    def _partitions(self, source: Node, now_s: float) -> tuple[list[int], list[int]]:
        """Return the watermarks of the partitions that hold others back, and of quiet ones."""
        timing, keys, seen_s = source.timing, self._keys[source], self._seen_s[source]
        backlog = self.backlog(source)
        holding_ms: list[int] = []
        quiet_ms: list[int] = []
        for number, at_s in seen_s.items():
            top_ms: int = self._kept.values.get(keys.of(number), NEVER_MS)
            own_ms = top_ms - timing.out_of_order_ms
            waited_ms = int((now_s - at_s) * 1_000)
            if backlog.get(number) or self._never_idle or waited_ms < timing.idle_ms:
                holding_ms.append(own_ms)
            else:
                quiet_ms.append(own_ms + waited_ms)
        if any(count and number not in seen_s for number, count in backlog.items()):
            holding_ms.append(NEVER_MS)
        return holding_ms, quiet_ms

    def advance(self, node: Node, mark_ms: int) -> None:
        """Set the watermark of a timed node.

        After the end of its sources, it is that of the records, for the next run.
        """
        if mark_ms > FOREVER_MS // 2:
            self._finished.add(node)
            mark_ms = self.highest_seen(node)
        key = _node_key(node)
        if mark_ms > self._kept.values.get(key, NEVER_MS):
            self._kept.touch(key)
            self._kept.values[key] = mark_ms

    def highest_seen(self, node: Node) -> int:
        """Return the highest event time of the partitions that a node reads."""
        tops_ms = [
            self._kept.values.get(self._keys[source].of(number), NEVER_MS)
            for source in self.plan.of_node[node].sources
            for number in self._seen_s[source]
        ]
        return max(tops_ms, default=NEVER_MS)

    def of_partition(self, source: Node, partition: int) -> int:
        """Return the watermark of a partition; `NEVER_MS` if it has none."""
        keys = self._keys.get(source)
        found: int = (
            NEVER_MS if keys is None else self._kept.values.get(keys.of(partition), NEVER_MS)
        )
        return found - source.timing.out_of_order_ms

    def expect(self, source: Node, partition: int) -> None:
        """Wait for the first record of a partition, as long as for the next one of others."""
        if source in self._seen_s:
            self._seen_s[source].setdefault(partition, self._open_s)

    def is_used(self, source: Node) -> bool:
        """Return whether a stage waits for the watermark of a source."""
        return source in self._keys

    def set_partition(self, source: Node, partition: int, mark_ms: int) -> None:
        """Set the watermark of a partition, for tests."""
        key = self._keys[source].of(partition)
        self._kept.touch(key)
        self._kept.values[key] = mark_ms + source.timing.out_of_order_ms
        self._seen_s[source][partition] = self._open_s

    def _between_ms(self, before: Node, node: Node) -> int:
        """Return how long stages wait that lie between two nodes."""
        times = self.plan.of_node
        return max(0, times[node].hold_ms - times[before].hold_ms)

    def _behind_ms(self, node: Node) -> int:
        if self._resumed is not None:
            return self._between_ms(self._resumed, node)
        assert self._source is not None, "it is a slice of a source"
        return self._source.timing.out_of_order_ms + self.plan.of_node[node].hold_ms

    def _stored_partitions(self, source: Node) -> list[int]:
        prefix = f"{source.name}:".encode()
        return [int(key[len(prefix) :]) for key in self._kept.values if key.startswith(prefix)]


class _Keys:
    """The keys of the partitions of a source in the stored state."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._keys: dict[int, bytes] = {}

    def of(self, partition: int) -> bytes:
        found = self._keys.get(partition)
        if found is None:
            found = self._keys[partition] = f"{self._source}:{partition}".encode()
        return found


def _node_key(node: Node) -> bytes:
    return node.name.encode()
