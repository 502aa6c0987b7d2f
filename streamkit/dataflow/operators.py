"""What stages do to chunks. Each works on whole columns, not on one record after another.

The graph holds *steps*, which are values. A task opens each step and gets an *operator*, which
belongs to that task alone: two runs of one graph share nothing but the user's own functions.
"""

from __future__ import annotations

import operator
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any, Final, Protocol

from streamkit.dataflow.context import Context
from streamkit.record import NO_TIMESTAMP_MS, Chunk, Record
from streamkit.serde.values import encode_key

# After how many rows an operator asks whether its time is over: soon at first, for the first
# calls may be slow, then seldom enough that asking costs nothing.
_ROWS_PER_LOOK_MAX: Final = 512

# What calls the user's function for each value of a block, and gives one result for each.
Call = Callable[[Sequence[Any]], Iterable[Any]]


class Interrupted(Exception):
    """An operator ended before the last row of its chunk.

    ``before`` is what the rows before ``row`` led to, so that nobody calls them again.
    """

    def __init__(self, row: int, before: Chunk) -> None:
        super().__init__(f"row {row}")
        self.row = row
        self.before = before


class RowFailed(Interrupted):
    """A function raised on ``row``. What it raised is the cause."""


class SliceTimeUp(Interrupted):
    """The rows from ``row`` on belong to a later slice: the calls so far took long enough."""


class Room(Protocol):
    """What an operator gets of the world."""

    def is_over(self) -> bool:
        """Tell whether the operator has used up the time that one slice may take."""

    def dropped(self, offsets: Sequence[int]) -> None:
        """Count rows that led to nothing, by their offsets, where the chunks do not show it."""


class Unlimited:
    """A room for a single operator: time is never over, and nothing is counted."""

    def is_over(self) -> bool:
        return False

    def dropped(self, offsets: Sequence[int]) -> None:
        pass


class Operator(Protocol):
    """One running step. Does no I/O and reads no clock; gets a chunk and gives one, in order.

    It may be called again with rows that it has seen: a slice that fails or is cut at a later
    row gives back the rows from there on.
    """

    def on_chunk(self, chunk: Chunk) -> Chunk:
        """Take a chunk and give what it leads to.

        How records are cut into chunks must not show in the output.

        Raises:
            RowFailed: Names the row.
            TimeIsOver: Names the first row that was not worked on.
        """


class Step(Protocol):
    """One step of a node: a value in the graph, opened by each task for itself."""

    @property
    def expands(self) -> bool:
        """Whether one row may lead to several."""

    def open(self, room: Room) -> Operator:
        """Make the operator of one task."""


class Stateless:
    """A step that keeps nothing between chunks: it only needs ``apply``."""

    __slots__ = ()

    @property
    def expands(self) -> bool:
        return False

    def open(self, room: Room) -> Operator:
        return _Applied(self, room)

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        """Take a chunk and give what it leads to; see `Operator.on_chunk`."""
        raise AssertionError("each step has its own")


@dataclass(frozen=True, slots=True)
class _Applied:
    """The operator of a step that keeps nothing."""

    step: Stateless
    room: Room

    def on_chunk(self, chunk: Chunk) -> Chunk:
        return self.step.apply(chunk, self.room)


@dataclass(frozen=True, slots=True)
class Map(Stateless):
    """Replace each value by what ``function`` makes of it; ``None`` is a value."""

    function: Callable[[Any], Any]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        return chunk.with_values(one_per_row(partial(map, self.function), chunk, room))


@dataclass(frozen=True, slots=True)
class MapOrDrop(Stateless):
    """Replace each value by what ``function`` makes of it; drop those it makes None of."""

    function: Callable[[Any], Any]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        values = one_per_row(partial(map, self.function), chunk, room, finish=without_none)
        return without_none(chunk.with_values(values))


