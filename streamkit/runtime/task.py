"""A running graph: turns chunks of the sources into chunks for the sinks. No I/O.

All outputs of a slice are computed before any of them is written to a sink. A slice may end early,
at a record that fails or when its time is over. Then the outputs of that record and of later ones
are removed in every branch, so that only outputs of whole records are left.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from streamkit.dataflow.steps import Interrupted, Operator, RowFailed
from streamkit.dataflow.topology import Node, Topology
from streamkit.errors import StageError, StreamKitError
from streamkit.record import Chunk
from streamkit.runtime.failures import describe_failure
from streamkit.runtime.isolation import ChangedInPlace, ValueCopy
from streamkit.state.keyed import Keyed, StateFormat
from streamkit.state.states import States

# How long one operator may work on one slice. The slice size is chosen for a much shorter time.
# This limit is for functions that suddenly become slow.
OPERATOR_S_MAX: Final = 0.25


@dataclass(slots=True)
class Counts:
    """Counts of a stage. Inputs: ``taken``, the sum of the next three. Outputs: ``given``."""

    taken: int = 0
    dropped: int = 0
    skipped: int = 0
    given: int = 0

    @property
    def handled(self) -> int:
        return self.taken - self.dropped - self.skipped


@dataclass(slots=True, eq=False)
class Output:
    """A chunk for a sink, from one path through the graph."""

    sink: Node
    chunk: Chunk


@dataclass(frozen=True, slots=True, eq=False)
class Skip:
    """A skipped record and its error. ``is_written``: it was counted as given before it failed."""

    node: Node
    offset: int
    error: StageError
    is_written: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """The offsets of the rows before and after one operator.

    ``empty`` are the offsets of rows that it expanded to no rows; None if it does not expand rows.
    """

    node: Node
    taken: Sequence[int]
    given: Sequence[int]
    skipped: Sequence[int]
    empty: Sequence[int] | None


class Work:
    """The outputs of one slice of a source, up to the offset ``end``.

    It has one output, possibly empty, for each path from the source to a sink.
    """

    def __init__(self, source: Node, part: Chunk) -> None:
        self.source = source
        self.part = part
        self.end: int = end_of(part)
        self.outputs: list[Output] = []
        self.failure: StageError | None = None
        self._failed_at = self.end
        self.counted_to: int = part.offsets[0] if len(part) else 0
        self.nodes: list[tuple[Node, Sequence[int], Sequence[int]]] = []
        self.passes: list[_Pass] = []
        self.skips: list[Skip] = []
        self.results: list[tuple[Node, Chunk]] = []

    def within(self, chunk: Chunk) -> Chunk:
        """Remove the rows of records that are no longer part of this work."""
        offsets = chunk.offsets
        if not len(offsets) or offsets[-1] < self.end:
            return chunk
        return chunk.slice(0, bisect_left(offsets, self.end))

    def end_at(self, offset: int) -> None:
        """End before ``offset``; a later slice processes that record and those after it."""
        self.end = min(self.end, offset)

    def fail(self, error: StageError, offset: int) -> None:
        """End before the record that failed; if several fail, keep the error of the first."""
        if self.failure is None or offset < self._failed_at:
            self.failure, self._failed_at = error, offset
        self.end_at(offset)

    def finish(self) -> None:
        """Cut every output at the same record."""
        if self._failed_at > self.end:
            self.failure = None  # a later slice processes that record again
        for output in self.outputs:
            output.chunk = self.within(output.chunk)


OnSkip = Callable[[StageError], None]
OnResult = Callable[[Node, Chunk], None]


class Task:
    """Runs the nodes of a graph over chunks.

    Args:
        topology: The graph.
        last_operators: The operator of a sink's writer, applied after the steps of its node.
        on_skip: Called for each record skipped because of ``on_error="skip"``.
        on_result: Called with the result of each node, for tests.
        now_s: Returns the time, to end a slice that takes too long; without it, none ends early.
        states: The values that stages keep by key.
        is_isolated: Fail a stage that changes a value in place if others read it; for tests.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        last_operators: Mapping[Node, Operator] | None = None,
        on_skip: OnSkip | None = None,
        on_result: OnResult | None = None,
        now_s: Callable[[], float] | None = None,
        states: States | None = None,
        is_isolated: bool = False,
    ) -> None:
        self.states = States() if states is None else states
        self._is_isolated = is_isolated
        self.counts = {node: Counts() for node in topology.nodes}
        self._on_skip = on_skip
        self._on_result = on_result
        self._runtime = _TaskRuntime(now_s or (lambda: 0.0), self.states)
        last = last_operators or {}
        running_nodes = {node: _RunningNode(node) for node in topology.nodes}
        for node, running in running_nodes.items():
            running.operators = [(step.open(self._runtime), step.expands) for step in node.steps]
            if node in last:
                running.operators.append((last[node], False))
            running.readers = [running_nodes[reader] for reader in topology.readers(node)]
        self._running_nodes = running_nodes

    def process(self, source: Node, part: Chunk) -> Work:
        """Process a slice of a source's chunk; return the outputs for the sinks.

        Nothing is counted before `account`. If a stage with ``on_error="fail"`` fails on a
        record, the work ends before that record and contains the failure.
        """
        try:
            work = self._worked(source, part)
            if self.states and work.end < end_of(part):
                work = self._without_the_rest(work)
        except BaseException:
            self.states.undo_slice()
            raise
        if self._on_result is not None:
            for node, chunk in work.results:
                self._on_result(node, chunk)
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
            if len(done):
                self._repeated(work.source, done)
        self.states.keep_slice()

    def _worked(self, source: Node, part: Chunk) -> Work:
        work = Work(source, part)
        self._run(self._running_nodes[source], part, work)
        work.finish()
        return work

    def _without_the_rest(self, work: Work) -> Work:
        """Take back what records did to states that are not part of a work any more."""
        self.states.undo_slice()
        failure, end, part = work.failure, work.end, work.part
        kept = part.slice(0, bisect_left(part.offsets, end))
        if not len(kept):
            return work
        again = self._repeated(work.source, kept)
        again.failure = failure
        return again

    def _repeated(self, source: Node, part: Chunk) -> Work:
        """Process records once more, after their states were undone."""
        self._runtime.is_unlimited = True
        try:
            work = self._worked(source, part)
        finally:
            self._runtime.is_unlimited = False
        if work.end < end_of(part):
            raise StreamKitError(
                "a stage failed on records that it had processed before: "
                f"{work.failure or 'it ended early'}",
                hint="stages of a job with state may be called again, and must then do the same",
            )
        return work

    def account(self, work: Work, reached: int) -> None:
        """Add a `Work` to the counts, up to the offset ``reached``."""
        start, work.counted_to = work.counted_to, reached
        for node, taken, given in work.nodes:
            counts = self.counts[node]
            counts.taken += _between(taken, start, reached)
            counts.given += _between(given, start, reached)
        for each in work.passes:
            self.counts[each.node].dropped += _dropped(each, start, reached)
        for skip in work.skips:
            if start <= skip.offset < reached:
                self._account_skip(skip)

    def _account_skip(self, skip: Skip) -> None:
        counts = self.counts[skip.node]
        counts.skipped += 1
        counts.given -= skip.is_written
        if self._on_skip is not None:
            self._on_skip(skip.error)

    def _run(self, running: _RunningNode, chunk: Chunk, work: Work) -> None:
        node = running.node
        chunk = work.within(chunk)
        taken = chunk.offsets
        for operator, expands in running.operators:
            chunk = self._apply(node, operator, expands, chunk, work)
        work.nodes.append((node, taken, chunk.offsets))
        if self._on_result is not None:
            work.results.append((node, chunk))
        if node.kind == "sink":
            work.outputs.append(Output(node, chunk))
        is_shared = self._is_isolated and len(running.readers) > 1
        for reader in running.readers:
            before = ValueCopy(chunk) if is_shared else None
            self._run(reader, chunk, work)
            row = None if before is None else before.changed_row()
            if row is not None:
                failure = describe_failure(reader.node, chunk, row, ChangedInPlace())
                work.fail(failure, chunk.offsets[row])

    def _apply(
        self, node: Node, operator: Operator, expands: bool, chunk: Chunk, work: Work
    ) -> Chunk:
        self._runtime.begin()
        skipped: list[int] = []
        try:
            result = operator.on_chunk(chunk)
        except Interrupted as interrupted:
            result, skipped = self._continued(node, operator, chunk, interrupted, work)
        empty = self._runtime.empty if expands else None
        work.passes.append(_Pass(node, chunk.offsets, result.offsets, skipped, empty))
        return result

    def _continued(
        self, node: Node, operator: Operator, chunk: Chunk, interrupted: Interrupted, work: Work
    ) -> tuple[Chunk, list[int]]:
        """Continue after a failed row, or finish the record that ran out of time.

        Each row is processed once. Returns the results and the offsets of skipped rows.
        """
        done: list[Chunk] = []
        skipped: list[int] = []
        while True:
            row = interrupted.row
            done.append(interrupted.before)
            if isinstance(interrupted, RowFailed):
                offset = chunk.offsets[row]
                error = describe_failure(node, chunk, row, _cause_of(interrupted))
                if not is_skipped(node, error):
                    work.fail(error, offset)
                    return _joined(done), skipped
                skipped.append(offset)
                work.skips.append(Skip(node, offset, error))
                chunk = chunk.slice(row + 1, len(chunk))
            else:
                chunk = self._rest_of_record(chunk.slice(row, len(chunk)), work)
            try:
                done.append(operator.on_chunk(chunk))
                return _joined(done), skipped
            except Interrupted as again:
                interrupted = again

    def _rest_of_record(self, chunk: Chunk, work: Work) -> Chunk:
        """Return the rows of the first record; the slice ends after that record.

        Otherwise a record that expands to many rows would run out of time on every attempt.
        """
        self._runtime.hold()
        end = bisect_right(chunk.offsets, chunk.offsets[0])
        if end < len(chunk):
            work.end_at(chunk.offsets[end])
        return chunk.slice(0, end)


