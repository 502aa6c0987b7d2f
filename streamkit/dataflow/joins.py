"""Joins of two keyed streams: of records close in event time, and of records in one window.

| event | interval join | window join |
|---|---|---|
| a record is behind the watermark of its partition by more than ``late`` | it is late | - |
| the window of a record has closed | - | it is late |
| a record | a pair with each waiting one in reach; then it waits | it waits |
| the watermark has passed all that could match a record | it leaves, unmatched or not | - |
| the watermark reaches the end of a window plus ``late`` | - | all pairs of the window |

A late record is handed over and counted, as by a window. So which pairs are found does not depend
on which stream is read first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from streamkit.dataflow.emission import EMPTY, NoTime, picked
from streamkit.dataflow.operators import one_per_row
from streamkit.dataflow.steps import Room, RowFailed, Stateless, TimedStep, TwoSided
from streamkit.record import Chunk, Value
from streamkit.state.change_log import StateFormat
from streamkit.state.panes import Panes
from streamkit.state.types import windowed_format
from streamkit.state.waiting import Waiting, WaitingRecords
from streamkit.windows import Tumbling

How = Literal["inner", "left", "outer"]
# The value of a side that has none.
ABSENT: Final = None


@dataclass(frozen=True, slots=True)
class JoinSides:
    """How a join keeps the values of its two sides, and which unmatched ones it emits."""

    forms: tuple[StateFormat, StateFormat]
    how: How

    def emits_unmatched(self, side: int) -> bool:
        """Return whether a record of a side is emitted without a match."""
        return self.how == "outer" or (self.how == "left" and side == 0)


@dataclass(frozen=True, slots=True)
class IntervalJoin(TimedStep):
    """Pair the records of one key whose event times are at most ``within_ms`` apart."""

    name: str
    within_ms: int
    late_ms: int
    sides: JoinSides

    @property
    def hold_ms(self) -> int:
        waits_ms = 0 if self.sides.how == "inner" else self.within_ms
        return self.late_ms + waits_ms

    def open(self, room: Room) -> TwoSided:
        return _IntervalJoin(self, room)


class _IntervalJoin:
    """The operator of `IntervalJoin`. Its results are pairs of values."""

    def __init__(self, step: IntervalJoin, room: Room) -> None:
        self._step = step
        self._room = room
        names = (f"{step.name}/left", f"{step.name}/right")
        self._waiting = [
            room.state(WaitingRecords, name, form)
            for name, form in zip(names, step.sides.forms, strict=True)
        ]

    def on_chunk(self, chunk: Chunk) -> Chunk:
        return self.on_side(0, chunk)

    def on_side(self, side: int, chunk: Chunk) -> Chunk:
        if not len(chunk):
            return EMPTY
        step, own, other = self._step, self._waiting[side], self._waiting[1 - side]
        within_ms, late_ms = step.within_ms, step.late_ms
        marks = None
        if min(chunk.timestamps_ms) + late_ms < self._room.highest_watermark_ms():
            marks = self._room.watermarks_ms(chunk)
        rows: list[int] = []
        found: list[tuple[Value, Value, int]] = []
        late: list[int] = []
        columns = zip(chunk.keys, chunk.timestamps_ms, chunk.values, strict=True)
        for row, (key, time_ms, value) in enumerate(columns):
            if time_ms < 0:
                self._room.late(picked(chunk, late))
                raise RowFailed(row, _pairs(chunk, rows, found)) from NoTime()
            if marks is not None and time_ms + late_ms < marks[row]:
                late.append(row)
                continue
            assert key is not None, "key_by gives every record a key"
            each = own.add(key, time_ms, value)
            for match in other.of_key(key):
                if -within_ms <= match.time_ms - time_ms <= within_ms:
                    own.match(each)
                    other.match(match)
                    pair = (value, match.value) if side == 0 else (match.value, value)
                    rows.append(row)
                    found.append((*pair, max(time_ms, match.time_ms)))
        self._room.late(picked(chunk, late))
        return _pairs(chunk, rows, found)

    def due_ms(self) -> int | None:
        firsts = [each.first_ms() for each in self._waiting]
        known = [each for each in firsts if each is not None]
        return min(known) + self._step.within_ms + self._step.late_ms + 1 if known else None

    def on_time(self, watermark_ms: int) -> Chunk:
        before_ms = watermark_ms - self._step.within_ms - self._step.late_ms
        unmatched: list[tuple[int, Waiting]] = []
        for side, waiting in enumerate(self._waiting):
            removed = waiting.remove_before(before_ms)
            if self._step.sides.emits_unmatched(side):
                unmatched += [(side, each) for each in removed if not each.is_matched]
        unmatched.sort(key=lambda each: each[1].time_ms)
        return Chunk(
            [
                (each.value, ABSENT) if side == 0 else (ABSENT, each.value)
                for side, each in unmatched
            ],
            [each.key for _, each in unmatched],
            [each.time_ms for _, each in unmatched],
            [0] * len(unmatched),
        )


# The records of a key in one window: those of each side, with their event times.
_Sides = tuple[tuple[tuple[int, Value], ...], tuple[tuple[int, Value], ...]]


@dataclass(frozen=True, slots=True)
class WindowJoin(TimedStep):
    """Pair all records of one key that are in the same window.

    ``form`` is how the records of both sides in one window are stored.
    """

    name: str
    window: Tumbling
    late_ms: int
    sides: JoinSides
    form: StateFormat

    @property
    def hold_ms(self) -> int:
        return self.late_ms + self.window.size_ms

    def open(self, room: Room) -> TwoSided:
        return _WindowJoin(self, room)


class _WindowJoin:
    """The operator of `WindowJoin`. Its results are pairs of values."""

    def __init__(self, step: WindowJoin, room: Room) -> None:
        self._step = step
        self._room = room
        self._grid = step.window.grid
        form = windowed_format(step.form, str(step.window))
        self._panes = room.state(Panes, step.name, form)

    def on_chunk(self, chunk: Chunk) -> Chunk:
        return self.on_side(0, chunk)

    def on_side(self, side: int, chunk: Chunk) -> Chunk:
        if not len(chunk):
            return EMPTY
        times_ms = chunk.timestamps_ms
        if min(times_ms) < 0:
            row = next(row for row, each in enumerate(times_ms) if each < 0)
            raise RowFailed(row, self.on_side(side, chunk.slice(0, row))) from NoTime()
        late: list[int] = []
        marks = self._room.watermarks_ms(chunk)
        ends = self._grid.ends(times_ms)
        for row, (key, time_ms, value, end, mark) in enumerate(
            zip(chunk.keys, times_ms, chunk.values, ends, marks, strict=True)
        ):
            if end + self._step.late_ms <= mark:
                late.append(row)
                continue
            assert key is not None, "key_by gives every record a key"
            pane = (end, end)
            values = self._panes.open(pane)
            before: _Sides = values.get(key, ((), ()))
            self._panes.changed(pane, (key,), (values.get(key),))
            added = (*before[side], (time_ms, value))
            values[key] = (added, before[1]) if side == 0 else (before[0], added)
        self._room.late(picked(chunk, late))
        return EMPTY

    def due_ms(self) -> int | None:
        pane = self._panes.first()
        return None if pane is None else pane[0] + self._step.late_ms

    def on_time(self, watermark_ms: int) -> Chunk:
        closing_ms = watermark_ms - self._step.late_ms
        found: list[tuple[bytes, Value, Value, int]] = []
        while (pane := self._panes.first()) is not None and pane[0] <= closing_ms:
            for key, sides in self._panes.close(pane).items():
                found += [(key, *each) for each in self._pairs(sides)]
        return Chunk(
            [(left, right) for _, left, right, _ in found],
            [key for key, _, _, _ in found],
            [time_ms for _, _, _, time_ms in found],
            [0] * len(found),
        )

    def _pairs(self, sides: _Sides) -> list[tuple[Value, Value, int]]:
        lefts, rights = (sorted(each, key=lambda row: row[0]) for each in sides)
        if not rights and self._step.sides.emits_unmatched(0):
            return [(value, ABSENT, time_ms) for time_ms, value in lefts]
        if not lefts and self._step.sides.emits_unmatched(1):
            return [(ABSENT, value, time_ms) for time_ms, value in rights]
        return [
            (left, right, max(left_ms, right_ms))
            for left_ms, left in lefts
            for right_ms, right in rights
        ]


@dataclass(frozen=True, slots=True)
class Combine(Stateless):
    """Replace each pair with what ``function`` returns for its two values."""

    function: Callable[[Value, Value], Value]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        function = self.function
        values = one_per_row(
            lambda pairs: (function(left, right) for left, right in pairs), chunk, room
        )
        return chunk.with_values(values)


def _pairs(chunk: Chunk, rows: Sequence[int], found: Sequence[tuple[Value, Value, int]]) -> Chunk:
    """Return pairs that rows of a chunk have completed."""
    return Chunk(
        [(left, right) for left, right, _ in found],
        [chunk.keys[row] for row in rows],
        [time_ms for _, _, time_ms in found],
        [chunk.offsets[row] for row in rows],
        chunk.topic,
        chunk.partition,
    )
