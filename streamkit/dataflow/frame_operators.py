"""The stage of a plain function that returns one row of a frame for each record.

It is called with what a slice has, because its results do not depend on how records are divided
into frames. All other functions of frames are called outside of slices; see `calling`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamkit.dataflow.calling import one_for_each
from streamkit.dataflow.operators import without_none
from streamkit.dataflow.steps import Room, RowFailed, SliceTimeUp, Stateless
from streamkit.errors import RowError
from streamkit.frames.column_rows import joined_values
from streamkit.record import Chunk, Value


@dataclass(frozen=True, slots=True)
class MapFrames(Stateless):
    """Replaces values with the results of ``function``, which gets up to ``batch`` at a time.

    Drops the records whose result is None.
    """

    function: Callable[[Sequence[Value]], Value]
    batch: int

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        results: list[Sequence[Value]] = []
        start = 0
        while start < len(chunk):
            if start and room.is_over():
                raise SliceTimeUp(start, _finished(chunk, results))
            values = chunk.values[start : start + self.batch]
            try:
                results.append(self._call(values))
            # Every exception belongs to a row, because only the user's function runs here.
            except BaseException as raised:
                before, error = self._until_failure(values, raised)
                results.append(before)
                raise RowFailed(start + len(before), _finished(chunk, results)) from error
            start += len(values)
        return _finished(chunk, results)

    def _call(self, values: Sequence[Value]) -> Sequence[Value]:
        return one_for_each(self.function(values), len(values))

    def _until_failure(
        self, values: Sequence[Value], error: BaseException
    ) -> tuple[Sequence[Value], BaseException]:
        """Return the results of the rows before the first that fails, and the error of that row.

        The function is called again with fewer rows until the row is found.
        """
        results: Sequence[Value] = []
        good, bad = 0, len(values)
        while bad - good > 1:
            row = error.row if isinstance(error, RowError) else -1
            if row == good:  # the rows before it have succeeded
                break
            middle = row if good < row < bad else (good + bad) // 2
            try:
                results = self._call(values[:middle])
            except BaseException as raised:
                bad, error = middle, raised
            else:
                good = middle
        cause = error.__cause__ if isinstance(error, RowError) else None
        return results, cause or error


def _finished(chunk: Chunk, results: Sequence[Sequence[Value]]) -> Chunk:
    values = joined_values(results)
    return without_none(chunk.slice(0, len(values)).with_values(values))
