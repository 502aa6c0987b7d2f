from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from streamkit.cli.main import COMMANDS, cli
from tests.cli.processes import environment, run

# A command whose module is not there yet is shown, and says so when it is called.
PRESENT = [name for name, (module, _) in COMMANDS.items() if find_spec(module) is not None]

# These read a program, or bring a broker of their own.
WITHOUT_A_PLACE = {("check",), ("graph",), ("bench",)}


def paths_of(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from paths_of(found, (*path, name))


def all_paths() -> list[tuple[str, ...]]:
    context = click.Context(cli)
    found: list[tuple[str, ...]] = [()]
    for name in PRESENT:
        command = cli.get_command(context, name)
        assert command is not None
        found += paths_of(command, (name,))
    return found


@pytest.mark.parametrize("path", all_paths(), ids=" ".join)
def test_every_help_ends_with_two_examples_and_takes_the_place(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli, [*path, "--help"], prog_name="streamkit").output
    assert shown.startswith("Usage: streamkit")
    examples = shown.partition("Examples:\n")[2].splitlines()
    assert len(examples) >= 2
    assert all("streamkit" in example for example in examples)
    if path in WITHOUT_A_PLACE:
        return
    for option in ("--cluster", "--profile", "--embedded", "--data-dir"):
        assert option in shown


def test_the_list_of_commands_needs_nothing_but_click() -> None:
    code = (
        "import sys\n"
        "from streamkit.cli.main import cli\n"
        "cli.main(['--help'], prog_name='streamkit', standalone_mode=False)\n"
        "heavy = {'anyio', 'asyncio', 'msgspec', 'streamkit.client'}\n"
        "assert not heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(), check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert all(name.encode() in done.stdout for name in COMMANDS)


def test_the_version_is_told(tmp_path: Path) -> None:
    ended = run(tmp_path, "--version")
    assert (ended.code, ended.out.split()[0]) == (0, b"streamkit,")


def test_no_command_shows_the_help_and_is_a_wrong_usage(tmp_path: Path) -> None:
    ended = run(tmp_path)
    assert (ended.code, ended.out) == (2, b"")
    assert "Commands:" in ended.err
