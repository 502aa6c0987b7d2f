"""`calls`: an async stage whose calls take 1 ms, in a whole job, compared with `asyncio.gather`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Final

from streamkit.app import App
from streamkit.bench.in_memory import kept, run_in_memory
from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.bench.timing import best_of, measured
from streamkit.dataflow.topology import Node

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


def build() -> tuple[App, Node, list[int]]:
    """Build the job: a source, the async stage, and a sink that keeps the results."""
    app = App("bench-calls")

    @app.source
    def numbers() -> Iterator[int]:
        yield from ()

    stage = app.stage(numbers, concurrency=CONCURRENCY)(called)
    return app, numbers.node, kept(app, stage)


def _run_job(numbers: list[int]) -> tuple[list[int], Timing]:
    app, source, results = build()
    watch = run_in_memory(app, source, numbers)
    return results, watch.timing(len(numbers))
