"""Commands that work on an app: run, check, graph."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamkit.cli.options import (
    DURATION,
    SIZE,
    Command,
    target_options_of,
    tls_of,
    with_target_options,
)
from streamkit.cli.output import unguarded_output
from streamkit.dataflow.topology import as_mermaid, as_text
from streamkit.errors import StreamKitError
from streamkit.loading.apps import load_app
from streamkit.observe.report import setting_line
from streamkit.observe.streams import escaped, say
from streamkit.run import RunOptions, run_app, settings_of
from streamkit.run.exit_guard import ExitGuard
from streamkit.settings import parse_assignments

if TYPE_CHECKING:
    from streamkit.app import App


_with_settings = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a setting; repeatable",
)


@click.command(
    cls=Command,
    examples=(
        "streamkit run app.py --once --drain",
        "streamkit run app.py --cluster 127.0.0.1:9103 --commit-interval 500ms",
    ),
)
@with_target_options
@click.argument("target", metavar="APP")
@click.option("--once", is_flag=True, help="Process the records that are already stored, then stop")
@click.option(
    "--drain", is_flag=True, help="Complete open windows before the run ends, also after a signal"
)
@click.option("--fresh-state", is_flag=True, help="Ignore stored offsets and state, and start over")
@click.option(
    "--create-topics", is_flag=True, help="Create missing topics, including source topics"
)
@click.option(
    "--replay",
    multiple=True,
    metavar="TOPIC",
    help="Give the dead letters of TOPIC to the stages again that they came from; repeatable",
)
@click.option(
    "--on-crash-loop",
    type=click.Choice(["stop", "dead-letter"]),
    default="stop",
    help="A record at which the last two runs have failed: fail again, or put it aside",
)
@click.option(
    "--commit-interval",
    default="1s",
    type=DURATION,
    help="Time between commits while records are processed",
)
@click.option(
    "--stop-deadline",
    default="25s",
    type=DURATION,
    help="Maximum time for a stop",
)
@click.option(
    "--state-memory",
    "state_memory_bytes",
    type=SIZE,
    help="Maximum memory of keyed state; by default half of the machine memory",
)
@_with_settings
@click.option("--json", "as_json", is_flag=True, help="Report as JSON lines on standard output")
@click.pass_context
def run(
    context: click.Context,
    /,
    target: str,
    stop_deadline: float,
    assignments: tuple[str, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Run APP, given as app.py, app.py:name or package.module:name.

    Without --once, the job runs until SIGTERM or Ctrl-C stops it: it flushes every sink,
    commits, and exits with 0. If three runs in a row fail at the same record, the exit code is 5.
    A second signal closes everything without flushing or committing. A
    third one ends the process immediately.
    """
    options = _options(context, given, stop_deadline, as_json, parse_assignments(assignments))
    run_target(context, target, options)


def run_target(context: click.Context, target: str, options: RunOptions) -> None:
    """Load an app and run it as `run_loaded` does."""
    with unguarded_output():
        with _prints_to_standard_error() if options.json else contextlib.nullcontext():
            app = load_app(target)
            app.load()
        run_loaded(context, app, options)


def run_loaded(context: click.Context, app: App, options: RunOptions) -> None:
    """Run an app; leave the process with the exit code of the run."""
    with unguarded_output():
        leaving = ExitGuard(options.stop_deadline_s, say)
        try:
            code = run_app(app, options, leaving.begin)
        except StreamKitError as error:
            leaving.watch(error.exit_code)
            raise
    leaving.watch(code)
    context.exit(code)


def _options(
    context: click.Context,
    given: dict[str, Any],
    stop_deadline_s: float,
    as_json: bool,
    settings: dict[str, str],
) -> RunOptions:
    target = target_options_of(context)
    return RunOptions(
        cluster=target.cluster,
        profile=target.profile,
        embedded=target.embedded,
        tls=tls_of(target),
        data_dir=None if target.data_dir is None else Path(target.data_dir),
        commit_interval_s=given.pop("commit_interval"),
        stop_deadline_s=stop_deadline_s,
        json=as_json,
        settings=settings,
        **given,
    )


@contextlib.contextmanager
def _prints_to_standard_error() -> Iterator[None]:
    """Redirect what the app file prints while it is loaded: standard output is for our report."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _checked(target: str) -> App:
    with unguarded_output(), _prints_to_standard_error():
        app = load_app(target)
        app.check()
    return app


@click.command(cls=Command, examples=("streamkit check app.py", "streamkit check package.jobs:app"))
@click.argument("target", metavar="APP")
@_with_settings
def check(target: str, assignments: tuple[str, ...]) -> None:
    """Find problems in the graph and the settings of APP without running it."""
    app = _checked(target)
    found = settings_of(app, parse_assignments(assignments))
    for note in found.notes:
        say(note)
    count = len(app.topology.nodes)
    click.echo(f"{app.name}: {count} stages, no problems found")
    for setting in found.settings.reports:
        click.echo(f"  {escaped(setting_line(setting))}")


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
    help="Output format",
)
def graph(target: str, form: str) -> None:
    """Print the graph of APP."""
    app = _checked(target)
    click.echo(as_mermaid(app.topology) if form == "mermaid" else as_text(app.topology))


@click.command(
    cls=Command, examples=("streamkit explain app.py", "streamkit explain app.py --format json")
)
@click.argument("target", metavar="APP")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Output format",
)
def explain(target: str, form: str) -> None:
    """Say how APP runs: what it keeps, what waits for time, and which names identify it."""
    import msgspec

    from streamkit.dataflow.explain import explain as plan_of
    from streamkit.dataflow.explain import plan_lines

    app = _checked(target)
    plan = plan_of(app.topology)
    if form == "json":
        click.echo(msgspec.json.encode(plan).decode())
    else:
        click.echo("\n".join(plan_lines(app.name, plan)))
