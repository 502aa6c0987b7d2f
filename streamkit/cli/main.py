"""The command `streamkit`: finds subcommands, and turns errors into words and exit codes."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, Final, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

import streamkit
from streamkit.cli.options import root_place_options, write_examples
from streamkit.cli.output import OutputFailed, guarded_output
from streamkit.errors import StreamKitError
from streamkit.observe.streams import (
    discard,
    escaped,
    fill_standard_descriptors,
    say,
    standard_error,
)

# Name, module, what it does. A module is imported when its command runs or shows its help, so
# that the list of commands costs nothing. The command is the module's attribute of that name.
COMMANDS: Final = {
    "run": ("streamkit.cli.run", "Run an app"),
    "check": ("streamkit.cli.run", "Check the graph of an app without starting it"),
    "graph": ("streamkit.cli.run", "Show the graph of an app"),
    "produce": ("streamkit.cli.produce", "Write lines to a topic"),
    "consume": ("streamkit.cli.consume", "Read records from a topic"),
    "topic": ("streamkit.cli.topic", "Create, list, describe and delete topics"),
    "partition": ("streamkit.cli.partition", "List partitions"),
    "smartmodule": ("streamkit.cli.smartmodule", "Store, list and delete SmartModules"),
    "consumer": ("streamkit.cli.consumer", "List and delete stored consumer offsets"),
    "profile": ("streamkit.cli.profile", "Show and change the profiles of Fluvio's own file"),
    "broker": ("streamkit.cli.broker", "Start a broker that stays"),
    "bench": ("streamkit.cli.bench", "Measure how fast everything is on this machine"),
}
# Short names that Fluvio's users know; lists and help show the long ones.
ALIASES: Final = {"sm": "smartmodule"}
EXAMPLES: Final = (
    "streamkit produce flights --file flights.jsonl",
    "streamkit --cluster 127.0.0.1:9103 consume flights -B -d",
)


class LazyGroup(click.Group):
    """The commands of COMMANDS, imported one at a time."""

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
        assert isinstance(command, click.Command), f"{path}.{cmd_name} is no command"
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

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(EXAMPLES, formatter)


@click.group("streamkit", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@root_place_options
@click.version_option(streamkit.__version__, prog_name="streamkit")
def cli() -> None:
    """Stream processing and ETL in Python on Fluvio topics.

    Without --cluster, --profile or an active Fluvio profile, commands use the embedded broker
    of ./.streamkit and start it where it does not run.
    """


def main() -> NoReturn:
    """Run the command line and exit; a bug keeps its traceback."""
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
        _say(*_words(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        discard(sys.stdout, 1)  # whoever read our output has seen enough
        return 0


def _flush_output() -> None:
    """Write what is left of the output.

    Raises:
        OutputFailed: It cannot be written.
        BrokenPipeError: Whoever read it is gone.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:  # of a stream that is not guarded
        raise OutputFailed(error.strerror or str(error)) from error


def _say(what: str, hint: str) -> None:
    out = standard_error()
    is_colored = out.is_terminal and not os.environ.get("NO_COLOR")
    error = click.style("error:", fg="red", bold=True) if is_colored else "error:"
    out.write(f"{error} {escaped(what)}\n")
    if hint:
        out.line(f"  hint: {hint}")


def _words(error: click.ClickException) -> tuple[str, str]:
    """Return what is wrong, and what to do, in the shape of our own errors."""
    context = getattr(error, "ctx", None)
    command = "streamkit" if context is None else context.command_path
    hint = f"`{command} --help` shows what it takes"
    if isinstance(error, click.NoSuchCommand | click.NoSuchOption):
        if error.possibilities:
            hint = f"did you mean {' or '.join(map(repr, error.possibilities))}?"
        return error.message.rstrip(".").replace("No such", "no such", 1), hint
    text = error.format_message().rstrip(".")
    return text[:1].lower() + text[1:], hint
