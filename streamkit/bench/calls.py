"""`calls`: an async stage whose calls take 1 ms, in a whole job, compared with `asyncio.gather`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from streamkit.app import App
from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.bench.timing import best_of, measured
from streamkit.dataflow.contracts import Positions, SourceFacts, SourceReader
from streamkit.dataflow.topology import Node, Topology
from streamkit.env import SystemClock
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.runtime.called_sinks import own_writer
from streamkit.runtime.shutdown import Phase
from streamkit.runtime.worker import Ports, Worker, WorkerOptions
from streamkit.state.states import States
from streamkit.state.store import Store

CONCURRENCY: Final = 256
_CALL_S: Final = 0.001
_NOW_MS: Final = 1_700_000_000_000


async def called(number: int) -> int:
    await asyncio.sleep(_CALL_S)
    return number + 1


def run(scale: Scale) -> Result:
    numbers = list(range(scale.records))
    expected = [number + 1 for number in numbers]

    def checked(results: list[int]) -> None:
        if results != expected:
            raise WrongOutput("the results differ from those that were expected")

    def hand(
        gathered: Callable[[list[int]], Coroutine[object, object, list[int]]],
    ) -> Callable[[], Timing]:
        def timed() -> Timing:
            with measured() as watch:
                results = asyncio.run(gathered(numbers))
            checked(results)
            return watch.timing(len(numbers))

        return timed

    def job() -> Timing:
        results, watch_timing = _run_job(numbers)
        checked(results)
        return watch_timing

    best = best_of(
        scale.rounds, {"job": job, "gather": hand(gather_blocks), "workers": hand(gather_workers)}
    )
    comparisons = [
        Comparison("calls", best["job"], best["gather"], "asyncio.gather of 256 calls", 0.9),
        Comparison(
            "calls, tasks", best["job"], best["workers"], "256 tasks that share an iterator"
        ),
    ]
    work = f"{scale.records:,} records, calls of 1 ms, {CONCURRENCY} at a time, in order"
    rate = scale.records / best["job"].seconds
    return Result("calls", work, comparisons, [f"{rate:,.0f} calls per second"])


async def gather_blocks(numbers: list[int]) -> list[int]:
    """Make the calls in blocks, as most programs do."""
    results: list[int] = []
    for start in range(0, len(numbers), CONCURRENCY):
        block = numbers[start : start + CONCURRENCY]
        results += await asyncio.gather(*map(called, block))
    return results


async def gather_workers(numbers: list[int]) -> list[int]:
    """Make the calls in tasks that take the next number each; the fastest known way by hand."""
    results = [0] * len(numbers)
    rows = iter(range(len(numbers)))

    async def work() -> None:
        for row in rows:
            results[row] = await called(numbers[row])

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return results


def build() -> tuple[Topology, Node, list[int]]:
    """Build the graph: a source, the async stage, and a sink that keeps the results."""
    app = App("bench-calls")
    results: list[int] = []

    @app.source
    def numbers() -> Iterator[int]:
        yield from ()

    stage = app.stage(numbers, concurrency=CONCURRENCY)(called)

    @app.sink(stage, batch=CHUNK_RECORDS_MAX)
    def kept(rows: list[int]) -> None:
        results.extend(rows)

    return app.topology, numbers.node, results


def _run_job(numbers: list[int]) -> tuple[list[int], Timing]:
    topology, source, results = build()

    async def main() -> int:
        clock = SystemClock()
        writers = {node: own_writer(node, clock) for node in topology.of_kind("sink")}
        found = {node: writer for node, writer in writers.items() if writer is not None}
        with TemporaryDirectory(prefix="streamkit-bench-") as folder:
            store = Store(Path(folder) / "main.sqlite")
            store.open(app="bench-calls", cluster="bench")
            try:
                ports = Ports({source: _Numbers(numbers)}, found, store, States())
                worker = Worker(topology, ports, clock, _Silent(), WorkerOptions())
                return await worker.run()
            finally:
                store.close()

    with measured() as watch:
        code = asyncio.run(main())
    if code != 0:
        raise WrongOutput(f"the job ended with exit code {code}")
    return results, watch.timing(len(numbers))


class _Numbers(SourceReader):
    """A source in memory."""

    ends_for_good = True

    def __init__(self, numbers: list[int]) -> None:
        self._numbers = numbers
        self._next = 0

    async def open(self, committed: Positions) -> SourceFacts:
        return SourceFacts("numbers")

    async def next(self) -> Chunk | None:
        start, self._next = self._next, self._next + CHUNK_RECORDS_MAX
        part = self._numbers[start : self._next]
        if not part:
            return None
        offsets = range(start, start + len(part))
        return Chunk(part, [None] * len(part), [_NOW_MS] * len(part), offsets, "numbers", 0)

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


class _Silent:
    """Receives the messages of the worker."""

    def phase(self, phase: Phase, detail: str) -> None:
        pass  # a benchmark shows its result only

    def note(self, text: str) -> None:
        pass  # a benchmark shows its result only
