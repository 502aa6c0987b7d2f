"""Copies numbered rows of a topic to objects of the bucket BUCKET."""

import json
import os

import msgspec

from streamkit import App
from streamkit.connectors.files import FileSink
from tests.stop.jobs.aim import passing

_COST = 1_000  # some microseconds of work per row, so that the job has a backlog for a while
STORE = json.loads(os.environ["STORE"])

app = App("copying-to-objects")


class Numbered(msgspec.Struct):
    lane: int
    number: int


@app.source("numbers")
def numbers(row: Numbered) -> Numbered:
    passing("topic")
    sum(range(_COST))
    return row


path = f"{os.environ['BUCKET']}/{{lane}}/part-{{n}}.jsonl.gz"
numbers.to(FileSink(path, roll_rows=1_500, store=STORE), name="objects")
