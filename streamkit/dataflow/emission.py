"""When windows emit results, and parts that all stages with windows use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from streamkit.dataflow.accumulating import Aggregate
from streamkit.errors import UsageError
from streamkit.record import Chunk
from streamkit.windows import (
    AnyWindow,
    CountWindow,
    Duration,
    Sliding,
    Tumbling,
    duration_ms,
)

Emit = Literal["final", "updates"]
EMPTY: Final = Chunk()
# What a result is made from: the start and the end of the window, and the aggregate.
Row = tuple[int, int, Aggregate]


@dataclass(frozen=True, slots=True)
class Emission:
    """When results are emitted: once, at each change, or each ``every_ms`` of event time."""

    emit: Emit = "final"
    every_ms: int | None = None


def emission_of(window: AnyWindow, late_ms: int, emit: Emit, every: Duration | None) -> Emission:
    """Return when results are emitted.

    Raises:
        UsageError: An option is not valid, or not together with the others.
    """
    if emit not in get_args(Emit):
        raise UsageError(f"emit={emit!r} is not valid", hint='use "final" or "updates"')
    if isinstance(window, CountWindow) and late_ms:
        raise UsageError("windows of a number of records have no late records: leave out late=")
    if emit == "updates" and getattr(window, "max_length_ms", None) is not None:
        raise UsageError(
            'a session with max_length= cannot have emit="updates": where it is divided is known '
            "only when it is complete"
        )
    if every is None:
        return Emission(emit)
    if emit != "final" or not isinstance(window, Tumbling | Sliding):
        raise UsageError("every= is for tumbling and sliding windows with emit='final'")
    return Emission(emit, duration_ms(every, "every"))


class NoTime(ValueError):
    """A record without a timestamp."""

    def __init__(self) -> None:
        super().__init__(
            "the record has no timestamp, so it belongs to no window; "
            "give the source an event time with event_time="
        )


def picked(chunk: Chunk, rows: Sequence[int]) -> Chunk:
    """Return some rows of a chunk."""
    mask = bytearray(len(chunk))
    for row in rows:
        mask[row] = 1
    return chunk.select(mask)
