"""Reads settings from options, the environment and files.

Priority, highest first: ``--set``, variables such as ``STREAMKIT_TOPICS_NAME``,
``streamkit.toml``, ``[tool.streamkit]`` of ``pyproject.toml``. An unknown name is refused, and the
error shows where it was set: if it was ignored, a job could read or write the wrong topic.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from streamkit.errors import ConfigError, UsageError
from streamkit.observe.facts import SettingReport
from streamkit.settings.fields import VARIABLE_PREFIX

_PREFIX: Final = "STREAMKIT_"
_TOPICS_PREFIX: Final = "STREAMKIT_TOPICS_"
# The last one is for the tests and benchmarks of streamkit itself.
_VARIABLES: Final = ("STREAMKIT_CLUSTER", "STREAMKIT_DATA_DIR", "STREAMKIT_PYTHON")
_OTHER_PREFIXES: Final = ("STREAMKIT_TEST_", "STREAMKIT_PEER_")
# Kubernetes sets these for a service named streamkit.
_FOREIGN_PREFIXES: Final = ("STREAMKIT_SERVICE_", "STREAMKIT_PORT")
_NEARLY: Final = {
    _TOPICS_PREFIX: re.compile(r"STREAMKIT_TOPIC(?:S?_|S$)?(.*)"),
    VARIABLE_PREFIX: re.compile(r"STREAMKIT_SETTING(?:S?_|S$)?(.*)"),
}
KEYS: Final = ("cluster", "topics", "settings")


@dataclass(frozen=True, slots=True)
class SettingOrigin:
    """Where the name of a topic was set; ``is_shared`` if other jobs use the same file."""

    place: str
    is_shared: bool


@dataclass(frozen=True, slots=True)
class OwnTable:
    """The table with an app's own settings of one file; ``name`` is its name in the file."""

    path: str
    name: str
    values: dict[str, object]


