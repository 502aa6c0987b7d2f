"""Runs one operator on one chunk; goes on after rows that fail or take too long."""

from __future__ import annotations

from bisect import bisect_right

from streamkit.dataflow.steps import Interrupted, Operator, RowFailed
from streamkit.dataflow.topology import Node
from streamkit.errors import StageError
from streamkit.record import Chunk, joined
from streamkit.runtime.failures import describe_failure
from streamkit.runtime.node_room import Budget
from streamkit.runtime.running_node import RunningNode
from streamkit.runtime.work import Pass, Skip, Work


class Applying:
    """Runs operators of one task, one at a time.

    Args:
        budget: The time that an operator may take.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def apply(
        self,
        running: RunningNode,
        operator: Operator,
        expands: bool,
        chunk: Chunk,
        work: Work,
    ) -> Chunk:
        node, room = running.node, running.room
        room.begin()
        skipped: list[int] = []
        try:
            result = operator.on_chunk(chunk)
        except Interrupted as interrupted:
            result, skipped = self._continued(node, operator, chunk, interrupted, work)
        empty = room.empty if expands else None
        work.passes.append(Pass(node, chunk.offsets, result.offsets, skipped, empty))
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
                    return joined(done), skipped
                skipped.append(offset)
                work.skips.append(Skip(node, offset, error))
                chunk = chunk.slice(row + 1, len(chunk))
            else:
                chunk = self._rest_of_record(chunk.slice(row, len(chunk)), work)
            try:
                done.append(operator.on_chunk(chunk))
                return joined(done), skipped
            except Interrupted as again:
                interrupted = again

    def _rest_of_record(self, chunk: Chunk, work: Work) -> Chunk:
        """Return the rows of the first record; the slice ends after that record.

        Otherwise a record that expands to many rows would run out of time on every attempt.
        """
        self._budget.hold()
        end = bisect_right(chunk.offsets, chunk.offsets[0])
        if end < len(chunk):
            work.end_at(chunk.offsets[end])
        return chunk.slice(0, end)


def is_skipped(node: Node, error: StageError) -> bool:
    """Return whether ``on_error`` of the stage skips the record. Ctrl-C stops the whole job."""
    return node.on_error == "skip" and not isinstance(error.__cause__, KeyboardInterrupt)


def _cause_of(failed: RowFailed) -> BaseException:
    assert failed.__cause__ is not None, "a failed row has an error"
    return failed.__cause__
