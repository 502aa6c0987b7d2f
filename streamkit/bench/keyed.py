"""`keyed`: a count for each key in memory, by App and Task, compared with the same over a dict.

The engine settles each chunk as a job does, so that it can undo a slice. "with commits" also
encodes what has changed, as often as a job that processes so many records in a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from streamkit.app import App
from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.bench.timing import best_of, inputs_not_collected, measured
from streamkit.bench.workload import skewed
from streamkit.dataflow.state_handle import State
from streamkit.dataflow.topology import Node, Topology
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.runtime.task import Task

KEYS: Final = (10_000, 1_000_000)
_NOW_MS: Final = 1_700_000_000_000
_CHUNKS_PER_COMMIT: Final = 128
_BUDGET_NS: Final = 400


def user_of(visit: str) -> str:
    return visit


def counted(visit: str, state: State[int]) -> int:
    number = state.get(0) + 1
    state.set(number)
    return number


def counted_in(visit: str, counts: dict[str, int]) -> int:
    """Count as `counted` does, in a dict."""
    user = user_of(visit)
    number = counts.get(user, 0) + 1
    counts[user] = number
    return number


def run(scale: Scale) -> Result:
    sides: dict[str, Callable[[], Timing]] = {}
    for keys in KEYS:
        visits = [f"user-{number:07d}" for number in skewed(scale.records, keys)]
        chunks = chunks_of(visits)
        expected = by_hand(visits)
        sides |= {
            f"{keys:,} keys": partial(_engine, chunks, expected, commits=False),
            f"{keys:,} keys, dict": partial(_hand, visits),
            f"{keys:,} keys, with commits": partial(_engine, chunks, expected, commits=True),
        }
    with inputs_not_collected():
        best = best_of(scale.rounds, sides)
    work = f"{scale.records:,} records, chunks of up to {CHUNK_RECORDS_MAX:,}, in memory"
    pairs = [
        (what, best[what], best[f"{keys:,} keys, dict"])
        for keys in KEYS
        for what in (f"{keys:,} keys", f"{keys:,} keys, with commits")
    ]
    comparisons = [Comparison(*pair, "the same function over a dict") for pair in pairs]
    return Result("keyed", work, comparisons, [_note(*pair) for pair in pairs])


def _note(what: str, ours: Timing, bare: Timing) -> str:
    ours_ns, dict_ns = (each.per_record_s * 1e9 for each in (ours, bare))
    return (
        f"{what}: {ours_ns:.0f} ns per record, {ours_ns - dict_ns:.0f} more than the "
        f"dict (budget of the state: {_BUDGET_NS})"
    )


def by_hand(visits: list[str]) -> list[int]:
    """Return the count of each visit's user so far."""
    counts: dict[str, int] = {}
    return [counted_in(visit, counts) for visit in visits]


def chunks_of(visits: list[str]) -> list[Chunk]:
    """Cut visits into chunks as a source does."""
    chunks = []
    for start in range(0, len(visits), CHUNK_RECORDS_MAX):
        part = visits[start : start + CHUNK_RECORDS_MAX]
        count = len(part)
        offsets = range(start, start + count)
        chunks.append(Chunk(part, [None] * count, [_NOW_MS] * count, offsets, "visits", 0))
    return chunks


def build() -> tuple[Topology, Node]:
    """Build the graph: a key, and a stage with a state."""
    app = App("bench-keyed")

    @app.source
    def visits() -> Iterator[str]:
        yield from ()

    numbers = app.stage(visits.key_by(user_of))(counted)

    @app.sink(numbers, batch=CHUNK_RECORDS_MAX)
    def seen(rows: list[int]) -> None:
        """End the graph. It is never called: the benchmark reads the chunks itself."""

    return app.topology, visits.node


def _hand(visits: list[str]) -> Timing:
    with measured() as watch:
        by_hand(visits)
    return watch.timing(len(visits))


def _engine(chunks: list[Chunk], expected: list[int], *, commits: bool) -> Timing:
    topology, source = build()
    task = Task(topology)
    found: list[int] = []
    with measured() as watch:
        for number, each in enumerate(chunks, 1):
            work = task.process(source, each)
            for output in work.outputs:
                found += output.chunk.values
            task.account(work, work.end)
            task.settle(work, work.end)
            if commits and (number % _CHUNKS_PER_COMMIT == 0 or number == len(chunks)):
                task.states.prepare()
    if found != expected:
        raise WrongOutput("the counts of the engine differ from those of the dict")
    return watch.timing(len(expected))
