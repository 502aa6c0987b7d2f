"""Commands that work on an app: run, check, graph."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

import click

from streamkit.app import App
from streamkit.cli.options import DURATION, Command, named, place_options, tls_of
from streamkit.dataflow.topology import as_mermaid, as_text
from streamkit.errors import ConfigError, StreamKitError
from streamkit.run import RunOptions, run_app
from streamkit.runtime.failures import users_line
from streamkit.settings import parse_assignments


def load_app(target: str) -> App:
    """Find an app: ``app.py``, ``app.py:name`` or ``package.module:name``.

    Raises:
        ConfigError: There is no such file or module, or no app in it.
    """
    place, _, attribute = target.partition(":")
    is_file = place.endswith(".py") or "/" in place
    module = _load_file(Path(place)) if is_file else _load_module(place)
    if attribute:
        found = getattr(module, attribute, None)
        if not isinstance(found, App):
            raise ConfigError(f"{place} has no App called {attribute!r}", hint=_apps_hint(module))
        return found
    apps = _apps_of(module)
    if len(apps) == 1:
        return next(iter(apps.values()))
    if not apps:
        raise ConfigError(
            f"{place} has no App", hint='make one: app = App("my-job") at the top of the file'
        )
    raise ConfigError(
        f"{place} has {len(apps)} Apps: {', '.join(apps)}",
        hint=f"name one: {place}:{next(iter(apps))}",
    )


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"no file {path}", hint="give the path of the file that holds your App")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # By its own name, so that modules which import it get the same App.
    return _imported(path.stem, str(path))


def _load_module(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise ConfigError(f"no module {name!r}", hint="did you mean a file? give it with its .py")
    return _imported(name, name)


def _imported(name: str, shown: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except SyntaxError as error:
        raise ConfigError(
            f"{error.filename}:{error.lineno}: {error.msg}", hint=f"mend {shown}"
        ) from error
    except StreamKitError:
        raise  # it says where by itself
    except Exception as error:
        where = users_line(traceback.extract_tb(error.__traceback__)) or shown
        raise ConfigError(
            f"{where}\n  {type(error).__name__}: {error}",
            hint="a missing module must be installed where streamkit is"
            if isinstance(error, ImportError)
            else f"mend {shown}: it is run once to find the App",
        ) from error


def _apps_of(module: ModuleType) -> dict[str, App]:
    found = {name: each for name, each in vars(module).items() if isinstance(each, App)}
    unique: dict[int, str] = {}
    for name, each in found.items():
        unique.setdefault(id(each), name)
    return {name: found[name] for name in unique.values()}


def _apps_hint(module: ModuleType) -> str:
    apps = _apps_of(module)
    return f"there are: {', '.join(apps)}" if apps else "there is none at all"


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
    app = load_app(target)
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
    sys.exit(run_app(app, options))


@click.command(cls=Command, examples=("streamkit check app.py", "streamkit check package.jobs:app"))
@click.argument("target", metavar="APP")
def check(target: str) -> None:
    """Find problems in the graph of APP without running it."""
    app = load_app(target)
    app.check()
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
    app = load_app(target)
    app.check()
    click.echo(as_mermaid(app.topology) if form == "mermaid" else as_text(app.topology))
