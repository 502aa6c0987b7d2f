"""Event times: what ``event_time=`` of a source gives, as the timestamps of its records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from streamkit.dataflow.operators import fill
from streamkit.dataflow.steps import Operator, Room
from streamkit.record import TIMESTAMP_MS_MAX, Chunk

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class EventTime:
    """Set the event time of each record of a source; without ``function``, keep its timestamp.

    A value that is ``ignored`` keeps the timestamp of its record too.
    """

    function: Callable[[Any], object] | None = None
    ignored: object = None

    @property
    def expands(self) -> bool:
        return False

    def open(self, room: Room) -> Operator:
        return _EventTimes(self.function, self.ignored, room)


@dataclass(frozen=True, slots=True)
class _EventTimes:
    """The operator of `EventTime`."""

    function: Callable[[Any], object] | None
    ignored: object
    room: Room

    def on_chunk(self, chunk: Chunk) -> Chunk:
        if self.function is None:
            self.room.observe(chunk)
            return chunk
        times_ms: list[int] = []

        def timed(done: Chunk) -> Chunk:
            found = chunk_at(done, times_ms)
            self.room.observe(found)
            return found

        call: Callable[[Sequence[object]], Iterable[int]] = partial(_times_of, self.function)
        if self.ignored is not None:
            call = partial(self._times_of, self.function, iter(chunk.timestamps_ms))
        fill(times_ms, call, chunk, self.room, timed)
        return timed(chunk)

    def _times_of(
        self,
        function: Callable[[Any], object],
        kept_ms: Iterator[int],
        block: Sequence[object],
    ) -> Iterator[int]:
        for value in block:
            own_ms = next(kept_ms)
            yield own_ms if value is self.ignored else time_ms(function(value))


def chunk_at(chunk: Chunk, times_ms: Sequence[int]) -> Chunk:
    """Return a chunk with other timestamps, one per row."""
    return Chunk(chunk.values, chunk.keys, times_ms, chunk.offsets, chunk.topic, chunk.partition)


def time_ms(value: object) -> int:
    """Return a time as ms since the epoch.

    Raises:
        TypeError: It is neither a datetime with a time zone nor a whole number.
        ValueError: It is before 1970 or after the year 9999.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TypeError(
                f"the event time {value.isoformat()} has no time zone; use for example "
                "value.replace(tzinfo=timezone.utc)"
            )
        since = value - _EPOCH
        found = (since.days * 86_400 + since.seconds) * 1_000 + since.microseconds // 1_000
    elif isinstance(value, int) and not isinstance(value, bool):
        found = value
    else:
        raise TypeError(
            f"the event time is {type(value).__name__}, not a datetime with a time zone or a "
            "whole number of ms since 1970"
        )
    if not 0 <= found <= TIMESTAMP_MS_MAX:
        raise ValueError(f"the event time {value} is not between the years 1970 and 9999")
    return found


def _times_of(function: Callable[[Any], object], block: Sequence[object]) -> Iterable[int]:
    return map(time_ms, map(function, block))
