"""The options of `produce` and `consume` that name SmartModules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from streamkit.errors import UsageError

if TYPE_CHECKING:
    from streamkit.client import SmartModule

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class SmartModuleOptions:
    """What was given; `steps` makes a chain of it."""

    smartmodule: str | None = None
    smartmodule_path: Path | None = None
    params: tuple[str, ...] = ()
    aggregate_initial: str | None = None
    transforms: Path | None = None
    transforms_line: tuple[str, ...] = ()

    @classmethod
    def taken_from(cls, given: dict[str, Any]) -> SmartModuleOptions:
        """Take them out of all the options of a command.

        Raises:
            UsageError: They contradict each other.
        """
        options = cls(**{name: given.pop(name) for name in cls.__slots__})
        options.check()
        return options

    def check(self) -> None:
        ways = {
            "--smartmodule": self.smartmodule is not None,
            "--smartmodule-path": self.smartmodule_path is not None,
            "--transforms": self.transforms is not None,
            "--transforms-line": bool(self.transforms_line),
        }
        named = [name for name, is_given in ways.items() if is_given]
        if len(named) > 1:
            raise UsageError(
                f"{' and '.join(named)} each name what the records go through",
                hint="keep one of them; a chain of several stands in --transforms",
            )
        is_single = named[:1] in (["--smartmodule"], ["--smartmodule-path"])
        for name, given in (
            ("--params", self.params),
            ("--aggregate-initial", self.aggregate_initial),
        ):
            if given and not is_single:
                raise UsageError(
                    f"{name} belongs to a SmartModule, and none is named",
                    hint="in --transforms, params stand under `with`"
                    if named
                    else "add --smartmodule NAME or --smartmodule-path FILE",
                )

    def steps(self) -> Sequence[SmartModule]:
        """Return the chain; empty where no option names one.

        Raises:
            UsageError: A file cannot be read, or a step means nothing.
        """
        from streamkit.client import SmartModule, load_transforms
        from streamkit.client.smartmodules.transforms import parse_transform_lines

        if self.transforms is not None:
            return load_transforms(self.transforms)
        if self.transforms_line:
            return parse_transform_lines(self.transforms_line)
        params = _params(self.params)
        if self.smartmodule_path is not None:
            return [
                SmartModule.from_file(
                    self.smartmodule_path, params=params, initial=self.aggregate_initial
                )
            ]
        if self.smartmodule is not None:
            return [SmartModule(self.smartmodule, params=params, initial=self.aggregate_initial)]
        return []


def chain_options(command: F) -> F:
    """Give a command the options that name SmartModules; see `SmartModuleOptions`."""
    for decorate in (
        click.option(
            "--transforms-line",
            multiple=True,
            metavar="JSON",
            help='A step of a chain, {"uses": NAME, "with": {...}}; again for the next',
        ),
        click.option(
            "-t",
            "--transforms",
            type=click.Path(path_type=Path),
            help="A chain of SmartModules, as YAML with `transforms:`",
        ),
        click.option(
            "--aggregate-initial",
            metavar="TEXT",
            help="What an aggregating SmartModule starts from",
        ),
        click.option(
            "-e", "--params", multiple=True, metavar="K=V", help="A parameter of it; repeatable"
        ),
        click.option(
            "--smartmodule-path",
            type=click.Path(path_type=Path),
            help="In its place the one in this wasm file, which goes along",
        ),
        click.option(
            "--smartmodule", metavar="NAME", help="Let the server run this SmartModule first"
        ),
    ):
        command = decorate(command)
    return command


def no_mirrors(command: F) -> F:
    """Refuse ``--mirror``, which Fluvio's own command has, in words."""

    def refuse(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            _refuse_mirror(value)

    return click.option(
        "-m", "--mirror", hidden=True, expose_value=False, is_eager=True, callback=refuse
    )(command)


def _refuse_mirror(cluster: str) -> NoReturn:
    raise UsageError(
        f"--mirror {cluster}: mirrored topics are not supported",
        hint="a partition of one can be named by its number: --partition",
    )


def _params(given: tuple[str, ...]) -> dict[str, str]:
    params = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise UsageError(f"--params {each!r} is no pair", hint="write -e key=value")
        if name in params:
            raise UsageError(f"--params gives {name!r} twice", hint="keep one of them")
        params[name] = value
    return params
