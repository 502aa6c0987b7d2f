"""A running graph: turns chunks of the sources into chunks for the sinks. No I/O.

All outputs of a slice are computed before any of them is written to a sink. A slice may end early,
at a record that fails or when its time is over. Then the outputs of that record and of later ones
are removed in every branch, so that only outputs of whole records are left.

| step of a slice | what happens |
|---|---|
| records | go through the graph, to stages that keep states and to sinks |
| time | each stage that waits for the watermark, inputs first, emits what is complete |
| end | states are kept, or undone and made again for the records that were delivered |
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from streamkit.dataflow.steps import Operator
from streamkit.dataflow.topology import Node, Topology
from streamkit.dataflow.watermarks import FOREVER_MS, Watermarks, plan_time
from streamkit.errors import StageError, StreamKitError
from streamkit.record import Chunk, in_order
from streamkit.runtime.applying import Applying
from streamkit.runtime.failures import describe_failure
from streamkit.runtime.isolation import ChangedInPlace, ValueCopy
from streamkit.runtime.node_room import Budget, NodeRoom
from streamkit.runtime.running_node import Reader, RunningNode, Side
from streamkit.runtime.work import (
    Counts,
    Output,
    Work,
    add_counts,
    end_of,
)
from streamkit.state.keyed import Keyed
from streamkit.state.states import TIME_STATE, States
from streamkit.state.types import format_of

OnSkip = Callable[[StageError], None]
OnResult = Callable[[Node, Chunk], None]


class Task:
    """Runs the nodes of a graph over chunks.

    Args:
        topology: The graph.
        last_operators: The operator of a sink's writer, applied after the steps of its node.
        on_skip: Called for each record skipped because of ``on_error="skip"``.
        now_s: Returns the time, to end a slice that takes too long; without it, none ends early.
        states: The values that stages keep by key.
        never_idle: Windows that a quiet partition holds open stay open.
        is_isolated: Fail a stage that changes a value in place if others read it; for tests.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        last_operators: Mapping[Node, Operator] | None = None,
        on_skip: OnSkip | None = None,
        now_s: Callable[[], float] | None = None,
        states: States | None = None,
        never_idle: bool = False,
        is_isolated: bool = False,
    ) -> None:
        self.states = States() if states is None else states
        self._is_isolated = is_isolated
        self.counts = {node: Counts() for node in topology.nodes}
        self._on_skip = on_skip
        # Called with the result of each node, for tests.
        self.on_result: OnResult | None = None
        self._budget = Budget(now_s or (lambda: 0.0))
        self._applying = Applying(self._budget)
        self.time = self._opened_time(topology, never_idle=never_idle)
        last = last_operators or {}
        running_nodes = {node: RunningNode(node) for node in topology.nodes}
        for node, running in running_nodes.items():
            room = running.room = NodeRoom(node, self._budget, self.states, self.time)
            running.operators = [(step.open(room), step.expands) for step in node.steps]
            if node in last:
                running.operators.append((last[node], False))
            for reader in topology.readers(node):
                sides = [side for side, each in enumerate(reader.inputs) if each is node]
                readers = running.late_readers if reader.is_late else running.readers
                readers += [(running_nodes[reader], side) for side in sides]
        self._running_nodes = running_nodes
        self._timed = [running_nodes[node] for node in self.time.plan.timed] if self.time else []
        self._merging = self._merging_nodes()

    def _merging_nodes(self) -> dict[Node, list[Chunk]]:
        """Return the nodes where streams merge, whose rows are put in order before they run.

        It matters only with states. A test for changes in place looks at each stream alone.
        """
        if not self.states or self._is_isolated:
            return {}
        return {
            node: []
            for node, running in self._running_nodes.items()
            if len(node.inputs) > 1 and not running.is_two_sided
        }

    def _opened_time(self, topology: Topology, *, never_idle: bool) -> Watermarks | None:
        plan = plan_time(topology)
        if not plan.timed:
            return None
        kept = self.states.open(Keyed, TIME_STATE, format_of(int, TIME_STATE))
        return Watermarks(plan, kept, never_idle=never_idle)

    def process(self, source: Node, part: Chunk) -> Work:
        """Process a slice of a source's chunk; return the outputs for the sinks.

        Nothing is counted before `account`. If a stage with ``on_error="fail"`` fails on a
        record, the work ends before that record and contains the failure.
        """
        return self._guarded(lambda: self._whole(source, part))

    def tick(self) -> Work | None:
        """Return what has become complete without new records; None if nothing has."""
        time = self.time
        if time is None:
            return None
        for running in self._timed:
            due_ms = running.timed.due_ms()
            if due_ms is not None and due_ms <= time.next_of(running.node):
                return self._guarded(lambda: self._fired(Work(None, _TICK), {}))
        return None

    def drain(self) -> Work | None:
        """Return all that waits, as if no record could come any more; None if nothing waits.

        Afterwards the watermarks are those of the records, so a later run goes on normally.
        """
        time = self.time
        if time is None:
            return None
        marks_ms = {running.node: FOREVER_MS for running in self._timed}
        return self._guarded(lambda: self._fired(Work(None, _TICK), marks_ms))

    def _guarded(self, make: Callable[[], Work]) -> Work:
        try:
            work = make()
        except BaseException:
            self.states.undo_slice()
            self._merging = {node: [] for node in self._merging}
            raise
        if self.on_result is not None:
            for node, chunk in work.results:
                self.on_result(node, chunk)
        return work

    def _whole(self, source: Node, part: Chunk) -> Work:
        work = self._worked(source, part)
        while self.states and work.end < end_of(part):
            self.states.undo_slice()
            kept = part.slice(0, bisect_left(part.offsets, work.end))
            if not len(kept):
                return work
            failure = work.failure
            if work.has_failed_firing and len(part) > 1:
                # Which record has completed the result is not known: try with fewer of them.
                part = _whole_records(part, len(part) // 2)
                work = self._worked(source, part)
                continue
            work = self._repeated(source, kept)
            if work.end == end_of(kept):
                work.failure = failure
                return work
            part = kept
        return work

    def settle(self, work: Work, reached: int) -> None:
        """Make the states those after the records before ``reached``.

        Call it when no more of a work will be delivered.

        Raises:
            StreamKitError: A function did not do again what it did before.
        """
        if not self.states:
            return
        if reached < end_of(work.part):
            self.states.undo_slice()
            done = work.part.slice(0, bisect_left(work.part.offsets, reached))
            if len(done) and work.source is not None:
                again = self._repeated(work.source, done, fires=False)
                self._refuse_other_result(again)
        self.states.keep_slice()

    def _worked(self, source: Node, part: Chunk, *, fires: bool = True) -> Work:
        work = Work(source, part)
        if self.time is not None:
            self.time.begin(source, part.partition)
        self._run((self._running_nodes[source], 0), part, work)
        self._run_merged(work)
        if work.end == end_of(part) and fires:
            return self._fired(work, {})
        work.finish()
        return work

    def _fired(self, work: Work, marks_ms: Mapping[Node, int]) -> Work:
        """Emit what the watermarks have completed, stage after stage, inputs first."""
        time = self.time
        if time is not None and work.source is None:
            time.begin(None, 0)
        for running in self._timed:
            assert time is not None, "stages wait for it"
            node = running.node
            mark_ms = marks_ms.get(node)
            if mark_ms is None:
                mark_ms = time.next_of(node)
            time.is_firing = True
            self._fire(running, mark_ms, work)
            self._run_merged(work)
            if node in marks_ms:
                mark_ms = max(time.of_node(node), time.highest_seen(node))
            time.advance(node, mark_ms)
        work.finish()
        return work

    def _fire(self, running: RunningNode, mark_ms: int, work: Work) -> None:
        offset = work.part.offsets[-1]
        try:
            result = running.timed.on_time(mark_ms)
        except Exception as error:  # of a function of the user that merges, for example
            row = len(work.part) - 1
            work.fail(describe_failure(running.node, work.part, row, error), offset)
            work.has_failed_firing = True
            return
        if not len(result):
            return
        chunk = replace(result, offsets=[offset] * len(result), topic=running.node.name)
        had_failed = work.failure is not None
        for operator, expands in running.after_time:
            chunk = self._applying.apply(running, operator, expands, chunk, work)
        work.nodes.append((running.node, (), chunk.offsets))
        self._give(running, chunk, work)
        if work.failure is not None and not had_failed:
            work.has_failed_firing = True

    def _repeated(self, source: Node, part: Chunk, *, fires: bool = True) -> Work:
        """Process records once more, after their states were undone."""
        self._budget.is_unlimited = True
        try:
            return self._worked(source, part, fires=fires)
        finally:
            self._budget.is_unlimited = False

    def _refuse_other_result(self, again: Work) -> None:
        if again.end < end_of(again.part):
            raise StreamKitError(
                "a stage failed on records that it had processed before: "
                f"{again.failure or 'it ended early'}",
                hint="stages of a job with state may be called again, and must then do the same",
            )

    def account(self, work: Work, reached: int) -> None:
        """Add a `Work` to the counts, up to the offset ``reached``."""
        for skip in add_counts(work, reached, self.counts):
            if self._on_skip is not None:
                self._on_skip(skip.error)

    def _run(self, reader: Reader, chunk: Chunk, work: Work) -> None:
        running, side = reader
        node = running.node
        chunk = work.within(chunk)
        taken = chunk.offsets
        for number, (operator, expands) in enumerate(running.operators):
            if number == 0 and running.is_two_sided:
                operator = Side(operator, side)
            chunk = self._applying.apply(running, operator, expands, chunk, work)
        work.nodes.append((node, taken, chunk.offsets))
        self._give(running, chunk, work)

    def _give(self, running: RunningNode, chunk: Chunk, work: Work) -> None:
        """Give the results of a node to its readers, and the records that were too late."""
        node = running.node
        if self.on_result is not None:
            work.results.append((node, chunk))
        if node.kind == "sink":
            work.outputs.append(Output(node, chunk))
        late = running.room.take_late()
        for each in late:
            work.late.append((node, each.offsets))
            for reader in running.late_readers:
                self._run(reader, each, work)
        is_shared = self._is_isolated and len(running.readers) > 1
        for reader in running.readers:
            if reader[0].node in self._merging:
                self._merging[reader[0].node].append(chunk)
                continue
            before = ValueCopy(chunk) if is_shared else None
            self._run(reader, chunk, work)
            row = None if before is None else before.changed_row()
            if row is not None:
                failure = describe_failure(reader[0].node, chunk, row, ChangedInPlace())
                work.fail(failure, chunk.offsets[row])

    def _run_merged(self, work: Work) -> None:
        """Run the nodes where streams merge, inputs first, each with all its rows in order."""
        for node, chunks in self._merging.items():
            if chunks:
                self._merging[node] = []
                self._run((self._running_nodes[node], 0), in_order(chunks), work)


# The part of a slice without records: one row, for the time that has passed.
_TICK: Final = Chunk([None], [None], [0], [0])


def _whole_records(part: Chunk, rows: int) -> Chunk:
    """Return about so many rows, without dividing a record."""
    return part.slice(0, bisect_right(part.offsets, part.offsets[max(0, rows - 1)]))
