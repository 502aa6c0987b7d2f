"""Sources and sinks from functions of the user's."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import anyio

from streamkit.dataflow.endpoints import FunctionSink, FunctionSource
from streamkit.env import Clock
from streamkit.errors import StageError, StreamKitError
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.runtime.ports import Positions, SourceFacts, WriteFailed

_KEY = "0"
# How long values of a generator may be collected before they go on as a chunk.
_COLLECT_S = 0.05


class FunctionReader:
    """Reads a generator or an async generator, a chunk at a time.

    A replayable one yields ``(position, value)``; the position of the last value of a chunk
    is what a commit keeps.
    """

    def __init__(self, name: str, source: FunctionSource, clock: Clock) -> None:
        self._name = name
        self._source = source
        self._clock = clock
        self._values: AsyncIterator[Any] | Iterator[Any] | None = None
        self._next_offset = 0
        self._positions: dict[int, Any] = {}

    async def open(self, committed: Positions) -> SourceFacts:
        function = self._source.function
        if self._source.is_replayable:
            saved = committed.get(_KEY, {})
            self._next_offset = saved.get("offset", 0)
            self._values = function(resume=saved.get("position"))
        else:
            self._values = function()
        note = "" if self._source.is_replayable else ", cannot be replayed after a crash"
        return SourceFacts(f"{self._source}{note}", is_replayable=self._source.is_replayable)

    async def next(self) -> Chunk | None:
        values = self._values
        assert values is not None, "open comes first"
        started_s = self._clock.monotonic_s()
        taken: list[Any] = []
        while len(taken) < CHUNK_RECORDS_MAX:
            try:
                value = await anext(values) if isinstance(values, AsyncIterator) else next(values)
            except (StopAsyncIteration, StopIteration):
                break
            except Exception as error:
                if taken:
                    self._values = _raising(error)
                    break
                raise self._failed(error) from error
            taken.append(value)
            if self._clock.monotonic_s() - started_s > _COLLECT_S:
                break
        await anyio.lowlevel.checkpoint()
        return self._as_chunk(taken) if taken else None

    def position_after(self, chunk: Chunk) -> tuple[str, Any]:
        last = chunk.offsets[-1]
        position = self._positions.pop(last, None)
        return _KEY, {"offset": last + 1, "position": position}

    async def committed(self, positions: Mapping[str, Any]) -> None:
        pass  # the store is the only one who keeps them

    def lag(self) -> int | None:
        return None

    async def close(self) -> None:
        close = getattr(self._values, "aclose", None) or getattr(self._values, "close", None)
        if close is not None:
            closed = close()
            if inspect.isawaitable(closed):
                await closed

    def _as_chunk(self, taken: list[Any]) -> Chunk:
        first = self._next_offset
        self._next_offset += len(taken)
        if self._source.is_replayable:
            try:
                pairs = [(position, value) for position, value in taken]
            except (TypeError, ValueError) as error:
                raise self._failed(
                    TypeError("a source with `resume` yields (position, value)")
                ) from error
            self._positions.update(
                (first + row, position) for row, (position, _) in enumerate(pairs)
            )
            taken = [value for _, value in pairs]
        now_ms = self._clock.wall_ms()
        offsets = range(first, first + len(taken))
        return Chunk(taken, [None] * len(taken), [now_ms] * len(taken), offsets, self._name, 0)

    def _failed(self, error: Exception) -> StageError:
        return StageError(
            f"source {self._name!r} failed behind value {self._next_offset}: "
            f"{type(error).__name__}: {error}",
            stage=self._name,
            topic=self._name,
            partition=0,
            offset=self._next_offset,
        )


def _raising(error: Exception) -> Iterator[Any]:
    """Fail at the next turn: what was yielded before goes on first."""
    raise error
    yield


class FunctionWriter:
    """Calls a function per record, or with lists of records."""

    has_effects_at_once = True
    unacknowledged = 0

    def __init__(self, sink: FunctionSink) -> None:
        self._function: Callable[[Any], Any] = sink.function
        self._batch = sink.batch
        self._is_async = inspect.iscoroutinefunction(inspect.unwrap(sink.function))
        self.description = str(sink)

    async def open(self) -> None:
        pass  # nothing to open: it is the user's

    async def write(self, chunk: Chunk) -> None:
        if self._batch is None and not self._is_async:
            self._call_each(chunk)
            return
        size = self._batch or 1
        for start in range(0, len(chunk), size):
            rows = list(chunk.values[start : start + size])
            try:
                done = self._function(rows if self._batch else rows[0])
                if inspect.isawaitable(done):
                    await done
            except Exception as error:
                raise WriteFailed(start, len(rows)) from error

    def _call_each(self, chunk: Chunk) -> None:
        done = 0
        function = self._function
        try:
            for value in chunk.values:
                function(value)
                done += 1
        except Exception as error:
            raise WriteFailed(done) from error

    def seal(self) -> Awaitable[None]:
        return _nothing_to_wait_for()

    async def close(self) -> None:
        pass  # nothing was opened


class ObjectWriter:
    """Drives a sink of the user's that is a class: open, write, flush, close."""

    has_effects_at_once = True
    unacknowledged = 0

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self.description = str(writer)

    async def open(self) -> None:
        await _maybe_await(self._writer.open())

    async def write(self, chunk: Chunk) -> None:
        try:
            await _maybe_await(self._writer.write(list(chunk.values)))
        except Exception as error:
            raise WriteFailed(0, len(chunk)) from error

    def seal(self) -> Awaitable[None]:
        return self._flush()

    async def close(self) -> None:
        await _maybe_await(self._writer.close())

    async def _flush(self) -> None:
        try:
            await _maybe_await(self._writer.flush())
        except Exception as error:
            raise StreamKitError(
                f"the sink {self.description} could not be flushed: {type(error).__name__}: {error}"
            ) from error


async def _nothing_to_wait_for() -> None:
    pass


async def _maybe_await(result: Any) -> None:
    if inspect.isawaitable(result):
        await result
