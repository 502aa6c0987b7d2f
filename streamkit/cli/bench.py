"""`streamkit bench`: measure a broker and the client, output checked."""

from __future__ import annotations

import json
from pathlib import Path

import click

from streamkit.cli.options import Command

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
@click.option("--list", "lists", is_flag=True, help="Show the names and what they measure.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option(
    "--records",
    type=click.IntRange(1),
    default=1_000_000,
    show_default=True,
    help="How many records.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="How often each side has its turn; the best counts.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where data lie meanwhile; name one on the disk to measure [the temporary folder]",
)
def bench(
    name: str | None, lists: bool, as_json: bool, records: int, rounds: int, folder: Path | None
) -> None:
    """Run the benchmark NAME, or all of them, each with its baseline in the same run.

    A broker is started for it in another process. The official Fluvio client is a baseline
    where STREAMKIT_PEER_PYTHON names a Python that has it.
    """
    from streamkit.bench.catalog import BENCHMARKS
    from streamkit.bench.result import Scale, as_text

    if lists:
        width = max(map(len, BENCHMARKS))
        for each, benchmark in BENCHMARKS.items():
            click.echo(f"{each:<{width}}  {benchmark.work}; must reach {benchmark.must_reach}")
        return
    if name is None or (name != ALL and name not in BENCHMARKS):
        given = "name a benchmark" if name is None else f"no benchmark is called {name!r}"
        raise click.UsageError(f"{given}: {', '.join(BENCHMARKS)} or {ALL}")
    for each in BENCHMARKS if name == ALL else (name,):
        result = BENCHMARKS[each].run(Scale(records, rounds, folder))
        click.echo(json.dumps(result.as_dict()) if as_json else as_text(result))
