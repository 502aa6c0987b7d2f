"""Session windows, and windows of a number of records.

A session of a key is its records that are less than ``gap`` apart. A record is late if its own
event time plus ``late`` is below the watermark of its partition. So every record that counts
comes before the sessions it could join have closed, and sessions do not depend on which partition
is read first.

| event | what happens |
|---|---|
| a record near no session | it begins one |
| a record near one session | it joins it; start and end may move |
| a record near two sessions | they become one |
| the watermark reaches the end of a session plus ``late`` | its result is emitted |
| a session is longer than ``max_length`` | it is divided there |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from streamkit.dataflow.accumulating import Accumulator, Aggregate
from streamkit.dataflow.due_keys import DueKeys
from streamkit.dataflow.emission import EMPTY, Emission, NoTime, Row, picked
from streamkit.dataflow.steps import Room, RowFailed, TimedOperator, TimedStep
from streamkit.record import Chunk, Kind, Value
from streamkit.state.change_log import StateFormat
from streamkit.state.keyed import Keyed
from streamkit.state.types import format_of, windowed_format
from streamkit.windows import CountWindow, Session

# A part of a session: the times of its first and last record, and its aggregate.
Part = tuple[int, int, Aggregate]


@dataclass(frozen=True, slots=True)
class Sessions(TimedStep):
    """Aggregate the records of each key in sessions. The result has a `Row` for each session."""

    name: str
    window: Session
    late_ms: int
    accumulator: Accumulator
    emission: Emission

    @property
    def hold_ms(self) -> int:
        return self.late_ms

    def open(self, room: Room) -> TimedOperator:
        return _Sessions(self, room)


class _Sessions:
    """The operator of `Sessions`."""

    def __init__(self, step: Sessions, room: Room) -> None:
        self._step = step
        self._room = room
        self._gap_ms = step.window.gap_ms
        self._max_ms = step.window.max_length_ms
        kind = _tuple(_part_type(step.accumulator), ...)
        form = _stored(kind, step.name, _identity(step))
        self._keyed = room.state(Keyed, step.name, form)
        self._undo_number = self._keyed.undo_number
        self._due = DueKeys()
        self._find_due()

    def on_chunk(self, chunk: Chunk) -> Chunk:
        columns, interrupted = self._step.accumulator.columns(chunk, self._room)
        if interrupted is not None:
            chunk = chunk.slice(0, interrupted.row)
        result = self._added(chunk, columns)
        if interrupted is not None:
            raise type(interrupted)(interrupted.row, result) from interrupted.__cause__
        return result

    def _added(self, chunk: Chunk, columns: list[list[Value]]) -> Chunk:
        self._find_due_again()
        marks = self._room.watermarks_ms(chunk)
        late: list[int] = []
        updated: list[tuple[int, Row]] = []
        for row, (key, time_ms, mark) in enumerate(
            zip(chunk.keys, chunk.timestamps_ms, marks, strict=True)
        ):
            assert key is not None, "key_by gives every record a key"
            if time_ms >= 0 and time_ms + self._step.late_ms < mark:
                late.append(row)
                continue
            try:
                if time_ms < 0:
                    raise NoTime
                part = self._add(key, time_ms, [[each[row]] for each in columns])
            except BaseException as error:  # raised by a function of the user, or by its values
                self._room.late(picked(chunk, late))
                raise RowFailed(row, _of_rows(chunk, updated)) from error
            if self._step.emission.emit == "updates":
                updated.append((row, (part[0], part[1] + self._gap_ms, part[2])))
        self._room.late(picked(chunk, late))
        return _of_rows(chunk, updated)

    def _add(self, key: bytes, time_ms: int, columns: Sequence[Sequence[Value]]) -> Part:
        """Add one record to the sessions of its key; return the part that it is in."""
        accumulator = self._step.accumulator
        parts: tuple[Part, ...] = self._keyed.values.get(key, ())
        near = [each for each in parts if self._joins(each, time_ms)]
        found: dict[bytes, Aggregate] = {key: near[0][2]} if near else {}
        accumulator.update(found, (key,), (time_ms,), columns, [])
        start, last, aggregate = time_ms, time_ms, found[key]
        if near:
            start, last = min(near[0][0], time_ms), max(near[-1][1], time_ms)
        for each in near[1:]:
            aggregate = accumulator.merge(aggregate, each[2])
        part = (start, last, aggregate)
        others = [each for each in parts if each not in near] if near else list(parts)
        self._keyed.touch(key)
        self._keyed.values[key] = tuple(sorted([*others, part], key=lambda each: each[0]))
        self._due.add(key, self._end_of(start, last))
        return part

    def _joins(self, part: Part, time_ms: int) -> bool:
        if self._max_ms is not None:  # where a session is divided is known only when it closes
            return part[0] == time_ms
        return part[0] - self._gap_ms < time_ms < part[1] + self._gap_ms

    # --- time ------------------------------------------------------------------------

    def due_ms(self) -> int | None:
        self._find_due_again()
        first_ms = self._due.first_ms()
        return None if first_ms is None else first_ms + self._step.late_ms

    def on_time(self, watermark_ms: int) -> Chunk:
        self._find_due_again()
        closing_ms = watermark_ms - self._step.late_ms
        found: list[tuple[bytes, Row]] = []
        for key in self._due.take(closing_ms):
            found += [(key, row) for row in self._close(key, closing_ms)]
            self._add_due(key, self._keyed.values.get(key, ()))
        if self._step.emission.emit == "updates":
            return EMPTY
        found.sort(key=lambda each: each[1][1])
        return Chunk(
            [row for _, row in found],
            [key for key, _ in found],
            [row[1] - 1 for _, row in found],
            [0] * len(found),
        )

    def _close(self, key: bytes, closing_ms: int) -> list[Row]:
        """Remove the complete sessions of a key, and return their results."""
        parts: tuple[Part, ...] = self._keyed.values.get(key, ())
        kept: list[Part] = []
        found: list[Row] = []
        for session in self._sessions(parts):
            start, last = session[0][0], session[-1][1]
            end = self._end_of(start, last)
            if end > closing_ms:
                kept += session
                continue
            aggregate = session[0][2]
            for _, _, more in session[1:]:
                aggregate = self._step.accumulator.merge(aggregate, more)
            found.append((start, end, aggregate))
        if found:
            self._keyed.touch(key)
            if kept:
                self._keyed.values[key] = tuple(kept)
            else:
                del self._keyed.values[key]
        return found

    def _sessions(self, parts: Sequence[Part]) -> list[list[Part]]:
        """Put the parts together that belong to one session."""
        if not parts:
            return []
        found = [[parts[0]]]
        for before, part in pairwise(parts):
            is_near = part[0] - before[1] < self._gap_ms
            is_long = self._max_ms is not None and part[0] - found[-1][0][0] >= self._max_ms
            if is_near and not is_long:
                found[-1].append(part)
            else:
                found.append([part])
        return found

    def _find_due_again(self) -> None:
        """Find again which sessions close next, if a slice was undone."""
        if self._undo_number != self._keyed.undo_number:
            self._undo_number = self._keyed.undo_number
            self._find_due()

    def _find_due(self) -> None:
        self._due.reset(())
        for key, parts in self._keyed.values.items():
            self._add_due(key, parts)

    def _add_due(self, key: bytes, parts: Sequence[Part]) -> None:
        for session in self._sessions(parts):
            self._due.add(key, self._end_of(session[0][0], session[-1][1]))

    def _end_of(self, start: int, last: int) -> int:
        """Return the end of a session, from the times of its first and its last record."""
        end = last + self._gap_ms
        return end if self._max_ms is None else min(end, start + self._max_ms)


@dataclass(frozen=True, slots=True)
class Counted(TimedStep):
    """Aggregate each ``window.count`` records of a key, in order of arrival."""

    name: str
    window: CountWindow
    accumulator: Accumulator
    emission: Emission

    @property
    def hold_ms(self) -> int:
        return 0

    def open(self, room: Room) -> TimedOperator:
        return _Counted(self, room)


class _Counted:
    """The operator of `Counted`. Of each key it keeps one part, and how many records it has."""

    def __init__(self, step: Counted, room: Room) -> None:
        self._step = step
        self._room = room
        form = _stored(_tuple(int, _part_type(step.accumulator)), step.name, _identity(step))
        self._keyed = room.state(Keyed, step.name, form)

    def on_chunk(self, chunk: Chunk) -> Chunk:
        columns, interrupted = self._step.accumulator.columns(chunk, self._room)
        if interrupted is not None:
            chunk = chunk.slice(0, interrupted.row)
        found: list[tuple[int, Row]] = []
        for row, (key, time_ms) in enumerate(zip(chunk.keys, chunk.timestamps_ms, strict=True)):
            assert key is not None, "key_by gives every record a key"
            try:
                result = self._add(key, time_ms, [[each[row]] for each in columns])
            except BaseException as error:  # raised by a function of the user, or by its values
                raise RowFailed(row, _of_rows(chunk, found)) from error
            if result is not None:
                found.append((row, result))
        done = _of_rows(chunk, found)
        if interrupted is not None:
            raise type(interrupted)(interrupted.row, done) from interrupted.__cause__
        return done

    def _add(self, key: bytes, time_ms: int, columns: Sequence[Sequence[Value]]) -> Row | None:
        """Add a record; return the result of the window if it is complete, or of each change."""
        keyed = self._keyed
        count, (start, last, aggregate) = keyed.values.get(key, (0, (time_ms, time_ms, None)))
        found = {} if aggregate is None else {key: aggregate}
        self._step.accumulator.update(found, (key,), (time_ms,), columns, [])
        start, last = min(start, time_ms), max(last, time_ms)
        keyed.touch(key)
        if count + 1 == self._step.window.count:
            keyed.values.pop(key, None)
            return start, last + 1, found[key]
        keyed.values[key] = (count + 1, (start, last, found[key]))
        is_emitted = self._step.emission.emit == "updates"
        return (start, last + 1, found[key]) if is_emitted else None

    def due_ms(self) -> int | None:
        return None

    def on_time(self, watermark_ms: int) -> Chunk:
        if watermark_ms < _END_MS:
            return EMPTY
        keys = list(self._keyed.values)
        rows = []
        for key in keys:
            self._keyed.touch(key)
            _, (start, last, aggregate) = self._keyed.values.pop(key)
            rows.append((start, last + 1, aggregate))
        if self._step.emission.emit == "updates":
            return EMPTY
        # An older time would be late for a stage after this one.
        least_ms = self._room.watermark_ms()
        return Chunk(rows, keys, [max(row[1] - 1, least_ms) for row in rows], [0] * len(rows))


# Windows of records that are not complete are emitted only when no record can come any more.
_END_MS = 2**62


def _identity(step: Sessions | Counted) -> str:
    return f"{step.window}: {step.accumulator.identity}"


def _tuple(*items: Kind) -> Kind:
    """Return a tuple type of types that are known only at run time."""
    return tuple[items]  # type: ignore[valid-type]


def _part_type(accumulator: Accumulator) -> Kind:
    return _tuple(int, int, accumulator.stored_type)


def _stored(kind: Kind, name: str, window: str) -> StateFormat:
    # An aggregate is never changed in place here: it is copied first.
    return replace(windowed_format(format_of(kind, name), window), is_immutable=True)


def _of_rows(chunk: Chunk, found: Sequence[tuple[int, Row]]) -> Chunk:
    """Return results that belong to rows of a chunk."""
    rows = [row for row, _ in found]
    return Chunk(
        [result for _, result in found],
        [chunk.keys[row] for row in rows],
        [result[1] - 1 for _, result in found],
        [chunk.offsets[row] for row in rows],
        chunk.topic,
        chunk.partition,
    )
