"""The benchmarks by name. Names are stable; a module is imported when its benchmark runs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Final

from streamkit.bench.result import Result, Scale


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark: its module has a function ``run`` from `Scale` to `Result`."""

    module: str
    work: str
    must_reach: str

    def run(self, scale: Scale) -> Result:
        """Measure.

        Raises:
            WrongOutput: What came out is not what should have.
            StreamKitError: The broker or a baseline failed.
        """
        result: Result = import_module(self.module).run(scale)
        return result


BENCHMARKS: Final = {
    "codec": Benchmark(
        "streamkit.bench.codec",
        "decode and encode batches, compiled and interpreted",
        "15x the interpreted codec",
    ),
    "consume": Benchmark(
        "streamkit.bench.consume",
        "read a topic, all four columns",
        "by chunks 10x, record by record 3x the official client; 100x its async stream",
    ),
    "produce": Benchmark(
        "streamkit.bench.produce",
        "send_many until all is acknowledged",
        "8x the official client's send_all and flush",
    ),
    "produce-single": Benchmark(
        "streamkit.bench.produce_single",
        "send in a loop until all is acknowledged",
        "3x the official client's send in a loop",
    ),
    "etl": Benchmark(
        "streamkit.bench.etl",
        "JSON to Struct, filter half, new Struct, JSON; topic to topic, committed",
        "1.5 times a hand-written loop's time, at most",
    ),
    "engine": Benchmark(
        "streamkit.bench.engine",
        "map, filter, map and count in memory",
        "3 times a comprehension's time, at most",
    ),
    "startup": Benchmark(
        "streamkit.bench.startup",
        "whole processes: the help, and a job's first record",
        "0.3 s and 1 s, at most",
    ),
    "append": Benchmark(
        "streamkit.bench.append",
        "the broker's acknowledged appends with fsync",
        "half of the disk's own rate",
    ),
}
