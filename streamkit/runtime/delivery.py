"""Writes the outputs of a task to the sinks, in rounds, and returns the offset it reached.

| sinks | order in a round | what ends a round |
|---|---|---|
| at once | first, record after record | their time is over, or one of them fails on a record |
| acknowledged | then, the same records | nothing: the rows were checked before |

Between two rounds every sink has received the same source records. So only there may the position
be committed, and only there may a job stop.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from anyio.lowlevel import checkpoint

from streamkit.dataflow.contracts import (
    AcknowledgedWriter,
    AtOnceWriter,
    IsOver,
    SinkWriter,
    WriteFailed,
)
from streamkit.dataflow.topology import Node
from streamkit.errors import StageError
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.runtime.failures import describe_failure, is_about_the_record
from streamkit.runtime.slice_size import SliceSize
from streamkit.runtime.user_calls import NotAwaited, unfinished_row
from streamkit.runtime.work import Output, Skip, Work, input_rows

# How long the calls of one round should take. A stop or a commit waits for a whole round.
ROUND_S: Final = 0.01
_ROWS_FIRST: Final = 16


class FailedRecords(Protocol):
    """What happens to records of sinks that fail; a task has these methods."""

    def last_of(self, node: Node, row: Chunk) -> tuple[str, Node | None]:
        """Return what happens to a record that fails, and where it is put aside."""

    def put_aside(
        self, work: Work, letters: Node, sink: Node, row: Chunk, failure: StageError
    ) -> None:
        """Write an input of a sink to the place for dead letters."""


class Delivery:
    """Writes each `Work` to the sinks of a graph, one after another.

    Args:
        writers: The writer of each sink.
        now_s: Returns the monotonic time in seconds.
        failed: Says what happens to records that fail, and writes dead letters.
    """

    def __init__(
        self,
        writers: Mapping[Node, SinkWriter],
        now_s: Callable[[], float],
        failed: FailedRecords,
    ) -> None:
        self._failed = failed
        self._acknowledged = {
            node: each for node, each in writers.items() if isinstance(each, AcknowledgedWriter)
        }
        self._at_once = {
            node: each for node, each in writers.items() if isinstance(each, AtOnceWriter)
        }
        self._now_s = now_s
        # Sinks that get lists are left out: with fewer rows their calls would not be faster.
        self._limits_rows = any(each.is_per_record for each in self._at_once.values())
        self._slice_size = SliceSize(ROUND_S, first=_ROWS_FIRST, most=CHUNK_RECORDS_MAX)

    async def round(self, work: Work, start: int) -> int:
        """Write outputs, starting with the record at offset ``start``, as many as time allows.

        If a sink fails on a record, ``on_error`` of the sink decides: the record is skipped, or
        the work ends before it.

        Returns:
            The offset up to which every sink has received everything.
        """
        calls = [each for each in work.outputs if each.sink in self._at_once]
        end = work.end
        if calls and start < end:
            end = await self._call_all(calls, work, start)
        for output in work.outputs:
            if output.sink in self._acknowledged:
                chunk = _between(output.chunk, start, end)
                if len(chunk):
                    await self._acknowledged[output.sink].write(chunk)
        return end

    async def _call_all(self, calls: list[Output], work: Work, start: int) -> int:
        """Call the at-once sinks; return the offset that all of them have reached."""
        offsets = work.part.offsets
        first_row = bisect_left(offsets, start)
        next_row = first_row + self._slice_size.rows
        end = work.end
        if self._limits_rows and next_row < len(offsets):
            end = min(offsets[next_row], end)
        began_s = self._now_s()
        for number, output in enumerate(calls):
            # Only the first sink may end early: the others must reach the same offset.
            end = await self._call(output, work, (start, end), may_end=number == 0)
        self._slice_size.adjust(bisect_left(offsets, end) - first_row, self._now_s() - began_s)
        return end

    async def _call(
        self, output: Output, work: Work, records: tuple[int, int], *, may_end: bool
    ) -> int:
        """Write the outputs of some records to one sink; return the offset that it reached."""
        start, end = records
        offsets = output.chunk.offsets
        row, last = bisect_left(offsets, start), bisect_left(offsets, end)
        is_over = self._after(ROUND_S)
        first = row
        while row < last:
            stop = last
            if row > first and not may_end:
                await checkpoint()  # all rows must be written, but other tasks need their turns
                is_over = self._after(ROUND_S)
            elif row > first and is_over():
                stop = _end_of_record(output.chunk, row)
                if stop == row:
                    return offsets[row]
            try:
                row += await self._write(output, work, (row, stop), is_over)
            except _Refused as refused:
                work.fail(refused.failure, refused.offset)
                return refused.offset
        return end

    async def _write(
        self, output: Output, work: Work, rows: tuple[int, int], is_over: IsOver
    ) -> int:
        """Write rows, and leave out rows that fail if ``on_error`` allows it.

        Returns how many rows are done.

        Raises:
            _Refused: A row failed and may not be left out.
        """
        sink = output.sink
        first, stop = rows
        chunk = output.chunk.slice(first, stop)
        try:
            unfinished = unfinished_row(chunk.values)
            if unfinished is None:
                return await self._at_once[sink].write(chunk, is_over)
            if unfinished:
                return await self._at_once[sink].write(chunk.slice(0, unfinished), is_over)
            raise WriteFailed(0) from NotAwaited(chunk.values[0])
        except WriteFailed as error:
            row, count = error.row, error.rows
            cause = error.__cause__ or error
            failure = describe_failure(sink, chunk, row, cause, rows=count)
            last, letters = self._failed.last_of(sink, chunk.slice(row, row + 1))
            if last == "fail" or not is_about_the_record(cause):
                raise _Refused(failure, chunk.offsets[row]) from error
        if count == 1:
            self._leave_out(output, work, first + row, (failure, letters))
        else:  # only the sink can find the bad rows, so it gets one row at a time
            for each in range(first + row, first + row + count):
                await self._write(output, work, (each, each + 1), is_over)
        return row + count

    def _leave_out(
        self, output: Output, work: Work, row: int, failed: tuple[StageError, Node | None]
    ) -> None:
        """Skip a row that failed, or put its input aside if there is a sink for that."""
        sink, offset = output.sink, output.chunk.offsets[row]
        failure, letters = failed
        is_letter = letters is not None
        work.skips.append(Skip(sink, offset, failure, is_written=True, is_letter=is_letter))
        if letters is not None:
            for each in input_rows(output.inputs, output.chunk, row):
                self._failed.put_aside(
                    work, letters, sink, output.inputs.slice(each, each + 1), failure
                )

    def _after(self, seconds: float) -> IsOver:
        until_s = self._now_s() + seconds
        return lambda: self._now_s() >= until_s


class _Refused(Exception):
    """A sink with ``on_error="fail"`` failed on the record at ``offset``."""

    def __init__(self, failure: StageError, offset: int) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.offset = offset


def _end_of_record(chunk: Chunk, row: int) -> int:
    """Return the end of the rows that come from the same record as the row before ``row``.

    They are written in the same round, because a position is always between two records.
    """
    return bisect_right(chunk.offsets, chunk.offsets[row - 1], row)


def _between(chunk: Chunk, start: int, end: int) -> Chunk:
    """Return the rows with offsets from ``start`` up to ``end``; offsets must ascend."""
    offsets = chunk.offsets
    if not len(offsets) or (offsets[0] >= start and offsets[-1] < end):
        return chunk
    return chunk.slice(bisect_left(offsets, start), bisect_left(offsets, end))
