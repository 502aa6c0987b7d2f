"""`streamkit produce`: writes lines or whole files to a topic as records."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from streamkit.cli.choice_option import DELIVERY, ISOLATION
from streamkit.cli.options import DURATION, SIZE, Command, Option, with_target_options
from streamkit.cli.smartmodule_options import (
    SmartModuleOptions,
    refuse_mirror_option,
    smartmodule_options,
)
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
    help="Read this file instead of standard input; decompresses .gz; repeatable",
)
@click.option("--raw", is_flag=True, help="Write each input unchanged as one record")
@click.option("--key", help="Use this key for every record")
@click.option(
    "--key-separator", metavar="S", help="Split each line into key and value at the first S"
)
@click.option("--key-field", metavar="NAME", help="Use this field of each JSON line as the key")
@click.option(
    "--input",
    "form",
    type=click.Choice(("lines", "json")),
    default="lines",
    help="Format of the input; json reads lines of {key, value, timestamp} as"
    " `consume -O json` prints them",
)
@click.option(
    "-p",
    "--partition",
    type=click.IntRange(min=0),
    metavar="N",
    help="Write every record to this partition",
)
@click.option(
    "--compression",
    cls=Option,
    type=click.Choice(get_args(Compression), case_sensitive=False),
    show_default="the topic's setting",
    help="Compression of batches",
)
@click.option(
    "--linger", type=DURATION, default="100ms", help="Maximum time that a batch waits for records"
)
@click.option("--batch-size", type=SIZE, default="16KiB", help="Size at which a batch is sent")
@click.option("--max-request-size", type=SIZE, default="1MiB", help="Maximum size of a record")
@click.option(
    "--isolation",
    type=ISOLATION,
    default="read_uncommitted",
    help="When a record counts as stored; read_committed waits for every replica",
)
@click.option(
    "--delivery-semantic",
    "delivery",
    type=DELIVERY,
    default="at-least-once",
    help="Whether to resend records after an error; at-most-once never does and may lose records",
)
@smartmodule_options
@refuse_mirror_option
@click.option(
    "-v", "--verbose", is_flag=True, help="Print [key] value of each stored record with a key"
)
@click.option(
    "--print-metadata", is_flag=True, help="Print the partition and offset of each stored record"
)
@click.option(
    "--create-topics",
    is_flag=True,
    help="Create a missing topic on a cluster; on the embedded broker this is always done",
)
@with_target_options
def produce(topic: str, **given: Any) -> None:
    """Write each line of the files, or of standard input, to TOPIC as a record.

    Ctrl-C stops reading; records already read are still stored and counted. Invalid lines are
    rejected and reported with their line number, and the exit code is then 1.
    """
    from streamkit.cli.produce_run import ProduceOptions, run

    smartmodules = SmartModuleOptions.pop_from(given).steps()
    options = ProduceOptions(topic=topic, smartmodules=tuple(smartmodules), **given)
    _check(options)
    click.get_current_context().exit(run(options))


def _check(options: Any) -> None:
    key_options = {
        "--key": options.key is not None,
        "--key-separator": options.key_separator is not None,
        "--key-field": options.key_field is not None,
        "--input json": options.form == "json",
    }
    given = [name for name, is_given in key_options.items() if is_given]
    if len(given) > 1:
        raise UsageError(
            f"{' and '.join(given)} each define where keys come from", hint="keep one of them"
        )
    if options.raw and given and given != ["--key"]:
        raise UsageError(
            f"--raw and {given[0]} contradict each other",
            hint="--raw does not split the input into lines; only --key works with it",
        )
    if options.verbose and not given:
        raise UsageError(
            "--verbose prints keys, but the records have none",
            hint="add a key option such as --key, or use --print-metadata",
        )
    if options.key_separator == "":
        raise UsageError("--key-separator is empty", hint="give at least one character")
    if options.batch_size < 1 or options.max_request_size < 1:
        raise UsageError("--batch-size and --max-request-size must be at least 1 byte")
