"""`streamkit bench`: runs the benchmarks, which also check their output."""

from __future__ import annotations

import json
from pathlib import Path

import click

from streamkit.cli.options import Command, Option

ALL = "all"


@click.command(
    cls=Command,
    examples=(
        "streamkit bench --list",
        "streamkit bench engine",
        "streamkit bench consume --records 100000 --json",
    ),
)
@click.argument("name", required=False)
@click.option("--list", "lists", is_flag=True, help="List the benchmarks and what they measure")
@click.option("--json", "as_json", is_flag=True, help="Print each result as one JSON line")
@click.option(
    "--records", type=click.IntRange(1), default=1_000_000, metavar="N", help="Number of records"
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    metavar="N",
    help="Number of runs of streamkit and of its baseline; the best of each counts",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    cls=Option,
    show_default="the temporary folder",
    help="Folder for the data; choose one on the disk to measure",
)
def bench(
    name: str | None, lists: bool, as_json: bool, records: int, rounds: int, folder: Path | None
) -> None:
    """Run the benchmark NAME, or `all`. Each one measures its baseline in the same run.

    The broker runs in another process. To use the official Fluvio client as a baseline, set
    STREAMKIT_PEER_PYTHON to a Python interpreter in which it is installed.
    """
    from streamkit.bench.catalog import BENCHMARKS
    from streamkit.bench.result import Scale, as_text

    if lists:
        width = max(map(len, BENCHMARKS))
        for each, benchmark in BENCHMARKS.items():
            click.echo(f"{each:<{width}}  {benchmark.work}; must reach {benchmark.must_reach}")
        return
    if name is None or (name != ALL and name not in BENCHMARKS):
        problem = "missing benchmark name" if name is None else f"unknown benchmark {name!r}"
        raise click.UsageError(f"{problem}; choose one of {', '.join(BENCHMARKS)} or {ALL}")
    for each in BENCHMARKS if name == ALL else (name,):
        result = BENCHMARKS[each].run(Scale(records, rounds, folder))
        click.echo(json.dumps(result.as_dict()) if as_json else as_text(result))
