"""`engine`: three functions over integers, run by App and Task, compared with a comprehension."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from streamkit.app import App
from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.bench.timing import best_of, measured
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.topology import Node, Topology
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.runtime.task import Task

_NOW_MS = 1_700_000_000_000


def plus_one(number: int) -> int:
    return number + 1


def is_odd(number: int) -> bool:
    return number & 1 == 1


def double(number: int) -> int:
    return number * 2


def run(scale: Scale) -> Result:
    return measure(scale.records, scale.rounds)


def measure(records: int, rounds: int) -> Result:
    """Compare the engine with a comprehension that calls the same functions."""
    numbers = list(range(records))
    chunks = chunks_of(numbers)
    expected_sum = sum(comprehension(numbers))
    expected_count = len(comprehension(numbers))

    def engine(build: Callable[[], tuple[Topology, Node]]) -> Callable[[], Timing]:
        def timed() -> Timing:
            topology, source = build()
            task = Task(topology)
            with measured() as watch:
                outputs = []
                for each in chunks:
                    work = task.process(source, each)
                    outputs += [output.chunk for output in work.outputs]
                    task.account(work, work.end)
                count = sum(map(len, outputs))
            if count != expected_count or sum(sum(each.values) for each in outputs) != expected_sum:
                raise WrongOutput(
                    "the results of the engine differ from those of the comprehension"
                )
            return watch.timing(records)

        return timed

    def bare() -> Timing:
        with measured() as watch:
            len(comprehension(numbers))
        return watch.timing(records)

    best = best_of(
        rounds, {"verbs": engine(by_verbs), "bare": bare, "decorators": engine(by_decorators)}
    )
    return _result(records, best)


def _result(records: int, best: dict[str, Timing]) -> Result:
    comparisons = [
        Comparison("verbs", best["verbs"], best["bare"], "a comprehension", 1 / 3),
        Comparison("decorators", best["decorators"], best["bare"], "a comprehension", 1 / 3),
    ]
    notes = [
        f"{what}: {best[what].per_record_s * 1e9:.0f} ns per record, "
        f"{best[what].seconds / best['bare'].seconds:.2f} times the comprehension's "
        f"{best['bare'].per_record_s * 1e9:.0f}"
        for what in ("verbs", "decorators")
    ]
    work = f"{records:,} integers, chunks of up to {CHUNK_RECORDS_MAX:,} with all columns"
    return Result("engine", work, comparisons, notes)


def comprehension(numbers: list[int]) -> list[int]:
    """Do the same work without an engine."""
    return [double(grown) for number in numbers if is_odd(grown := plus_one(number))]


def chunks_of(numbers: list[int]) -> list[Chunk]:
    """Cut numbers into chunks as a source does."""
    chunks = []
    for start in range(0, len(numbers), CHUNK_RECORDS_MAX):
        part = numbers[start : start + CHUNK_RECORDS_MAX]
        keys = [b"%d" % (number % 100) for number in part]
        offsets = range(start, start + len(part))
        chunks.append(Chunk(part, keys, [_NOW_MS] * len(part), offsets, "numbers", 0))
    return chunks


def by_verbs() -> tuple[Topology, Node]:
    """Build the graph with `map` and `filter`."""
    app, numbers = _app()
    _count(app, numbers.map(plus_one).filter(is_odd).map(double))
    return app.topology, numbers.node


def by_decorators() -> tuple[Topology, Node]:
    """Build the graph with decorators, where a function that returns None drops the record."""
    app, numbers = _app()
    grown = app.stage(numbers)(plus_one)
    kept = grown.filter(is_odd)
    _count(app, app.stage(kept)(double))
    return app.topology, numbers.node


def _app() -> tuple[App, Stream[int]]:
    app = App("bench-engine")

    @app.source
    def numbers() -> Iterator[int]:
        yield from ()

    return app, numbers


def _count(app: App, doubled: Stream[int]) -> None:
    @app.sink(doubled, batch=CHUNK_RECORDS_MAX)
    def counted(rows: list[int]) -> None:
        """End the graph. It is never called: the benchmark counts the chunks itself."""
