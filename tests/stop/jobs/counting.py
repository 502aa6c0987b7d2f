"""Counts the rows of each lane in a state that can be changed in place."""

import msgspec

from streamkit import App, State, Topic
from tests.stop.jobs.aim import passing

app = App("counting")
_COST = 500


class Numbered(msgspec.Struct):
    lane: int
    number: int


class Count(msgspec.Struct):
    rows: int = 0


numbers = app.stream("numbers", Numbered)


@app.stage(numbers.key_by(lambda row: row.lane), name="counted")
def counted(row: Numbered, state: State[Count]) -> list[int]:
    passing("stage")
    sum(range(_COST))
    count = state.get() or Count()
    count.rows += 1
    state.set(count)
    return [row.lane, row.number, count.rows]


counted.to(Topic("counts", list[int], partitions=3))