@dataclass(frozen=True, slots=True)
class OwnSources:
    """What is set for an app's own settings; later tables have priority."""

    tables: tuple[OwnTable, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    assignments: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run. ``topics`` maps names in code to names on the cluster.

    ``given_cluster`` comes from ``--set`` and has the priority of an option; ``notes`` are
    messages for the user. ``own`` is for the app's own settings, ``reports`` shows them.
    """

    cluster: str | None = None
    topics: dict[str, str] = field(default_factory=dict)
    given_cluster: str | None = None
    origins: dict[str, SettingOrigin] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    own: OwnSources = field(default_factory=OwnSources)
    reports: tuple[SettingReport, ...] = ()

    def topic(self, name: str) -> str:
        """Return the name of a topic in this environment."""
        return self.topics.get(name, name)

    def check_topics(self, used: Collection[str]) -> list[str]:
        """Refuse names that no stage of the job uses; return a note for each in a shared file.

        Args:
            used: The topic names in the job's code.

        Raises:
            UsageError: An unused name was set for this run only.
        """
        notes = []
        for name, origin in self.origins.items():
            if name in used:
                continue
            text = f"{origin.place}: this job has no topic {name!r}"
            hint = _did_you_mean(name, used, "its topics are")
            if not origin.is_shared:
                raise UsageError(text, hint=hint)
            notes.append(f"{text}; {hint}")
        return notes


def load_settings(
    folder: Path,
    environment: Mapping[str, str],
    given: Mapping[str, str],
    own_names: Collection[str] = (),
) -> Settings:
    """Read the settings for a folder. An empty variable counts as not set.

    Args:
        folder: Folder of ``streamkit.toml`` and ``pyproject.toml``.
        environment: Environment variables, such as ``STREAMKIT_TOPICS_NAME``.
        given: Keys and values of ``--set``.
        own_names: The names of the app's own settings; their values are checked later.

    Raises:
        ConfigError: A file cannot be read, or one of its keys or values is not valid.
        UsageError: A variable or a key of ``--set`` is not valid.
    """
    cluster = None
    topics: dict[str, str] = {}
    origins: dict[str, SettingOrigin] = {}
    tables = []
    for path, keys in (
        (folder / "pyproject.toml", ("tool", "streamkit")),
        (folder / "streamkit.toml", ()),
    ):
        table = _table(path, keys)
        cluster = table.get("cluster", cluster)
        topics |= table.get("topics", {})
        origins |= dict.fromkeys(table.get("topics", {}), SettingOrigin(str(path), is_shared=True))
        own_table = ".".join((*keys, "settings"))
        tables.append(OwnTable(str(path), own_table, table.get("settings", {})))
    named, variables, notes = _from_environment(environment)
    given_cluster, chosen, assignments = _from_assignments(given, own_names)
    for name, value, place in (*named, *chosen):
        topics[name] = value
        origins[name] = SettingOrigin(place, is_shared=False)
    own = OwnSources(tuple(tables), variables, assignments)
    return Settings(cluster, topics, given_cluster, origins, tuple(notes), own)


def parse_assignments(assignments: tuple[str, ...]) -> dict[str, str]:
    """Read ``key=value`` options.

    Raises:
        UsageError: An option has no ``=``, or a key is given twice.
    """
    given: dict[str, str] = {}
    for each in assignments:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {each!r} is not valid", hint="write --set key=value")
        if key in given:
            raise UsageError(f"--set gives {key!r} twice", hint="keep one of them")
        given[key] = value
    return given


_Topics = list[tuple[str, str, str]]


def _from_environment(
    environment: Mapping[str, str],
) -> tuple[_Topics, dict[str, str], list[str]]:
    """Return topics with their names and places, variables of own settings, and notes."""
    topics, variables, notes = [], {}, []
    for name, value in environment.items():
        if not name.startswith(_PREFIX) or not value or _is_known(name):
            continue
        if name.startswith(VARIABLE_PREFIX) and name != VARIABLE_PREFIX:
            variables[name] = value
            continue
        if not name.startswith(_TOPICS_PREFIX) or name == _TOPICS_PREFIX:
            notes.append(_unknown_variable(name))
            continue
        topics.append((_topic_of_variable(name), _checked(value, name), name))
    return topics, variables, notes


def _is_known(name: str) -> bool:
    return name in _VARIABLES or name.startswith((*_OTHER_PREFIXES, *_FOREIGN_PREFIXES))


def _unknown_variable(name: str) -> str:
    """Return a note about an unknown variable; refuse one that looks like a misspelled one."""
    text = f"{name} is not a variable of streamkit"
    for prefix, nearly in _NEARLY.items():
        found = nearly.fullmatch(name)
        if found is not None:
            raise UsageError(text, hint=f"did you mean {prefix}{found[1] or 'NAME'}?")
    known_ends = [each.removeprefix(_PREFIX) for each in _VARIABLES]
    close = get_close_matches(name.removeprefix(_PREFIX), known_ends, 1, cutoff=0.75)
    if close:
        raise UsageError(text, hint=f"did you mean {_PREFIX}{close[0]}?")
    known = ", ".join((*_VARIABLES[:2], f"{_TOPICS_PREFIX}NAME", f"{VARIABLE_PREFIX}NAME"))
    return f"{text} and is ignored; valid variables: {known}"


def _topic_of_variable(name: str) -> str:
    return name.removeprefix(_TOPICS_PREFIX).lower().replace("_", "-")


def _from_assignments(
    given: Mapping[str, str], own_names: Collection[str]
) -> tuple[str | None, _Topics, dict[str, str]]:
    """Return the cluster, topics with their names and places, and own settings."""
    cluster, topics, own = None, [], {}
    first_names = {each.partition(".")[0] for each in own_names}
    for key, value in given.items():
        place = f"--set {key}"
        kind, _, name = key.partition(".")
        if key == "cluster":
            cluster = _checked(value, place)
        elif kind == "topics" and name:
            topics.append((name, _checked(value, place), place))
        elif kind in first_names or (kind == "settings" and name and own_names):
            if not isinstance(value, str):  # of `app.run`; it may be a secret
                hint = "give the value as text, as in an option, such as '5' instead of 5"
                raise UsageError(f"{place} is {type(value).__name__}, not text", hint=hint)
            own[key] = _checked(value, place)
        else:
            known = ("cluster", f"topics.{name or 'NAME'}", *own_names)
            raise UsageError(
                f"{key!r} is not a valid setting",
                hint=_did_you_mean(
                    key,
                    known,
                    "valid settings",
                    listed=", ".join(("cluster", "topics.NAME", *own_names)),
                ),
            )
    return cluster, topics, own


def _checked(value: object, place: str) -> str:
    """Return a value that is text and not empty.

    Raises:
        UsageError: The value is not text, or it is empty.
    """
    if not isinstance(value, str):
        raise UsageError(f"{place} is {value!r}, not text")
    if not value.strip():
        raise UsageError(f"{place} is empty", hint="leave it out, or give it a value")
    return value


def _did_you_mean(
    name: str, known: Iterable[str], heading: str, *, listed: str | None = None
) -> str:
    known = sorted(known)
    close = get_close_matches(name, known, 1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"{heading}: {listed or ', '.join(known) or 'none'}"


def _table(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    for depth, key in enumerate(keys, 1):
        table = _as_table(table.get(key, {}), path, ".".join(keys[:depth]))
    _check_table(table, path, ".".join((*keys, "")))
    return dict(table)


def _as_table(value: object, path: Path, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path}: {name} is {value!r:.80}, not a table", hint=f"start the table with [{name}]"
        )
    return value


def _check_table(table: dict[str, Any], path: Path, prefix: str) -> None:
    for key, value in table.items():
        place = f"{path}: {prefix}{key}"
        if key not in KEYS:
            raise ConfigError(
                f"{path}: {prefix + key!r} is not a valid setting",
                hint=_did_you_mean(key, KEYS, "valid settings"),
            )
        if key == "cluster":
            _check_text(value, place, '"HOST:PORT"')
            continue
        names = _as_table(value, path, f"{prefix}{key}")
        for name, topic in names.items() if key == "topics" else ():
            _check_text(topic, f"{place}.{name}", "a topic name")


def _check_text(value: object, place: str, meaning: str) -> None:
    if not isinstance(value, str):
        raise ConfigError(f"{place} is {value!r:.80}, not text", hint=f"set it to {meaning}")
    if not value.strip():
        raise ConfigError(f"{place} is empty", hint=f"leave it out or set it to {meaning}")
