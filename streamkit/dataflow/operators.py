"""The operations of stages on chunks. Each processes whole columns, not single records."""

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
from typing import Any, Final

from streamkit.dataflow.context import Context, TimerSink
from streamkit.dataflow.steps import Room, RowFailed, SliceTimeUp, Stateless, Unlimited
from streamkit.frames.column_rows import ColumnRows, single_values
from streamkit.record import NO_TIMESTAMP_MS, Chunk, Record
from streamkit.serde.keys import encode_key

# An operator checks its time after one row, then after growing numbers of rows up to this one.
# The first checks are early because functions may be slow; later ones are rare because each costs
# time.
_ROWS_PER_CHECK_MAX: Final = 512

# Calls the user's function for each value of a block; returns one result for each.
Call = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Map(Stateless):
    """Replaces each value with the result of ``function``; ``None`` is a value."""

    function: Callable[[Any], Any]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        return chunk.with_values(one_per_row(partial(map, self.function), chunk, room))


@dataclass(frozen=True, slots=True)
class MapOrDrop(Stateless):
    """Replaces each value with the result of ``function``; drops the record if that is None."""

    function: Callable[[Any], Any]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        values = one_per_row(partial(map, self.function), chunk, room, finish=without_none)
        return without_none(chunk.with_values(values))


@dataclass(frozen=True, slots=True)
class ContextMapOrDrop(Stateless):
    """Like `MapOrDrop`, for a function with a context."""

    function: Callable[[Any, Context[Any]], Any]
    key_of: Callable[[bytes | None], Any]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        known = contexts(chunk, self.key_of, room.lifespan())
        values = one_per_row(
            lambda block: map(self.function, block, known), chunk, room, finish=without_none
        )
        return without_none(chunk.with_values(values))


@dataclass(frozen=True, slots=True)
class Filter(Stateless):
    """Keeps the records whose value satisfies ``predicate``."""

    predicate: Callable[[Any], object]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        mask: list[object] = []
        fill(mask, partial(map, self.predicate), chunk, room, lambda done: _kept(done, mask))
        return _kept(chunk, mask)


@dataclass(frozen=True, slots=True)
class FlatMap(Stateless):
    """Replaces each record with one record for each value that ``function`` returns."""

    function: Callable[[Any], Iterable[Any]]

    @property
    def expands(self) -> bool:
        return True

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        return expanded(lambda block: map(list, map(self.function, block)), chunk, room)


@dataclass(frozen=True, slots=True)
class ContextFlatMap(Stateless):
    """Like `FlatMap`, for a function with a context."""

    function: Callable[[Any, Context[Any]], Iterable[Any]]
    key_of: Callable[[bytes | None], Any]

    @property
    def expands(self) -> bool:
        return True

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        known = contexts(chunk, self.key_of, room.lifespan())
        return expanded(lambda block: map(list, map(self.function, block, known)), chunk, room)


@dataclass(frozen=True, slots=True)
class AsRecords(Stateless):
    """Replaces each value with its whole record."""

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        return chunk.with_values(chunk.records())


@dataclass(frozen=True, slots=True)
class SetKeys(Stateless):
    """Sets the key of each record to the bytes that ``function`` returns for its value."""

    function: Callable[[Any], bytes | None]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        keys: list[bytes | None] = []
        call = partial(map, self.function)
        fill(keys, call, chunk, room, lambda done: with_keys(done, keys))
        return with_keys(chunk, keys)


