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

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from streamkit.dataflow.emission import EMPTY, NoTime, picked
from streamkit.dataflow.operators import one_per_row
from streamkit.dataflow.steps import Room, RowFailed, Stateless, TimedStep, TwoSided
from streamkit.record import Chunk, Value
from streamkit.state.change_log import StateFormat
from streamkit.state.types import windowed_format
from streamkit.state.waiting import Waiting, WaitingRecords
from streamkit.windows import Tumbling

How = Literal["inner", "left", "outer"]
_CLOCK_CHANGE_MS: Final = 2 * 3_600_000
# A pair: both values, its time, its key, and the offset that it belongs to.
_Pair = tuple[Value, Value, int, bytes, int]
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
        found: list[_Pair] = []
        late: list[int] = []
        columns = zip(chunk.keys, chunk.timestamps_ms, chunk.values, strict=True)
        for row, (key, time_ms, value) in enumerate(columns):
            if time_ms < 0:
                self._room.late(picked(chunk, late))
                raise RowFailed(row, _pairs(chunk, found)) from NoTime()
            if marks is not None and time_ms + late_ms < marks[row]:
                late.append(row)
                continue
            assert key is not None, "key_by gives every record a key"
            each = own.add(key, time_ms, value, chunk.offsets[row])
            for match in other.between(key, time_ms - within_ms, time_ms + within_ms):
                own.match(each)
                other.match(match)
                pair = (value, match.value) if side == 0 else (match.value, value)
                # Both may be of this slice: the pair comes with the later one.
                offset = max(chunk.offsets[row], other.offset_of(match))
                found.append((*pair, max(time_ms, match.time_ms), key, offset))
        self._room.late(picked(chunk, late))
        return _pairs(chunk, found)

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


@dataclass(frozen=True, slots=True)
class WindowJoin(TimedStep):
    """Pair all records of one key that are in the same window.

    ``sides`` has the formats of values with their event times.
    """

    name: str
    window: Tumbling
    late_ms: int
    sides: JoinSides

    @property
    def hold_ms(self) -> int:
        # A local day may be an hour longer, where the clocks change.
        longer_ms = 0 if self.window.time_zone is None else _CLOCK_CHANGE_MS
        return self.late_ms + self.window.size_ms + longer_ms

    def open(self, room: Room) -> TwoSided:
        return _WindowJoin(self, room)


# A value with its event time.
_Timed = tuple[int, Value]


class _WindowJoin:
    """The operator of `WindowJoin`. Its results are pairs of values.

    Each record waits until the end of its window.
    """

    def __init__(self, step: WindowJoin, room: Room) -> None:
        self._step = step
        self._room = room
        self._grid = step.window.grid
        names = (f"{step.name}/left", f"{step.name}/right")
        self._waiting = [
            room.state(WaitingRecords, name, windowed_format(form, str(step.window)))
            for name, form in zip(names, step.sides.forms, strict=True)
        ]

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
            self._waiting[side].add(key, end, (time_ms, value))
        self._room.late(picked(chunk, late))
        return EMPTY

    def due_ms(self) -> int | None:
        firsts = [each.first_ms() for each in self._waiting]
        known = [each for each in firsts if each is not None]
        return min(known) + self._step.late_ms if known else None

    def on_time(self, watermark_ms: int) -> Chunk:
        windows: dict[tuple[int, bytes], tuple[list[_Timed], list[_Timed]]] = {}
        for side, waiting in enumerate(self._waiting):
            for each in waiting.remove_before(watermark_ms - self._step.late_ms + 1):
                window = windows.setdefault((each.time_ms, each.key), ([], []))
                window[side].append(each.value)
        found: list[tuple[bytes, Value, Value, int]] = []
        for (_, key), sides in windows.items():
            found += [(key, *each) for each in self._pairs(sides)]
        found.sort(key=lambda each: each[3])
        return Chunk(
            [(left, right) for _, left, right, _ in found],
            [key for key, _, _, _ in found],
            [time_ms for _, _, _, time_ms in found],
            [0] * len(found),
        )

    def _pairs(
        self, sides: tuple[list[_Timed], list[_Timed]]
    ) -> Iterable[tuple[Value, Value, int]]:
        lefts, rights = (sorted(each, key=lambda row: row[0]) for each in sides)
        if not rights and self._step.sides.emits_unmatched(0):
            return [(value, ABSENT, time_ms) for time_ms, value in lefts]
        if not lefts and self._step.sides.emits_unmatched(1):
            return [(ABSENT, value, time_ms) for time_ms, value in rights]
        return (
            (left, right, max(left_ms, right_ms))
            for left_ms, left in lefts
            for right_ms, right in rights
        )


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


def _pairs(chunk: Chunk, found: list[_Pair]) -> Chunk:
    """Return pairs that rows of a chunk have completed."""
    found.sort(key=lambda each: each[4])
    return Chunk(
        [(left, right) for left, right, _, _, _ in found],
        [key for _, _, _, key, _ in found],
        [time_ms for _, _, time_ms, _, _ in found],
        [offset for _, _, _, _, offset in found],
        chunk.topic,
        chunk.partition,
    )
