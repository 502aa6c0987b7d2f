"""Records and offsets: invalid values of a user are refused, values from a log are shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamkit import Offset
from streamkit.dataflow.context import Context
from streamkit.errors import DataError, UsageError
from streamkit.record import TIMESTAMP_MS_MAX, Origin, Record

LAST = datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamps(timestamp_ms: int) -> list[datetime | None]:
    context = Context("t", 0, 0, None, timestamp_ms)
    return [Record(b"", timestamp_ms=timestamp_ms).timestamp, context.timestamp]


@pytest.mark.parametrize(
    ("timestamp_ms", "expected"),
    [
        (-1, None),
        (0, EPOCH),
        (1_357_034_400_123, EPOCH + timedelta(milliseconds=1_357_034_400_123)),
        (TIMESTAMP_MS_MAX, LAST),
    ],
)
def test_a_timestamp_is_a_time_in_utc(timestamp_ms: int, expected: datetime | None) -> None:
    assert timestamps(timestamp_ms) == [expected] * 2


@pytest.mark.parametrize("timestamp_ms", [TIMESTAMP_MS_MAX + 1, 2**63 - 1])
def test_a_timestamp_out_of_range_for_datetime_is_a_clear_error(timestamp_ms: int) -> None:
    for holder in (
        Record(b"", timestamp_ms=timestamp_ms),
        Context("t", 0, 0, None, timestamp_ms),
    ):
        with pytest.raises(DataError, match=f"timestamp_ms={timestamp_ms} is after the year 9999"):
            _ = holder.timestamp


NOT_OFFSETS: list[Any] = [
    *(-1, 2**63, 2**64, 1.5, float("nan"), True, None, b"5", [], "", "5x", "beginning-1"),
    *("9223372036854775808", "9" * 5_000, "end-9223372036854775808", "-1", "\ud800"),
]


@pytest.mark.parametrize("value", NOT_OFFSETS, ids=lambda value: repr(value)[:20])
def test_an_invalid_offset_is_refused(value: Any) -> None:
    with pytest.raises(UsageError):
        Offset.parse(value)


@pytest.mark.parametrize("value", [-1, 2**63, 1.5, True, None, "5"])
def test_an_invalid_count_is_refused_by_every_constructor_of_offset(value: Any) -> None:
    for make in (Offset.beginning, Offset.end, Offset.absolute, Offset.at_time):
        with pytest.raises(UsageError, match=r"must be (from|a whole number)"):
            make(value)
    with pytest.raises(UsageError):
        Offset(value)
    with pytest.raises(UsageError):
        Offset(Origin.END, value)


def test_the_largest_offset_and_time_are_accepted() -> None:
    most = 2**63 - 1
    assert Offset.parse(str(most)) == Offset.parse(most) == Offset.absolute(most)
    assert str(Offset.at_time(most)) == f"{most} ms since the epoch"
    assert Offset.beginning(most).resolve(5, 9) == 9