@dataclass(frozen=True, slots=True)
class Unwrap(Stateless):
    """Replaces a value that is a `Record` with its value, and uses its key and timestamp.

    If it has no key or timestamp, the record keeps its own. With ``keeps_keys`` the record always
    keeps its key, because ``key=`` has set it. A record of the class ``kept`` stays the value.
    """

    keeps_keys: bool = False
    kept: type[Record[Any]] | None = None

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        if type(chunk.values) is ColumnRows:
            return chunk  # records are never kept as columns
        if not any(map(isinstance, chunk.values, repeat(Record))):
            return chunk
        rows: list[tuple[Any, bytes | None, int]] = []
        unwrapped = partial(_unwrapped, keeps_key=self.keeps_keys, kept=self.kept)
        keys, stamps_ms = iter(chunk.keys), iter(chunk.timestamps_ms)
        fill(
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
        RowFailed: `bool` fails on the answer, as for an array of several numbers.
    """
    try:
        return chunk.select(answers)
    except BaseException:  # raised by `bool`; only this rare case searches for the row
        mask: list[object] = []
        column = chunk.with_values(answers)
        fill(mask, partial(map, bool), column, Unlimited(), lambda _: _first(chunk, mask))
        raise


def _first(chunk: Chunk, mask: Sequence[object]) -> Chunk:
    return chunk.slice(0, len(mask)).select(mask)


def _unwrapped(
    value: Any,
    key: bytes | None,
    timestamp_ms: int,
    *,
    keeps_key: bool,
    kept: type[Record[Any]] | None,
) -> tuple[Any, bytes | None, int]:
    if not isinstance(value, Record):
        return value, key, timestamp_ms
    own_ms = value.timestamp_ms
    if type(own_ms) is not int or not NO_TIMESTAMP_MS <= own_ms < 2**63:
        raise ValueError(f"timestamp_ms={own_ms!r} of a Record is not a valid number of ms")
    return (
        value if kept is not None and isinstance(value, kept) else value.value,
        key if value.key is None or keeps_key else encode_key(value.key),
        timestamp_ms if own_ms == NO_TIMESTAMP_MS else own_ms,
    )


def _of_rows(chunk: Chunk, rows: Sequence[tuple[Any, bytes | None, int]]) -> Chunk:
    values, keys, stamps = map(list, zip(*rows, strict=True)) if rows else ([], [], [])
    return Chunk(values, keys, stamps, chunk.offsets, chunk.topic, chunk.partition)


def contexts(
    chunk: Chunk,
    key_of: Callable[[bytes | None], Any],
    lifespan: object,
    timers: TimerSink | None = None,
) -> Iterator[Context[Any]]:
    """Yield the context of each row; each is created only when it is needed."""
    return map(
        Context,
        repeat(chunk.topic),
        repeat(chunk.partition),
        chunk.offsets,
        map(key_of, chunk.keys),
        chunk.timestamps_ms,
        repeat(timers),
        repeat(lifespan),
    )


def without_none(chunk: Chunk) -> Chunk:
    """Drop the rows whose value is None."""
    if type(chunk.values) is ColumnRows:
        return chunk  # each row is an object
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
        SliceTimeUp: The time of the slice is over.
    """
    listed: list[Any] = []
    fill(listed, call, chunk, room, lambda done: finish(done.with_values(listed)))
    return listed


def expanded(call: Call, chunk: Chunk, room: Room) -> Chunk:
    groups: list[Sequence[Any]] = []

    def expand(done: Chunk) -> Chunk:
        if not all(groups):
            empty = [
                offset for offset, group in zip(done.offsets, groups, strict=True) if not group
            ]
            room.dropped(empty)
        return done.expand(groups)

    # `list` runs a generator to its end here, so that an error of it belongs to its row.
    fill(groups, call, chunk, room, expand)
    return expand(chunk)


def fill(
    listed: list[Any],
    call: Call,
    chunk: Chunk,
    room: Room,
    finish: Callable[[Chunk], Chunk],
) -> None:
    """Extend ``listed`` by one result per row of ``chunk``.

    Results come in order. So if the function raises, the number of results so far is the row it
    raised on, and rows that succeed have no extra cost.
    """
    values = single_values(chunk.values)
    total = len(values)
    done, stop = 0, 1
    try:
        while done < total:
            # This slices the column, not the results, because another iterator would cost time.
            listed.extend(call(values[done:stop]))
            if len(listed) < min(stop, total):  # for `extend`, StopIteration means the end
                raise RuntimeError("the function raised StopIteration")
            if done == 0 and isinstance(listed[0], _UNFINISHED):
                refuse_unfinished(listed.pop())
            done = stop
            if done < total and room.is_over():
                break
            stop += min(4 * stop, _ROWS_PER_CHECK_MAX)
    # Every exception belongs to the row, because only the user's function runs here.
    except BaseException as error:
        row = len(listed)
        raise RowFailed(row, finish(chunk.slice(0, row))) from error
    if len(listed) < total:
        row = len(listed)
        raise SliceTimeUp(row, finish(chunk.slice(0, row)))


_UNFINISHED = (Iterator, Awaitable, AsyncIterator)
# Whether a class is one of these: asking an abstract class takes long.
_known_kinds: dict[type, bool] = {}


def refuse_unfinished(result: Any) -> Any:
    """Refuse a result that is not a value but a coroutine or an iterator."""
    kind = type(result)
    is_unfinished = _known_kinds.get(kind)
    if is_unfinished is None:
        is_unfinished = _known_kinds[kind] = issubclass(kind, _UNFINISHED)
    if not is_unfinished:
        return result
    if isinstance(result, Coroutine):
        result.close()  # otherwise Python warns that it was never awaited
    raise TypeError(
        f"the function returned {type(result).__name__!r} instead of a value: it must not be "
        "async, and a function that returns several values needs -> Iterator[...]"
    )


def with_keys(chunk: Chunk, keys: Sequence[bytes | None]) -> Chunk:
    return Chunk(
        chunk.values, keys, chunk.timestamps_ms, chunk.offsets, chunk.topic, chunk.partition
    )
