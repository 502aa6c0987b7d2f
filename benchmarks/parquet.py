"""Measures jobs that read Parquet files against loops by hand, in rows per second.

python -m benchmarks.parquet

Whole jobs, with their store and commits, against `ParquetFile.iter_batches` and the same functions
of pyarrow: a sink of frames, a stage and a sink of frames, and a sink of single rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import msgspec
import numpy
import pyarrow
import pyarrow.compute as pc
from pyarrow import parquet

from benchmarks.whole_jobs import run
from streamkit import App
from streamkit.connectors.files import Files, Parquet

ROWS_PER_BATCH: Final = 65_536
NAMES: Final = ("carrier", "number", "distance", "delay")
_SEED: Final = 7


class Flight(msgspec.Struct):
    carrier: str
    number: int
    distance: float
    delay: float | None


class Late(msgspec.Struct):
    carrier: str
    minutes: float
    speed: float


def main(*, rows: int = 2_000_000, rounds: int = 5) -> list[str]:
    """Measure all sides in turns; return a line for each."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "flights.parquet"
        write(path, rows)
        sides: dict[str, Callable[[Path], tuple[Any, float]]] = {
            "sums by hand": partial(by_hand, sums_by_hand),
            "sink of frames": sink_of_frames,
            "stage by hand": partial(by_hand, stage_by_hand),
            "stage, sink of frames": stage_and_sink,
            "to_pylist by hand": partial(by_hand, dicts_by_hand),
            "sink of dicts": partial(sink_of_rows, kind=dict),
            "Structs by hand": partial(by_hand, structs_by_hand),
            "sink of Structs": partial(sink_of_rows, kind=Flight),
        }
        best = dict.fromkeys(sides, 0.0)
        results: dict[str, Any] = {}
        for _ in range(rounds):
            for name, side in sides.items():
                results[name], seconds = side(path)
                best[name] = max(best[name], rows / seconds)
    names = list(sides)
    bases = dict(zip(names[1::2], names[::2], strict=True))
    for ours, base in bases.items():
        assert numpy.allclose(results[ours], results[base]), (ours, results)
    return [
        f"{name:<22} {rate:>12,.0f} rows/s"
        + (f", {rate / best[bases[name]]:.2f} of {bases[name]}" if name in bases else "")
        for name, rate in best.items()
    ]


def write(path: Path, rows: int) -> None:
    """Write flights with more columns than are read, in row groups of 250,000."""
    random = numpy.random.default_rng(_SEED)
    carriers = numpy.array(["UA", "AA", "B6", "DL", "EV", "MQ", "WN"])
    delays = random.normal(10, 40, rows)
    columns = {
        "carrier": pyarrow.array(carriers[random.integers(0, 7, rows)]),
        "number": random.integers(1, 9_000, rows),
        "distance": random.uniform(80, 5_000, rows),
        "delay": pyarrow.array(delays, mask=random.random(rows) < 0.03),
        "note": pyarrow.array([f"note {each}" for each in range(rows)]),
    }
    parquet.write_table(pyarrow.table(columns), path, row_group_size=250_000)


def by_hand(side: Callable[[Path], Any], path: Path) -> tuple[Any, float]:
    began_s = perf_counter()
    found = side(path)
    return found, perf_counter() - began_s


def batches(path: Path) -> Any:
    return parquet.ParquetFile(path).iter_batches(ROWS_PER_BATCH, columns=list(NAMES))


# --- frames --------------------------------------------------------------------------


def sums(batch: pyarrow.RecordBatch) -> tuple[float, float, float]:
    delay = pc.fill_null(batch.column("delay"), 0.0)
    late = pc.greater(delay, 15.0)
    return (
        pc.sum(batch.column("distance")).as_py(),
        pc.sum(delay).as_py(),
        pc.sum(pc.cast(late, pyarrow.int64())).as_py(),
    )


def late_of(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    minutes = pc.fill_null(batch.column("delay"), 0.0)
    speed = pc.divide(batch.column("distance"), pc.add(pc.abs(minutes), 60.0))
    return pyarrow.RecordBatch.from_arrays(
        [batch.column("carrier"), minutes, speed], names=["carrier", "minutes", "speed"]
    )


def sums_of_late(batch: pyarrow.RecordBatch) -> tuple[float, float]:
    return pc.sum(batch.column("minutes")).as_py(), pc.sum(batch.column("speed")).as_py()


def sums_by_hand(path: Path) -> Any:
    return total(map(sums, batches(path)))


def stage_by_hand(path: Path) -> Any:
    return total(map(sums_of_late, map(late_of, batches(path))))


def total(parts: Any) -> Any:
    return numpy.array(list(parts)).sum(axis=0)


def sink_of_frames(path: Path) -> tuple[Any, float]:
    app = App("bench")
    flights = app.stream(Files(path, Parquet(Flight)))
    found: list[Any] = []

    @app.sink(flights, batch=ROWS_PER_BATCH)
    def write(batch: pyarrow.RecordBatch) -> None:
        found.append(sums(batch))

    seconds = run(app)
    return total(found), seconds


def stage_and_sink(path: Path) -> tuple[Any, float]:
    app = App("bench")
    flights = app.stream(Files(path, Parquet(Flight)))
    found: list[Any] = []

    @app.stage(flights, batch=ROWS_PER_BATCH, output_type=Late)
    def late(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
        return late_of(batch)

    @app.sink(late, batch=ROWS_PER_BATCH)
    def write(batch: pyarrow.RecordBatch) -> None:
        found.append(sums_of_late(batch))

    seconds = run(app)
    return total(found), seconds


# --- rows ----------------------------------------------------------------------------


def dicts_by_hand(path: Path) -> Any:
    found = [0.0, 0]
    for batch in batches(path):
        for row in batch.to_pylist():
            found[0] += row["distance"]
            found[1] += 1
    return found


def structs_by_hand(path: Path) -> Any:
    found = [0.0, 0]
    for batch in batches(path):
        columns = [batch.column(name).to_pylist() for name in NAMES]
        for flight in map(Flight, *columns):
            found[0] += flight.distance
            found[1] += 1
    return found


def sink_of_rows(path: Path, kind: Any) -> tuple[Any, float]:
    app = App("bench")
    names = list(NAMES)
    source: Any = Files(path, Parquet(kind) if kind is Flight else Parquet(dict, columns=names))
    flights = app.stream(source)
    found = [0.0, 0]

    @app.sink(flights)
    def write(row: Any) -> None:
        found[0] += row["distance"] if kind is dict else row.distance
        found[1] += 1

    seconds = run(app)
    return found, seconds


if __name__ == "__main__":
    print("\n".join(main()))
