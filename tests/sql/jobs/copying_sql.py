"""Copies numbered rows of a topic and of a table to tables; DATABASE is the URL."""

import os

import msgspec

from streamkit import App
from streamkit.connectors.sql import SqlSink, SqlTable
from tests.stop.jobs.aim import passing

URL = os.environ["DATABASE"]
_COST = 1_000  # some microseconds of work per row, so that the job has a backlog for a while

app = App("copying-sql")


class Numbered(msgspec.Struct):
    lane: int
    number: int


class Lane(msgspec.Struct):
    lane: int
    name: str


class Source(msgspec.Struct):
    id: int
    changed: int


@app.source("numbers")
def numbers(row: Numbered) -> Numbered:
    passing("topic")
    sum(range(_COST))
    return row


@app.source(SqlTable(URL, "source_rows", incremental="changed", every=0.05))
def source_rows(row: Source) -> Source:
    passing("table")
    sum(range(_COST))
    return row


def with_lane(row: Numbered, lane: Lane) -> Numbered:
    return Numbered(int(lane.name), row.number)


numbers.to(SqlSink(URL, "inserted"))
lanes = SqlTable(URL, "lanes")
looked_up = numbers.lookup(lanes, on=lambda row: row.lane, combine=with_lane, cache_rows=1)
looked_up.to(SqlSink(URL, "replaced", mode="upsert", key=("lane", "number")))
source_rows.to(SqlSink(URL, "copied"))
