"""The interfaces of steps and operators, and of the task that runs them.

The graph contains *steps*, which are immutable values. A task opens each step and gets its own
*operator*, so two runs of the same graph share only the user's functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from streamkit.record import Chunk
from streamkit.state.change_log import StateFormat
from streamkit.state.keyed import Keyed
from streamkit.state.panes import Panes
from streamkit.state.waiting import WaitingRecords

S = TypeVar("S", bound=Keyed | Panes | WaitingRecords)


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
    """What a task provides to the operators of one node."""

    def is_over(self) -> bool:
        """Return whether the operator has used up the time of one slice."""

    def state(self, kind: type[S], name: str, form: StateFormat) -> S:
        """Return the state with a name; it outlives the task."""

    def lifespan(self) -> object:
        """Return what the function of ``@app.lifespan`` has yielded; None without one."""

    def dropped(self, offsets: Sequence[int]) -> None:
        """Count rows that a flat map expanded to no rows, by their offsets."""

    def late(self, chunk: Chunk) -> None:
        """Hand over records that came too late, which are counted as dropped."""

    def observe(self, chunk: Chunk) -> None:
        """Note the event times of the records of a source."""

    def watermark_ms(self) -> int:
        """Return the watermark of the node."""

    def highest_watermark_ms(self) -> int:
        """Return a time that no row of the present chunk has a watermark above."""

    def is_in_order(self) -> bool:
        """Return whether no record of this slice comes after one of a later event time."""

    def watermarks_ms(self, chunk: Chunk) -> Sequence[int]:
        """Return the watermark by which each row is judged: whether it is late."""


class Unlimited:
    """A `Room` without a time limit, without time, which counts nothing."""

    def is_over(self) -> bool:
        return False

    def lifespan(self) -> object:
        return None

    def dropped(self, offsets: Sequence[int]) -> None:
        pass

    def late(self, chunk: Chunk) -> None:
        pass

    def observe(self, chunk: Chunk) -> None:
        pass

    def watermark_ms(self) -> int:
        return -(2**62)

    def highest_watermark_ms(self) -> int:
        return -(2**62)

    def is_in_order(self) -> bool:
        return False

    def watermarks_ms(self, chunk: Chunk) -> Sequence[int]:
        return [-(2**62)] * len(chunk)

    def state(self, kind: type[S], name: str, form: StateFormat) -> S:
        return kind(name, form)


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


class TimedOperator(Operator, Protocol):
    """An operator that waits until the watermark has reached a time."""

    def on_time(self, watermark_ms: int) -> Chunk:
        """Return the results that no later record can change any more.

        The offsets of the result do not count.
        """

    def due_ms(self) -> int | None:
        """Return the watermark for which `on_time` has results next; None if nothing waits."""


class TwoSided(TimedOperator, Protocol):
    """An operator with two inputs."""

    def on_side(self, side: int, chunk: Chunk) -> Chunk:
        """Process a chunk of the input with number ``side``; see `Operator.on_chunk`."""


class Step(Protocol):
    """One step of a node: a value in the graph, which each task opens."""

    @property
    def expands(self) -> bool:
        """Whether one row may become several rows."""

    def open(self, room: Room) -> Operator:
        """Create the operator of one task."""


class TimedStep(ABC):
    """A step that waits for the watermark. It is the first step of its node."""

    expands = True
    # Whether a record that failed may be processed later, after others.
    can_repeat = False

    @property
    def is_timed(self) -> bool:
        """Whether the step really waits, as it is configured."""
        return True

    @property
    @abstractmethod
    def hold_ms(self) -> int:
        """How far the event time of a result may lie behind the watermark of the node."""

    @abstractmethod
    def open(self, room: Room) -> TimedOperator:
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
