"""Writers of sinks that are called outside of slices: their rows are written before they get them.

The function of such a sink has written a record when its call returns. The record goes on to the
writer like any other, which is where a commit and the counts find it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from streamkit.dataflow.calling import Called, called_step
from streamkit.dataflow.contracts import AcknowledgedWriter, Positions, Prepared, Sink, SinkWriter
from streamkit.dataflow.endpoints import FunctionSink
from streamkit.dataflow.topology import Node
from streamkit.env import Clock
from streamkit.record import Chunk, Value
from streamkit.runtime.function_sinks import FunctionWriter, ObjectWriter

_METHODS: Final = ("open", "write", "flush", "close")


class CalledWriter(AcknowledgedWriter):
    """The writer of a sink that is called outside of slices.

    Args:
        called: The step that makes the calls.
        writer: That of a sink object, which opens, flushes and closes it; None for a function.
    """

    unacknowledged = 0

    def __init__(self, called: Called, writer: ObjectWriter | None) -> None:
        self._writer = writer
        name = getattr(called.function, "__name__", "sink")
        what = f"function {name}" if writer is None else writer.description
        self.description = f"{what}, {called.spec}"

    @property
    def function(self) -> Callable[..., Value] | None:
        """What the calls of a sink object call; None for a function."""
        return None if self._writer is None else self._writer.call

    async def open(self, committed: Positions) -> None:
        if self._writer is not None:
            await self._writer.open(committed)

    def on_chunk(self, chunk: Chunk) -> Chunk:
        return chunk

    async def write(self, chunk: Chunk) -> None:
        pass  # the call has written it

    def prepare_commit(self, *, is_last: bool) -> Prepared:
        return Prepared(partial(self.flush, is_last=is_last), {})

    async def flush(self, *, is_last: bool) -> None:
        """Return when everything written is safe."""
        if self._writer is not None:
            await self._writer.flush(is_last=is_last)

    async def close(self) -> None:
        if self._writer is not None:
            await self._writer.close()


def own_writer(node: Node, clock: Clock) -> SinkWriter | None:
    """Return the writer of a sink that is a function or an object; None for another sink."""
    endpoint, called = node.endpoint, called_step(node)
    if isinstance(endpoint, FunctionSink):
        return FunctionWriter(endpoint) if called is None else CalledWriter(called, None)
    if isinstance(endpoint, Sink) or not all(hasattr(endpoint, each) for each in _METHODS):
        return None
    writer = ObjectWriter(endpoint, clock)
    return writer if called is None else CalledWriter(called, writer)


def called_functions(writers: Mapping[Node, SinkWriter]) -> dict[Node, Callable[..., Value]]:
    """Return what the calls of sink objects call, by their nodes."""
    return {
        node: writer.function
        for node, writer in writers.items()
        if isinstance(writer, CalledWriter) and writer.function is not None
    }
