"""`streamkit dlq`: dead letters, the records that a job has put aside because they failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from streamkit.cli.listing import output_option
from streamkit.cli.options import (
    DURATION,
    Command,
    Group,
    target_options_of,
    tls_of,
    with_target_options,
)

F = TypeVar("F", bound=Callable[..., Any])

GROUPS = ("stage", "error", "app")


def _text_or_json(command: F) -> F:
    return click.option(
        "-O",
        "--output",
        "form",
        type=click.Choice(("text", "json"), case_sensitive=False),
        default="text",
        help="Output format",
    )(command)


def _filters(command: F) -> F:
    for decorate in (
        click.option("--all", "with_done", is_flag=True, help="Include those that are done"),
        click.option("--error", "error_type", metavar="TYPE", help="Only errors of this type"),
        click.option("--stage", metavar="NAME", help="Only letters of this stage"),
        click.option("--app", metavar="NAME", help="Only letters of this app"),
    ):
        command = decorate(command)
    return command


@click.group(
    cls=Group, examples=("streamkit dlq list orders-dead", "streamkit dlq show orders-dead 0:12")
)
@with_target_options
def dlq() -> None:
    """List, show, count and drop dead letters.

    A dead letter is waiting until it is replayed or dropped; then it is done.
    """


@dlq.command(
    "list",
    cls=Command,
    examples=(
        "streamkit dlq list orders-dead --stage parse",
        "streamkit dlq list dead.jsonl -O json",
    ),
)
@click.argument("source", metavar="TOPIC_OR_FILE")
@_filters
@click.option(
    "-n", "--count", type=click.IntRange(min=1), metavar="N", help="Stop after N dead letters"
)
@output_option
@with_target_options
def list_(source: str, form: str, count: int | None, **filters: Any) -> None:
    """List the dead letters that are waiting in a topic, or in a file of JSON lines.

    Reads up to the current end. The first column is the place: PARTITION:OFFSET, or the number
    of the line in a file.
    """
    from streamkit.cli.dlq_run import Listing, Selection, read

    selection = Selection(**filters)
    read(source, selection, Listing(source, selection, form, count))


@dlq.command(
    cls=Command,
    examples=(
        "streamkit dlq show orders-dead 12",
        "streamkit dlq show orders-dead 0:12 -O json | jq .value",
    ),
)
@click.argument("source", metavar="TOPIC_OR_FILE")
@click.argument("place")
@_text_or_json
@with_target_options
def show(source: str, place: str, form: str) -> None:
    """Show everything about the dead letter at PLACE, with its value and the stack.

    PLACE is PARTITION:OFFSET, or OFFSET if the topic has one partition, or the number of the line
    in a file. -O json prints the dead letter as it is stored.
    """
    from streamkit.cli.dlq_show import run

    run(source, place, form)


@dlq.command(
    cls=Command,
    examples=(
        "streamkit dlq count orders-dead --by error",
        "streamkit dlq count orders-dead -O json | jq .count",
    ),
)
@click.argument("source", metavar="TOPIC_OR_FILE")
@click.option("--by", type=click.Choice(GROUPS), help="Also count for each stage, error or app")
@_filters
@_text_or_json
@with_target_options
def count(source: str, by: str | None, form: str, **filters: Any) -> None:
    """Count the dead letters that are waiting in a topic, or in a file of JSON lines."""
    from streamkit.cli.dlq_run import Counting, Selection, read

    selection = Selection(**filters)
    read(source, selection, Counting(source, selection, form, by))


@dlq.command(
    cls=Command,
    examples=(
        "streamkit dlq drop orders-dead --app orders",
        "streamkit dlq drop orders-dead --app orders --until 0:12 --yes",
    ),
)
@click.argument("topic")
@click.option("--app", required=True, metavar="NAME", help="The app whose letters are dropped")
@click.option(
    "--until",
    "places",
    multiple=True,
    metavar="PLACE",
    help="Drop up to this place only, and only in its partition; repeatable",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation")
@with_target_options
def drop(topic: str, app: str, places: tuple[str, ...], yes: bool) -> None:
    """Drop the waiting dead letters of an app: they will not be replayed.

    They stay in the topic, and `list --all` shows them. Letters that arrive later are not
    dropped. The job of the app must not run.
    """
    from streamkit.cli.dlq_drop import run

    run(topic, app, places, asks=not yes)


@dlq.command(
    cls=Command,
    examples=(
        "streamkit dlq replay app.py orders-dead",
        "streamkit dlq replay package.jobs:app orders-dead --json",
    ),
)
@with_target_options
@click.argument("target", metavar="APP")
@click.argument("topic")
@click.option("--stop-deadline", default="25s", type=DURATION, help="Maximum time for a stop")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a setting; repeatable",
)
@click.option("--json", "as_json", is_flag=True, help="Report as JSON lines on standard output")
@click.pass_context
def replay(
    context: click.Context,
    /,
    target: str,
    topic: str,
    stop_deadline: float,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Give the dead letters of TOPIC to the stages of APP again that they came from.

    APP is given as app.py, app.py:name or package.module:name. Its sources are not read, and the
    run ends when all letters are replayed that are waiting now. A letter is not replayed again,
    except if a replay is killed before its next commit. While the job runs, stop it, or start it
    with `streamkit run --replay TOPIC`.
    """
    from streamkit.cli.run import run_target
    from streamkit.run import RunOptions
    from streamkit.settings import parse_assignments

    given = target_options_of(context)
    options = RunOptions(
        cluster=given.cluster,
        profile=given.profile,
        embedded=given.embedded,
        tls=tls_of(given),
        data_dir=None if given.data_dir is None else Path(given.data_dir),
        replay=(topic,),
        replay_only=True,
        stop_deadline_s=stop_deadline,
        json=as_json,
        settings=parse_assignments(assignments),
    )
    run_target(context, target, options)
