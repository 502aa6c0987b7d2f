"""How to run, and what can be run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from streamkit.client.tls import Tls
from streamkit.dataflow.topology import Topology


class Job(Protocol):
    """What is run: an `App`, or what looks like one."""

    @property
    def name(self) -> str: ...

    @property
    def topology(self) -> Topology: ...

    def check(self) -> None:
        """Refuse a graph that cannot run."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run; the options of `streamkit run`. Durations in seconds."""

    cluster: str | None = None
    profile: str | None = None
    embedded: bool = False
    tls: Tls | None = None
    data_dir: Path | None = None
    once: bool = False
    fresh_state: bool = False
    create_topics: bool = False
    commit_interval_s: float = 1.0
    stop_deadline_s: float = 25.0
    json: bool = False
    settings: dict[str, str] = field(default_factory=dict)
