"""Tables: the latest value of each key of a topic or a file, and lookups in them.

| lookup | which value | when |
|---|---|---|
| plain | the one that the table has now | at once |
| ``as_of`` | the one of the event time of the record | when the watermark has passed that time |

A table is read to its end before the streams of the job begin. A record of the table with an empty
value deletes its key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from streamkit.dataflow.emission import EMPTY, NoTime, picked
from streamkit.dataflow.joins import ABSENT
from streamkit.dataflow.keys import group_key
from streamkit.dataflow.operators import fill, with_keys
from streamkit.dataflow.steps import Operator, Room, RowFailed, Stateless, TimedStep, TwoSided
from streamkit.record import Chunk, Value
from streamkit.serde.keys import KeyReader
from streamkit.state.change_log import StateFormat
from streamkit.state.keyed import Keyed, Unstored
from streamkit.state.waiting import UnstoredRecords, WaitingRecords


class _Deleted:
    def __repr__(self) -> str:
        return "DELETED"


DELETED: Final = _Deleted()


def or_deleted(loads: Callable[[bytes], Value]) -> Callable[[bytes], Value]:
    """Return a decoder for which empty bytes are a deletion."""
    return lambda data: loads(data) if data else DELETED


@dataclass(frozen=True, slots=True)
class TableKeys(Stateless):
    """Set the key of each row of a table; without ``function``, it is the key of the record.

    ``key_of`` reads the keys of records, if they have a format.
    """

    function: Callable[[Value], object] | None
    key_of: KeyReader | None = None

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        keys: list[bytes | None] = []
        fill(
            keys,
            lambda block: map(self._key, block, chunk.keys[len(keys) :]),
            chunk,
            room,
            lambda done: with_keys(done, keys),
        )
        return with_keys(chunk, keys)

    def _key(self, value: Value, key: bytes | None) -> bytes:
        if self.function is not None and value is not DELETED:
            return group_key(self.function(value))
        if key is None:
            raise TypeError(
                "a record of a table has no key; produce it with one, or give the table key="
            )
        return key if self.key_of is None else group_key(self.key_of(key))


@dataclass(frozen=True, slots=True)
class Upsert:
    """Keep the latest value of each key.

    ``is_kept``: the rows are stored with each commit; otherwise they are read again at the start.
    """

    name: str
    form: StateFormat
    is_kept: bool = True

    @property
    def expands(self) -> bool:
        return False

    def open(self, room: Room) -> Operator:
        return _Upsert(room.state(Keyed if self.is_kept else Unstored, self.name, self.form))


@dataclass(frozen=True, slots=True)
class _Upsert:
    """The operator of `Upsert`."""

    table: Keyed

    def on_chunk(self, chunk: Chunk) -> Chunk:
        table = self.table
        for key, value in zip(chunk.keys, chunk.values, strict=True):
            assert key is not None, "each row of a table has one"
            table.touch(key)
            if value is DELETED:
                table.values.pop(key, None)
            else:
                table.values[key] = value
        return chunk


@dataclass(frozen=True, slots=True)
class Lookup:
    """Combine each value with the row of a table that has its key now.

    ``drops_missing``: drop a record that the table has no row for.
    """

    table: str
    form: StateFormat
    on: Callable[[Value], object]
    combine: Callable[[Value, Value], Value]
    drops_missing: bool

    @property
    def expands(self) -> bool:
        return False

    def open(self, room: Room) -> Operator:
        return _Lookup(self, room, room.state(Keyed, self.table, self.form))


@dataclass(frozen=True, slots=True)
class _Lookup:
    """The operator of `Lookup`."""

    step: Lookup
    room: Room
    table: Keyed

    def on_chunk(self, chunk: Chunk) -> Chunk:
        found: list[Value] = []
        fill(found, self._combined, chunk, self.room, lambda done: _kept(done, found))
        return _kept(chunk, found)

    def _combined(self, block: Sequence[Value]) -> Value:
        step, get = self.step, self.table.values.get
        on, combine, drops_missing = step.on, step.combine, step.drops_missing
        for value in block:
            key = on(value)
            row = ABSENT if key is None else get(group_key(key), ABSENT)
            if row is ABSENT and drops_missing:
                yield DELETED
            else:
                yield combine(value, row)


@dataclass(frozen=True, slots=True)
class AsOfLookup(TimedStep):
    """Pair each value with the row that the table had at its event time.

    Its inputs are the stream and the table. Results are pairs, in order of event time.
    """

    name: str
    on: Callable[[Value], object]
    late_ms: int
    stream_form: StateFormat
    table_form: StateFormat
    drops_missing: bool
    is_file: bool

    @property
    def hold_ms(self) -> int:
        return self.late_ms

    def open(self, room: Room) -> TwoSided:
        return _AsOfLookup(self, room)


class _AsOfLookup:
    """The operator of `AsOfLookup`."""

    def __init__(self, step: AsOfLookup, room: Room) -> None:
        self._step = step
        self._room = room
        self._waiting = room.state(WaitingRecords, f"{step.name}/waiting", step.stream_form)
        versions = f"{step.name}/versions"
        # The rows of a file are read again at each start, so they are not stored.
        kind = UnstoredRecords if step.is_file else WaitingRecords
        self._versions = room.state(kind, versions, step.table_form)

    def on_chunk(self, chunk: Chunk) -> Chunk:
        return self.on_side(0, chunk)

    def on_side(self, side: int, chunk: Chunk) -> Chunk:
        if not len(chunk):
            return EMPTY
        times_ms = chunk.timestamps_ms
        if min(times_ms) < 0:
            row = next(row for row, each in enumerate(times_ms) if each < 0)
            raise RowFailed(row, self.on_side(side, chunk.slice(0, row))) from NoTime()
        marks = times_ms if side == 1 and self._step.is_file else self._room.watermarks_ms(chunk)
        if side == 1:
            self._add_versions(chunk, marks)
            return EMPTY
        keys: list[bytes | None] = []

        def wait(done: Chunk) -> Chunk:
            self._wait(done, keys, marks)
            return EMPTY

        fill(keys, lambda block: map(_place, map(self._step.on, block)), chunk, self._room, wait)
        return wait(chunk)

    def _wait(self, chunk: Chunk, keys: Sequence[bytes | None], marks: Sequence[int]) -> None:
        late = []
        for row, (time_ms, value) in enumerate(zip(chunk.timestamps_ms, chunk.values, strict=True)):
            if time_ms + self._step.late_ms < marks[row]:
                late.append(row)
                continue
            # The key of the record goes with it; its place in the table is found by the other.
            own = chunk.keys[row]
            place = msgspec.msgpack.encode((keys[row], own))
            self._waiting.add(place, time_ms, value)
        self._room.late(picked(chunk, late))

    def _add_versions(self, chunk: Chunk, marks: Sequence[int]) -> None:
        versions = self._versions
        kept_ms = self._room.watermark_ms() - self._step.late_ms
        for key, value, time_ms, mark in zip(
            chunk.keys, chunk.values, chunk.timestamps_ms, marks, strict=True
        ):
            assert key is not None, "each row of a table has one"
            # A late row is valid from the watermark on: earlier lookups are done.
            versions.add(key, max(time_ms, mark), ABSENT if value is DELETED else value)
            rows = versions.of_key(key)
            while len(rows) > 1 and rows[1].time_ms <= kept_ms:
                versions.remove(rows[0])

    def due_ms(self) -> int | None:
        first_ms = self._waiting.first_ms()
        return None if first_ms is None else first_ms + 1

    def on_time(self, watermark_ms: int) -> Chunk:
        keys: list[bytes | None] = []
        pairs: list[tuple[Value, Value]] = []
        times_ms: list[int] = []
        for each in self._waiting.remove_before(watermark_ms):
            place, own = _decode_place(each.key)
            row = ABSENT if place is None else self._row(place, each.time_ms)
            if row is ABSENT and self._step.drops_missing:
                continue
            keys.append(own)
            pairs.append((each.value, row))
            times_ms.append(each.time_ms)
        return Chunk(pairs, keys, times_ms, [0] * len(pairs))

    def _row(self, key: bytes, time_ms: int) -> Value:
        found = self._versions.at(key, time_ms)
        return ABSENT if found is None else found.value


_decode_place = msgspec.msgpack.Decoder(tuple[bytes | None, bytes | None]).decode


def _place(key: object) -> bytes | None:
    """Return the key of a row in the table; None is the key of no row."""
    return None if key is None else group_key(key)


def _kept(chunk: Chunk, found: Sequence[Value]) -> Chunk:
    """Return the rows that the table has a row for, with their new values."""
    mask = [each is not DELETED for each in found]
    return chunk.with_values(found).select(mask)
