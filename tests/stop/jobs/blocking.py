"""Counts rows by second; the row with number 10 takes longer than a partition may be idle."""

import sys
import time

import msgspec

from streamkit import App, Topic
from streamkit.aggregates import Count
from streamkit.windows import Tumbling

app = App("blocking")
IDLE_S = 4.0


class Numbered(msgspec.Struct):
    lane: int
    number: int


def taken(row: Numbered) -> bool:
    if row.number == 10:
        sys.stderr.write("blocked\n")
        time.sleep(IDLE_S + 2)
    return True


numbers = app.stream(
    "numbers", Numbered, event_time=lambda row: row.number * 1_000, idle=IDLE_S
).filter(taken)
counts = (
    numbers.key_by(lambda row: row.lane)
    .window(Tumbling(seconds=1))
    .aggregate(key=Count(), name="counts")
)
counts.to(Topic("counts", dict))
