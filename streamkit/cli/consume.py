"""`streamkit consume`: print the records of a topic."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from streamkit.cli.choice_option import ISOLATION
from streamkit.cli.options import SIZE, Command, Option, with_target_options
from streamkit.cli.smartmodule_options import (
    SmartModuleOptions,
    refuse_mirror_option,
    smartmodule_options,
)
from streamkit.cli.time_option import TIME
from streamkit.errors import UsageError

# The outputs of `streamkit.cli.formats`, repeated here so that the help does not import it.
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
@click.option("-B", "--beginning", is_flag=True, help="Start at the first stored record")
@click.option("-H", "--head", type=_COUNT, metavar="N", help="Start N records after the first")
@click.option("-T", "--tail", type=_COUNT, metavar="N", help="Start N records before the end")
@click.option("--start", type=_COUNT, metavar="N", help="Start at offset N")
@click.option(
    "--since",
    type=TIME,
    metavar="TIME",
    help="Start at the first record at or after this time: 2024-05-01, 2024-05-01T12:00:00Z,"
    " or an age such as 2h",
)
@click.option("--end", type=_COUNT, metavar="N", help="Stop each partition after offset N")
@click.option(
    "--until",
    type=TIME,
    metavar="TIME",
    help="Stop each partition at its first record after this time",
)
@click.option(
    "-d",
    "--disable-continuous",
    is_flag=True,
    help="Stop at the end instead of waiting for new records",
)
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="N", help="Stop after N records")
@click.option(
    "-p",
    "--partition",
    "partitions",
    type=_COUNT,
    multiple=True,
    metavar="N",
    help="Read only this partition; repeatable",
)
@click.option("-A", "--all-partitions", is_flag=True, help="Read all partitions (the default)")
@click.option(
    "-c",
    "--consumer",
    metavar="ID",
    help="Resume at the stored offset of consumer ID, and store new offsets for it",
)
@click.option("-k", "--key-value", is_flag=True, help="Print [key] before each value")
@click.option(
    "-F",
    "--format",
    "template",
    metavar="TEXT",
    help="Print each record in this format, with {{key}} {{value}} {{offset}} {{partition}}"
    " {{time}} filled in",
)
@click.option(
    "-O",
    "--output",
    cls=Option,
    type=click.Choice(OUTPUTS, case_sensitive=False),
    show_default="dynamic",
    help="Output format. dynamic: text, and a hex dump for values that are not text; text: text,"
    " and only the size of other values; binary: a hex dump; json: one object per record;"
    " raw: the bytes; table: the fields of JSON objects as columns",
)
@click.option("--table-format", hidden=True, help="Not supported: columns for full_table")
@click.option(
    "--suppress-unknown",
    is_flag=True,
    help="Skip values that are not valid in the output format, such as invalid JSON",
)
@click.option("--truncate", is_flag=True, help="Cut lines to the width of the terminal")
@click.option(
    "--disable-progressbar",
    is_flag=True,
    hidden=True,
    help="Accepted for scripts; there is no progress bar",
)
@click.option("-b", "--maxbytes", type=SIZE, default=1_048_890, help="Maximum bytes per fetch")
@click.option(
    "--isolation",
    type=ISOLATION,
    default="read_uncommitted",
    help="Which records to read; read_committed reads only those that every replica has",
)
@smartmodule_options
@refuse_mirror_option
@with_target_options
def consume(topic: str, **given: Any) -> None:
    """Print the records of TOPIC, by default only new ones.

    Runs until Ctrl-C, or until the program that reads its output closes the pipe.
    """
    _check(given)
    smartmodules = SmartModuleOptions.pop_from(given)
    if given["until"] is not None and smartmodules != SmartModuleOptions():
        raise UsageError(
            "--until does not work with SmartModules: their output has no timestamps",
            hint="use --end to stop at an offset",
        )
    from streamkit.cli.consume_run import ConsumeOptions, run

    for name in ("all_partitions", "table_format", "disable_progressbar"):
        del given[name]
    run(ConsumeOptions(topic=topic, smartmodules=tuple(smartmodules.steps()), **given))


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
            "--table-format: table formats and the full-screen table are not supported",
            hint="-O table prints JSON objects as rows",
        )
    if given["since"] is not None and given["until"] is not None:
        _check_order(given["since"], given["until"])
    if given["key_value"] and (
        given["template"] is not None or given["output"] in ("json", "table")
    ):
        other = "--format" if given["output"] is None else f"--output {given['output']}"
        raise UsageError(
            f"--key-value and {other} contradict each other",
            hint="the table shows only the fields of the values"
            if given["output"] == "table"
            else f"leave out --key-value; {other} can show keys",
        )


def _check_order(since: datetime, until: datetime) -> None:
    if until < since:
        raise UsageError(
            f"--until {until.isoformat(timespec='seconds')} is before "
            f"--since {since.isoformat(timespec='seconds')}",
            hint="an age is counted back from now: --since 2h --until 1h",
        )


def _refuse_several(given: list[str]) -> None:
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} contradict each other", hint="keep one of them")
