"""Copies numbered rows to a topic, a file and a sink class."""

import os

import msgspec

from streamkit import App, Topic
from streamkit.connectors.files import JsonLines
from tests.stop.jobs.aim import passing

app = App("copying")

# Some microseconds of work per row, so that the job has a backlog for a while.
_COST = 1_000


class Numbered(msgspec.Struct):
    lane: int
    number: int


@app.source("numbers")
def numbers(row: Numbered) -> Numbered:
    return row


@app.stage(numbers)
def passed(row: Numbered) -> Numbered:
    passing("stage")
    sum(range(_COST))
    return row


@app.sink(passed, to=Topic("copies", Numbered, partitions=3))
def copies(row: Numbered) -> Numbered:
    return row


@app.sink(passed, to=JsonLines("copies.jsonl"))
def copies_file(row: Numbered) -> Numbered:
    return row


class Lines:
    """A sink class that writes a line per row and syncs at each commit."""

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self) -> None:
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, rows: list[Numbered]) -> None:
        passing("write")
        os.write(self.fd, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))

    def flush(self) -> None:
        passing("flush")
        os.fsync(self.fd)

    def close(self) -> None:
        passing("close")
        os.close(self.fd)


passed.to(Lines("copies.lines"), name="lines")
