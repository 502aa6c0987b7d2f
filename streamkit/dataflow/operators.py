"""What stages do to chunks. Each works on whole columns, not on one record after another."""

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
from itertools import islice, repeat
from typing import Any, Protocol

from streamkit.dataflow.context import Context
from streamkit.record import NO_TIMESTAMP_MS, Chunk, Record


class RowFailed(Exception):
    """A function raised on one row of a chunk. What it raised is the cause.

    ``before`` is what the rows in front of it led to, so that nobody calls them again.
    """

    def __init__(self, row: int, before: Chunk) -> None:
        super().__init__(f"row {row}")
        self.row = row
        self.before = before


class Operator(Protocol):
    """One stage. Does no I/O and reads no clock; gets a chunk and gives one, in order."""

    def on_chunk(self, chunk: Chunk) -> Chunk:
        """Take a chunk and give what it leads to.

        How records are cut into chunks must not show in the output.

        Raises:
            RowFailed: Names the row.
        """


@dataclass(frozen=True, slots=True)
class Map:
    """Replace each value by what ``function`` makes of it; ``None`` is a value."""

    function: Callable[[Any], Any]

    def on_chunk(self, chunk: Chunk) -> Chunk:
        return chunk.with_values(one_per_row(map(self.function, chunk.values), chunk))


@dataclass(frozen=True, slots=True)
class MapOrDrop:
    """Replace each value by what ``function`` makes of it; drop those it makes None of."""

    function: Callable[[Any], Any]

    def on_chunk(self, chunk: Chunk) -> Chunk:
        values = one_per_row(map(self.function, chunk.values), chunk, finish=without_none)
        return without_none(chunk.with_values(values))


@dataclass(frozen=True, slots=True)
class ContextMapOrDrop:
    """As `MapOrDrop`, for a function that wants to know where a record comes from."""

    function: Callable[[Any, Context[Any]], Any]
    key_of: Callable[[bytes | None], Any]

    def on_chunk(self, chunk: Chunk) -> Chunk:
        results = map(self.function, chunk.values, contexts(chunk, self.key_of))
        return without_none(chunk.with_values(one_per_row(results, chunk, finish=without_none)))


@dataclass(frozen=True, slots=True)
class Filter:
    """Keep the records whose value satisfies ``predicate``."""

    predicate: Callable[[Any], object]

    def on_chunk(self, chunk: Chunk) -> Chunk:
        mask: list[object] = []
        _fill(mask, map(self.predicate, chunk.values), chunk, lambda done: done.select(mask))
        return chunk.select(mask)


@dataclass(frozen=True, slots=True)
class FlatMap:
    """Replace each record by one for each value that ``function`` gives."""

    function: Callable[[Any], Iterable[Any]]

    def on_chunk(self, chunk: Chunk) -> Chunk:
        groups: list[Sequence[Any]] = []
        # `list` also runs a generator to its end here, where its error can be located.
        results = map(list, map(self.function, chunk.values))
        _fill(groups, results, chunk, lambda done: done.expand(groups))
        return chunk.expand(groups)


@dataclass(frozen=True, slots=True)
class ContextFlatMap:
    """As `FlatMap`, for a function that wants to know where a record comes from."""

    function: Callable[[Any, Context[Any]], Iterable[Any]]
    key_of: Callable[[bytes | None], Any]

    def on_chunk(self, chunk: Chunk) -> Chunk:
        groups: list[Sequence[Any]] = []
        results = map(list, map(self.function, chunk.values, contexts(chunk, self.key_of)))
        _fill(groups, results, chunk, lambda done: done.expand(groups))
        return chunk.expand(groups)


@dataclass(frozen=True, slots=True)
class AsRecords:
    """Replace each value by the whole record around it."""

    def on_chunk(self, chunk: Chunk) -> Chunk:
        return chunk.with_values(chunk.records())


@dataclass(frozen=True, slots=True)
class SetKeys:
    """Give each record the key that ``function`` finds in its value, as bytes."""

    function: Callable[[Any], bytes | None]

    def on_chunk(self, chunk: Chunk) -> Chunk:
        keys: list[bytes | None] = []
        _fill(keys, map(self.function, chunk.values), chunk, lambda done: _with_keys(done, keys))
        return _with_keys(chunk, keys)


@dataclass(frozen=True, slots=True)
class Unwrap:
    """Let a `Record` among the values decide on key and timestamp; its value takes its place.

    What it leaves out keeps the record's own. ``keeps_keys``: the key was chosen by others.
    """

    keeps_keys: bool = False

    def on_chunk(self, chunk: Chunk) -> Chunk:
        if not any(map(isinstance, chunk.values, repeat(Record))):
            return chunk
        values, keys, stamps = list(chunk.values), list(chunk.keys), list(chunk.timestamps_ms)
        for row, value in enumerate(values):
            if isinstance(value, Record):
                values[row] = value.value
                if value.key is not None and not self.keeps_keys:
                    keys[row] = value.key
                if value.timestamp_ms != NO_TIMESTAMP_MS:
                    stamps[row] = value.timestamp_ms
        return Chunk(values, keys, stamps, chunk.offsets, chunk.topic, chunk.partition)


def contexts(chunk: Chunk, key_of: Callable[[bytes | None], Any]) -> Iterable[Context[Any]]:
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
    results: Iterable[Any], chunk: Chunk, finish: Callable[[Chunk], Chunk] = lambda done: done
) -> list[Any]:
    """List the results of a function over the rows of a chunk.

    Raises:
        RowFailed: The function raised.
    """
    listed: list[Any] = []
    _fill(listed, results, chunk, lambda done: finish(done.with_values(listed)))
    return listed


def _fill(
    listed: list[Any], results: Iterable[Any], chunk: Chunk, finish: Callable[[Chunk], Chunk]
) -> None:
    """Extend ``listed`` by one result per row of ``chunk``.

    They come in order, so when the function raises, the number listed so far is the row it
    raised on: no row pays for being locatable.
    """
    rest = iter(results)
    try:
        listed.extend(islice(rest, 1))
        if listed:
            _refuse_unfinished(listed)
            listed.extend(rest)
        if len(listed) < len(chunk.values):  # to `extend`, StopIteration only means the end
            raise RuntimeError("the function raised StopIteration")
    except (Exception, SystemExit) as error:  # a stage must not end the job behind its back
        row = len(listed)
        raise RowFailed(row, finish(chunk.slice(0, row))) from error


def _refuse_unfinished(listed: list[Any]) -> None:
    """Take back a first result that is work still to be done, not a value."""
    first = listed[0]
    if not isinstance(first, Iterator | Awaitable | AsyncIterator):
        return
    listed.clear()
    if isinstance(first, Coroutine):
        first.close()  # else Python warns that it was never awaited
    raise TypeError(
        f"the function returned {type(first).__name__!r} where a value is due: it must not be "
        "async, and one that gives several values is annotated -> Iterator[...]"
    )


def _with_keys(chunk: Chunk, keys: Sequence[bytes | None]) -> Chunk:
    return Chunk(
        chunk.values, keys, chunk.timestamps_ms, chunk.offsets, chunk.topic, chunk.partition
    )
