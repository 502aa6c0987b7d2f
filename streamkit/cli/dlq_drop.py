"""The work of `streamkit dlq drop`: moves the position from which an app replays letters."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import click
import google_crc32c

from streamkit.cli.dlq_positions import cluster_of, load_positions, store_path
from streamkit.cli.dlq_reading import Place, TopicLetters, is_file, letters_of
from streamkit.cli.output import check_output
from streamkit.cli.session import current_target, note, run_with_client
from streamkit.connectors.broker_offsets import Mark, encode_mark
from streamkit.dataflow.dead_letters import replay_source
from streamkit.dataflow.topology import is_name
from streamkit.errors import StateError, UsageError
from streamkit.record import Chunk
from streamkit.state.store import Store
from streamkit.target import Target


@dataclass(frozen=True, slots=True)
class Plan:
    """What a drop changes: the new marks, how many letters it drops, the marks it began with."""

    marks: Mapping[int, Mark]
    letters: int
    stored: Mapping[str, str]


def run(topic: str, app: str, places: tuple[str, ...], *, asks: bool) -> None:
    """Drop the waiting letters of an app, after asking.

    Raises:
        UsageError: The app has no state here, a place is not valid, or nobody can be asked.
        StateInUse: The job of the app runs.
        StateError: A replay has changed the positions meanwhile.
    """
    check_output()
    until = [Place.parse(each) for each in places]
    if is_file(topic):
        raise UsageError(
            f"{topic} is a file: its letters are not replayed, so they cannot be dropped",
            hint="delete the file, or move it away; the job then writes a new one",
        )
    target = current_target()
    with _locked(target, app):
        pass  # a running job is reported before anything is read
    plan = run_with_client(lambda session: _plan(TopicLetters(session, topic), app, until))
    if not plan.letters:
        note(f"no dead letters of {app!r} are waiting in {topic}; nothing is dropped")
        return
    what = _count_text(plan.letters)
    if asks:
        them = "it" if plan.letters == 1 else "them"
        _confirm(f"drop {what} of {app!r} in {topic}? A replay will skip {them}")
    source = replay_source(topic)
    with _locked(target, app) as store:
        if store.positions().get(source, {}) != plan.stored:
            raise StateError(
                f"a replay of {topic!r} has run meanwhile; nothing was dropped",
                hint="run the command again",
            )
        moved = {str(n): encode_mark(mark).decode() for n, mark in plan.marks.items()}
        store.commit({source: moved})
    click.echo(f'{what} of "{app}" in topic "{topic}" dropped')


def _confirm(question: str) -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            "this needs a confirmation, but standard input is not a terminal",
            hint="add --yes to drop without asking",
        )
    click.confirm(question, abort=True, err=True)


@contextmanager
def _locked(target: Target, app: str) -> Iterator[Store]:
    """Open and lock the store of an app.

    Raises:
        UsageError: The app has no store.
        StateInUse: Its job runs.
        StateMismatch: The store is for another cluster.
    """
    path = store_path(target, app) if is_name(app) else None
    if path is None or not path.exists():
        raise UsageError(
            f"there is no state of an app {app!r} in {target.data_dir / 'state'}",
            hint="give the name of the app, and its data folder with --data-dir",
        )
    store = Store(path)
    store.open(app=app, cluster=cluster_of(target))
    try:
        yield store
    finally:
        store.close()


async def _plan(letters: TopicLetters, app: str, until: list[Place]) -> Plan:
    partitions = await letters.partitions()
    ends: dict[int, int] = {}
    for place in until:
        number = place.partition_of(letters.topic, partitions)
        ends[number] = max(place.offset + 1, ends.get(number, 0))
    before = (await load_positions(letters, app)).of(app)
    if not before.is_ours:
        raise StateError(f"nothing was dropped: {before.problem}")
    marks: dict[int, Mark] = {}
    count = 0
    for number in range(partitions):
        first, end = await letters.bounds(number)
        at = max(first, before.next_offsets.get(number, 0))
        if ends.get(number, 0) > end:
            raise UsageError(f"{letters.topic}-{number} has no offset {ends[number] - 1}")
        part = _Part(app, at, ends.get(number, at if ends else end))
        if part.is_moved:
            await letters.read(number, at, part.take)
        count += part.letters
        if part.is_moved or before.problem:
            marks[number] = part.mark
    return Plan(marks, count, before.stored)


class _Part:
    """The part of a partition that is dropped: from an offset up to an end."""

    def __init__(self, app: str, start: int, end: int) -> None:
        self.letters = 0
        self.is_moved = end > start
        self.mark = Mark(max(start, end))
        self._app = app

    def take(self, chunk: Chunk) -> bool:
        end = self.mark.next_offset
        chunk = chunk.slice(0, bisect_left(chunk.offsets, end))
        self.letters += sum(
            letter is not None and letter.app == self._app for letter in letters_of(chunk)
        )
        if len(chunk) and chunk.offsets[-1] == end - 1:
            crc = google_crc32c.value(chunk.values[-1])
            self.mark = Mark(end, chunk.timestamps_ms[-1], crc)
            return False
        return True


def _count_text(letters: int) -> str:
    return f"{letters} dead letter{'' if letters == 1 else 's'}"