@dataclass(frozen=True, slots=True)
class ContextMapOrDrop(Stateless):
    """As `MapOrDrop`, for a function that wants to know where a record comes from."""

    function: Callable[[Any, Context[Any]], Any]
    key_of: Callable[[bytes | None], Any]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        known = contexts(chunk, self.key_of)
        values = one_per_row(
            lambda block: map(self.function, block, known), chunk, room, finish=without_none
        )
        return without_none(chunk.with_values(values))


@dataclass(frozen=True, slots=True)
class Filter(Stateless):
    """Keep the records whose value satisfies ``predicate``."""

    predicate: Callable[[Any], object]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        mask: list[object] = []
        _fill(mask, partial(map, self.predicate), chunk, room, lambda done: _kept(done, mask))
        return _kept(chunk, mask)


@dataclass(frozen=True, slots=True)
class FlatMap(Stateless):
    """Replace each record by one for each value that ``function`` gives."""

    function: Callable[[Any], Iterable[Any]]

    @property
    def expands(self) -> bool:
        return True

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        return _expanded(lambda block: map(list, map(self.function, block)), chunk, room)


@dataclass(frozen=True, slots=True)
class ContextFlatMap(Stateless):
    """As `FlatMap`, for a function that wants to know where a record comes from."""

    function: Callable[[Any, Context[Any]], Iterable[Any]]
    key_of: Callable[[bytes | None], Any]

    @property
    def expands(self) -> bool:
        return True

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        known = contexts(chunk, self.key_of)
        return _expanded(lambda block: map(list, map(self.function, block, known)), chunk, room)


@dataclass(frozen=True, slots=True)
class AsRecords(Stateless):
    """Replace each value by the whole record around it."""

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        return chunk.with_values(chunk.records())


@dataclass(frozen=True, slots=True)
class SetKeys(Stateless):
    """Give each record the key that ``function`` finds in its value, as bytes."""

    function: Callable[[Any], bytes | None]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        keys: list[bytes | None] = []
        call = partial(map, self.function)
        _fill(keys, call, chunk, room, lambda done: _with_keys(done, keys))
        return _with_keys(chunk, keys)


@dataclass(frozen=True, slots=True)
class Unwrap(Stateless):
    """Let a `Record` among the values decide on key and timestamp; its value takes its place.

    What it leaves out keeps the record's own. ``keeps_keys``: the key was chosen by others.
    """

    keeps_keys: bool = False

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        if not any(map(isinstance, chunk.values, repeat(Record))):
            return chunk
        rows: list[tuple[Any, bytes | None, int]] = []
        unwrapped = partial(_unwrapped, keeps_key=self.keeps_keys)
        keys, stamps_ms = iter(chunk.keys), iter(chunk.timestamps_ms)
        _fill(
            rows,
            lambda block: map(unwrapped, block, keys, stamps_ms),
            chunk,
            room,
            lambda done: _of_rows(done, rows),
        )
        return _of_rows(chunk, rows)


def _kept(chunk: Chunk, answers: Sequence[object]) -> Chunk:
    """Keep the rows whose answer is true.

    Raises:
        RowFailed: The answer has no truth, as an array of several numbers has none.
    """
    try:
        return chunk.select(answers)
    except BaseException:  # of `bool`: which row it is costs only those who need to know
        mask: list[object] = []
        asked = chunk.with_values(answers)
        _fill(mask, partial(map, bool), asked, Unlimited(), lambda _: _first(chunk, mask))
        raise


def _first(chunk: Chunk, mask: Sequence[object]) -> Chunk:
    return chunk.slice(0, len(mask)).select(mask)


def _unwrapped(
    value: Any, key: bytes | None, timestamp_ms: int, *, keeps_key: bool
) -> tuple[Any, bytes | None, int]:
    if not isinstance(value, Record):
        return value, key, timestamp_ms
    own_ms = value.timestamp_ms
    if type(own_ms) is not int or not NO_TIMESTAMP_MS <= own_ms < 2**63:
        raise ValueError(f"timestamp_ms={own_ms!r} of a Record is not a whole number of ms")
    return (
        value.value,
        key if value.key is None or keeps_key else encode_key(value.key),
        timestamp_ms if own_ms == NO_TIMESTAMP_MS else own_ms,
    )


