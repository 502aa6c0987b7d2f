"""Columns of dates, times and durations.

They are built and read by arithmetic with whole numbers, because Arrow's own conversion of a
datetime with a time zone takes 6 us, a hundred times as long as that of a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import ClassVar, Final

from pyarrow import compute

from streamkit.frames.column import Column, ColumnError, arrow_types, pyarrow
from streamkit.record import Value

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = pyarrow.duration("us")
_ONE_US: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


class _Datetimes(Column):
    """Datetimes as microseconds since an epoch."""

    name = "datetime"
    kinds = (datetime,)
    epoch: ClassVar[datetime]

    def _build(self, values: Sequence[Value]) -> pyarrow.Array:
        epoch = self.epoch
        try:
            since = [None if each is None else each - epoch for each in values]
        except TypeError:
            raise ColumnError(self._zone_problem()) from None
        return pyarrow.array(since, _US).cast(pyarrow.int64()).view(self.arrow)

    def _read(self, array: pyarrow.Array) -> list[Value]:
        epoch = self.epoch
        since = _timedeltas(array.cast(pyarrow.int64()).view(_US))
        return [None if each is None else epoch + each for each in since]

    def _widens(self, given: pyarrow.DataType) -> bool:
        return self.reads(given)  # the cast fails for a part of a microsecond

    def _is_certain(self, array: pyarrow.Array) -> bool:
        since = array.view(pyarrow.int64())
        return _is_within(since, (_FIRST - _EPOCH) // _ONE_US, (_LAST - _EPOCH) // _ONE_US)

    def _zone_problem(self) -> str:
        raise AssertionError("each subclass defines it")


class Instants(_Datetimes):
    """Datetimes with a time zone, in UTC."""

    arrow = pyarrow.timestamp("us", "UTC")
    epoch = _EPOCH

    def reads(self, given: pyarrow.DataType) -> bool:
        return bool(arrow_types.is_timestamp(given)) and given.tz is not None

    def problem(self, given: pyarrow.DataType) -> str:
        found = super().problem(given)
        if found and arrow_types.is_timestamp(given):
            return f"{found}: give it a time zone, in polars with .dt.replace_time_zone('UTC')"
        return found

    def _zone_problem(self) -> str:
        return (
            "it has no time zone; declare Annotated[datetime, msgspec.Meta(tz=False)] for "
            "datetimes without one"
        )


class Locals(_Datetimes):
    """Datetimes that are declared to have no time zone."""

    arrow = pyarrow.timestamp("us")
    epoch = _EPOCH.replace(tzinfo=None)

    def reads(self, given: pyarrow.DataType) -> bool:
        return bool(arrow_types.is_timestamp(given)) and given.tz is None

    def _zone_problem(self) -> str:
        return "it has a time zone, but its type is declared without one"


class Dates(Column):
    """Days."""

    arrow = pyarrow.date32()
    name = "date"
    kinds = (date,)
    refused = (datetime,)

    def reads(self, given: pyarrow.DataType) -> bool:
        return bool(arrow_types.is_date(given))

    def _is_certain(self, array: pyarrow.Array) -> bool:
        since = array.view(pyarrow.int32())
        return _is_within(since, (_FIRST - _EPOCH).days, (_LAST - _EPOCH).days)

    def _build(self, values: Sequence[Value]) -> pyarrow.Array:
        return pyarrow.array(values, self.arrow)

    def _read(self, array: pyarrow.Array) -> list[Value]:
        if not self._is_certain(array):  # numpy would return numbers
            raise ColumnError("it is before the year 1 or after 9999, which a date cannot be")
        found: list[Value] = array.to_numpy(zero_copy_only=False).tolist()
        return found


class Times(Column):
    """Times of a day."""

    arrow = pyarrow.time64("us")
    name = "time"
    kinds = (time,)

    def reads(self, given: pyarrow.DataType) -> bool:
        return bool(arrow_types.is_time(given))

    def _widens(self, given: pyarrow.DataType) -> bool:
        return self.reads(given)

    def _is_certain(self, array: pyarrow.Array) -> bool:
        return _is_within(array.view(pyarrow.int64()), 0, _DAY // _ONE_US - 1)

    def _build(self, values: Sequence[Value]) -> pyarrow.Array:
        if any(each is not None and each.tzinfo is not None for each in values):
            raise ColumnError("it has a time zone, which a column of times cannot have")
        return pyarrow.array(values, self.arrow)

    def _read(self, array: pyarrow.Array) -> list[Value]:
        found: list[Value] = array.to_pylist()
        return found


class Durations(Column):
    """Durations."""

    arrow = _US
    name = "timedelta"
    kinds = (timedelta,)

    def reads(self, given: pyarrow.DataType) -> bool:
        return bool(arrow_types.is_duration(given))

    def _widens(self, given: pyarrow.DataType) -> bool:
        return self.reads(given)

    def _is_certain(self, array: pyarrow.Array) -> bool:
        return True  # a timedelta has a larger range

    def _build(self, values: Sequence[Value]) -> pyarrow.Array:
        return pyarrow.array(values, self.arrow)

    def _read(self, array: pyarrow.Array) -> list[Value]:
        return _timedeltas(array)


def _is_within(numbers: pyarrow.Array, least: int, most: int) -> bool:
    found = compute.min_max(numbers)
    low, high = found["min"].as_py(), found["max"].as_py()
    return low is None or bool(least <= low and high <= most)


def _timedeltas(array: pyarrow.Array) -> list[Value]:
    found: list[Value] = array.to_numpy(zero_copy_only=False).tolist()
    return found
