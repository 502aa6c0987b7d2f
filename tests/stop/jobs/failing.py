"""Copies numbered rows to every kind of sink, and fails on chosen rows.

``BAD`` is a list of ``lane-number``; ``BAD_IN`` is the function that fails on them.
"""

import os

import msgspec

from streamkit import App, Topic
from streamkit.connectors.files import JsonLines
from streamkit.policies import OnError

app = App("failing")
_BAD = set(filter(None, os.environ.get("BAD", "").split(",")))
_BAD_IN = os.environ.get("BAD_IN", "stage")
_POLICY: OnError = "skip" if os.environ.get("POLICY") == "skip" else "fail"


class Numbered(msgspec.Struct):
    lane: int
    number: int


class Unwritable:
    """A value that cannot be written as JSON."""


def refuse(place: str, row: Numbered) -> None:
    if place == _BAD_IN and f"{row.lane}-{row.number}" in _BAD:
        raise ValueError(f"cannot stand {row.number}")


def append(path: str, rows: list[Numbered]) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


@app.source("numbers", on_error=_POLICY)
def numbers(row: Numbered) -> Numbered:
    refuse("source", row)
    return row


@app.stage(numbers, on_error=_POLICY)
def checked(row: Numbered) -> Numbered:
    refuse("stage", row)
    return row


@app.sink(checked, to=Topic("copies", Numbered, partitions=2), on_error=_POLICY)
def copies(row: Numbered) -> Numbered:
    refuse("topic", row)
    return row


@app.sink(checked, to=JsonLines("copies.jsonl"), on_error=_POLICY)
def copies_file(row: Numbered) -> object:
    try:
        refuse("file", row)
    except ValueError:
        return {"row": Unwritable()}
    return row


@app.sink(checked, on_error=_POLICY)
def each(row: Numbered) -> None:
    refuse("each", row)
    append("each.lines", [row])


@app.sink(checked, batch=100, on_error=_POLICY)
def batches(rows: list[Numbered]) -> None:
    for row in rows:
        refuse("batches", row)
    append("batches.lines", rows)
