"""`streamkit consume`: print the records of a topic."""

from __future__ import annotations

from typing import Any

import click

from streamkit.cli.options import SIZE, Command, place_options
from streamkit.errors import UsageError

# What `streamkit.cli.formats` can; named here so that the help needs no import of it.
OUTPUTS = ("dynamic", "text", "binary", "json", "raw")
_COUNT = click.IntRange(min=0)


@click.command(
    cls=Command,
    examples=(
        "streamkit consume flights -B -d -O json | jq .value.carrier",
        'streamkit consume flights -T 10 -F "{{partition}}:{{offset}} {{key}} {{value}}"',
    ),
)
@click.argument("topic")
@click.option("-B", "--beginning", is_flag=True, help="Read from the first record stored")
@click.option("-H", "--head", type=_COUNT, metavar="N", help="Start N behind the first record")
@click.option("-T", "--tail", type=_COUNT, metavar="N", help="Start N before the end")
@click.option("--start", type=_COUNT, metavar="N", help="Start at offset N")
@click.option("--end", type=_COUNT, metavar="N", help="Stop behind offset N, in each partition")
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
    help="dynamic: text, or a dump of what is none; json: one object a record; raw: the bytes"
    " [dynamic]",
)
@click.option("-b", "--maxbytes", type=SIZE, default=1_048_890, help="Size of a fetch [1048890]")
@click.option(
    "--isolation",
    type=click.Choice(("read_committed", "read_uncommitted"), case_sensitive=False),
    default="read_uncommitted",
    help="read_committed: only what every replica has [read_uncommitted]",
)
@place_options
def consume(topic: str, **given: Any) -> None:
    """Print the records of TOPIC; from the end, unless an option says otherwise.

    Ends with Ctrl-C, or when whoever reads its output goes away.
    """
    _check(given)
    from streamkit.cli.consume_run import ConsumeOptions, run

    given.pop("all_partitions")
    run(ConsumeOptions(topic=topic, **given))


def _check(given: dict[str, Any]) -> None:
    starts = {
        "--beginning": given["beginning"],
        "--head": given["head"] is not None,
        "--tail": given["tail"] is not None,
        "--start": given["start"] is not None,
    }
    _refuse_several([name for name, is_given in starts.items() if is_given])
    partitions = {"--partition": given["partitions"], "--all-partitions": given["all_partitions"]}
    _refuse_several([name for name, is_given in partitions.items() if is_given])
    outputs = {"--format": given["template"] is not None, "--output": given["output"] is not None}
    _refuse_several([name for name, is_given in outputs.items() if is_given])
    if given["key_value"] and (given["template"] is not None or given["output"] == "json"):
        other = "--format" if given["output"] is None else "--output json"
        raise UsageError(
            f"--key-value and {other} contradict each other", hint=f"{other} can show keys itself"
        )


def _refuse_several(given: list[str]) -> None:
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} contradict each other", hint="keep one of them")
