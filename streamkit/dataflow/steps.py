"""The interfaces of steps and operators, and of the task that runs them.

The graph contains *steps*, which are immutable values. A task opens each step and gets its own
*operator*, so two runs of the same graph share only the user's functions.
"""

from __future__ import annotations

from collections.abc import (
    Sequence,
)
from dataclasses import dataclass
from typing import Protocol

from streamkit.record import Chunk
from streamkit.state.keyed import Keyed, StateFormat


class Interrupted(Exception):
    """An operator ended before the last row of its chunk.

    ``before`` has the results of the rows before ``row``, so they are not computed again.
    """

    def __init__(self, row: int, before: Chunk) -> None:
        super().__init__(f"row {row}")
        self.row = row
        self.before = before


class RowFailed(Interrupted):
    """A function raised an exception on ``row``, which is the cause."""


class SliceTimeUp(Interrupted):
    """The time of the slice is over; ``row`` and the rows after it belong to a later slice."""


class Room(Protocol):
    """What a task provides to its operators."""

    def is_over(self) -> bool:
        """Return whether the operator has used up the time of one slice."""

    def keyed(self, name: str, form: StateFormat) -> Keyed:
        """Return the state of a stage by its name; it outlives the task."""

    def dropped(self, offsets: Sequence[int]) -> None:
        """Count rows that a flat map expanded to no rows, by their offsets."""


class Unlimited:
    """A `Room` without a time limit, which counts nothing."""

    def is_over(self) -> bool:
        return False

    def dropped(self, offsets: Sequence[int]) -> None:
        pass

    def keyed(self, name: str, form: StateFormat) -> Keyed:
        return Keyed(name, form)


class Operator(Protocol):
    """One running step. It does no I/O and reads no clock.

    It may get rows that it has processed before: if a slice ends early, at a failed row or when
    its time is over, that row and the rows after it are processed again.
    """

    def on_chunk(self, chunk: Chunk) -> Chunk:
        """Process a chunk and return the result.

        The result must not depend on how records are divided into chunks.

        Raises:
            RowFailed: The user's function failed on the row.
            SliceTimeUp: The time is over; it names the first row that was not processed.
        """


class Step(Protocol):
    """One step of a node: a value in the graph, which each task opens."""

    @property
    def expands(self) -> bool:
        """Whether one row may become several rows."""

    def open(self, room: Room) -> Operator:
        """Create the operator of one task."""


class Stateless:
    """A step without state between chunks: subclasses only define ``apply``."""

    __slots__ = ()

    @property
    def expands(self) -> bool:
        return False

    def open(self, room: Room) -> Operator:
        return _Applied(self, room)

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        """Process a chunk and return the result; see `Operator.on_chunk`."""
        raise AssertionError("each step defines apply")


@dataclass(frozen=True, slots=True)
class _Applied:
    """The operator of a step without state."""

    step: Stateless
    room: Room

    def on_chunk(self, chunk: Chunk) -> Chunk:
        return self.step.apply(chunk, self.room)
