"""Settings from files and the environment.

Strength, the strongest first: ``--set``, ``STREAMKIT_KEY``, ``streamkit.toml``,
``[tool.streamkit]`` of ``pyproject.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamkit.errors import ConfigError, UsageError


@dataclass(frozen=True, slots=True)
class Settings:
    """What is set. ``topics`` maps the names in code to those of the cluster."""

    cluster: str | None = None
    topics: dict[str, str] = field(default_factory=dict)

    def topic(self, name: str) -> str:
        """Return what a topic is called in this environment."""
        return self.topics.get(name, name)


def load_settings(
    folder: Path, environment: Mapping[str, str], given: Mapping[str, str]
) -> Settings:
    """Read the settings that hold in a folder.

    Args:
        folder: Where ``streamkit.toml`` and ``pyproject.toml`` are looked for.
        environment: Where ``STREAMKIT_TOPICS_NAME`` is looked for.
        given: Keys and values of ``--set``.

    Raises:
        ConfigError: A file cannot be read.
        UsageError: A key means nothing.
    """
    merged: dict[str, Any] = {}
    for table in (
        _table(folder / "pyproject.toml", ("tool", "streamkit")),
        _table(folder / "streamkit.toml", ()),
    ):
        merged.update({key: value for key, value in table.items() if key != "topics"})
        merged.setdefault("topics", {}).update(table.get("topics", {}))
    topics: dict[str, str] = merged.get("topics", {})
    for name, value in environment.items():
        if name.startswith("STREAMKIT_TOPICS_"):
            topics[_topic_of_variable(name)] = value
    cluster = merged.get("cluster")
    for key, value in given.items():
        if key == "cluster":
            cluster = value
        elif key.startswith("topics."):
            topics[key.removeprefix("topics.")] = value
        else:
            raise UsageError(
                f"no setting is called {key!r}", hint="there are: cluster, topics.NAME"
            )
    return Settings(cluster, topics)


def parse_assignments(assignments: tuple[str, ...]) -> dict[str, str]:
    """Read ``key=value`` options.

    Raises:
        UsageError: One has no ``=``.
    """
    given = {}
    for each in assignments:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {each!r}", hint="write --set key=value")
        given[key] = value
    return given


def _topic_of_variable(name: str) -> str:
    return name.removeprefix("STREAMKIT_TOPICS_").lower().replace("_", "-")


def _table(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        table: Any = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    for key in keys:
        table = table.get(key, {})
    topics = table.get("topics", {})
    if not isinstance(topics, dict) or not all(isinstance(each, str) for each in topics.values()):
        raise ConfigError(f'cannot read {path}: topics is a table of names, NAME = "name"')
    if not isinstance(table.get("cluster", ""), str):
        raise ConfigError(f'cannot read {path}: cluster is a text, "HOST:PORT"')
    return dict(table)
