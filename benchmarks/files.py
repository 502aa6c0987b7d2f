"""Measures jobs that read and write text files against loops by hand, in rows per second.

python -m benchmarks.files

Whole jobs, with their store and commits. By hand, rows are read with `csv.DictReader` and
`msgspec.convert`, or with a decoder of msgspec for each line; they are written with `csv.writer` or
an encoder of msgspec.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import msgspec

from benchmarks.whole_jobs import run
from streamkit import App
from streamkit.connectors.files import Csv, FileFormat, Files, FileSink, Jsonl

Side = Callable[[Path], tuple[Any, float]]
_numbers = count()


class Flight(msgspec.Struct):
    carrier: str
    number: int
    delay: float | None


def main(*, rows: int = 500_000, rounds: int = 3) -> list[str]:
    """Measure all sides in turns; return a line for each."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, rows)
        sides: dict[str, Side] = {
            "CSV read by hand": partial(timed, sum_of(csv_by_hand)),
            "CSV source": partial(source, "in.csv", Csv(Flight)),
            "JSON read by hand": partial(timed, sum_of(json_by_hand)),
            "JSON source": partial(source, "in.jsonl", Jsonl(Flight)),
            "CSV copied by hand": partial(timed, csv_copied_by_hand),
            "JSON to CSV sink": partial(sink, "csv"),
            "JSON copied by hand": partial(timed, json_copied_by_hand),
            "JSON to JSON sink": partial(sink, "jsonl"),
        }
        best = dict.fromkeys(sides, 0.0)
        results: dict[str, Any] = {}
        for _ in range(rounds):
            for name, side in sides.items():
                results[name], seconds = side(folder)
                best[name] = max(best[name], rows / seconds)
    names = list(sides)
    bases = dict(zip(names[1::2], names[::2], strict=True))
    for ours, base in bases.items():
        assert results[ours] == results[base], (ours, results)
    return [
        f"{name:<20} {rate:>12,.0f} rows/s"
        + (f", {rate / best[bases[name]]:.2f} of {bases[name]}" if name in bases else "")
        for name, rate in best.items()
    ]


def write(folder: Path, rows: int) -> None:
    carriers = ("UA", "AA", "B6", "DL", "EV")
    flights = [
        Flight(carriers[each % 5], each, None if each % 50 == 0 else each % 700 / 4)
        for each in range(rows)
    ]
    with (folder / "in.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["carrier", "number", "delay"])
        out.writerows((each.carrier, each.number, each.delay) for each in flights)
    with (folder / "in.jsonl").open("wb") as lines:
        lines.writelines(msgspec.json.encode(each) + b"\n" for each in flights)


def timed(side: Callable[[Path], Any], folder: Path) -> tuple[Any, float]:
    began_s = perf_counter()
    found = side(folder)
    return found, perf_counter() - began_s


def sum_of(flights: Callable[[Path], Iterator[Flight]]) -> Callable[[Path], float]:
    return lambda folder: sum(each.delay or 0.0 for each in flights(folder))


# --- by hand -------------------------------------------------------------------------


def csv_by_hand(folder: Path) -> Iterator[Flight]:
    with (folder / "in.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            row["delay"] = row["delay"] or None
            yield msgspec.convert(row, Flight, strict=False)


def json_by_hand(folder: Path) -> Iterator[Flight]:
    decode = msgspec.json.Decoder(Flight).decode
    with (folder / "in.jsonl").open("rb") as file:
        for line in file:
            yield decode(line)


def csv_copied_by_hand(folder: Path) -> int:
    path = folder / f"{next(_numbers)}.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["carrier", "number", "delay"])
        for each in json_by_hand(folder):
            out.writerow((each.carrier, each.number, each.delay))
    return path.stat().st_size


def json_copied_by_hand(folder: Path) -> int:
    path = folder / f"{next(_numbers)}.jsonl"
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for each in json_by_hand(folder):
            file.write(encode(each) + b"\n")
    return path.stat().st_size


# --- jobs ----------------------------------------------------------------------------


def source(name: str, form: FileFormat[Flight], folder: Path) -> tuple[Any, float]:
    app = App("bench")
    flights = app.stream(Files(folder / name, form))
    found = [0.0]

    @app.sink(flights, batch=4_096)
    def add(rows: list[Flight]) -> None:
        found[0] += sum(each.delay or 0.0 for each in rows)

    seconds = run(app)
    return found[0], seconds


def sink(suffix: str, folder: Path) -> tuple[Any, float]:
    path = folder / f"{next(_numbers)}.{suffix}"
    app = App("bench")
    app.stream(Files(folder / "in.jsonl", Jsonl(Flight))).to(FileSink(path))
    seconds = run(app)
    return path.stat().st_size, seconds


if __name__ == "__main__":
    print("\n".join(main()))
