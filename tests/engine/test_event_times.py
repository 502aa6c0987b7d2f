"""Event times of records, and windows that follow the local time of a place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit import App
from streamkit.aggregates import CollectList, Count
from streamkit.errors import StageError
from streamkit.record import Chunk
from streamkit.runtime.task import Task
from streamkit.state.states import States
from streamkit.windows import AnyWindow, Session, Sliding, Tumbling
from tests.engine.readings import Reading, readings

MINUTE: Final = 60_000
MINUTES: Final = Tumbling(minutes=1)


# --- Time zones ------------------------------------------------------------------------


class Day(msgspec.Struct, frozen=True):
    window_start: datetime
    window_end: datetime
    count: int


@pytest.mark.parametrize(
    ("zone", "noon", "start", "hours"),
    [
        ("America/New_York", "2024-03-09T17:00", "2024-03-09T05:00", 24),
        ("America/New_York", "2024-03-10T16:00", "2024-03-10T05:00", 23),
        ("America/New_York", "2024-11-03T17:00", "2024-11-03T04:00", 25),
        ("America/Sao_Paulo", "2017-10-15T15:00", "2017-10-15T03:00", 23),
        ("America/Havana", "2024-11-03T17:00", "2024-11-03T04:00", 25),
        ("Pacific/Apia", "2011-12-30T09:00", "2011-12-29T10:00", 24),
    ],
)
def test_a_day_follows_the_local_time(zone: str, noon: str, start: str, hours: int) -> None:
    moment = round(utc(noon).timestamp() * 1_000)
    app, source, results = readings(Tumbling(days=1, time_zone=zone), Day, count=Count())
    with app.test() as job:
        job.send(source, Reading(moment))
        job.restart()
        job.drain()
        wanted = Day(utc(start), utc(start) + timedelta(hours=hours), 1)
        assert job.output(results) == [wanted]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@settings(max_examples=100, deadline=None)
@given(
    zone=st.sampled_from(["America/New_York", "America/Sao_Paulo", "Asia/Beirut", "Europe/Dublin"]),
    times=st.lists(st.integers(946_684_800_000, 1_767_225_600_000), min_size=1, max_size=4),
)
def test_a_local_day_begins_with_its_first_moment(zone: str, times: list[int]) -> None:
    grid = Tumbling(days=1, time_zone=zone).grid
    found = ZoneInfo(zone)
    for time, end in zip(times, grid.ends(times), strict=True):
        day = datetime.fromtimestamp(time / 1_000, found).date()
        assert datetime.fromtimestamp(end / 1_000, found).date() > day
        assert datetime.fromtimestamp((end - 1) / 1_000, found).date() == day


def test_weeks_begin_on_monday_with_an_offset_of_four_days() -> None:
    app, source, results = readings(Tumbling(days=7, offset=timedelta(days=4)), Day, count=Count())
    sunday = datetime(2024, 3, 3, 23, 59, tzinfo=UTC)
    with app.test() as job:
        job.send(source, Reading(round(sunday.timestamp() * 1_000)))
        job.drain()
        assert [each.window_start.isoweekday() for each in job.output(results)] == [1]


# --- Event times -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "words"),
    [
        (lambda each: datetime(2024, 1, 1), "has no time zone"),  # noqa: DTZ001  # what is tested
        (lambda each: -1, "is not between the years 1970 and 9999"),
        (lambda each: datetime(1969, 12, 31, tzinfo=UTC), "is not between the years"),
        (lambda each: None, "the event time is NoneType"),
        (lambda each: 1.5, "the event time is float"),
    ],
)
def test_an_invalid_event_time_fails_its_record(time: Callable[[Any], Any], words: str) -> None:
    app = App("a")
    source = app.stream("readings", Reading, event_time=time)
    source.key_by(lambda each: each.key).window(MINUTES).aggregate(n=Count()).to("t")
    with app.test() as job, pytest.raises(StageError, match=words):
        job.send(source, Reading(1))


@pytest.mark.parametrize("window", [MINUTES, Sliding(minutes=1, every=30), Session(gap=60)])
def test_a_record_without_a_timestamp_fails_and_those_before_it_count(window: AnyWindow) -> None:
    app = App("a")
    source = app.stream("readings", Reading)
    windows = source.key_by(lambda each: each.key).window(window)
    windows.aggregate(all=CollectList(lambda each: each.at)).to("t")
    task = Task(app.topology, states=States())
    values = [msgspec.json.encode(each) for each in map(Reading, (1, 2, 3))]
    part = Chunk(values, [None] * 3, [1, -1, 3], range(3), "readings", 0)
    work = task.process(source.node, part)
    assert (work.end, "has no timestamp" in str(work.failure)) == (1, True)
