"""`streamkit smartmodule`: create, list, delete, watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streamkit.cli.listing import Row, output_option, write_list
from streamkit.cli.options import Command, Group, with_target_options

if TYPE_CHECKING:
    from streamkit.cli.session import Session
    from streamkit.client import SmartModuleInfo, WatchEvent

_TABLE_COLUMNS = ("smartmodule", "size_bytes", "package")


@click.group(
    cls=Group,
    examples=(
        "streamkit smartmodule create upper --wasm-file upper.wasm",
        "streamkit sm list -O json",
    ),
)
@with_target_options
def smartmodule() -> None:
    """Store, list and delete SmartModules: WebAssembly programs that a cluster runs on records.

    The embedded broker stores them, but does not run them yet.
    """


@smartmodule.command(
    cls=Command,
    examples=(
        "streamkit smartmodule create upper --wasm-file upper.wasm",
        "streamkit sm create upper --wasm-file target/wasm32-wasip1/release/upper.wasm --dry-run",
    ),
)
@click.argument("name")
@click.option(
    "--wasm-file", metavar="FILE", required=True, help="File of the module, .wasm or gzipped .wasm"
)
@click.option("-d", "--dry-run", is_flag=True, help="Only check the name and the file")
@with_target_options
def create(name: str, wasm_file: str, dry_run: bool) -> None:
    """Store a SmartModule as NAME, and replace an existing one of that name.

    NAME consists of 1 to 63 characters: a-z, 0-9 and -.
    """
    from streamkit.cli.session import run_with_client

    async def work(session: Session) -> None:
        await session.client.admin.create_smartmodule(name, wasm_file, dry_run=dry_run)

    run_with_client(work)
    click.echo(f'smartmodule "{name}" {"can be created" if dry_run else "created"}')


@smartmodule.command(
    "list",
    cls=Command,
    examples=("streamkit smartmodule list", "streamkit sm list --filter infinyon/jolt -O json"),
)
@output_option
@click.option(
    "--filter",
    "names",
    metavar="NAME",
    multiple=True,
    help="List only the SmartModules with this name, given as name, group/name or"
    " group/name@version; repeatable",
)
@with_target_options
def list_(form: str, names: tuple[str, ...]) -> None:
    """List SmartModules by name, with their stored size."""
    from streamkit.cli.session import run_with_client

    async def work(session: Session) -> list[SmartModuleInfo]:
        return await session.client.admin.list_smartmodules(*names)

    _write(run_with_client(work), form)


@smartmodule.command(
    cls=Command,
    examples=("streamkit smartmodule delete upper", "streamkit sm delete -c upper lower"),
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option(
    "-c", "--continue-on-error", is_flag=True, help="Continue with the next name after an error"
)
@with_target_options
def delete(names: tuple[str, ...], continue_on_error: bool) -> None:
    """Delete one or more SmartModules."""
    from streamkit.cli.session import delete_each, run_with_client

    run_with_client(
        lambda session: delete_each(
            names,
            "SmartModule",
            session.client.admin.delete_smartmodule,
            continue_on_error=continue_on_error,
        )
    )


@smartmodule.command(
    cls=Command,
    examples=("streamkit smartmodule watch", "streamkit sm watch -O yaml"),
)
@output_option
@with_target_options
def watch(form: str) -> None:
    """Print the list of SmartModules now and after each change, until Ctrl-C."""
    import sys

    import anyio

    from streamkit.cli.session import run_with_client
    from streamkit.cli.signals import cancelled_by_signals

    async def work(session: Session) -> None:
        shown: dict[str, SmartModuleInfo] = {}
        with anyio.CancelScope() as scope, cancelled_by_signals(lambda _: scope.cancel()):
            async with session.client.admin.watch_smartmodules() as events:
                async for event in events:
                    shown = _apply(shown, event)
                    _write([shown[name] for name in sorted(shown)], form)
                    click.echo()
                    sys.stdout.flush()

    run_with_client(work)


def _apply(
    shown: dict[str, SmartModuleInfo], event: WatchEvent[SmartModuleInfo]
) -> dict[str, SmartModuleInfo]:
    from streamkit.client import Added, Changed, Listed

    match event:
        case Listed(items):
            return {item.name: item for item in items}
        case Added(item) | Changed(item):
            return shown | {item.name: item}
        case _:
            return {name: item for name, item in shown.items() if name != event.item.name}


def _write(modules: list[SmartModuleInfo], form: str) -> None:
    rows = list(map(_row, modules))
    write_list(
        "smartmodules", rows, form, empty_text="no SmartModules yet", table_columns=_TABLE_COLUMNS
    )


def _row(module: SmartModuleInfo) -> Row:
    return {
        "smartmodule": module.name,
        "size_bytes": module.size_bytes,
        "package": module.package,
        "description": module.description,
        "params": list(module.params),
    }
