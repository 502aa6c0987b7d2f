"""A node of a running graph, with its operators and the nodes that read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from streamkit.dataflow.steps import Operator, TimedOperator, TwoSided
from streamkit.dataflow.topology import Node
from streamkit.record import Chunk
from streamkit.runtime.call_queue import CallQueue
from streamkit.runtime.node_room import NodeRoom
from streamkit.runtime.retry_queue import RetryQueue


@dataclass(slots=True)
class RunningNode:
    """A node with its operators and readers, ready to run."""

    node: Node
    room: NodeRoom = field(init=False)
    operators: list[tuple[Operator, bool]] = field(default_factory=list)
    # The records that wait in this stage, if it has calls or retries.
    queue: CallQueue | RetryQueue | None = None
    # The number of the operator that is called outside of slices.
    called: int | None = None
    # Returns the watermarks by which rows are judged later; None if none is.
    marks: Callable[[Chunk], Sequence[int]] | None = None
    readers: list[Reader] = field(default_factory=list)
    late_readers: list[Reader] = field(default_factory=list)

    @property
    def is_retrying(self) -> bool:
        """Whether rows that fail wait here and are tried again in later slices."""
        return self.queue is not None and self.called is None

    @property
    def timed(self) -> TimedOperator:
        return cast("TimedOperator", self.operators[0][0])

    @property
    def is_two_sided(self) -> bool:
        return bool(self.operators) and hasattr(self.operators[0][0], "on_side")

    @property
    def after_time(self) -> list[tuple[Operator, bool]]:
        """The operators for what `TimedOperator.on_time` returns."""
        first, rest = self.operators[0], self.operators[1:]
        return [(_Due(first[0]), True), *rest] if hasattr(first[0], "on_due") else rest


# A node that reads another one, and the number of this input.
Reader = tuple[RunningNode, int]


@dataclass(frozen=True, slots=True)
class Side:
    """One input of an operator that has two."""

    operator: Operator
    side: int

    def on_chunk(self, chunk: Chunk) -> Chunk:
        return cast("TwoSided", self.operator).on_side(self.side, chunk)


@dataclass(frozen=True, slots=True)
class _Due:
    """What an operator does when the time of something that it has kept has come."""

    operator: Any

    def on_chunk(self, chunk: Chunk) -> Chunk:
        result: Chunk = self.operator.on_due(chunk)
        return result
