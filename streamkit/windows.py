"""Windows of event time: which records are aggregated together.

All times are event times. An interval includes its start and not its end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from math import gcd
from typing import Any, Final, Generic, TypeVar
from zoneinfo import ZoneInfo

from streamkit.errors import UsageError
from streamkit.units import seconds_of, shown_ms

K_co = TypeVar("K_co", covariant=True)
Duration = float | timedelta
_DAY_MS: Final = 86_400_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # local dates have no zone here


@dataclass(frozen=True, slots=True)
class Window(Generic[K_co]):
    """One window of one key, as functions of `WindowedStream.apply` get it.

    ``end`` is the first moment after the window.
    """

    key: K_co
    start: datetime
    end: datetime


class Tumbling:
    """Windows of equal length, one after another.

    The length is the sum of ``days``, ``hours``, ``minutes`` and ``seconds``.

    Args:
        days: Part of the length.
        hours: Part of the length.
        minutes: Part of the length.
        seconds: Part of the length.
        offset: A window begins so long after midnight UTC of 1 January 1970, which was a
            Thursday. Weeks that begin on Monday have an offset of 4 days.
        time_zone: Windows of whole days follow the local time of a place, such as
            ``"Europe/Berlin"``: a day has 23 or 25 hours where the clocks change.

    Raises:
        UsageError: The length is not at least 1 ms, or the time zone is not known.
    """

    def __init__(
        self,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        offset: Duration = 0,
        time_zone: str | None = None,
    ) -> None:
        length = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        self.size_ms = duration_ms(length, "the length of the window")
        self.every_ms = self.size_ms
        self.offset_ms = duration_ms(offset, "offset", least=None)
        self.time_zone = time_zone
        if time_zone is not None:
            _zone(time_zone)
            if self.size_ms % _DAY_MS:
                raise UsageError(
                    f"a window in the time zone {time_zone!r} must have a length of whole days",
                    hint="hours have the same length everywhere: leave out time_zone",
                )

    def __str__(self) -> str:
        return f"tumbling {shown_ms(self.size_ms)}{self._details}"

    def __repr__(self) -> str:
        return f"<{self}>"

    @property
    def _details(self) -> str:
        offset = f" from {shown_ms(self.offset_ms)}" if self.offset_ms else ""
        return f"{offset} in {self.time_zone}" if self.time_zone else offset

    @property
    def grid(self) -> Grid | LocalGrid:
        """The panes: intervals that every window consists of."""
        if self.time_zone is None:
            return Grid(self.size_ms, self.offset_ms)
        return LocalGrid(self.size_ms // _DAY_MS, self.offset_ms, _zone(self.time_zone))


class Sliding:
    """Windows of equal length that overlap: one begins each ``every``.

    The length is the sum of ``days``, ``hours``, ``minutes`` and ``seconds``.

    Args:
        days: Part of the length.
        hours: Part of the length.
        minutes: Part of the length.
        seconds: Part of the length.
        every: How far apart windows begin, in seconds or as a timedelta.
        offset: As in `Tumbling`.

    Raises:
        UsageError: A length is not at least 1 ms, or ``every`` is longer than the window.
    """

    time_zone: None = None

    def __init__(
        self,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        every: Duration,
        offset: Duration = 0,
    ) -> None:
        length = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        self.size_ms = duration_ms(length, "the length of the window")
        self.every_ms = duration_ms(every, "every")
        self.offset_ms = duration_ms(offset, "offset", least=None)
        if self.every_ms > self.size_ms:
            raise UsageError(
                "every= is longer than the window, so records between windows would be lost",
                hint="make the window longer, or filter the stream first",
            )

    def __str__(self) -> str:
        offset = f" from {shown_ms(self.offset_ms)}" if self.offset_ms else ""
        return f"sliding {shown_ms(self.size_ms)} every {shown_ms(self.every_ms)}{offset}"

    def __repr__(self) -> str:
        return f"<{self}>"

    @property
    def grid(self) -> Grid:
        """The panes: intervals that every window consists of."""
        return Grid(gcd(self.size_ms, self.every_ms), self.offset_ms)


class Session:
    """Windows of activity: records of a key that are less than ``gap`` apart.

    The end of a session is ``gap`` after its last record. A record is late if its own event time
    plus ``late`` is before the watermark of its partition, even if its session is still open.

    Args:
        gap: How long a key is quiet before its session ends, in seconds or as a timedelta.
        max_length: A longer session is divided: the next one begins with the first record that
            is at least so long after the first record of this one. With it, a session keeps a
            separate aggregate for each of its timestamps until it is complete.

    Raises:
        UsageError: A length is not at least 1 ms.
    """

    def __init__(self, *, gap: Duration, max_length: Duration | None = None) -> None:
        self.gap_ms = duration_ms(gap, "gap")
        self.max_length_ms = None if max_length is None else duration_ms(max_length, "max_length")

    def __str__(self) -> str:
        most_ms = self.max_length_ms
        longest = "" if most_ms is None else f" of at most {shown_ms(most_ms)}"
        return f"session with a gap of {shown_ms(self.gap_ms)}{longest}"

    def __repr__(self) -> str:
        return f"<{self}>"


class CountWindow:
    """Windows of a number of records of a key, in order of arrival.

    Args:
        count: How many records a window has.

    Raises:
        UsageError: The number is not at least 1.
    """

    def __init__(self, count: int) -> None:
        if type(count) is not int or count < 1:
            raise UsageError(f"CountWindow({count!r}): the number of records must be at least 1")
        self.count = count

    def __str__(self) -> str:
        return f"windows of {self.count} records"

    def __repr__(self) -> str:
        return f"<{self}>"


@dataclass(frozen=True, slots=True)
class Grid:
    """Intervals of equal length."""

    size_ms: int
    offset_ms: int

    def ends(self, times_ms: Sequence[int]) -> list[int]:
        """Return the end of the interval of each time."""
        size_ms = self.size_ms
        if not self.offset_ms % size_ms:
            return [each - each % size_ms + size_ms for each in times_ms]
        offset_ms = self.offset_ms
        return [each - (each - offset_ms) % size_ms + size_ms for each in times_ms]


class LocalGrid:
    """Intervals of whole days in the local time of a place."""

    def __init__(self, days: int, offset_ms: int, zone: tzinfo) -> None:
        self._days = days
        self._offset = timedelta(milliseconds=offset_ms)
        self._zone = zone
        # Neighbouring intervals that were needed so far: each bound is the start of one.
        self._bounds: list[int] = []
        self._first = 0

    def ends(self, times_ms: Sequence[int]) -> list[int]:
        """Return the end of the interval of each time."""
        if not len(times_ms):
            return []
        self._cover(min(times_ms), max(times_ms))
        bounds = self._bounds
        return [bounds[bisect_right(bounds, each)] for each in times_ms]

    def start(self, end_ms: int) -> int:
        """Return the start of the interval that ends at a time."""
        self._cover(end_ms - 1, end_ms)
        return self._bounds[bisect_right(self._bounds, end_ms - 1) - 1]

    def _cover(self, first_ms: int, last_ms: int) -> None:
        if not self._bounds:
            self._first = self._number_of(first_ms)
            self._bounds = [self._bound(self._first)]
        while self._bounds[0] > first_ms:
            self._first -= 1
            self._bounds.insert(0, self._bound(self._first))
        while self._bounds[-1] <= last_ms:
            self._bounds.append(self._bound(self._first + len(self._bounds)))

    def _number_of(self, time_ms: int) -> int:
        local = (_EPOCH + timedelta(milliseconds=time_ms)).astimezone(self._zone)
        since = local.replace(tzinfo=None) - _NAIVE_EPOCH - self._offset
        return since.days // self._days

    def _bound(self, number: int) -> int:
        """Return the moment at which the local clock shows the start of an interval."""
        local = _NAIVE_EPOCH + timedelta(days=number * self._days) + self._offset
        earlier = _utc_ms(local, self._zone, fold=0)
        shown = (_EPOCH + timedelta(milliseconds=earlier)).astimezone(self._zone)
        if shown.replace(tzinfo=None) == local:
            return earlier
        # The clock skips this time: the interval begins when it jumps.
        before, after = sorted((earlier, _utc_ms(local, self._zone, fold=1)))
        offset = self._offset_at(before)
        while after - before > 1:
            middle = (before + after) // 2
            before, after = (
                (middle, after) if self._offset_at(middle) == offset else (before, middle)
            )
        return after

    def _offset_at(self, time_ms: int) -> timedelta | None:
        return (_EPOCH + timedelta(milliseconds=time_ms)).astimezone(self._zone).utcoffset()


def _utc_ms(local: datetime, zone: tzinfo, *, fold: int) -> int:
    moment = local.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc)  # noqa: UP017
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def duration_ms(value: Duration, what: str, *, least: int | None = 1) -> int:
    """Return a duration of the user in ms.

    Raises:
        UsageError: It is not a duration, or shorter than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise UsageError(f"{what}: {value!r} is not a duration", hint="use seconds or a timedelta")
    try:
        found = round(seconds_of(value) * 1_000)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{what}: {value!r} is not a duration: {error}") from None
    if least is not None and found < least:
        raise UsageError(f"{what} must be at least {least} ms, not {value!r}")
    return found


@lru_cache
def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(
            f"the time zone {name!r} is not known: {error}",
            hint='use a name such as "Europe/Berlin"; if none is known, install tzdata',
        ) from error


AnyWindow = Tumbling | Sliding | Session | CountWindow


def check_window(window: Any) -> AnyWindow:
    """Refuse what is not a window.

    Raises:
        UsageError: It is not a window.
    """
    if isinstance(window, Tumbling | Sliding | Session | CountWindow):
        return window
    raise UsageError(
        f"{window!r} is not a window",
        hint="use for example Tumbling(hours=1), from streamkit.windows",
    )
