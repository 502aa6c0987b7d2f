"""Runs one operator on one chunk; goes on after rows that fail or take too long.

| the policy of the stage | a row that fails |
|---|---|
| fail | ends the slice before its record |
| skip | is counted and left out |
| dead letter | is written to another place, with its error |
| retry | waits in the stage, and later rows of its group behind it |
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from itertools import compress

from streamkit.dataflow.steps import Interrupted, Operator, RowFailed
from streamkit.dataflow.topology import Node
from streamkit.errors import StageError
from streamkit.record import Chunk, joined
from streamkit.runtime.failures import describe_failure, is_about_the_record
from streamkit.runtime.letters import Letters
from streamkit.runtime.node_room import Budget
from streamkit.runtime.pending_queue import Later
from streamkit.runtime.retry_queue import RetryQueue
from streamkit.runtime.running_node import RunningNode, Side
from streamkit.runtime.work import Aside, Pass, Place, Skip, Work, places_of
from streamkit.state.pending import PendingRecord


@dataclass(slots=True)
class _Applied:
    """One operator that was interrupted, and what is left of its chunk.

    ``inputs`` are the inputs of its node; None if the chunk has results that the node has kept.
    ``rows`` are, for each row of the rest, the inputs that it comes from, or may come from.
    ``shared`` are the offsets of rows where that is not exactly one input for each row. ``gone``
    are the offsets of rows that are left out or wait.
    """

    running: RunningNode
    operator: Operator
    inputs: Chunk | None
    work: Work
    chunk: Chunk
    rows: list[list[int]]
    shared: set[int]
    gone: list[int]
    # The last shared offset whose inputs wait.
    waiting: int | None = None

    def cut(self, start: int, stop: int) -> None:
        """Keep some rows of the rest."""
        self.chunk = self.chunk.slice(start, stop)
        self.rows = self.rows[start:stop]

    def select(self, mask: list[bool]) -> None:
        """Keep the rows that the mask is true for; the others are gone."""
        self.gone += [at for at, each in zip(self.chunk.offsets, mask, strict=True) if not each]
        self.chunk = self.chunk.select(mask)
        self.rows = list(compress(self.rows, mask))

    def without_waiting(self, done: Chunk) -> Chunk:
        """Leave out results of inputs that wait, because these are processed again as a whole."""
        if self.waiting is None or not len(done) or done.offsets[-1] < self.waiting:
            return done
        kept = bisect_left(done.offsets, self.waiting)
        self.gone += done.offsets[kept:]
        return done.slice(0, kept)

    def place(self, row: int) -> Place:
        """Return the place of an input; see `places_of`."""
        assert self.inputs is not None, "asked only then"
        offset = self.inputs.offsets[row]
        return offset, row - bisect_left(self.inputs.offsets, offset)

    def record(self, row: int) -> PendingRecord:
        """Return an input as a record that can wait."""
        inputs, running = self.inputs, self.running
        assert inputs is not None, "asked only then"
        if self.work.node is running.node:
            return self.work.records[row]
        record = PendingRecord(
            inputs.values[row],
            inputs.keys[row],
            inputs.timestamps_ms[row],
            inputs.offsets[row],
            inputs.topic,
            inputs.partition,
        )
        if running.marks is not None:
            record.mark_ms = running.marks(inputs.slice(row, row + 1))[0]
        return record


class Applying:
    """Runs operators of one task, one at a time.

    Args:
        budget: The time that an operator may take.
        letters: Writes dead letters.
    """

    def __init__(self, budget: Budget, letters: Letters) -> None:
        self._budget = budget
        self._letters = letters
        # Whether the node that runs has not failed on its last rows, for its circuit.
        self._ends_well = True

    def apply(
        self,
        running: RunningNode,
        number: int,
        side: int,
        chunk: Chunk,
        inputs: Chunk,
        work: Work,
    ) -> Chunk:
        """Run an operator of a node.

        Args:
            running: The node.
            number: The number of the operator.
            side: Which input of the node the chunk comes from.
            chunk: What the operator gets.
            inputs: What the node got in this slice.
            work: Gets what happened.
        """
        operator, expands = running.operators[number]
        if number == 0 and running.is_two_sided:
            operator = Side(operator, side)
        has_rows = number == 0 or number == running.called
        if number == 0:
            self._ends_well = len(chunk) > 0
        result = self._run(running, (operator, expands), chunk, (inputs, has_rows), work)
        is_last = number == len(running.operators) - 1
        if running.is_retrying and is_last and self._ends_well and work.earlier is None:
            assert running.queue is not None, "it has retries"
            running.queue.circuit.succeeded()
        return result

    def apply_to_results(
        self, running: RunningNode, operator: tuple[Operator, bool], chunk: Chunk, work: Work
    ) -> Chunk:
        """Run an operator on results that a node has kept until now."""
        return self._run(running, operator, chunk, (None, False), work)

    def _run(
        self,
        running: RunningNode,
        opened: tuple[Operator, bool],
        chunk: Chunk,
        inputs: tuple[Chunk | None, bool],
        work: Work,
    ) -> Chunk:
        operator, expands = opened
        room = running.room
        room.begin()
        gone: list[int] = []
        stopped: Interrupted | None = None
        try:
            result = operator.on_chunk(chunk)
        except Interrupted as interrupted:
            stopped = interrupted
        if stopped is not None:
            # Not while the first error is handled: it would be the context of the next ones.
            given, has_rows = inputs
            failed = work.failed.get(running.node, ())
            rows, shared = _rows_of(None if has_rows else given, chunk, failed)
            applied = _Applied(running, operator, given, work, chunk, rows, shared, gone)
            result = self._continued(applied, stopped)
        empty = room.empty if expands else None
        # A row that fails comes after rows that wait behind an earlier one.
        gone.sort()
        work.passes.append(Pass(running.node, chunk.offsets, result.offsets, gone, empty))
        return result

    def _continued(self, applied: _Applied, interrupted: Interrupted) -> Chunk:
        """Continue after a failed row, or finish the record that ran out of time.

        Each row is processed once.
        """
        done: list[Chunk] = []
        while True:
            row = interrupted.row
            done.append(interrupted.before)
            if isinstance(interrupted, RowFailed):
                if not self._goes_on(applied, row, _cause_of(interrupted)):
                    return joined(done)
                done = [applied.without_waiting(each) for each in done]
            else:
                self._rest_of_record(applied, row)
            try:
                done.append(applied.operator.on_chunk(applied.chunk))
                self._ends_well = len(applied.chunk) > 0
                return joined(done)
            except Interrupted as again:
                interrupted = again

    def _rest_of_record(self, applied: _Applied, row: int) -> None:
        """Leave the rows of the first record; the slice ends after that record.

        Otherwise a record that expands to many rows would run out of time on every attempt.
        """
        self._budget.hold()
        offsets = applied.chunk.offsets
        end = bisect_right(offsets, offsets[row], row)
        if end < len(offsets):
            applied.work.end_at(offsets[end])
        applied.cut(row, end)

    # --- rows that fail --------------------------------------------------------------

    def _goes_on(self, applied: _Applied, row: int, cause: BaseException) -> bool:
        """Apply the policy to a failed row, and leave the rows after it; False if it fails."""
        node, work = applied.running.node, applied.work
        chunk = _shown(applied.chunk, row)
        offset = chunk.offsets[0]
        failure = describe_failure(node, chunk, 0, cause)
        last, sink = self._letters.last_of(node, chunk)
        if not is_about_the_record(cause):
            last = "fail"
        later = self._later(applied, row, cause)
        if later is not None:
            inputs = applied.rows[row]
        elif last == "fail" or (work.earlier is not None and applied.running.is_retrying):
            self._forget_attempts(applied, row)
            work.fail(failure, offset)
            return False
        else:
            if applied.running.is_retrying and offset not in applied.shared:
                work.failed.setdefault(node, set()).update(map(applied.place, applied.rows[row]))
            if sink is not None:
                self._put_aside(applied, row, failure, sink)
            else:
                work.skips.append(Skip(node, offset, failure))
        applied.gone.append(offset)
        if later is None:
            applied.cut(row + 1, len(applied.chunk))
            queue = applied.running.queue
            if isinstance(queue, RetryQueue) and queue.is_paused and applied.inputs is not None:
                self._hold(applied, queue, set())  # the last attempt of a record has opened it
        else:
            self._wait(applied, row, inputs, later)
        return True

    def _put_aside(self, applied: _Applied, row: int, failure: StageError, sink: Node) -> None:
        """Write the inputs of a failed row to another place."""
        node, work = applied.running.node, applied.work
        if applied.inputs is None:
            letter = self._letters.of_result(node, applied.chunk.slice(row, row + 1), failure)
            work.letters.append((sink, letter))
        else:
            for each in applied.rows[row]:
                attempts = self._attempts(applied, each)
                inputs = applied.inputs.slice(each, each + 1)
                letter = self._letters.of_input(node, inputs, failure, attempts)
                work.letters.append((sink, letter))
        work.skips.append(Skip(node, applied.chunk.offsets[row], failure, is_letter=True))

    def _attempts(self, applied: _Applied, row: int) -> int:
        """Return how many attempts have failed for an input, with this one."""
        if applied.work.node is not applied.running.node:
            return 1
        return applied.work.records[row].attempts + 1

    # --- retries ---------------------------------------------------------------------

    def _forget_attempts(self, applied: _Applied, row: int) -> None:
        """Give a record at which the job stops all attempts in the next run."""
        queue = applied.running.queue
        if isinstance(queue, RetryQueue) and applied.work.node is applied.running.node:
            for each in applied.rows[row] if applied.inputs is not None else ():
                record = applied.work.records[each]
                record.attempts = 0
                queue.records.change(record)

    def _later(self, applied: _Applied, row: int, cause: BaseException) -> Later | None:
        """Return when the task tries again; calls have had their attempts already."""
        queue = applied.running.queue
        if not isinstance(queue, RetryQueue) or applied.inputs is None:
            return None
        if applied.work.earlier is not None:
            return None  # then it did not fail
        if row:
            queue.circuit.succeeded()
        first = None
        if applied.work.node is applied.running.node:
            first = applied.work.records[applied.rows[row][0]]
        attempts = 0 if first is None else first.attempts
        return queue.later(attempts, cause, self._budget.now_s(), first)

    def _wait(self, applied: _Applied, row: int, inputs: list[int], later: Later) -> None:
        """Let a failed row wait for its next attempt, and later rows of its group behind it."""
        node, work, queue = applied.running.node, applied.work, applied.running.queue
        assert isinstance(queue, RetryQueue), "the stage has retries"
        blocked = work.blocked.setdefault(node, set())
        for each in inputs:
            record = applied.record(each)
            blocked.add(record.group)
            work.failed.setdefault(node, set()).add(applied.place(each))
            work.asides.append(Aside(node, record, each, later))
        offset = applied.chunk.offsets[row]
        applied.waiting = offset if offset in applied.shared else None
        applied.cut(row + 1, len(applied.chunk))
        self._hold(applied, queue, set(inputs))

    def _hold(self, applied: _Applied, queue: RetryQueue, seen: set[int]) -> None:
        """Let those rows of the rest wait that come after one of their group, or all of them."""
        node, work = applied.running.node, applied.work
        blocked = work.blocked.setdefault(node, set())
        mask = []
        for row in range(len(applied.chunk)):
            found = applied.rows[row]
            groups = {_group_of(applied.inputs, each) for each in found}
            goes_on = not queue.circuit.is_open and groups.isdisjoint(blocked)
            mask.append(goes_on)
            for each in () if goes_on else found:
                if each not in seen:
                    seen.add(each)
                    record = applied.record(each)
                    blocked.add(record.group)
                    work.failed.setdefault(node, set()).add(applied.place(each))
                    work.asides.append(Aside(node, record, each, None))
        if not all(mask):
            applied.select(mask)


def _rows_of(
    inputs: Chunk | None, chunk: Chunk, failed: Container[Place]
) -> tuple[list[list[int]], set[int]]:
    """Return `_Applied.rows` and `_Applied.shared` of a chunk.

    Without ``inputs``, its rows are the inputs. ``failed`` are the inputs without rows in it.
    """
    if inputs is None:
        return [[row] for row in range(len(chunk))], set()
    found: dict[int, list[int]] = {offset: [] for offset in chunk.offsets}
    for row, place in enumerate(places_of(inputs)):
        if place[0] in found and place not in failed:
            found[place[0]].append(row)
    counts = Counter(chunk.offsets)
    shared = {offset for offset, rows in found.items() if len(rows) != counts[offset]}
    return [
        found[offset] if offset in shared else [found[offset][nth]]
        for offset, nth in places_of(chunk)
    ], shared


def _group_of(inputs: Chunk | None, row: int) -> object:
    assert inputs is not None, "asked only then"
    key = inputs.keys[row]
    return (inputs.topic, inputs.partition) if key is None else key


def _shown(chunk: Chunk, row: int) -> Chunk:
    """Return one row, with the value that its function got."""
    found = chunk.slice(row, row + 1)
    value = found.values[0]
    return found.with_values([value.value]) if type(value) is PendingRecord else found


def _cause_of(failed: RowFailed) -> BaseException:
    assert failed.__cause__ is not None, "a failed row has an error"
    return failed.__cause__
