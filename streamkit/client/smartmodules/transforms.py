"""Reads Fluvio's transforms: a chain of SmartModules in YAML or JSON, as in its CLI and connectors.

Source: docs/protocol/smartmodules.md, "Transforms in files".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from streamkit.client.smartmodules.smartmodule import Lookback, SmartModule
from streamkit.errors import ConfigError, UsageError
from streamkit.units import parse_duration_s

_STEP_KEYS: Final = ("uses", "with", "lookback")
_LOOKBACK_KEYS: Final = ("last", "age")
# The scalars that are not text in YAML 1.2. The library follows older rules: `no` is false, `1:30`
# is ninety, and 2024-01-01 is a date. They would refuse or change texts that Fluvio accepts.
_PLAIN_SCALARS: Final = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
)


def load_transforms(path: str | Path) -> list[SmartModule]:
    """Read a chain from a file in the format of `parse_transforms`.

    Raises:
        UsageError: The file cannot be read, or a step is not valid.
        ConfigError: The YAML reader is not installed.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the transforms file {path}: {error}") from error
    try:
        return parse_transforms(text)
    except UsageError as error:
        raise UsageError(f"{path}: {error}", hint=error.hint) from error


def parse_transforms(text: str) -> list[SmartModule]:
    """Read a chain from YAML: ``transforms``, a list of steps.

    Each step has ``uses``, the name of a SmartModule, and may have ``with``, its parameters, and
    ``lookback`` with ``last`` and ``age``. A parameter is a text, or a list or map, which is
    converted to JSON. Other top-level keys, as in files of connectors, are ignored.

    Raises:
        UsageError: The text is not YAML, or a step is not valid.
        ConfigError: The YAML reader is not installed.
    """
    found = _yaml(text)
    if not isinstance(found, Mapping) or "transforms" not in found:
        raise UsageError(
            "the list of transforms is missing", hint="begin it with the line `transforms:`"
        )
    steps = found["transforms"]
    if not isinstance(steps, list):
        raise UsageError(f"transforms is {_kind_of(steps)}, not a list of steps")
    return [_step(step, f"step {number}") for number, step in enumerate(steps, 1)]


def parse_transform_lines(lines: Iterable[str]) -> list[SmartModule]:
    """Read a chain from JSON, one step per line.

    Raises:
        UsageError: A line is not JSON, or not a valid step.
    """
    steps = []
    for number, line in enumerate(lines, 1):
        try:
            step = json.loads(line)
        except ValueError as error:
            raise UsageError(
                f"step {number} is not valid JSON: {error}",
                hint='for example {"uses": "my-filter", "with": {"key": "value"}}',
            ) from error
        steps.append(_step(step, f"step {number}"))
    return steps


def _step(step: object, where: str) -> SmartModule:
    if not isinstance(step, Mapping):
        raise UsageError(f"{where} is {_kind_of(step)}, not a map with `uses`")
    _check_keys(step, _STEP_KEYS, where)
    name = step.get("uses")
    if not isinstance(name, str) or not name:
        raise UsageError(
            f"{where} has no SmartModule name in `uses`", hint="for example `uses: my-filter`"
        )
    params = step.get("with")
    if params is None:
        params = {}
    if not isinstance(params, Mapping):
        raise UsageError(f"{where}: `with` is {_kind_of(params)}, not a map of parameters")
    return SmartModule(
        name,
        params={str(key): _param(key, value, where) for key, value in params.items()},
        lookback=_lookback(step.get("lookback"), where),
    )


def _param(key: object, value: object, where: str) -> str:
    if not isinstance(key, str):
        raise UsageError(f"{where}: the parameter name {key!r} is not text")
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    shown = json.dumps(value, default=str)
    raise UsageError(
        f"{where}: the parameter {key!r} is {_kind_of(value)}, not text, a list or a map",
        hint=f'put it in quotes: {key}: "{shown}"',
    )


def _lookback(found: object, where: str) -> Lookback | None:
    if found is None:
        return None
    if not isinstance(found, Mapping):
        raise UsageError(
            f"{where}: `lookback` is {_kind_of(found)}, not a map with last, age or both"
        )
    _check_keys(found, _LOOKBACK_KEYS, f"{where}: lookback")
    last, age = found.get("last", 0), found.get("age")
    if not isinstance(last, int) or isinstance(last, bool) or last < 0:
        raise UsageError(f"{where}: lookback.last is {last!r}, not a number of records")
    return Lookback(last, None if age is None else _age_s(age, where))


def _age_s(age: object, where: str) -> float:
    try:
        return parse_duration_s(age if isinstance(age, str) else "")
    except ValueError as error:
        raise UsageError(
            f"{where}: lookback.age is {age!r}, not a duration such as 30s or 1h"
        ) from error


def _check_keys(found: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    unknown = [str(key) for key in found if key not in known]
    if unknown:
        raise UsageError(
            f"{where} has unknown keys: {', '.join(unknown)}", hint=f"use {', '.join(known)}"
        )


def _kind_of(value: object) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "a map"


def _yaml(text: str) -> object:
    loader = _loader()
    import yaml

    try:
        return yaml.load(text, Loader=loader)  # the loader is a subclass of the safe one
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"not valid YAML: {' '.join(str(error).split())}") from error


@cache
def _loader() -> Any:
    """Return the library's safe loader with the rules of YAML 1.2, which Fluvio follows."""
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ConfigError(
            "reading transforms needs the package pyyaml, which is not installed",
            hint='pip install "fluvio-streamkit[cli]"',
        ) from error

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # the library defines it

    for tag, pattern, first in _PLAIN_SCALARS:
        whole = re.compile(rf"(?:{pattern})\Z")
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", whole, list(first))
    return Loader
