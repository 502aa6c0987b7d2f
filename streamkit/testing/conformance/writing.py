"""One run of a sink writer, with the steps of commits as the engine makes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from streamkit.dataflow.contracts import (
    AcknowledgedWriter,
    AtOnceWriter,
    ConnectorEnv,
    Prepared,
    Sink,
)
from streamkit.env import SystemClock
from streamkit.errors import StreamKitError
from streamkit.record import Chunk, Kind, Record
from streamkit.serde.binding import Serde
from streamkit.serde.values import ValueEncoder
from streamkit.testing.conformance.rules import (
    SINK_DESCRIBED,
    SINK_POSITIONS,
    UNACKNOWLEDGED,
    Rule,
    without,
)

_START_MS = 1_356_998_400_000


@dataclass(frozen=True, slots=True)
class SinkCase:
    """The sink to check, how to read what it has written, and the values to write."""

    make: Callable[[], Sink[Any]]
    read: Callable[[], Sequence[Any]]
    values: Sequence[Any]
    kind: Kind
    serde: Serde | None
    clear: Callable[[], None] | None
    exactly_once: bool
    random: Random
    folder: Path
    _numbers: Any = field(default_factory=count)

    def place(self) -> Place:
        """Return the place for one scenario: emptied, or with what is there left out."""
        if self.clear is not None:
            self.clear()
        return Place(self, self.folder / str(next(self._numbers)), list(self.read()))


class Place:
    """The place of one scenario: what it has, and the positions that were committed."""

    def __init__(self, case: SinkCase, folder: Path, before: list[Any]) -> None:
        self.case = case
        self.env = ConnectorEnv(
            "check", "check", folder, SystemClock(), until_end=True, kind=_kind_of(case)
        )
        self.committed: dict[str, str] = {}
        self.abandoned: list[Writing] = []
        self._before = before

    def values(self) -> list[Any]:
        """Return what this scenario has written."""
        found = list(self.case.read())
        if found[: len(self._before)] == self._before:
            return found[len(self._before) :]
        return without(found, self._before)

    async def open(self, rule: Rule) -> Writing:
        """Open a writer as a new run does. One that a crash has abandoned may hold a lock."""
        writing = Writing(self, rule)
        try:
            await writing.open()
        except AssertionError:
            if not self.abandoned:
                raise
            await writing.close()
            await self.close_abandoned()
            writing = Writing(self, rule)
            await writing.open()
        return writing

    async def close_abandoned(self) -> None:
        """Close the writers that crashes have abandoned; a crash would have ended them."""
        abandoned, self.abandoned = self.abandoned, []
        for each in abandoned:
            try:
                await each.writer.close()
            except StreamKitError:
                pass  # a new writer may have locked it out, which is right


class Writing:
    """One run of a writer.

    Args:
        place: The place, with the positions that were committed.
        rule: The rule that an error or a hanging call breaks.
    """

    def __init__(self, place: Place, rule: Rule) -> None:
        self._place = place
        self._rule = rule
        self.sink = place.case.make()
        kind = _kind_of(place.case)
        self.writer = self.sink.writer(place.env)
        with_encoder = self.sink.encoder(kind, place.case.serde)
        self.encoder: ValueEncoder | None = with_encoder
        self._offset = 0

    async def open(self) -> None:
        """Open the writer, and make a commit at once, as the engine does for its positions."""
        stored: dict[str, str] = json.loads(json.dumps(self._place.committed))
        with self._rule.during("open()"):
            await self.writer.open(stored)
            SINK_DESCRIBED.require(
                isinstance(self.writer.description, str) and self.writer.description,
                "the opened writer has no description",
            )
            if isinstance(self.writer, AcknowledgedWriter):
                first = self.writer.prepare_commit(is_last=False)
                await first.wait()
                self.store(first)
                if first.publish is not None:
                    await first.publish()

    def chunk(self, values: Sequence[Any]) -> Chunk:
        """Return rows for values, encoded as the step before the sink does it."""
        records = [each if isinstance(each, Record) else Record(each) for each in values]
        rows = [each.value for each in records]
        first, self._offset = self._offset, self._offset + len(rows)
        return Chunk(
            rows if self.encoder is None else [self.encoder.dumps(each) for each in rows],
            [each.key for each in records],
            [
                _START_MS + first + row if each.timestamp_ms < 0 else each.timestamp_ms
                for row, each in enumerate(records)
            ],
            range(first, first + len(rows)),
            "check",
            0,
        )

    async def write(self, values: Sequence[Any]) -> None:
        """Write values in random parts."""
        if not values:
            return
        with self._rule.during("write()"):
            chunk = self.chunk(values)
            if isinstance(self.writer, AcknowledgedWriter):
                chunk = self.writer.on_chunk(chunk)
            row = 0
            while row < len(chunk):
                end = min(len(chunk), row + self._place.case.random.randint(1, len(chunk)))
                row += await self._write_part(chunk.slice(row, end))

    async def _write_part(self, part: Chunk) -> int:
        writer = self.writer
        if isinstance(writer, AtOnceWriter):
            return await writer.write(part, lambda: False)
        assert isinstance(writer, AcknowledgedWriter), "there are two kinds of writers"
        await writer.write(part)
        return len(part)

    def prepare(self, *, is_last: bool = False) -> Prepared:
        """Prepare a commit of everything written."""
        if isinstance(self.writer, AtOnceWriter):
            return Prepared(partial(self.writer.flush, is_last=is_last), {})
        assert isinstance(self.writer, AcknowledgedWriter), "there are two kinds of writers"
        try:
            return self.writer.prepare_commit(is_last=is_last)
        except StreamKitError as error:
            self._rule.require(False, f"prepare_commit() raised {error}")
            raise

    async def wait(self, prepared: Prepared, *, is_quiet: bool = True) -> None:
        """Wait for a commit; ``is_quiet``: nothing is written meanwhile."""
        with self._rule.during("wait()"):
            await prepared.wait()
        if is_quiet and isinstance(self.writer, AcknowledgedWriter):
            left = self.writer.unacknowledged
            UNACKNOWLEDGED.require(left == 0, f"after wait(), unacknowledged is {left}")

    def store(self, prepared: Prepared) -> None:
        """Store the positions of a commit."""
        for each in (text for pair in prepared.positions.items() for text in pair):
            SINK_POSITIONS.require(
                type(each) is str, f"a position has {each!r} of type {type(each).__name__}"
            )
            try:
                each.encode()
            except UnicodeEncodeError as error:
                SINK_POSITIONS.require(False, f"{each!a} is not valid UTF-8: {error.reason}")
        self._place.committed.update(prepared.positions)

    async def publish(self, prepared: Prepared) -> None:
        """Publish a commit that is stored."""
        if prepared.publish is not None:
            with self._rule.during("publish()"):
                await prepared.publish()

    async def commit(self, *, is_last: bool = False) -> None:
        """Make a whole commit."""
        prepared = self.prepare(is_last=is_last)
        await self.wait(prepared)
        self.store(prepared)
        await self.publish(prepared)

    def abandon(self) -> None:
        """Crash: nothing of this writer is called any more."""
        self._place.abandoned.append(self)

    async def close(self) -> None:
        with self._rule.during("close()"):
            await self.writer.close()


def _kind_of(case: SinkCase) -> Kind:
    """Return the type of the values: the given one, or that of the first value."""
    if case.kind is not None or not case.values:
        return case.kind
    first = case.values[0]
    return type(first.value if isinstance(first, Record) else first)
