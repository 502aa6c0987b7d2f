"""What all commands share: where to work, examples in the help, values with units."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from streamkit.where import Where

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Named:
    """What the options say of the place, before or after the subcommand."""

    cluster: str | None = None
    profile: str | None = None
    embedded: bool = False
    data_dir: str | None = None


def named(context: click.Context) -> Named:
    """Return what was named so far; one object for the whole command line."""
    found = context.find_root().ensure_object(Named)
    assert isinstance(found, Named)
    return found


def chosen(settings_cluster: str | None = None) -> Where:
    """Choose the place from the options of the running command; see `streamkit.where.choose`.

    Raises:
        ConfigError: The options contradict each other, or the profile cannot be used.
    """
    from streamkit.where import choose

    options = named(click.get_current_context())
    return choose(
        cluster=options.cluster,
        profile=options.profile,
        embedded=options.embedded,
        data_dir=options.data_dir,
        settings_cluster=settings_cluster,
    )


def place_options(command: F) -> F:
    """Give a command ``--cluster``, ``--profile``, ``--embedded`` and ``--data-dir``."""
    return _place_options(command, "", "")


def root_place_options(command: F) -> F:
    """The same for the command ``streamkit`` itself, where the short letters count too."""
    return _place_options(command, "-c", "-P")


def _place_options(command: F, short_cluster: str, short_profile: str) -> F:
    def option(*names: str, **settings: Any) -> Callable[[F], F]:
        return click.option(*filter(None, names), expose_value=False, callback=_note, **settings)

    for decorate in (
        option(
            "--data-dir",
            metavar="DIR",
            help="Where the embedded broker and state lie [./.streamkit]",
        ),
        option("--embedded", is_flag=True, help="Use the embedded broker, whatever else is set"),
        option(short_profile, "--profile", metavar="NAME", help="A profile of Fluvio's own file"),
        option(short_cluster, "--cluster", metavar="HOST:PORT", help="The SC of a cluster"),
    ):
        command = decorate(command)
    return command


def _note(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if not value:
        return
    options, name = named(context), str(parameter.name)
    before = getattr(options, name)
    if before and before != value:
        option = f"--{name.replace('_', '-')}"
        raise click.UsageError(f"{option} is given twice: {before!r} and {value!r}", context)
    setattr(options, name, value)


class Command(click.Command):
    """A command whose help ends with examples."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)


class Group(click.Group):
    """A group of commands whose help ends with examples."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)


def write_examples(examples: tuple[str, ...], formatter: click.HelpFormatter) -> None:
    """Write examples as the last section of a help text, one a line."""
    if examples:
        formatter.write("\nExamples:\n")
        formatter.write("".join(f"  {example}\n" for example in examples))


_UNITS_S: Final = {
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3_600.0,
    "hr": 3_600.0,
    "hour": 3_600.0,
    "d": 86_400.0,
    "day": 86_400.0,
    "w": 604_800.0,
    "week": 604_800.0,
}
_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)")


class Duration(click.ParamType[float]):
    """Seconds, or numbers with units: ``90``, ``500ms``, ``1h 30m``, ``2 weeks``."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        text, at, total_s = str(value).strip().lower(), 0, 0.0
        while at < len(text):
            found = _DURATION.match(text, at)
            unit_s = None if found is None else _unit_s(found[2])
            if found is None or unit_s is None:
                self.fail(f"{value!r} is no duration such as 90, 500ms, 1h or 7days", param, ctx)
            total_s, at = total_s + float(found[1]) * unit_s, found.end()
        if not text:
            self.fail("it is empty; a duration is such as 90, 500ms, 1h or 7days", param, ctx)
        return total_s


def _unit_s(unit: str) -> float | None:
    return _UNITS_S.get(unit, _UNITS_S.get(unit.removesuffix("s"))) if unit else 1.0


_SIZE: Final = re.compile(r"(\d+)\s*(?:([kmgt])(i?)b?|b)?", re.IGNORECASE)


class Size(click.ParamType[int]):
    """Bytes: ``1048576``, ``64KiB``, ``10MB``."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no size such as 16384, 64KiB or 10MB", param, ctx)
        number, unit, binary = found.groups()
        if not unit:
            return int(number)
        power = "kmgt".index(unit.lower()) + 1
        scale: int = (1024 if binary else 1000) ** power
        return int(number) * scale


DURATION: Final = Duration()
SIZE: Final = Size()
