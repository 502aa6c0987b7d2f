"""The options of `produce` and `consume` that select SmartModules."""

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
    """The values of the options; `steps` builds the chain from them."""

    smartmodule: str | None = None
    smartmodule_path: Path | None = None
    params: tuple[str, ...] = ()
    aggregate_initial: str | None = None
    transforms: Path | None = None
    transforms_line: tuple[str, ...] = ()

    @classmethod
    def pop_from(cls, given: dict[str, Any]) -> SmartModuleOptions:
        """Remove the SmartModule options from all the options of a command, and check them.

        Raises:
            UsageError: They contradict each other.
        """
        options = cls(**{name: given.pop(name) for name in cls.__slots__})
        options.check()
        return options

    def check(self) -> None:
        chain_options = {
            "--smartmodule": self.smartmodule is not None,
            "--smartmodule-path": self.smartmodule_path is not None,
            "--transforms": self.transforms is not None,
            "--transforms-line": bool(self.transforms_line),
        }
        given = [name for name, is_given in chain_options.items() if is_given]
        if len(given) > 1:
            raise UsageError(
                f"{' and '.join(given)} each select SmartModules",
                hint="keep one of them; --transforms accepts a chain of several",
            )
        is_single = given[:1] in (["--smartmodule"], ["--smartmodule-path"])
        for name, value in (
            ("--params", self.params),
            ("--aggregate-initial", self.aggregate_initial),
        ):
            if value and not is_single:
                raise UsageError(
                    f"{name} needs --smartmodule or --smartmodule-path",
                    hint=f"in {given[0]}, write parameters under `with`"
                    if given
                    else "add --smartmodule NAME or --smartmodule-path FILE",
                )

    def steps(self) -> Sequence[SmartModule]:
        """Return the chain; empty if no option selects a SmartModule.

        Raises:
            UsageError: A file cannot be read, or a step is not valid.
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


def smartmodule_options(command: F) -> F:
    """Add the options that select SmartModules to a command; see `SmartModuleOptions`."""
    for decorate in (
        click.option(
            "--transforms-line",
            multiple=True,
            metavar="JSON",
            help='Add a step to a chain: {"uses": NAME, "with": {...}}; repeatable',
        ),
        click.option(
            "-t",
            "--transforms",
            type=click.Path(path_type=Path),
            help="Run the chain of SmartModules in this YAML file, under `transforms:`",
        ),
        click.option(
            "--aggregate-initial",
            metavar="TEXT",
            help="Initial value of an aggregate SmartModule",
        ),
        click.option(
            "-e",
            "--params",
            multiple=True,
            metavar="K=V",
            help="Pass a parameter to the SmartModule; repeatable",
        ),
        click.option(
            "--smartmodule-path",
            type=click.Path(path_type=Path),
            help="Send this local .wasm file instead of using a stored SmartModule",
        ),
        click.option(
            "--smartmodule",
            metavar="NAME",
            help="Run this stored SmartModule on the records in the cluster",
        ),
    ):
        command = decorate(command)
    return command


def refuse_mirror_option(command: F) -> F:
    """Add ``--mirror``, which Fluvio's own command has, and refuse it with an explanation."""

    def refuse(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            _refuse_mirror(value)

    return click.option(
        "-m", "--mirror", hidden=True, expose_value=False, is_eager=True, callback=refuse
    )(command)


def _refuse_mirror(cluster: str) -> NoReturn:
    raise UsageError(
        f"--mirror {cluster}: mirrored topics are not supported",
        hint="use --partition to select a partition of the topic by number",
    )


def _params(given: tuple[str, ...]) -> dict[str, str]:
    params = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise UsageError(f"--params {each!r} is not key=value", hint="write -e key=value")
        if name in params:
            raise UsageError(f"--params sets {name!r} twice", hint="keep one of them")
        params[name] = value
    return params
