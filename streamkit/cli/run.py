"""Commands that work on an app: run, check, graph."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamkit.cli.options import DURATION, Command, named, place_options, tls_of
from streamkit.cli.output import unguarded_output
from streamkit.dataflow.topology import as_mermaid, as_text
from streamkit.errors import StreamKitError
from streamkit.loading.apps import load_app
from streamkit.observe.streams import say
from streamkit.run import RunOptions, run_app
from streamkit.run.leaving import Leaving
from streamkit.settings import parse_assignments

if TYPE_CHECKING:
    from streamkit.app import App


@click.command(
    cls=Command,
    examples=(
        "streamkit run app.py --once",
        "streamkit run app.py --cluster 127.0.0.1:9103 --commit-interval 500ms",
    ),
)
@place_options
@click.argument("target", metavar="APP")
@click.option("--once", is_flag=True, help="Stop at the end offsets seen at the start.")
@click.option("--fresh-state", is_flag=True, help="Start over although offsets are known.")
@click.option("--create-topics", is_flag=True, help="Make missing topics, sources too.")
@click.option(
    "--commit-interval",
    default="1s",
    show_default=True,
    type=DURATION,
    help="How often offsets are committed while there is work.",
)
@click.option(
    "--stop-deadline",
    default="25s",
    show_default=True,
    type=DURATION,
    help="How long stopping may take.",
)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON lines on standard output.")
@click.pass_context
def run(
    context: click.Context,
    target: str,
    once: bool,
    fresh_state: bool,
    create_topics: bool,
    commit_interval: float,
    stop_deadline: float,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run the job of APP: app.py, app.py:name or package.module:name.

    Without --once it runs until it is stopped: SIGTERM or Ctrl-C flushes every sink,
    commits, and exits with 0. A second one only closes, a third leaves at once.
    """
    place = named(context)
    options = RunOptions(
        cluster=place.cluster,
        profile=place.profile,
        embedded=place.embedded,
        tls=tls_of(place),
        data_dir=None if place.data_dir is None else Path(place.data_dir),
        once=once,
        fresh_state=fresh_state,
        create_topics=create_topics,
        commit_interval_s=commit_interval,
        stop_deadline_s=stop_deadline,
        json=as_json,
        settings=parse_assignments(assignments),
    )
    with unguarded_output():
        with _prints_aside() if as_json else contextlib.nullcontext():
            app = load_app(target)
            app.load()
        leaving = Leaving(stop_deadline, say)
        try:
            code = run_app(app, options, leaving.begin)
        except StreamKitError as error:
            leaving.watch(error.exit_code)
            raise
    leaving.watch(code)
    context.exit(code)


@contextlib.contextmanager
def _prints_aside() -> Iterator[None]:
    """Let what a file prints while it is loaded go to standard error, not into our output."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _checked(target: str) -> App:
    with unguarded_output(), _prints_aside():
        app = load_app(target)
        app.check()
    return app


@click.command(cls=Command, examples=("streamkit check app.py", "streamkit check package.jobs:app"))
@click.argument("target", metavar="APP")
def check(target: str) -> None:
    """Find problems in the graph of APP without running it."""
    app = _checked(target)
    count = len(app.topology.nodes)
    click.echo(f"{app.name}: {count} stages, no problems found")


@click.command(
    cls=Command,
    examples=("streamkit graph app.py", "streamkit graph app.py --format mermaid > graph.mmd"),
)
@click.argument("target", metavar="APP")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid"]),
    default="text",
    show_default=True,
    help="How to draw it.",
)
def graph(target: str, form: str) -> None:
    """Draw the graph of APP."""
    app = _checked(target)
    click.echo(as_mermaid(app.topology) if form == "mermaid" else as_text(app.topology))
