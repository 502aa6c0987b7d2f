"""Reads sources of files as the engine does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from streamkit import App
from streamkit.connectors import Source
from streamkit.connectors.files import FileFormat, Files


class Flight(msgspec.Struct):
    """A row of the files of these tests."""

    carrier: str
    number: int
    delay: float | None = None


FLIGHTS = [Flight("UA", 1, 3.5), Flight("AA", 2), Flight("B6", 3, -2.0)]


def read(source: Source[Any], kind: Any) -> list[Any]:
    """Return all values of a source."""
    app = App("reading")
    rows = app.stream(source, kind, name="rows")
    with app.test() as job:
        job.read(rows)
        return job.output(rows)


def read_text(path: Path, data: str | bytes, form: FileFormat[Any], kind: Any) -> list[Any]:
    """Write a file, and return its values."""
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read(Files(path, form), kind)
