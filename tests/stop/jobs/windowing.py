"""Sums rows in windows, and joins those with even and with odd numbers."""

import os

import msgspec

from streamkit import App, Topic
from streamkit.aggregates import Count, Sum
from streamkit.windows import Session, Sliding, Tumbling
from tests.stop.jobs.aim import passing

NAME = os.environ.get("APP_NAME", "windowing")
app = App(NAME)
_COST = 300


class Numbered(msgspec.Struct):
    lane: int
    number: int


class Summed(msgspec.Struct):
    key: int
    window_start: int
    window_end: int
    rows: int
    total: int


def time_ms(row: Numbered) -> int:
    """Rows are up to 70 ms out of order, a few of them more; each tenth row begins a pause."""
    number = row.number
    late = 400 if number % 97 == 96 else number * 37 % 71
    return 1_000 + number * 10 + number // 10 * 100 - late


def passed(row: Numbered) -> bool:
    passing("stage")
    sum(range(_COST))
    return True


numbers = app.stream("numbers", Numbered, event_time=time_ms, out_of_order=0.07)
seen = numbers.filter(passed)
keyed = seen.key_by(lambda row: row.number % 7)


rows, total = Count(), Sum(lambda row: row.number)
sums = keyed.window(Tumbling(seconds=1), late=0.1).aggregate(
    Summed, name="sums", rows=rows, total=total
)
overlapping = keyed.window(Sliding(seconds=1, every=0.3)).aggregate(
    Summed, name="overlapping", rows=rows, total=total
)
sessions = (
    seen.key_by(lambda row: row.lane)
    .window(Session(gap=0.1))
    .aggregate(Summed, name="sessions", rows=rows, total=total)
)
halves = [
    seen.filter(lambda row, rest=rest: row.number % 2 == rest).key_by(  # type: ignore[misc]
        lambda row: f"{row.lane}:{row.number // 2}"
    )
    for rest in (0, 1)
]


def pair(even: Numbered, odd: Numbered | None) -> list[int]:
    return [even.lane, even.number, -1 if odd is None else odd.number]


pairs = halves[0].join(halves[1], within=0.2, how="left", combine=pair, name="pairs")
again = (
    sums.key_by(lambda result: result.key)
    .window(Tumbling(seconds=5))
    .aggregate(Summed, name="again", rows=Count(), total=Sum(lambda result: result.total))
)
for stream in (sums, overlapping, sessions, again):
    stream.to(Topic(f"{NAME}-{stream.name}", Summed, partitions=2))
pairs.to(Topic(f"{NAME}-pairs", list[int], partitions=2))
sums.late.to(Topic(f"{NAME}-late", Numbered, partitions=2))
