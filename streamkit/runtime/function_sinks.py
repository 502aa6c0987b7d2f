"""Writers for sinks that are user functions or classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

import anyio

from streamkit.dataflow.contracts import AtOnceWriter, IsOver, Positions, WriteFailed
from streamkit.dataflow.endpoints import FunctionSink
from streamkit.env import Clock
from streamkit.errors import RowError, StreamKitError
from streamkit.frames.functions import gets_frames
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.runtime.failures import error_text
from streamkit.runtime.slice_size import SliceSize
from streamkit.runtime.user_calls import is_ours, settle

# The clock is read after at most this many calls.
_CALLS_PER_CHECK_MAX: Final = 64
# A class gets lists that it can write in about this time. Long lists make efficient inserts, but
# a stop and a commit wait for the call.
_WRITE_TARGET_S: Final = 0.5
_WRITE_ROWS_FIRST: Final = 64


class FunctionWriter(AtOnceWriter):
    """Calls a function per record, or with lists of records."""

    def __init__(self, sink: FunctionSink) -> None:
        self._function: Callable[[Any], Any] = sink.function
        self._batch = sink.batch
        self._gets_frames = gets_frames(sink.function)
        self.description = str(sink)

    @property
    def is_per_record(self) -> bool:
        return self._batch is None

    async def open(self, committed: Positions) -> None:
        pass  # a function needs no opening

    async def write(self, chunk: Chunk, is_over: IsOver) -> int:
        if self._batch is None:
            return await self._call_each(chunk, is_over)
        size = self._batch
        for start in range(0, len(chunk), size):
            rows = chunk.values[start : start + size]
            if not self._gets_frames:
                rows = list(rows)
            try:
                await self._call(rows)
            except BaseException as error:
                raise failed_write(error, start, len(rows)) from error
            if is_over():
                return start + len(rows)
        return len(chunk)

    async def _call(self, rows: Sequence[Any]) -> None:
        try:
            await settle(self._function(rows))
        except RowError as error:
            if error.is_before_call and 0 < error.row < len(rows):
                await settle(self._function(rows[: error.row]))
            raise

    async def _call_each(self, chunk: Chunk, is_over: IsOver) -> int:
        done = 0
        calls = 1
        function = self._function
        values = iter(chunk.values)
        try:
            while done < len(chunk):
                for value in islice(values, calls):
                    result = function(value)
                    if result is not None:
                        await settle(result)
                    done += 1
                if is_over():
                    break
                calls = min(2 * calls, _CALLS_PER_CHECK_MAX)
        except BaseException as error:
            raise failed_write(error, done, 1) from error
        return done

    async def flush(self, *, is_last: bool) -> None:
        pass  # each call has taken effect when it returns

    async def close(self) -> None:
        pass  # nothing was opened


class ObjectWriter(AtOnceWriter):
    """Calls a sink that is a user class: open, write, flush, close.

    The calls never overlap: a write waits for a flush that is in progress.
    """

    is_per_record = False
    _calling: anyio.Lock

    def __init__(self, writer: Any, clock: Clock) -> None:
        self._writer = writer
        self._now_s = clock.monotonic_s
        self._slice_size = SliceSize(
            _WRITE_TARGET_S, first=_WRITE_ROWS_FIRST, most=CHUNK_RECORDS_MAX
        )
        self._is_dirty = False
        self.description = f"class {type(writer).__name__}"

    async def open(self, committed: Positions) -> None:
        self._calling = anyio.Lock()  # created here, because a lock belongs to its event loop
        async with self._calling:
            await settle(self._writer.open())

    async def write(self, chunk: Chunk, is_over: IsOver) -> int:
        done = 0
        while done < len(chunk):
            rows = list(chunk.values[done : done + self._slice_size.rows])
            async with self._calling:
                self._is_dirty = True
                began_s = self._now_s()
                try:
                    await settle(self._writer.write(rows))
                except BaseException as error:
                    raise failed_write(error, done, len(rows)) from error
                self._slice_size.adjust(len(rows), self._now_s() - began_s)
            done += len(rows)
            if is_over():
                break
        return done

    async def call(self, rows: list[Any]) -> None:
        """Write rows in one call, for a sink whose calls are made outside of slices."""
        async with self._calling:
            self._is_dirty = True
            await settle(self._writer.write(rows))

    async def flush(self, *, is_last: bool) -> None:
        async with self._calling:
            if not (self._is_dirty or is_last):
                return
            self._is_dirty = False
            try:
                await settle(self._writer.flush())
            except BaseException as error:
                if is_ours(error):
                    raise
                raise StreamKitError(
                    f"the sink {self.description} could not be flushed: {error_text(error)}"
                ) from error

    async def close(self) -> None:
        async with self._calling:
            await settle(self._writer.close())


def failed_write(error: BaseException, start: int, rows: int) -> WriteFailed:
    """Return the rows of one call that failed: the row of a `RowError`, otherwise all of them.

    Raises:
        CancelledError: The engine itself has cancelled the call.
    """
    if is_ours(error):
        raise error
    if isinstance(error, RowError) and 0 <= error.row < rows:
        return WriteFailed(start + error.row)
    return WriteFailed(start, rows)
