"""Copies numbered rows of a topic to objects of the bucket BUCKET at ENDPOINT."""

import os

import msgspec

from streamkit import App, Secret
from streamkit.connectors.files import FileSink
from tests.stop.jobs.aim import passing

_COST = 1_000  # some microseconds of work per row, so that the job has a backlog for a while
STORE = {
    "endpoint": os.environ["ENDPOINT"],
    "region": "us-east-1",
    "access_key_id": "tester",
    "secret_access_key": Secret("not-to-be-shown"),
}

app = App("copying-to-objects")


class Numbered(msgspec.Struct):
    lane: int
    number: int


@app.source("numbers")
def numbers(row: Numbered) -> Numbered:
    passing("topic")
    sum(range(_COST))
    return row


path = f"s3://{os.environ['BUCKET']}/{{lane}}/part-{{n}}.jsonl.gz"
numbers.to(FileSink(path, roll_rows=1_500, store=STORE), name="objects")
