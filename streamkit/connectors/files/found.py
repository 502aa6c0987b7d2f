"""A file or object that can be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that can be read.

    ``id`` stays the same when a file of this machine is renamed; that of an object changes with its
    content.
    """

    path: str
    size_bytes: int
    id: str
    modified_ns: int
