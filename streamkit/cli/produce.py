"""`streamkit produce`: lines, files or whole inputs become records of a topic."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from streamkit.cli.choice_option import DELIVERY, ISOLATION
from streamkit.cli.options import DURATION, SIZE, Command, place_options
from streamkit.cli.smartmodule_options import SmartModuleOptions, chain_options, no_mirrors
from streamkit.errors import UsageError
from streamkit.record import Compression


@click.command(
    cls=Command,
    examples=(
        "streamkit produce flights --file flights.jsonl.gz --key-field carrier",
        "tail -F app.log | streamkit produce logs --compression lz4",
        "streamkit produce flights -f flights.jsonl --smartmodule only-late -e minutes=15",
    ),
    may_be_empty=("key", "key_separator", "key_field", "aggregate_initial"),
)
@click.argument("topic")
@click.option(
    "-f",
    "--file",
    "files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Read this file in place of standard input; again for more files; .gz is decompressed",
)
@click.option("--raw", is_flag=True, help="Each input is one record, byte by byte")
@click.option("--key", help="The key of every record")
@click.option(
    "--key-separator", metavar="S", help="Cut each line into key and value at the first S"
)
@click.option("--key-field", metavar="NAME", help="Take the key from this field of JSON lines")
@click.option(
    "--input",
    "form",
    type=click.Choice(("lines", "json")),
    default="lines",
    help="json: each line is {key, value, timestamp}, as `consume -O json` prints [lines]",
)
@click.option("-p", "--partition", type=click.IntRange(min=0), help="Where to put every record")
@click.option(
    "--compression",
    type=click.Choice(get_args(Compression), case_sensitive=False),
    help="How batches are compressed [the topic's own]",
)
@click.option("--linger", type=DURATION, default=0.1, help="How long a batch may wait [100ms]")
@click.option("--batch-size", type=SIZE, default=16_384, help="Size of a batch [16384]")
@click.option(
    "--max-request-size", type=SIZE, default=1_048_576, help="The largest record [1048576]"
)
@click.option(
    "--isolation",
    type=ISOLATION,
    default="read_uncommitted",
    help="read_committed waits for every replica [read_uncommitted]",
)
@click.option(
    "--delivery-semantic",
    "delivery",
    type=DELIVERY,
    default="at-least-once",
    help="at-most-once never sends anything again, so some may be lost [at-least-once]",
)
@chain_options
@no_mirrors
@click.option(
    "-v", "--verbose", is_flag=True, help="With keys, print [key] value of each record stored"
)
@click.option("--print-metadata", is_flag=True, help="Print where each record is stored")
@click.option(
    "--create-topics",
    is_flag=True,
    help="Make a missing topic on a cluster too; the embedded broker always gets it",
)
@place_options
def produce(topic: str, **given: Any) -> None:
    """Write records to TOPIC: one a line, of files or of standard input.

    What was read is stored and counted, also on Ctrl-C. Lines that cannot be records are named
    by number; then the exit code is 1.
    """
    from streamkit.cli.produce_run import ProduceOptions, run

    chain = SmartModuleOptions.taken_from(given)
    options = ProduceOptions(topic=topic, smartmodules=tuple(chain.steps()), **given)
    _check(options)
    click.get_current_context().exit(run(options))


def _check(options: Any) -> None:
    ways = {
        "--key": options.key is not None,
        "--key-separator": options.key_separator is not None,
        "--key-field": options.key_field is not None,
        "--input json": options.form == "json",
    }
    given = [name for name, is_given in ways.items() if is_given]
    if len(given) > 1:
        raise UsageError(
            f"{' and '.join(given)} each say where keys come from", hint="keep one of them"
        )
    if options.raw and given and given != ["--key"]:
        raise UsageError(
            f"--raw and {given[0]} contradict each other", hint="with --raw there are no lines"
        )
    if options.verbose and not given:
        raise UsageError(
            "--verbose prints keys, and no option gives the records any",
            hint="--print-metadata prints where each record is stored",
        )
    if options.key_separator == "":
        raise UsageError("--key-separator is empty", hint="give at least one character")
    if options.batch_size < 1 or options.max_request_size < 1:
        raise UsageError("--batch-size and --max-request-size count from 1 byte up")
