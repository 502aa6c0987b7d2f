"""How far the letters of a topic are replayed or dropped, as the stores of the apps have it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import msgspec

from streamkit.cli.dlq_output import NAME_CHARACTERS_MAX, cut
from streamkit.cli.dlq_reading import TopicLetters
from streamkit.cli.session import note
from streamkit.connectors.broker_offsets import Mark, decode_mark
from streamkit.dataflow.dead_letters import replay_source
from streamkit.state.reader import StateReader
from streamkit.target import Target

STORE_NAME = "main.sqlite"
_NOTES_MAX = 10


@dataclass(frozen=True, slots=True)
class AppPositions:
    """The next letter of one app in each partition. ``stored``: as its store has them.

    ``problem`` says why the positions of the store are not used; empty if they are.
    ``is_ours``: whether they are positions of replays, which a drop may move.
    """

    next_offsets: Mapping[int, int] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    is_ours: bool = True


class DonePositions:
    """Which letters of a topic are done: replayed or dropped. The others are waiting."""

    def __init__(self, apps: Mapping[str, AppPositions], folder: Path) -> None:
        self._apps = apps
        self._folder = folder
        self._noted: set[str] = set()

    def of(self, app: str) -> AppPositions:
        """Return the positions of an app; a note says once if its store cannot be used."""
        found = self._apps.get(app)
        problem = f"{self._folder} has no state of this app" if found is None else found.problem
        if problem and app not in self._noted and len(self._noted) < _NOTES_MAX:
            self._noted.add(app)
            note(
                f"all dead letters of {cut(app, NAME_CHARACTERS_MAX)!r} count as waiting: {problem}"
            )
        return found or AppPositions()

    def is_done(self, app: str, partition: int, offset: int) -> bool:
        """Return whether a letter is done."""
        return offset < self.of(app).next_offsets.get(partition, 0)


def cluster_of(target: Target) -> str:
    """Return the name of the cluster that the positions in a store belong to."""
    return "embedded" if target.kind == "embedded" else str(target.address)


def store_path(target: Target, app: str) -> Path:
    """Return the path of the store of an app."""
    return target.data_dir / "state" / app / STORE_NAME


async def load_positions(letters: TopicLetters, app: str | None = None) -> DonePositions:
    """Read the positions of one app, or of every app in the data folder.

    Their jobs may run meanwhile. The apps are those of the folder, never those that letters name,
    so a letter cannot name a file.
    """
    target = letters.session.target
    folder = target.data_dir / "state"
    found = {}
    for path in sorted(folder.glob(f"*/{STORE_NAME}")):
        name = path.parent.name
        if app is None or app == name:
            found[name] = await _positions_in(path, letters)
    return DonePositions(found, folder)


async def _positions_in(path: Path, letters: TopicLetters) -> AppPositions:
    cluster = cluster_of(letters.session.target)
    try:
        with StateReader(path) as reader:
            if reader.cluster != cluster:
                return AppPositions(problem=f"{path} is for the cluster {reader.cluster!r}")
            stored = reader.positions(replay_source(letters.topic))
        marks = {int(number): decode_mark(text) for number, text in stored.items()}
    except sqlite3.Error as error:
        return AppPositions(problem=f"cannot read the state {path}: {error}", is_ours=False)
    except (msgspec.MsgspecError, ValueError):
        name = replay_source(letters.topic)
        problem = f"in {path}, {name!r} is a source of another kind"
        return AppPositions(problem=problem, is_ours=False)
    for number, mark in marks.items():
        if not await _is_of_this_log(number, mark, letters):
            problem = f"the topic {letters.topic!r} was created again after the last replay"
            return AppPositions({}, stored, problem)
    return AppPositions({number: mark.next_offset for number, mark in marks.items()}, stored)


async def _is_of_this_log(number: int, mark: Mark, letters: TopicLetters) -> bool:
    """Return whether the record before a position is still the one that was read."""
    if number >= await letters.partitions():
        return False
    _, end = await letters.bounds(number)
    if mark.next_offset > end:
        return False
    before = None
    if mark.crc is not None:
        before = await letters.record_at(number, mark.next_offset - 1)
    if before is None:
        return True  # nothing had been read, or retention has removed the record
    return (mark.timestamp_ms, mark.crc) == (
        before.timestamps_ms[0],
        google_crc32c.value(before.values[0]),
    )
