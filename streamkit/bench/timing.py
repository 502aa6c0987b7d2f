"""Times the sides of a comparison alternately, so that a noisy machine affects all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from streamkit.bench.result import Timing


@dataclass(slots=True)
class Stopwatch:
    """The times of a block, set by `measured`."""

    seconds: float = 0.0
    cpu_s: float = 0.0

    def timing(self, records: int) -> Timing:
        return Timing(self.seconds, records, self.cpu_s)


@contextmanager
def measured() -> Iterator[Stopwatch]:
    """Measure the elapsed time and the CPU time of a block."""
    watch = Stopwatch()
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    yield watch
    watch.seconds = time.perf_counter() - started_s
    watch.cpu_s = time.process_time() - started_cpu_s


def best_of(rounds: int, sides: Mapping[str, Callable[[], Timing]]) -> dict[str, Timing]:
    """Run each side once per round, in order; return the best time of each."""
    found: dict[str, list[Timing]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            found[name].append(run())
    return {
        name: min(timings, key=lambda timing: timing.per_record_s)
        for name, timings in found.items()
    }


@contextmanager
def inputs_not_collected() -> Iterator[None]:
    """Keep objects made before the block out of garbage collection in the block.

    Inputs and expected results have millions of objects, which the process of a job does not have.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
