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

# A command whose module is missing is listed, and calling it is an error.
PRESENT = [name for name, (module, _) in COMMANDS.items() if find_spec(module) is not None]

# These load a program, or start their own broker.
WITHOUT_TARGET = {("check",), ("graph",), ("explain",), ("bench",)}


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
def test_every_help_shows_the_target_options_and_two_examples(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli, [*path, "--help"], prog_name="streamkit").output
    assert shown.startswith("Usage: streamkit")
    examples = shown.partition("Examples:\n")[2].splitlines()
    assert len(examples) >= 2
    assert all("streamkit" in example for example in examples)
    if path in WITHOUT_TARGET:
        return
    for option in ("--cluster", "--profile", "--embedded", "--data-dir"):
        assert option in shown


@pytest.mark.parametrize("path", all_paths(), ids=" ".join)
def test_every_default_is_shown_and_no_option_help_ends_with_a_full_stop(
    path: tuple[str, ...],
) -> None:
    found: click.Command = cli
    context = click.Context(cli, info_name="streamkit", **cli.context_settings)
    for name in path:
        assert isinstance(found, click.Group)
        command = found.get_command(context, name)
        assert command is not None
        found, context = command, click.Context(command, info_name=name, parent=context)
    for option in found.get_params(context):
        if not isinstance(option, click.Option) or option.hidden:
            continue
        record = option.get_help_record(context)
        assert record is not None
        assert not record[1].endswith("."), record
        if not option.is_flag and isinstance(option.default, str | int):
            assert f"[default: {option.default}" in record[1]


def test_the_list_of_commands_imports_only_click() -> None:
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


def test_the_version_is_shown(tmp_path: Path) -> None:
    ended = run(tmp_path, "--version")
    assert (ended.code, ended.out.split()[0]) == (0, b"streamkit,")


def test_a_call_without_a_command_shows_the_help_and_is_a_usage_error(tmp_path: Path) -> None:
    ended = run(tmp_path)
    assert (ended.code, ended.out) == (2, b"")
    assert "Commands:" in ended.err
