"""Windows of equal length: tumbling and sliding ones, which consist of panes.

A pane has the aggregates of its interval by key. A tumbling window is one pane; sliding windows
that overlap share panes, so a record is added once however many windows count it. A record that
is late for some of these windows goes to a pane of its own, which only the later windows count.

| event | what happens |
|---|---|
| a record that no open window counts | it is late: handed over and counted |
| a record | it is added to its pane |
| the watermark reaches the end of a window plus ``late`` | its result is emitted |
| that was the last window of a pane | the pane is deleted |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter

from streamkit.dataflow.accumulating import Accumulator, Aggregate
from streamkit.dataflow.emission import EMPTY, Emission, NoTime, Row, picked
from streamkit.dataflow.steps import Room, RowFailed, TimedOperator, TimedStep
from streamkit.record import Chunk, Value, joined
from streamkit.state.panes import Pane, Panes
from streamkit.state.types import windowed_format
from streamkit.windows import (
    Grid,
    LocalGrid,
    Sliding,
    Tumbling,
)


@dataclass(frozen=True, slots=True)
class Windowed(TimedStep):
    """Aggregate the records of each key in windows of equal length.

    The result has a row for each window of each key: see `Row`.
    """

    name: str
    window: Tumbling | Sliding
    late_ms: int
    accumulator: Accumulator
    emission: Emission

    @property
    def hold_ms(self) -> int:
        return self.late_ms

    def open(self, room: Room) -> TimedOperator:
        return _Windows(self, room)


class _Windows:
    """The operator of `Windowed`."""

    def __init__(self, step: Windowed, room: Room) -> None:
        window = step.window
        self._step = step
        self._room = room
        self._late_ms = step.late_ms
        self._accumulator = step.accumulator
        self._grid = window.grid
        self._every_ms = window.every_ms
        self._size_ms = window.size_ms
        self._offset_ms = window.offset_ms
        self._has_panes = isinstance(window, Sliding)
        # How far the end of the last window of a pane is from the end of the pane.
        self._reach_ms = 0
        if isinstance(self._grid, Grid):
            self._reach_ms = self._size_ms - self._grid.size_ms
        form = windowed_format(step.accumulator.form, f"{window}: {step.accumulator.identity}")
        self._panes = room.state(Panes, step.name, form)
        # The last turn of early results, and how many slices were undone by then.
        self._emitted_ms: int | None = None
        self._undo_number = 0

    # --- records ---------------------------------------------------------------------

    def on_chunk(self, chunk: Chunk) -> Chunk:
        if not len(chunk):
            return EMPTY
        columns, interrupted = self._accumulator.columns(chunk, self._room)
        if interrupted is not None:
            chunk = chunk.slice(0, interrupted.row)
        if self._step.emission.emit == "updates":
            result = self._added_one_by_one(chunk, columns)
        else:
            result = self._added(chunk, columns)
        if interrupted is not None:
            raise type(interrupted)(interrupted.row, result) from interrupted.__cause__
        return result

    def _added_one_by_one(self, chunk: Chunk, columns: list[list[Value]]) -> Chunk:
        """Add records, with a result after each."""
        results = []
        for row in range(len(chunk)):
            try:
                one = chunk.slice(row, row + 1)
                results.append(self._added(one, [[each[row]] for each in columns]))
            except RowFailed as failed:
                raise RowFailed(row, joined(results)) from failed.__cause__
        return joined(results)

    def _added(self, chunk: Chunk, columns: list[list[Value]]) -> Chunk:
        """Add records to their panes; return their new results if each change is emitted.

        Raises:
            RowFailed: The aggregate of a row failed, which leaves nothing.
        """
        if not len(chunk):
            return EMPTY
        times_ms = chunk.timestamps_ms
        if min(times_ms) < 0:
            row = next(row for row, each in enumerate(times_ms) if each < 0)
            result = self._added(chunk.slice(0, row), [each[:row] for each in columns])
            raise RowFailed(row, result) from NoTime()
        ends = self._grid.ends(times_ms)
        firsts = self._first_windows(ends) if self._has_panes else ends
        kept, opened = self._on_time(chunk, ends, firsts)
        rows, inputs = chunk, columns
        if kept is not None:
            rows = picked(chunk, kept)
            inputs = [[each[row] for row in kept] for each in columns]
            ends = [ends[row] for row in kept]
            opened = [opened[row] for row in kept]
        try:
            self._update(list(_runs(rows, ends, opened, inputs)))
        except _Failed as failed:
            row = failed.row if kept is None else kept[failed.row]
            result = self._added(chunk.slice(0, row), [each[:row] for each in columns])
            raise RowFailed(row, result) from failed.__cause__
        if kept is not None and len(kept) < len(chunk):
            on_time = set(kept)
            late = [row for row in range(len(chunk)) if row not in on_time]
            self._room.late(picked(chunk, late))
        if self._step.emission.emit == "updates":
            return self._updated(rows, ends, opened)
        return EMPTY

    def _on_time(
        self, chunk: Chunk, ends: list[int], firsts: list[int]
    ) -> tuple[list[int] | None, list[int]]:
        """Return the rows that a window counts, and the end of the first such window of each row.

        None means all rows.
        """
        late_ms = self._late_ms
        closes_ms = min(firsts) + late_ms
        if closes_ms > self._room.highest_watermark_ms():
            return None, firsts
        # A record in order is not late for the window that it is in.
        if (
            not self._has_panes
            and closes_ms > self._room.watermark_ms()
            and self._room.is_in_order()
        ):
            return None, firsts
        kept = []
        opened = list(firsts)
        marks = self._room.watermarks_ms(chunk)
        for row, (end, first, mark) in enumerate(zip(ends, firsts, marks, strict=True)):
            opened[row] = first = self._next_window((end, first), mark - late_ms)
            if first <= end + self._reach_ms:
                kept.append(row)
        return kept, opened

    def _first_windows(self, ends: list[int]) -> list[int]:
        """Return the end of the first window of each pane."""
        every_ms, first_ms = self._every_ms, self._offset_ms + self._size_ms
        return [end + (first_ms - end) % every_ms for end in ends]

    def _update(self, runs: list[_Run]) -> None:
        """Add rows to their panes, all or none.

        Raises:
            _Failed: The first row that failed.
        """
        update, panes = self._accumulator.update, self._panes
        failed: _Failed | None = None
        done = []
        for run in runs:
            old: list[Value] = []
            values = panes.open(run.pane)
            done.append((run.pane, run.keys, old))
            try:
                update(values, run.keys, run.times_ms, run.columns, old)
            except BaseException as error:  # raised by a function of the user, or by its values
                row = len(old) if run.rows is None else run.rows[len(old)]
                if failed is None or row < failed.row:
                    failed = _Failed(row)
                    failed.__cause__ = error
        if failed is None:
            for pane, keys, old in done:
                panes.changed(pane, keys, old)
            return
        for pane, keys, old in reversed(done):
            panes.restore(pane, keys[: len(old)], old)
        raise failed

    def _updated(self, chunk: Chunk, ends: list[int], firsts: list[int]) -> Chunk:
        """Return the present result of each window that a row has changed, once for each row."""
        rows: list[tuple[int, Row]] = []
        for row, key in enumerate(chunk.keys):
            assert key is not None, "key_by gives every record a key"
            last = ends[row] + self._reach_ms
            for end in range(firsts[row], last + 1, self._every_ms):
                aggregate = self._aggregate_of(end, key)
                rows.append((row, (self._start(end), end, aggregate)))
        taken = [row for row, _ in rows]
        return Chunk(
            [result for _, result in rows],
            [chunk.keys[row] for row in taken],
            [end - 1 for _, (_, end, _) in rows],
            [chunk.offsets[row] for row in taken],
            chunk.topic,
            chunk.partition,
        )

    # --- time ------------------------------------------------------------------------

    def due_ms(self) -> int | None:
        pane = self._panes.first()
        if pane is None:
            return None
        first = pane[1]
        if self._has_panes:
            closed = self._room.watermark_ms() - self._late_ms
            first = min(self._next_window(each, closed) for each in self._panes.panes)
        due_ms = first + self._late_ms
        if self._step.emission.every_ms is not None and self._emitted_ms is not None:
            due_ms = min(due_ms, (self._emitted_ms + 1) * self._step.emission.every_ms)
        return due_ms

    def _next_window(self, pane: Pane, closed_ms: int) -> int:
        """Return the end of the first window of a pane that is not closed."""
        first = pane[1]
        if first > closed_ms:
            return first
        return first + ((closed_ms - first) // self._every_ms + 1) * self._every_ms

    def on_time(self, watermark_ms: int) -> Chunk:
        closing_ms = watermark_ms - self._late_ms
        found: list[tuple[int, dict[bytes, Aggregate]]] = []
        if self._has_panes:
            found = self._closed_windows(closing_ms)
        else:
            while (pane := self._panes.first()) is not None and pane[0] <= closing_ms:
                found.append((pane[0], self._panes.close(pane)))
        if self._step.emission.emit == "updates":
            return EMPTY  # the last change of each was the final one
        if self._step.emission.every_ms is not None:
            return self._results(self._early(watermark_ms) + found)
        return self._results(found)

    def _closed_windows(self, closing_ms: int) -> list[tuple[int, dict[bytes, Aggregate]]]:
        """Return the windows that close, and delete the panes that no later window counts."""
        closed_before_ms = self._room.watermark_ms() - self._late_ms
        panes = self._panes.panes
        ends: set[int] = set()
        for end, first in panes:
            last = min(end + self._reach_ms, closing_ms)
            ends.update(range(first, last + 1, self._every_ms))
        found = [(end, self._window(end)) for end in sorted(ends) if end > closed_before_ms]
        for pane in [each for each in panes if each[0] + self._reach_ms <= closing_ms]:
            self._panes.close(pane)
        return found

    def _window(self, end: int) -> dict[bytes, Aggregate]:
        """Put the panes of a window together."""
        merge = self._accumulator.merge
        merged: dict[bytes, Aggregate] = {}
        for pane in sorted(self._panes_of(end)):
            for key, aggregate in self._panes.panes[pane].items():
                before = merged.get(key)
                merged[key] = aggregate if before is None else merge(before, aggregate)
        return merged

    def _panes_of(self, end: int) -> Iterator[Pane]:
        start = end - self._size_ms
        return (pane for pane in self._panes.panes if start < pane[0] <= end and pane[1] <= end)

    def _aggregate_of(self, end: int, key: bytes) -> Aggregate:
        if not self._has_panes:
            only: Aggregate = self._panes.panes[end, end][key]
            return only
        merge = self._accumulator.merge
        merged: Aggregate | None = None
        for pane in sorted(self._panes_of(end)):
            found = self._panes.panes[pane].get(key)
            if found is not None:
                merged = found if merged is None else merge(merged, found)
        assert merged is not None, "the record that has changed it is there"
        return merged

    def _early(self, watermark_ms: int) -> list[tuple[int, dict[bytes, Aggregate]]]:
        """Return the open windows, if it is time for their early results."""
        every_ms = self._step.emission.every_ms
        assert every_ms is not None, "there are early results"
        turn = watermark_ms // every_ms
        if self._undo_number != self._panes.undo_number:  # what was emitted may be undone
            self._undo_number, self._emitted_ms = self._panes.undo_number, None
        if turn == self._emitted_ms:
            return []
        self._emitted_ms = turn
        if not self._has_panes:
            return [(pane[0], dict(values)) for pane, values in self._panes.panes.items()]
        ends = {
            end
            for pane in self._panes.panes
            for end in range(pane[1], pane[0] + self._reach_ms + 1, self._every_ms)
        }
        closed_ms = watermark_ms - self._late_ms
        return [(end, self._window(end)) for end in sorted(ends) if end > closed_ms]

    def _results(self, windows: Sequence[tuple[int, dict[bytes, Aggregate]]]) -> Chunk:
        values: list[Row] = []
        keys: list[bytes] = []
        times_ms: list[int] = []
        for end, aggregates in windows:
            count = len(aggregates)
            values += zip(repeat(self._start(end)), repeat(end), aggregates.values())
            keys += aggregates
            times_ms += repeat(end - 1, count)
        return Chunk(values, keys, times_ms, [0] * len(values))

    def _start(self, end: int) -> int:
        if isinstance(self._grid, LocalGrid):
            return self._grid.start(end)
        return end - self._size_ms


@dataclass(frozen=True, slots=True)
class _Run:
    """Rows of one pane. ``rows`` are their numbers in the chunk; None means all of them."""

    pane: Pane
    keys: Sequence[Value]
    times_ms: Sequence[int]
    columns: Sequence[Sequence[Value]]
    rows: list[int] | None


def _runs(
    chunk: Chunk,
    ends: list[int],
    firsts: list[int],
    columns: list[list[Value]],
) -> Iterator[_Run]:
    """Divide rows by pane."""
    if not len(chunk):
        return
    keys, times_ms = chunk.keys, chunk.timestamps_ms
    low, high = min(ends), max(ends)
    if low == high and (firsts is ends or min(firsts) == max(firsts)):
        yield _Run((low, firsts[0]), keys, times_ms, columns, None)
        return
    panes = list(zip(ends, firsts, strict=True))
    order = sorted(range(len(panes)), key=panes.__getitem__)
    start = 0
    while start < len(order):
        pane = panes[order[start]]
        stop = start
        while stop < len(order) and panes[order[stop]] == pane:
            stop += 1
        rows = order[start:stop]
        pick = _picker(rows)
        yield _Run(pane, pick(keys), pick(times_ms), [pick(each) for each in columns], rows)
        start = stop


class _Failed(Exception):
    """The aggregate of a row failed; the cause is the error."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


def _picker(rows: list[int]) -> Value:
    """Return a function that picks some rows of a column."""
    if len(rows) == 1:  # `itemgetter` of one row does not return a tuple
        return lambda column: (column[rows[0]],)
    get: Value = itemgetter
    return get(*rows)
