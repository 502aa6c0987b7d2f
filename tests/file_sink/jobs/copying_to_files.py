"""Copies numbered rows of a topic to files of several formats below the folder OUT."""

import os

import msgspec

from streamkit import App
from streamkit.connectors.files import FileSink
from tests.stop.jobs.aim import passing

OUT = os.environ["OUT"]
_COST = 1_000  # some microseconds of work per row, so that the job has a backlog for a while

app = App("copying-to-files")


class Numbered(msgspec.Struct):
    lane: int
    number: int


@app.source("numbers")
def numbers(row: Numbered) -> Numbered:
    passing("topic")
    sum(range(_COST))
    return row


numbers.to(FileSink(f"{OUT}/csv/{{lane}}/part-{{n}}.csv.gz", roll_rows=700), name="csv")
numbers.to(FileSink(f"{OUT}/jsonl/rows.jsonl", roll_after=0.1), name="jsonl")
numbers.to(FileSink(f"{OUT}/parquet/{{lane}}/{{n}}.parquet", roll_rows=800), name="parquet")
numbers.to(FileSink(f"{OUT}/json/rows-{{n:04d}}.json", roll_bytes=9_999), name="json")
