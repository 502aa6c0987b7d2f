"""Measures what each stage adds to the user's function, in ns per record, and shows its budget.

python benchmarks/stages.py
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter_ns

from streamkit.dataflow.operators import Filter, FlatMap, Map, MapOrDrop, SetKeys
from streamkit.dataflow.steps import Stateless, Unlimited
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk


def plus_one(number: int) -> int:
    return number + 1


def is_odd(number: int) -> bool:
    return number & 1 == 1


def twice(number: int) -> tuple[int, int]:
    return number, number


def key_of(number: int) -> bytes:
    return b"key"


# Name, operator, the function it calls, and the budget for what it adds, in ns per record.
STAGES: list[tuple[str, Stateless, Callable[[int], object], int | None]] = [
    ("map", Map(plus_one), plus_one, 15),
    ("map, None drops", MapOrDrop(plus_one), plus_one, 15),
    ("filter", Filter(is_odd), is_odd, 50),
    ("flat_map, two of each", FlatMap(twice), twice, None),
    ("key", SetKeys(key_of), key_of, None),
]


def chunk_of(rows: int) -> Chunk:
    keys = [b"%d" % (row % 100) for row in range(rows)]
    return Chunk(list(range(rows)), keys, [0] * rows, range(rows), "numbers", 0)


def main(*, chunks: int = 100, rounds: int = 9) -> list[str]:
    """Measure each stage; return a line for each."""
    chunk = chunk_of(CHUNK_RECORDS_MAX)
    check(chunk)
    lines = []
    for name, step, function, budget_ns in STAGES:
        added = []
        for _ in range(rounds):
            bare_ns = ns_per_record(partial(listed, function, chunk), chunks)
            stage_ns = ns_per_record(partial(step.open(Unlimited()).on_chunk, chunk), chunks)
            added.append(stage_ns - bare_ns)
        budget = "no budget" if budget_ns is None else f"budget {budget_ns} ns"
        lines.append(f"{name:<22} adds {median(added):6.1f} ns ({budget})")
    return lines


def listed(function: Callable[[int], object], chunk: Chunk) -> list[object]:
    return list(map(function, chunk.values))


def check(chunk: Chunk) -> None:
    room = Unlimited()
    odd = Filter(is_odd).apply(Map(plus_one).apply(chunk, room), room)
    assert odd.values == [number + 1 for number in chunk.values if number % 2 == 0]
    assert list(odd.offsets) == [row for row in range(len(chunk)) if row % 2 == 0]
    assert len(FlatMap(twice).apply(chunk, room)) == 2 * len(chunk)


def ns_per_record(run: Callable[[], object], calls: int) -> float:
    started_ns = perf_counter_ns()
    for _ in range(calls):
        run()
    return (perf_counter_ns() - started_ns) / (calls * CHUNK_RECORDS_MAX)


if __name__ == "__main__":
    print("\n".join(main()))