def is_skipped(node: Node, error: StageError) -> bool:
    """Return whether ``on_error`` of the stage skips the record. Ctrl-C stops the whole job."""
    return node.on_error == "skip" and not isinstance(error.__cause__, KeyboardInterrupt)


@dataclass(slots=True)
class _RunningNode:
    """A node with its operators and readers, ready to run."""

    node: Node
    operators: list[tuple[Operator, bool]] = field(default_factory=list)
    readers: list[_RunningNode] = field(default_factory=list)


class _TaskRuntime:
    """Time limit and dropped rows of the running operator; a task runs one operator at a time."""

    def __init__(self, now_s: Callable[[], float], states: States) -> None:
        self._now_s = now_s
        self._states = states
        self.is_unlimited = False
        self._until_s = float("inf")
        self.empty: list[int] = []

    def begin(self) -> None:
        self._until_s = self._now_s() + OPERATOR_S_MAX
        self.empty = []

    def hold(self) -> None:
        self._until_s = float("inf")

    def is_over(self) -> bool:
        return not self.is_unlimited and self._now_s() >= self._until_s

    def keyed(self, name: str, form: StateFormat) -> Keyed:
        return self._states.open(name, form)

    def dropped(self, offsets: Sequence[int]) -> None:
        self.empty.extend(offsets)


