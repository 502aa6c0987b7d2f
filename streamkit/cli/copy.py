"""`streamkit copy`: an app of one source and one sink, which are given as texts."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from streamkit.cli.options import (
    DURATION,
    Command,
    target_options_of,
    tls_of,
    with_target_options,
)
from streamkit.cli.output import unguarded_output

if TYPE_CHECKING:
    from streamkit.app import App

_SLUG_MAX: Final = 20
_SQLITE_FILE: Final = re.compile(r"sqlite:///(.+)")


@click.command(
    "copy",
    cls=Command,
    examples=(
        "streamkit copy orders.csv fluvio:orders",
        "streamkit copy fluvio:orders orders.jsonl --follow",
        "streamkit copy kafka://host:9092/orders fluvio:orders",
    ),
)
@with_target_options
@click.argument("from_end", metavar="FROM")
@click.argument("to_end", metavar="TO")
@click.option("--follow", is_flag=True, help="Wait for more records at the end, until a signal")
@click.option("--fresh-state", is_flag=True, help="Start at the beginning again")
@click.option("--create-topics", is_flag=True, help="Create missing topics")
@click.option(
    "--on-error",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    help="What to do with a record that cannot be read or written",
)
@click.option(
    "--stop-deadline",
    "stop_deadline_s",
    default="25s",
    type=DURATION,
    help="Maximum time for a stop",
)
@click.option("--json", is_flag=True, help="Report as JSON lines on standard output")
@click.pass_context
def copy(
    context: click.Context,
    /,
    from_end: str,
    to_end: str,
    follow: bool,
    on_error: str,
    **given: Any,
) -> None:
    """Copy records FROM one place TO another: fluvio:TOPIC, a file, or the URL of a connector.

    The copy is a job: it commits its position, and the same command resumes there. From topic to
    topic, also of Kafka, keys, values and times stay as they are; to another place, the values must
    be JSON.
    """
    from streamkit.cli.run import run_loaded
    from streamkit.run import RunOptions

    target = target_options_of(context)
    options = RunOptions(
        cluster=target.cluster,
        profile=target.profile,
        embedded=target.embedded,
        tls=tls_of(target),
        data_dir=None if target.data_dir is None else Path(target.data_dir),
        once=not follow,
        **given,
    )
    app = app_of(from_end, to_end, on_error)
    with unguarded_output():
        run_loaded(context, app, options)


def app_of(from_end: str, to_end: str, on_error: Any = "fail") -> App:
    """Return the app that copies from one end to the other.

    Raises:
        UsageError: No connector reads the first end, or none writes the second one.
    """
    from streamkit.app import App
    from streamkit.connectors.ends import sink_of, source_of, topic_of

    app = App(copy_name(from_end, to_end))
    source: Any = topic_of(from_end) or source_of(from_end)
    sink: Any = topic_of(to_end) or sink_of(to_end)
    kind = _copied_type(source, sink)
    stream: Any = app.stream(source, kind, name="from", on_error=on_error)
    stream.to(sink, name="to", on_error=on_error)
    return app


def _copied_type(source: Any, sink: Any) -> Any:
    """Return the type of the values: raw if both ends have it, else what the source declares."""
    read, written = (bytes if isinstance(each, str) else each.raw_type for each in (source, sink))
    if read is not None and written is not None:
        return read if read == written else bytes
    declared = None if isinstance(source, str) else source.value_type
    return Any if declared is None else declared


def copy_name(from_end: str, to_end: str) -> str:
    """Return the name of the copy, under which its position is stored.

    A file is named by its absolute path, so the current folder does not matter.
    """
    from streamkit.connectors.ends import without_password

    given = [without_password(each) for each in (from_end, to_end)]
    ends = [_absolute(each) for each in given]
    short = hashlib.sha256("\0".join(ends).encode()).hexdigest()[:8]
    return "-".join(["copy", *map(_slug, given), short])


def _absolute(end: str) -> str:
    if (found := _SQLITE_FILE.match(end)) is not None:
        return f"sqlite:///{Path(found[1]).absolute()}"
    is_url = "://" in end or end.startswith("fluvio:")
    return end if is_url else str(Path(end.removeprefix("jsonl:")).absolute())


def _slug(end: str) -> str:
    text = re.sub(r"[^a-z0-9]+", "-", end.rpartition("/")[2].rpartition(":")[2].lower())
    return text.strip("-")[:_SLUG_MAX].strip("-") or "end"
