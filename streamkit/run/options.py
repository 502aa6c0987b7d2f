"""The options of a run, and what can be run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict, get_args

from streamkit.client.tls import Tls
from streamkit.dataflow.lifespans import NewLifespan
from streamkit.dataflow.options import checked_options
from streamkit.dataflow.topology import Topology
from streamkit.errors import UsageError
from streamkit.settings import AppSettings
from streamkit.target import data_folder
from streamkit.units import seconds_of

OnCrashLoop = Literal["stop", "dead-letter"]


class Job(Protocol):
    """What can be run: an `App`, or an object with the same members."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def topology(self) -> Topology: ...

    @property
    def new_lifespan(self) -> NewLifespan | None: ...

    @property
    def own_settings(self) -> AppSettings[Any] | None: ...

    def check(self) -> None:
        """Refuse a graph that cannot run."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `streamkit run`. Durations are in seconds."""

    cluster: str | None = None
    profile: str | None = None
    embedded: bool = False
    tls: Tls | None = None
    data_dir: Path | None = None
    once: bool = False
    drain: bool = False
    fresh_state: bool = False
    create_topics: bool = False
    replay: tuple[str, ...] = ()
    replay_only: bool = False
    on_crash_loop: OnCrashLoop = "stop"
    commit_interval_s: float = 1.0
    state_memory_bytes: int | None = None
    stop_deadline_s: float = 25.0
    json: bool = False
    settings: dict[str, str] = field(default_factory=dict)


class RunKeywords(TypedDict, total=False):
    """The keyword arguments of `App.run`.

    Attributes:
        cluster: ``host:port`` of a Fluvio cluster.
        profile: Name of a profile in Fluvio's file.
        embedded: Use the embedded broker; environment and settings files are ignored.
        tls: TLS settings of the connections to ``cluster``.
        data_dir: Folder for the state and for the data of the embedded broker.
        drain: Complete open windows, and all else that waits, before the run ends.
        once: Read up to the end offsets seen at the start, then stop.
        fresh_state: Start over and ignore committed offsets.
        create_topics: Create missing topics, including those that sources read.
        replay: Topics of dead letters. What they hold now is given again to the stages that it
            came from.
        replay_only: Only replay: the sources are not read, and the run ends after the replay.
        on_crash_loop: What happens to a record at which the job has failed twice before: ``stop``
            lets it fail, ``dead-letter`` writes it to the topic ``APP-dead-letters``.
        commit_interval: How often offsets are committed, in seconds or as a timedelta.
        stop_deadline: How long stopping may take, in seconds or as a timedelta.
        state_memory: The most memory that keyed state may take, in bytes; by default half of the
            machine's memory.
        json: Report as JSON lines on standard output.
        settings: Settings by key, as ``--set`` accepts them.
    """

    cluster: str | None
    profile: str | None
    embedded: bool
    tls: Tls | None
    data_dir: str | Path | None
    drain: bool
    once: bool
    fresh_state: bool
    create_topics: bool
    replay: Sequence[str]
    replay_only: bool
    on_crash_loop: OnCrashLoop
    commit_interval: float | timedelta
    stop_deadline: float | timedelta
    state_memory: int | None
    json: bool
    settings: dict[str, str] | None


def options_of(keywords: RunKeywords) -> RunOptions:
    """Check the keyword arguments of `App.run` and convert them.

    Raises:
        UsageError: An option does not exist, or its value is not valid.
    """
    checked_options(keywords, RunKeywords)
    data_dir = keywords.get("data_dir")
    return RunOptions(
        cluster=keywords.get("cluster"),
        profile=keywords.get("profile"),
        embedded=keywords.get("embedded", False),
        tls=keywords.get("tls"),
        data_dir=None if data_dir is None else data_folder(data_dir),
        once=keywords.get("once", False),
        drain=keywords.get("drain", False),
        fresh_state=keywords.get("fresh_state", False),
        create_topics=keywords.get("create_topics", False),
        replay=_names("replay", keywords.get("replay", ())),
        replay_only=keywords.get("replay_only", False),
        on_crash_loop=_on_crash_loop(keywords.get("on_crash_loop", "stop")),
        commit_interval_s=_seconds("commit_interval", keywords.get("commit_interval", 1.0)),
        state_memory_bytes=_size("state_memory", keywords.get("state_memory")),
        stop_deadline_s=_seconds("stop_deadline", keywords.get("stop_deadline", 25.0)),
        json=keywords.get("json", False),
        settings=keywords.get("settings") or {},
    )


def _names(option: str, value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise UsageError(
        f"{option}={value!r} is not a list of topics", hint=f'{option}=["orders-dead"]'
    )


def _on_crash_loop(value: object) -> OnCrashLoop:
    for each in get_args(OnCrashLoop):
        if value == each:
            found: OnCrashLoop = each
            return found
    raise UsageError(f"on_crash_loop={value!r} is not valid", hint='use "stop" or "dead-letter"')


def _seconds(name: str, value: object) -> float:
    if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
        found = float(seconds_of(value))
        if math.isfinite(found) and found > 0:
            return found
    raise UsageError(
        f"{name}={value!r} is not a valid duration",
        hint="use a number of seconds above 0, or a timedelta",
    )


def _size(name: str, value: object) -> int | None:
    if value is None or (type(value) is int and value > 0):
        return value
    raise UsageError(f"{name}={value!r} is not a valid size", hint="use a number of bytes above 0")
