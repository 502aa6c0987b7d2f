"""`streamkit consume`: print the records of a topic."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from streamkit.cli.choice_option import ISOLATION
from streamkit.cli.options import SIZE, Command, place_options
from streamkit.cli.smartmodule_options import SmartModuleOptions, chain_options, no_mirrors
from streamkit.cli.time_option import MOMENT
from streamkit.errors import UsageError

# What `streamkit.cli.formats` can; named here so that the help needs no import of it.
OUTPUTS = ("dynamic", "text", "binary", "json", "raw", "table")
_COUNT = click.IntRange(min=0)


@click.command(
    cls=Command,
    examples=(
        "streamkit consume flights -B -d -O json | jq .value.carrier",
        "streamkit consume flights --since 2h --until 30m -O table",
        'streamkit consume flights -T 10 -F "{{partition}}:{{offset}} {{key}} {{value}}"',
    ),
    may_be_empty=("template", "aggregate_initial"),
)
@click.argument("topic")
@click.option("-B", "--beginning", is_flag=True, help="Read from the first record stored")
@click.option("-H", "--head", type=_COUNT, metavar="N", help="Start N behind the first record")
@click.option("-T", "--tail", type=_COUNT, metavar="N", help="Start N before the end")
@click.option("--start", type=_COUNT, metavar="N", help="Start at offset N")
@click.option(
    "--since",
    type=MOMENT,
    metavar="TIME",
    help="Start at the first record of that time or later: 2024-05-01, 2024-05-01T12:00:00Z,"
    " or an age such as 2h",
)
@click.option("--end", type=_COUNT, metavar="N", help="Stop behind offset N, in each partition")
@click.option(
    "--until", type=MOMENT, metavar="TIME", help="Stop each partition at its first later record"
)
@click.option(
    "-d", "--disable-continuous", is_flag=True, help="Stop at the end in place of waiting there"
)
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="N", help="Stop after N records")
@click.option(
    "-p", "--partition", "partitions", type=_COUNT, multiple=True, help="Only this one; repeatable"
)
@click.option("-A", "--all-partitions", is_flag=True, help="All partitions, which is the default")
@click.option(
    "-c",
    "--consumer",
    metavar="ID",
    help="Go on where the consumer of this name stopped, and store how far this one gets",
)
@click.option("-k", "--key-value", is_flag=True, help="Print [key] in front of the value")
@click.option(
    "-F",
    "--format",
    "template",
    metavar="TEXT",
    help="Print by a template of {{key}} {{value}} {{offset}} {{partition}} {{time}}",
)
@click.option(
    "-O",
    "--output",
    type=click.Choice(OUTPUTS, case_sensitive=False),
    help="dynamic: text, or a dump of what is none; json: one object a record; raw: the bytes;"
    " table: the fields of JSON objects [dynamic]",
)
@click.option("--table-format", hidden=True, help="Columns of Fluvio's own full_table")
@click.option(
    "--suppress-unknown", is_flag=True, help="Leave out what the output cannot show as it is"
)
@click.option("--truncate", is_flag=True, help="Cut lines to the width of the terminal")
@click.option(
    "--disable-progressbar", is_flag=True, hidden=True, help="There is none; taken for scripts"
)
@click.option("-b", "--maxbytes", type=SIZE, default=1_048_890, help="Size of a fetch [1048890]")
@click.option(
    "--isolation",
    type=ISOLATION,
    default="read_uncommitted",
    help="read_committed: only what every replica has [read_uncommitted]",
)
@chain_options
@no_mirrors
@place_options
def consume(topic: str, **given: Any) -> None:
    """Print the records of TOPIC; from the end, unless an option says otherwise.

    Ends with Ctrl-C, or when whoever reads its output goes away.
    """
    _check(given)
    chain = SmartModuleOptions.taken_from(given)
    if given["until"] is not None and chain != SmartModuleOptions():
        raise UsageError(
            "--until needs times, and what SmartModules make of records has none",
            hint="--end stops at an offset",
        )
    from streamkit.cli.consume_run import ConsumeOptions, run

    for name in ("all_partitions", "table_format", "disable_progressbar"):
        del given[name]
    run(ConsumeOptions(topic=topic, smartmodules=tuple(chain.steps()), **given))


def _check(given: dict[str, Any]) -> None:
    starts = {
        "--beginning": given["beginning"],
        "--head": given["head"] is not None,
        "--tail": given["tail"] is not None,
        "--start": given["start"] is not None,
        "--since": given["since"] is not None,
    }
    _refuse_several([name for name, is_given in starts.items() if is_given])
    partitions = {"--partition": given["partitions"], "--all-partitions": given["all_partitions"]}
    _refuse_several([name for name, is_given in partitions.items() if is_given])
    outputs = {"--format": given["template"] is not None, "--output": given["output"] is not None}
    _refuse_several([name for name, is_given in outputs.items() if is_given])
    if given["table_format"] is not None:
        raise UsageError(
            "--table-format: table formats, and the screen that they are for, are not supported",
            hint="-O table prints the fields of JSON objects as rows",
        )
    if given["since"] is not None and given["until"] is not None:
        _check_order(given["since"], given["until"])
    if given["key_value"] and (
        given["template"] is not None or given["output"] in ("json", "table")
    ):
        other = "--format" if given["output"] is None else f"--output {given['output']}"
        raise UsageError(
            f"--key-value and {other} contradict each other",
            hint="the values are shown by their fields"
            if given["output"] == "table"
            else f"{other} can show keys itself",
        )


def _check_order(since: datetime, until: datetime) -> None:
    if until < since:
        raise UsageError(
            f"--until {until.isoformat(timespec='seconds')} is before "
            f"--since {since.isoformat(timespec='seconds')}",
            hint="an age counts back from now: --since 2h --until 1h",
        )


def _refuse_several(given: list[str]) -> None:
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} contradict each other", hint="keep one of them")
