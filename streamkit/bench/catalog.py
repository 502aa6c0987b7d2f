"""The benchmarks by name. Names are stable. A module is imported when its benchmark runs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Final

from streamkit.bench.result import Result, Scale


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark. Its module has a function ``run(scale)`` that returns a `Result`."""

    module: str
    work: str
    must_reach: str

    def run(self, scale: Scale) -> Result:
        """Run the benchmark.

        Raises:
            WrongOutput: The output is not as expected.
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
        "read value, key, offset and timestamp of every record of a topic",
        "10x the official client by chunks, 3x by records; 100x its async stream",
    ),
    "produce": Benchmark(
        "streamkit.bench.produce",
        "send_many until every record is acknowledged",
        "8x the official client's send_all and flush",
    ),
    "produce-single": Benchmark(
        "streamkit.bench.produce_single",
        "send in a loop until every record is acknowledged",
        "3x the official client's send in a loop",
    ),
    "etl": Benchmark(
        "streamkit.bench.etl",
        "JSON to Struct, filter half, new Struct, JSON; topic to topic, committed",
        "at most 1.5 times the time of a hand-written loop",
    ),
    "engine": Benchmark(
        "streamkit.bench.engine",
        "map, filter, map and count in memory",
        "at most 3 times the time of a comprehension",
    ),
    "keyed": Benchmark(
        "streamkit.bench.keyed",
        "a count for each of 10,000 and of 1,000,000 keys in memory",
        "at most 400 ns more per record than a dict",
    ),
    "window": Benchmark(
        "streamkit.bench.window",
        "count and sum of 10,000 keys in windows of 10 s; topic to topic, state durable",
        "5x Pathway, which is not measured here; the baseline is a hand-written loop",
    ),
    "window-many-keys": Benchmark(
        "streamkit.bench.window_many_keys",
        "the same with 1,000,000 keys",
        "no target yet; the baseline is a hand-written loop",
    ),
    "join": Benchmark(
        "streamkit.bench.join",
        "join each order with its payment within 10 s; two topics to one, state durable",
        "no target yet; the baseline is a hand-written loop",
    ),
    "calls": Benchmark(
        "streamkit.bench.calls",
        "an async stage with 256 calls of 1 ms in progress, in a job without a broker",
        "0.9 of asyncio.gather",
    ),
    "frames": Benchmark(
        "streamkit.bench.frames",
        "distance, speed and risk of flights with frames, in a job without a broker",
        "no target yet; the baselines are a stage of single records, and loops by hand",
    ),
    "latency": Benchmark(
        "streamkit.bench.latency",
        "from produce to consume through the job of etl, at 2,000 records/s",
        "at most 1.3 times the p50 and p99 of a hand-written loop",
    ),
    "backlog": Benchmark(
        "streamkit.bench.backlog",
        "memory of a job whose slow sink holds back a source; 1 GB with --records 5000000",
        "at most 150 MB",
    ),
    "startup": Benchmark(
        "streamkit.bench.startup",
        "whole processes: the help, and the first record of a job",
        "at most 0.3 s and 1 s",
    ),
    "append": Benchmark(
        "streamkit.bench.append",
        "the broker's acknowledged appends with fsync",
        "half of the disk's own rate",
    ),
}
