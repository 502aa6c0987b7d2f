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
from functools import partial
from typing import Final

from streamkit.dataflow.steps import Operator
from streamkit.dataflow.topology import Node, Topology
from streamkit.dataflow.watermarks import FOREVER_MS, Watermarks, plan_time
from streamkit.errors import StageError, StreamKitError
from streamkit.record import Chunk
from streamkit.runtime.applying import Applying
from streamkit.runtime.call_queue import CallQueue
from streamkit.runtime.failures import describe_failure
from streamkit.runtime.letters import Letters
from streamkit.runtime.node_room import Budget, NodeRoom
from streamkit.runtime.pending_queues import Release, open_queues
from streamkit.runtime.replay import Replay
from streamkit.runtime.running_graph import RunningGraph
from streamkit.runtime.running_node import RunningNode
from streamkit.runtime.task_env import TaskEnv
from streamkit.runtime.work import (
    Counts,
    Pass,
    Skip,
    Work,
    add_counts,
    end_of,
)
from streamkit.state.keyed import Keyed
from streamkit.state.states import TIME_STATE, States
from streamkit.state.types import format_of

OnSkip = Callable[[Skip], None]
OnResult = Callable[[Node, Chunk], None]


class Task:
    """Runs the nodes of a graph over chunks.

    Args:
        topology: The graph.
        last_operators: The operator of a sink's writer, applied after the steps of its node.
        on_skip: Called for each record that is skipped or put aside.
        env: The job, and the time; without a clock, no slice ends early.
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
        env: TaskEnv | None = None,
        states: States | None = None,
        never_idle: bool = False,
        is_isolated: bool = False,
    ) -> None:
        env = env or TaskEnv()
        self.states = States() if states is None else states
        self.counts = {node: Counts() for node in topology.nodes}
        self._on_skip = on_skip
        self._on_result: OnResult | None = None
        self._budget = Budget(env.now_s)
        self._letters = Letters(env.job, env.wall_ms, env.poison)
        self._applying = Applying(self._budget, self._letters)
        self._replay = Replay(env.job.app, {node.name: node for node in topology.nodes})
        self.pending = open_queues(topology, self.states, env)
        self.time = self._opened_time(topology, never_idle=never_idle)
        room_of = partial(NodeRoom, self._budget, self.states, self.time, env.lifespan)
        last = last_operators or {}
        self._graph = RunningGraph(topology, room_of, self.pending, last, self._applying)
        self._graph.is_isolated = is_isolated
        self._graph.merge_in_order(has_states=bool(self.states))
        self._timed = (
            [self._graph.nodes[node] for node in self.time.plan.timed] if self.time else []
        )
        for node, queue in self.pending.by_node.items():
            self.counts[node].taken = self.counts[node].pending = len(queue)
            if self.time is not None:
                self._graph.nodes[node].marks = partial(self.time.marks_of, node)
                self.time.queues[node] = queue.lowest_mark_ms

    @property
    def on_result(self) -> OnResult | None:
        """Called with the result of each node, for tests."""
        return self._on_result

    @on_result.setter
    def on_result(self, on_result: OnResult | None) -> None:
        self._on_result = on_result
        self._graph.keeps_results = on_result is not None

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
        return self._guarded(lambda: self._whole(Work(source, part)))

    def resume(self, release: Release) -> Work:
        """Process records that have waited in a stage, like a slice of a source."""
        node, part, records = release.node, release.part, release.records
        work = self._guarded(lambda: self._whole(Work(None, part, node, records)))
        # With states, a slice that ends early is made again without its last records.
        self.pending.by_node[node].give_back(records[len(work.records) :])
        return work

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

        Stages after one in which records wait are left out: when those have been processed, call
        it again.

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
            self._graph.forget()
            raise
        if self.on_result is not None:
            for node, chunk in work.results:
                self.on_result(node, work.within(chunk))
        return work

    def _whole(self, work: Work) -> Work:
        work = self._worked(work)
        while self.states and work.end < end_of(work.part):
            self.states.undo_slice()
            kept = work.first(bisect_left(work.part.offsets, work.end))
            if not len(kept.part):
                return work
            failure = work.failure
            if work.has_failed_firing and len(work.part) > 1:
                # Which record has completed the result is not known: try with fewer of them.
                work = self._worked(work.first(_whole_records(work.part, len(work.part) // 2)))
                continue
            work = self._repeated(kept)
            if work.end == end_of(work.part):
                work.failure = failure
                return work
        return work

    def settle(self, work: Work, reached: int) -> None:
        """Make the states those after the records before ``reached``.

        Call it when no more of a work will be delivered.

        Raises:
            StreamKitError: A function did not do again what it did before.
        """
        self.pending.give_back(work)
        if not self.states:
            return
        if reached < end_of(work.part):
            self.states.undo_slice()
            done = work.first(bisect_left(work.part.offsets, reached))
            if len(done.part) and (work.source is not None or work.node is not None):
                done.earlier = work
                again = self._repeated(done, fires=False)
                self._refuse_other_result(again)
        self.states.keep_slice()

    def _worked(self, work: Work, *, fires: bool = True) -> Work:
        """Process a work that has not been processed yet."""
        part, node = work.part, work.source or work.node
        assert node is not None, "it is a slice of a source, or of records that have waited"
        if self.time is not None:
            if work.node is None:
                self.time.begin(work.source, part.partition)
            else:
                self.time.resume(work.node, part, [each.mark_ms for each in work.records])
        if node.is_replay:
            self._run_letters(node, work)
        else:
            is_resumed = work.node is not None
            self._graph.begin(node, part, work, is_resumed=is_resumed)
        self._graph.run_merged(work)
        if work.end == end_of(part) and fires:
            return self._fired(work, {})
        work.finish()
        return work

    def _run_letters(self, node: Node, work: Work) -> None:
        """Give dead letters to the stages that they came from."""
        inputs = self._replay.inputs(work)
        given = sorted(at for _, chunk in inputs for at in chunk.offsets)
        gone = [skip.offset for skip in work.skips]
        work.nodes.append((node, work.part.offsets, given))
        work.passes.append(Pass(node, work.part.offsets, given, gone, None))
        for stage, chunk in inputs:
            self._graph.begin(stage, chunk, work)

    def _fired(self, work: Work, marks_ms: Mapping[Node, int]) -> Work:
        """Emit what the watermarks have completed, stage after stage, inputs first."""
        time = self.time
        if time is not None and work.source is None and work.node is None:
            time.begin(None, 0)
        for running in self._timed:
            assert time is not None, "stages wait for it"
            node = running.node
            # What waits before it may still come, and would be late.
            is_drained = node in marks_ms and not time.is_held(node)
            mark_ms = marks_ms[node] if is_drained else time.next_of(node)
            time.is_firing = True
            self._fire(running, mark_ms, work)
            self._graph.run_merged(work)
            if is_drained:
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
        for operator in running.after_time:
            chunk = self._applying.apply_to_results(running, operator, chunk, work)
        self._graph.send_letters(work)
        work.nodes.append((running.node, (), chunk.offsets))
        self._graph.give(running, chunk, chunk, work)
        if work.failure is not None and not had_failed:
            work.has_failed_firing = True

    def _repeated(self, work: Work, *, fires: bool = True) -> Work:
        """Process records once more, after their states were undone."""
        self._budget.is_unlimited = True
        try:
            return self._worked(work, fires=fires)
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
        start = work.counted_to
        skips = add_counts(work, reached, self.counts)
        if self.pending:
            self.pending.account(work, start, reached)
            for node, queue in self.pending.by_node.items():
                self.counts[node].pending = len(queue)
        for skip in skips:
            if self._on_skip is not None:
                self._on_skip(skip)

    def check_counts(self) -> None:
        """Refuse counts that do not add up: then records would be lost, or processed twice.

        Raises:
            StreamKitError: The inputs of a stage are not those that it has handled, dropped,
                skipped, put aside or keeps.
        """
        for node, counts in self.counts.items():
            queue = self.pending.by_node.get(node)
            added = counts.taken if not isinstance(queue, CallQueue) else queue.records.added
            if counts.handled < 0 or added != counts.taken:
                raise StreamKitError(
                    f"the counts of {node.name!r} do not add up: {counts}, {added} added",
                    hint="this is a fault of streamkit; nothing more is committed",
                )

    def last_of(self, node: Node, row: Chunk) -> tuple[str, Node | None]:
        """Return what happens to a record that fails for good, and where it is put aside."""
        return self._letters.last_of(node, row)

    def put_aside(
        self, work: Work, letters: Node, sink: Node, row: Chunk, failure: StageError
    ) -> None:
        """Write an input of a sink that could not be written to the place for dead letters."""
        letter = self._letters.of_input(sink, row, failure, 1)
        work.letters.append((letters, letter))
        results = len(work.results)
        self._graph.send_letters(work)
        if self.on_result is not None:
            for node, chunk in work.results[results:]:
                self.on_result(node, chunk)


# The part of a slice without records: one row, for the time that has passed.
_TICK: Final = Chunk([None], [None], [0], [0])


def _whole_records(part: Chunk, rows: int) -> int:
    """Return about so many rows, without dividing a record."""
    return bisect_right(part.offsets, part.offsets[max(0, rows - 1)])
