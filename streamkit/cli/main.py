"""The command `streamkit`: finds subcommands, and turns errors into messages and exit codes."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, Final, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

import streamkit
from streamkit.cli.options import Group, with_root_target_options
from streamkit.cli.output import OutputFailed, guarded_output
from streamkit.errors import StreamKitError
from streamkit.observe.streams import (
    discard,
    escaped,
    fill_standard_descriptors,
    say,
    standard_error,
)

# Name, module, description. A module is imported only when its command runs or shows its help,
# so listing the commands imports none. The command is the module's attribute of that name.
COMMANDS: Final = {
    "run": ("streamkit.cli.run", "Run an app"),
    "check": ("streamkit.cli.run", "Check the graph of an app without starting it"),
    "graph": ("streamkit.cli.run", "Show the graph of an app"),
    "explain": ("streamkit.cli.run", "Say how an app runs and what it keeps"),
    "produce": ("streamkit.cli.produce", "Write lines to a topic"),
    "consume": ("streamkit.cli.consume", "Read records from a topic"),
    "copy": ("streamkit.cli.copy", "Copy a topic or a file to another place"),
    "topic": ("streamkit.cli.topic", "Create, list, describe and delete topics"),
    "partition": ("streamkit.cli.partition", "List partitions"),
    "smartmodule": ("streamkit.cli.smartmodule", "Store, list and delete SmartModules"),
    "consumer": ("streamkit.cli.consumer", "List and delete stored consumer offsets"),
    "state": ("streamkit.cli.state", "Show and delete what stages keep for each key"),
    "dlq": ("streamkit.cli.dlq", "List, show, count and drop dead letters"),
    "connectors": ("streamkit.cli.connectors", "List connectors and show their options"),
    "profile": ("streamkit.cli.profile", "Show and change the profiles in Fluvio's profile file"),
    "broker": ("streamkit.cli.broker", "Run the broker in the foreground"),
    "bench": ("streamkit.cli.bench", "Measure the performance on this machine"),
}
# Short names that Fluvio's users know. Lists and help texts show the long ones.
ALIASES: Final = {"sm": "smartmodule"}
EXAMPLES: Final = (
    "streamkit produce flights --file flights.jsonl",
    "streamkit --cluster 127.0.0.1:9103 consume flights -B -d",
)


class LazyGroup(Group):
    """The commands of COMMANDS, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            return None
        path = COMMANDS[cmd_name][0]
        try:
            command = getattr(import_module(path), cmd_name, None)
        except ModuleNotFoundError as error:
            if error.name != path:
                raise
            command = None
        if command is None:
            raise click.UsageError(f"the command {cmd_name!r} is not part of this installation")
        assert isinstance(command, click.Command), f"{path}.{cmd_name} is not a click command"
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        args = [ALIASES.get(args[0], args[0]), *args[1:]]
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


# Subcommands inherit both settings.
@click.group(
    "streamkit",
    cls=LazyGroup,
    examples=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@with_root_target_options
@click.version_option(
    streamkit.__version__, prog_name="streamkit", help="Show the version and exit"
)
def cli() -> None:
    """Stream processing and ETL in Python on Fluvio topics.

    Without --cluster, --profile or an active Fluvio profile, commands use the embedded broker
    in ./.streamkit and start it if it is not running.
    """


def main() -> NoReturn:
    """Run the command line and exit. An unexpected exception keeps its traceback."""
    fill_standard_descriptors()
    with guarded_output():
        code = _exit_code(sys.argv[1:])
    discard(sys.stderr, 2)
    sys.exit(code)


def _exit_code(arguments: list[str]) -> int:
    try:
        code: Any = cli.main(arguments, prog_name="streamkit", standalone_mode=False)
        _flush_output()
        return code if isinstance(code, int) else 0
    except StreamKitError as error:
        discard(sys.stdout, 1)
        _say(str(error), error.hint)
        return error.exit_code
    except NoArgsIsHelpError as error:
        say(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        _say(*_message_and_hint(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        discard(sys.stdout, 1)  # the reader of our output, such as `head`, needs no more
        return 0


def _flush_output() -> None:
    """Write the buffered output.

    Raises:
        OutputFailed: It cannot be written.
        BrokenPipeError: Its reader closed the pipe.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:  # a guarded stream raises OutputFailed itself
        raise OutputFailed(error.strerror or str(error)) from error


def _say(what: str, hint: str) -> None:
    out = standard_error()
    is_colored = out.is_terminal and not os.environ.get("NO_COLOR")
    error = click.style("error:", fg="red", bold=True) if is_colored else "error:"
    out.write(f"{error} {escaped(what)}\n")
    if hint:
        out.line(f"  hint: {hint}")


def _message_and_hint(error: click.ClickException) -> tuple[str, str]:
    """Return the message and the hint of a click error in the form of our own errors."""
    context = getattr(error, "ctx", None)
    command = "streamkit" if context is None else context.command_path
    hint = f"`{command} --help` shows its arguments and options"
    if isinstance(error, click.NoSuchCommand | click.NoSuchOption):
        if error.possibilities:
            hint = f"did you mean {' or '.join(map(repr, error.possibilities))}?"
        return error.message.rstrip(".").replace("No such", "no such", 1), hint
    text = error.format_message().rstrip(".")
    return text[:1].lower() + text[1:], hint
