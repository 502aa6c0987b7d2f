"""`streamkit state`: what the stages of an app keep for each key."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamkit.cli.listing import output_option, write_list
from streamkit.cli.options import Command, Group, target_options_of, with_target_options
from streamkit.errors import StateError, UsageError

if TYPE_CHECKING:
    from streamkit.state.reader import StateReader


@click.group(cls=Group, examples=("streamkit state list my-app", "streamkit state show my-app s"))
@with_target_options
def state() -> None:
    """Show and delete what stages keep for each key."""


@state.command(
    "list",
    cls=Command,
    examples=("streamkit state list my-app", "streamkit state list my-app -O json"),
)
@click.argument("app")
@output_option
@with_target_options
@click.pass_context
def list_(context: click.Context, /, app: str, form: str) -> None:
    """List the states of APP, with their keys, size and type. The job may run meanwhile."""
    with _reader(context, app) as reader:
        rows = [
            {"name": each.name, "keys": each.keys, "bytes": each.size_bytes, "type": each.type}
            for each in reader.infos()
        ]
    write_list("states", rows, form, empty_text=f"the app {app!r} has no states")


@state.command(
    "show",
    cls=Command,
    examples=(
        "streamkit state show my-app visits --key customer-1",
        "streamkit --data-dir /var/lib/jobs state show my-app visits --key customer-1",
    ),
)
@click.argument("app")
@click.argument("name")
@click.option("--key", required=True, help="The key, as text")
@with_target_options
@click.pass_context
def show(context: click.Context, /, app: str, name: str, key: str) -> None:
    """Print what the stage NAME of APP keeps for a key, as JSON. The job may run meanwhile.

    A stage with windows keeps a value for each window: then each line has its end.
    """
    with _reader(context, app) as reader:
        entries = reader.entries(_checked(reader, app, name))
    found = [each for each in entries if each.key == key.encode()]
    if not found:
        raise UsageError(f"the state {name!r} has no key {key!r}")
    for each in found:
        click.echo(_json({**each.details, "value": each.value} if each.details else each.value))


@state.command(
    "export",
    cls=Command,
    examples=(
        "streamkit state export my-app visits > visits.jsonl",
        "streamkit state export my-app visits | streamkit produce visits-now",
    ),
)
@click.argument("app")
@click.argument("name")
@with_target_options
@click.pass_context
def export(context: click.Context, /, app: str, name: str) -> None:
    """Print all keys and values of the stage NAME of APP as JSON lines, in order of the keys."""
    with _reader(context, app) as reader:
        entries = reader.entries(_checked(reader, app, name))
    for each in entries:
        key = each.key.decode(errors="backslashreplace")
        sys.stdout.write(_json({"key": key, **each.details, "value": each.value}) + "\n")


@state.command(
    "delete",
    cls=Command,
    examples=(
        "streamkit state delete my-app visits",
        "streamkit --data-dir /var/lib/jobs state delete my-app visits",
    ),
)
@click.argument("app")
@click.argument("name")
@with_target_options
@click.pass_context
def delete(context: click.Context, /, app: str, name: str) -> None:
    """Delete the state NAME of APP, which must not run."""
    from streamkit.state.store import Store

    with _reader(context, app) as reader:
        _checked(reader, app, name)
        cluster = reader.cluster
    store = Store(_path(context, app))
    store.open(app=app, cluster=cluster)
    try:
        store.delete_state(name)
    finally:
        store.close()
    click.echo(f'state "{name}" deleted')


def _path(context: click.Context, app: str) -> Path:
    from streamkit.target import data_folder

    return data_folder(target_options_of(context).data_dir) / "state" / app / "main.sqlite"


@contextmanager
def _reader(context: click.Context, app: str) -> Iterator[StateReader]:
    from streamkit.state.reader import StateReader

    path = _path(context, app)
    if not path.exists():
        raise UsageError(
            f"there is no state of an app {app!r} in {path.parent.parent}",
            hint="give the name of the app, and its data folder with --data-dir",
        )
    try:
        with StateReader(path) as reader:
            yield reader
    except sqlite3.Error as error:
        raise StateError(f"cannot read the state {path}: {error}") from error


def _checked(reader: StateReader, app: str, name: str) -> str:
    names = [each.name for each in reader.infos()]
    if name not in names and not reader.has(name):  # the watermarks are not listed
        raise UsageError(
            f"the app {app!r} has no state {name!r}",
            hint=f"its states are: {', '.join(names) or 'none'}",
        )
    return name


def _json(value: Any) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()