def end_of(part: Chunk) -> int:
    """Return the offset after the last record of a slice."""
    return part.offsets[-1] + 1 if len(part) else 0


def _cause_of(failed: RowFailed) -> BaseException:
    assert failed.__cause__ is not None, "a failed row has an error"
    return failed.__cause__


def _between(offsets: Sequence[int], start: int, end: int) -> int:
    """Count the offsets from ``start`` up to ``end``; offsets must ascend."""
    if not len(offsets):
        return 0
    first = 0 if offsets[0] >= start else bisect_left(offsets, start)
    last = len(offsets) if offsets[-1] < end else bisect_left(offsets, end)
    return last - first


def _dropped(each: _Pass, start: int, end: int) -> int:
    if each.empty is not None:
        return _between(each.empty, start, end)
    taken, given = _between(each.taken, start, end), _between(each.given, start, end)
    return taken - given - _between(each.skipped, start, end)


def _joined(chunks: list[Chunk]) -> Chunk:
    first = chunks[0]
    if len(chunks) == 1:
        return first
    return Chunk(
        list(chain.from_iterable(each.values for each in chunks)),
        list(chain.from_iterable(each.keys for each in chunks)),
        list(chain.from_iterable(each.timestamps_ms for each in chunks)),
        list(chain.from_iterable(each.offsets for each in chunks)),
        first.topic,
        first.partition,
    )