def _of_rows(chunk: Chunk, rows: Sequence[tuple[Any, bytes | None, int]]) -> Chunk:
    values, keys, stamps = map(list, zip(*rows, strict=True)) if rows else ([], [], [])
    return Chunk(values, keys, stamps, chunk.offsets, chunk.topic, chunk.partition)


def contexts(chunk: Chunk, key_of: Callable[[bytes | None], Any]) -> Iterator[Context[Any]]:
    """Make the context of each row, at the pace they are taken."""
    return map(
        Context,
        repeat(chunk.topic),
        repeat(chunk.partition),
        chunk.offsets,
        map(key_of, chunk.keys),
        chunk.timestamps_ms,
    )


def without_none(chunk: Chunk) -> Chunk:
    """Drop the rows whose value is None."""
    return chunk.select(list(map(operator.is_not, chunk.values, repeat(None))))


def one_per_row(
    call: Call,
    chunk: Chunk,
    room: Room,
    finish: Callable[[Chunk], Chunk] = lambda done: done,
) -> list[Any]:
    """List the results of a function over the rows of a chunk.

    Raises:
        RowFailed: The function raised.
        TimeIsOver: It took long.
    """
    listed: list[Any] = []
    _fill(listed, call, chunk, room, lambda done: finish(done.with_values(listed)))
    return listed


def _expanded(call: Call, chunk: Chunk, room: Room) -> Chunk:
    groups: list[Sequence[Any]] = []

    def expand(done: Chunk) -> Chunk:
        if not all(groups):
            empty = [
                offset for offset, group in zip(done.offsets, groups, strict=True) if not group
            ]
            room.dropped(empty)
        return done.expand(groups)

    # `list` also runs a generator to its end here, where its error can be located.
    _fill(groups, call, chunk, room, expand)
    return expand(chunk)


def _fill(
    listed: list[Any],
    call: Call,
    chunk: Chunk,
    room: Room,
    finish: Callable[[Chunk], Chunk],
) -> None:
    """Extend ``listed`` by one result per row of ``chunk``.

    They come in order, so when the function raises, the number listed so far is the row it
    raised on: no row pays for being locatable.
    """
    values = chunk.values
    total = len(values)
    done, stop = 0, 1
    try:
        while done < total:
            # A slice of the column, not of the results: an iterator more would cost each row.
            listed.extend(call(values[done:stop]))
            if len(listed) < min(stop, total):  # to `extend`, StopIteration is the end
                raise RuntimeError("the function raised StopIteration")
            if done == 0 and isinstance(listed[0], _UNFINISHED):
                _refuse_unfinished(listed.pop())
            done = stop
            if done < total and room.is_over():
                break
            stop += min(4 * stop, _ROWS_PER_LOOK_MAX)
    # Whatever it raises is the row's: nothing else runs here that could be cancelled or ended.
    except BaseException as error:
        row = len(listed)
        raise RowFailed(row, finish(chunk.slice(0, row))) from error
    if len(listed) < total:
        row = len(listed)
        raise SliceTimeUp(row, finish(chunk.slice(0, row)))


_UNFINISHED = (Iterator, Awaitable, AsyncIterator)


def _refuse_unfinished(result: Any) -> Any:
    """Refuse a result that is work still to be done, not a value."""
    if not isinstance(result, _UNFINISHED):
        return result
    if isinstance(result, Coroutine):
        result.close()  # else Python warns that it was never awaited
    raise TypeError(
        f"the function returned {type(result).__name__!r} instead of a value: it must not be "
        "async, and one that gives several values is annotated -> Iterator[...]"
    )


def _with_keys(chunk: Chunk, keys: Sequence[bytes | None]) -> Chunk:
    return Chunk(
        chunk.values, keys, chunk.timestamps_ms, chunk.offsets, chunk.topic, chunk.partition
    )
