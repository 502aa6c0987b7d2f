"""Turns a page of rows into chunks: keys, times and places of the rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from operator import eq, itemgetter
from typing import Final

import msgspec

from streamkit.connectors.sql.positions import decode_position, encode_position
from streamkit.connectors.sql.session import Result
from streamkit.dataflow.keys import group_key
from streamkit.errors import DataError, StateMismatch, shown
from streamkit.limits import CHUNK_BYTES_MAX, CHUNK_RECORDS_MAX
from streamkit.record import NO_TIMESTAMP_MS, Chunk, Value

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS: Final = dt.timedelta(milliseconds=1)
_SAMPLES: Final = 64
_VALUE_BYTES: Final = 32  # about the size of a number in Python
_FIRST_ROWS: Final = 1_000
_PAGE_BYTES_MAX: Final = 8 * CHUNK_BYTES_MAX

Place = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """How far a part of a table is read: the place of the last row, and how many rows that are.

    ``place`` is empty at the beginning.
    """

    rows: int
    place: Place

    def __str__(self) -> str:
        return encode_position((self.rows, *self.place))


def read_position(text: str, order: Sequence[str]) -> Position:
    """Read the text of a position.

    Raises:
        StateMismatch: It is not a position in a table with this order.
    """
    rows, *place = decode_position(text) or (None,)
    if type(rows) is not int or len(place) not in (0, len(order)):
        raise StateMismatch(
            f"{shown(text)} is not a position in a table ordered by {', '.join(order)}",
            hint="start over with --fresh-state",
        )
    return Position(rows, tuple(place))


@dataclass(frozen=True, slots=True)
class PageReader:
    """Turns rows into chunks.

    ``order`` are the columns that order the rows, ``key`` those that identify a row. ``topic`` is
    the name of the table.
    """

    topic: str
    order: tuple[str, ...]
    key: tuple[str, ...]
    incremental: str | None

    def places(self, rows: Sequence[dict[str, Value]]) -> list[Place]:
        """Return the places of rows."""
        columns = [map(itemgetter(name), rows) for name in self.order]
        return list(zip(*columns, strict=True))

    def chunks(
        self, rows: Sequence[dict[str, Value]], first: int, partition: int, now_ms: int
    ) -> list[Chunk]:
        """Return rows as chunks, of about 1 MiB.

        Args:
            rows: The rows of a page.
            first: How many rows of this part came before.
            partition: The number of the part.
            now_ms: The time of rows that have none.
        """
        size = rows_per(CHUNK_BYTES_MAX, rows, CHUNK_RECORDS_MAX)
        times_ms = self._times_ms(rows, now_ms)
        keys = self._keys(rows)
        return [
            Chunk(
                rows[at : at + size],
                keys[at : at + size],
                times_ms[at : at + size],
                range(first + at, first + min(at + size, len(rows))),
                self.topic,
                partition,
            )
            for at in range(0, len(rows), size)
        ]

    def _keys(self, rows: Sequence[dict[str, Value]]) -> list[bytes]:
        if len(self.key) > 1:
            return [group_key([row[name] for name in self.key]) for row in rows]
        values = list(map(itemgetter(self.key[0]), rows))
        kinds = set(map(type, values))
        if kinds == {int}:
            return [b"%d" % each for each in values]
        return (
            [each.encode() for each in values] if kinds == {str} else list(map(group_key, values))
        )

    def _times_ms(self, rows: Sequence[dict[str, Value]], now_ms: int) -> list[int]:
        if self.incremental is None:
            return [now_ms] * len(rows)
        to_ms = _time_reader(rows[0][self.incremental] if rows else None)
        if to_ms is None:
            return [now_ms] * len(rows)
        try:
            return [to_ms(row[self.incremental]) for row in rows]
        except (ValueError, TypeError, AttributeError):  # text that is a time only in some rows
            return [now_ms] * len(rows)


def refuse_unordered(order: Sequence[str], before: Place | None, places: Sequence[Place]) -> None:
    """Refuse rows that have the same place, since a page may end between them.

    Raises:
        DataError: Two rows have the same place.
    """
    earlier = chain([before], places)
    same = next(compress(places, map(eq, places, earlier)), None)
    if same is not None:
        raise two_at(order, same)


def two_at(order: Sequence[str], place: Place) -> DataError:
    """Return the error for two rows with the same place."""
    return DataError(
        f"two rows have the same ({', '.join(order)}) = {shown(place)}",
        hint="key= must name columns that together identify a row, also where the database takes "
        "different texts for equal ones, such as those that differ in their case",
    )


def differ_in_texts(place: Place, other: Place) -> bool:
    """Return whether two places differ only in texts, which a database may take for equal."""
    return all(
        one == another or (isinstance(one, str) and isinstance(another, str))
        for one, another in zip(place, other, strict=True)
    )


def named_rows(result: Result) -> list[dict[str, Value]]:
    """Return the rows of a query by the names of their columns.

    Raises:
        DataError: Two columns have the same name.
    """
    names = result.names
    if len(set(names)) != len(names):
        twice = next(each for number, each in enumerate(names) if each in names[:number])
        raise DataError(
            f"the query has two columns called {twice!r}", hint="rename one of them with AS"
        )
    return [dict(zip(names, row)) for row in result.rows]  # noqa: B905  # a row has all columns


def rows_per(bytes_max: int, rows: Sequence[dict[str, Value]], rows_max: int) -> int:
    """Return how many rows like these have about this size."""
    step = max(1, len(rows) // _SAMPLES)
    sample = rows[::step]
    if not sample:
        return rows_max
    sizes = [_size_bytes(value) for row in sample for value in row.values()]
    return max(1, min(rows_max, bytes_max * len(sample) // max(1, sum(sizes))))


def next_page_rows(rows: Sequence[dict[str, Value]], rows_max: int) -> int:
    """Return the size of the next page, from the rows of the last one; empty before the first."""
    if not rows:
        return min(_FIRST_ROWS, rows_max)
    return rows_per(_PAGE_BYTES_MAX, rows, rows_max)


def _size_bytes(value: Value) -> int:
    if isinstance(value, msgspec.Raw):
        value = bytes(value)
    try:
        return _VALUE_BYTES + len(value)
    except TypeError:  # a number or a time
        return _VALUE_BYTES


def _time_reader(value: Value) -> Callable[[Value], int] | None:
    """Return how to read the time of a row from its incremental column; None if it is no time."""
    if isinstance(value, dt.datetime):
        return _ms
    if isinstance(value, dt.date):
        return lambda day: _ms(dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC))
    if isinstance(value, str):
        return lambda text: _ms(dt.datetime.fromisoformat(text))
    return None


def _ms(time: dt.datetime) -> int:
    # A time without a zone is read as UTC.
    zoned = time if time.tzinfo is not None else time.replace(tzinfo=dt.UTC)
    return max(NO_TIMESTAMP_MS, (zoned - _EPOCH) // _MS)
