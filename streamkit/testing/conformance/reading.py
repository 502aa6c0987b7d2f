"""One run of a source reader, with every call checked, for the rules of sources."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Final

from streamkit.dataflow.contracts import ConnectorEnv, Decoder, Source, SourceFacts, SourceReader
from streamkit.env import SystemClock
from streamkit.frames.column_rows import ColumnRows
from streamkit.limits import CHUNK_BYTES_MAX, CHUNK_RECORDS_MAX, COLUMNS_RECORDS_MAX
from streamkit.record import Chunk, Kind, Value
from streamkit.serde.binding import Serde
from streamkit.testing.conformance.rules import CHUNKS, DESCRIBED, POSITIONS, Rule, listed

# A chunk of about 1 MiB may end after a long row.
_CHUNK_BYTES_CHECKED: Final = 2 * CHUNK_BYTES_MAX

Part = tuple[str, int]
Rows = dict[Part, list[Any]]


@dataclass(frozen=True, slots=True)
class SourceCase:
    """The source to check: how it is made, the type of its values, and a folder for files."""

    make: Callable[[], Source[Any]]
    kind: Kind
    serde: Serde | None
    folder: Path
    _numbers: Any = field(default_factory=count)

    def env(self, *, until_end: bool = True) -> ConnectorEnv:
        """Return what a reader of a new app gets."""
        folder = self.folder / str(next(self._numbers))
        return ConnectorEnv(
            "check", "check", folder, SystemClock(), until_end=until_end, kind=self.kind
        )

    def decoder(self, source: Source[Any]) -> Decoder | None:
        """Return how rows are decoded."""
        kind = source.value_type if self.kind is None else self.kind
        return source.decoder(bytes if kind is None else kind, self.serde)


class Reading:
    """One run of a reader. Rows are kept as the reader returns them, not decoded.

    Args:
        case: The source.
        rule: The rule that an error or a hanging call breaks.
    """

    def __init__(self, case: SourceCase, rule: Rule, env: ConnectorEnv | None = None) -> None:
        self._rule = rule
        self.env = env or case.env()
        self.source = case.make()
        self.reader: SourceReader = self.source.reader(self.env)
        self.positions: dict[str, str] = {}
        self.chunks: list[Chunk] = []
        self.facts: SourceFacts | None = None

    async def open(self, positions: Mapping[str, str]) -> Reading:
        """Open the reader as a new process would, with positions that were stored as text."""
        stored: dict[str, str] = json.loads(json.dumps(dict(positions)))
        with self._rule.during("open()"):
            facts = await self.reader.open(stored)
        self.facts = facts
        DESCRIBED.require(facts.description, "open() returned SourceFacts without a description")
        for key, text in (facts.start_offsets or {}).items():
            _check_position(key, text)
        self.positions = {**positions, **(facts.start_offsets or {})}
        return self

    async def next(self) -> Chunk | None:
        """Return the next chunk; it is checked."""
        with self._rule.during("next()"):
            chunk = await self.reader.next()
        return self.received(chunk)

    def received(self, chunk: Chunk | None) -> Chunk | None:
        """Check and keep a chunk that the reader has returned."""
        if chunk is not None:
            _check_chunk(chunk)
            self.chunks.append(chunk)
        return chunk

    async def rest(self) -> Rows:
        """Read to the end; return the rows of this call."""
        first = len(self.chunks)
        while await self.next() is not None:
            pass
        return rows_of(self.chunks[first:])

    def commit(self, chunk: Chunk) -> dict[str, str]:
        """Return the positions once a chunk, or part of it, is processed."""
        with self._rule.during("position_after()"):
            key, text = self.reader.position_after(chunk)
        _check_position(key, text)
        self.positions = {**self.positions, key: text}
        return self.skip()

    def skip(self) -> dict[str, str]:
        """Return the positions after entries that are not rows, as a commit stores them."""
        with self._rule.during("skipped_positions()"):
            skipped = self.reader.skipped_positions()
        for key, text in skipped.items():
            _check_position(key, text)
        self.positions = {**self.positions, **skipped}
        return self.positions

    async def close(self) -> None:
        with self._rule.during("close()"):
            await self.reader.close()


def kept(decoder: Decoder | None, rows: Sequence[Any]) -> list[Any]:
    """Return the rows that the decoder does not drop."""
    keeps = None if decoder is None else decoder.keeps
    return list(rows) if keeps is None else [each for each in rows if keeps(each)]


async def read_all(case: SourceCase, rule: Rule, positions: Mapping[str, str]) -> Rows:
    """Return all rows after some positions, read by a new reader."""
    reading = await opened(case, rule, positions)
    try:
        return await reading.rest()
    finally:
        await reading.close()


async def opened(
    case: SourceCase,
    rule: Rule,
    positions: Mapping[str, str],
    env: ConnectorEnv | None = None,
) -> Reading:
    """Open a new reader; close it if that fails."""
    reading = Reading(case, rule, env)
    try:
        return await reading.open(positions)
    except BaseException:
        await reading.close()
        raise


def rows_of(chunks: list[Chunk]) -> Rows:
    """Return the rows of each partition, in order."""
    rows: Rows = {}
    for chunk in chunks:
        rows.setdefault((chunk.topic, chunk.partition), []).extend(chunk.values)
    return rows


def counts_of(rows: Rows) -> dict[Part, int]:
    """Return how many rows each partition has."""
    return {part: len(values) for part, values in rows.items()}


def after(rows: Rows, done: Mapping[Part, int]) -> Rows:
    """Return the rows that follow the first ``done`` of each partition."""
    left = {part: values[done.get(part, 0) :] for part, values in rows.items()}
    return {part: values for part, values in left.items() if values}


def difference(wanted: Rows, found: Rows) -> str | None:
    """Return how rows differ; None if they are equal, partition by partition."""
    for part in sorted({*wanted, *found}):
        expected, actual = wanted.get(part, []), found.get(part, [])
        if expected != actual:
            topic, partition = part
            return (
                f"partition {partition} of {topic!r} must have {len(expected)} row(s) "
                f"{listed(expected)}, but had {len(actual)} {listed(actual)}"
            )
    return None


def _check_chunk(chunk: Chunk) -> None:
    rows = len(chunk.values)
    CHUNKS.require(rows, "next() returned a chunk without rows")
    most = COLUMNS_RECORDS_MAX if type(chunk.values) is ColumnRows else CHUNK_RECORDS_MAX
    CHUNKS.require(rows <= most, f"next() returned a chunk of {rows:,} rows")
    columns = {
        "keys": chunk.keys,
        "timestamps_ms": chunk.timestamps_ms,
        "offsets": chunk.offsets,
    }
    for name, column in columns.items():
        CHUNKS.require(
            len(column) == rows, f"a chunk of {rows} rows has {len(column)} items in {name}"
        )
    offsets = list(chunk.offsets)
    rises = all(a < b for a, b in pairwise(offsets))
    CHUNKS.require(rises, f"the offsets of a chunk do not rise: {listed(offsets)}")
    are_keys = all(each is None or type(each) is bytes for each in chunk.keys)
    CHUNKS.require(are_keys, f"keys are neither bytes nor None: {listed(list(chunk.keys))}")
    sizes = [_size(each) for each in chunk.values]
    is_small = sum(sizes) - max(sizes) <= _CHUNK_BYTES_CHECKED
    CHUNKS.require(is_small, f"next() returned a chunk of {sum(sizes):,} bytes")


def _size(value: Value) -> int:
    return len(value) if isinstance(value, bytes | str) else 0


def _check_position(key: object, text: object) -> None:
    for each in (key, text):
        POSITIONS.require(
            type(each) is str, f"a position has {each!r} of type {type(each).__name__}"
        )
        try:
            str(each).encode()
        except UnicodeEncodeError as error:
            POSITIONS.require(False, f"the text {each!a} is not valid UTF-8: {error.reason}")
