"""Runs a job without a broker: its source has values in memory, its sink keeps the results."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from streamkit.app import App
from streamkit.bench.result import WrongOutput
from streamkit.bench.timing import Stopwatch, measured
from streamkit.dataflow.contracts import Positions, SourceFacts, SourceReader
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.topology import Node
from streamkit.env import SystemClock
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk, Value
from streamkit.runtime.called_sinks import own_writer
from streamkit.runtime.ports import Ports
from streamkit.runtime.shutdown import Phase
from streamkit.runtime.worker import Worker, WorkerOptions
from streamkit.state.states import States
from streamkit.state.store import Store

_NOW_MS: Final = 1_700_000_000_000


def kept(app: App, stream: Stream[Value]) -> list[Value]:
    """Add a sink to an app, and return the list in which it keeps the values."""
    results: list[Value] = []

    @app.sink(stream, batch=CHUNK_RECORDS_MAX)
    def keep(rows: list[Value]) -> None:
        results.extend(rows)

    return results


def run_in_memory(app: App, source: Node, values: Sequence[Value]) -> Stopwatch:
    """Run a job whose source has some values, as `streamkit run` does with a source that ends.

    Raises:
        WrongOutput: The job failed.
    """
    topology = app.topology

    async def main() -> int:
        clock = SystemClock()
        writers = {node: own_writer(node, clock) for node in topology.of_kind("sink")}
        found = {node: writer for node, writer in writers.items() if writer is not None}
        with TemporaryDirectory(prefix="streamkit-bench-") as folder:
            store = Store(Path(folder) / "main.sqlite")
            store.open(app=app.name, cluster="bench")
            try:
                ports = Ports({source: _Values(values)}, found, store, States())
                worker = Worker(topology, ports, clock, Silent(), WorkerOptions())
                return await worker.run()
            finally:
                store.close()

    with measured() as watch:
        code = asyncio.run(main())
    if code != 0:
        raise WrongOutput(f"the job ended with exit code {code}")
    return watch


class _Values(SourceReader):
    """A source in memory."""

    ends_for_good = True

    def __init__(self, values: Sequence[Value]) -> None:
        self._values = values
        self._next = 0

    async def open(self, committed: Positions) -> SourceFacts:
        return SourceFacts("values")

    async def next(self) -> Chunk | None:
        start, self._next = self._next, self._next + CHUNK_RECORDS_MAX
        part = self._values[start : self._next]
        if not part:
            return None
        offsets = range(start, start + len(part))
        return Chunk(part, [None] * len(part), [_NOW_MS] * len(part), offsets, "values", 0)

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        return "0", str(chunk.offsets[-1] + 1)

    async def committed(self, positions: Positions) -> None:
        pass  # nothing else stores them

    def lag(self) -> int | None:
        return None

    def backlog(self) -> Mapping[int, int]:
        return {}

    def stop(self) -> bool:
        return False

    async def close(self) -> None:
        pass  # nothing was opened


class Silent:
    """Receives the messages of the worker."""

    def phase(self, phase: Phase, detail: str) -> None:
        pass  # a benchmark shows its result only

    def note(self, text: str) -> None:
        pass  # a benchmark shows its result only
