"""Sinks from functions and classes of the user's."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from streamkit.dataflow.endpoints import FunctionSink
from streamkit.errors import StreamKitError
from streamkit.record import Chunk
from streamkit.runtime.ports import WriteFailed


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
            except (Exception, SystemExit) as error:
                raise WriteFailed(start, len(rows)) from error

    def _call_each(self, chunk: Chunk) -> None:
        done = 0
        function = self._function
        try:
            for value in chunk.values:
                function(value)
                done += 1
        except (Exception, SystemExit) as error:
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
        self.description = f"{type(writer).__name__} of the program's own"

    async def open(self) -> None:
        await _maybe_await(self._writer.open())

    async def write(self, chunk: Chunk) -> None:
        try:
            await _maybe_await(self._writer.write(list(chunk.values)))
        except (Exception, SystemExit) as error:
            raise WriteFailed(0, len(chunk)) from error

    def seal(self) -> Awaitable[None]:
        return self._flush()

    async def close(self) -> None:
        await _maybe_await(self._writer.close())

    async def _flush(self) -> None:
        try:
            await _maybe_await(self._writer.flush())
        except (Exception, SystemExit) as error:
            raise StreamKitError(
                f"the sink {self.description} could not be flushed: {type(error).__name__}: {error}"
            ) from error


async def _nothing_to_wait_for() -> None:
    pass


async def _maybe_await(result: Any) -> None:
    if inspect.isawaitable(result):
        await result
