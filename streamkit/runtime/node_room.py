"""What a task provides to the operators of one node: time, states, and places for odd rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from streamkit.dataflow.topology import Node
from streamkit.dataflow.watermarks import NEVER_MS, Watermarks
from streamkit.record import Chunk
from streamkit.runtime.task_env import Lifespan
from streamkit.state.change_log import StateFormat
from streamkit.state.keyed import Keyed
from streamkit.state.panes import Panes
from streamkit.state.states import States
from streamkit.state.waiting import WaitingRecords

# How long one operator may work on one slice. The slice size is chosen for a much shorter time.
# This limit is for functions that suddenly become slow.
OPERATOR_S_MAX: Final = 0.25
S = TypeVar("S", bound=Keyed | Panes | WaitingRecords)


class Budget:
    """The time that the running operator may take; a task runs one operator at a time."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._until_s = float("inf")
        self.is_unlimited = False

    def begin(self) -> None:
        self._until_s = self._now_s() + OPERATOR_S_MAX

    def hold(self) -> None:
        """Let the operator finish what it has begun."""
        self._until_s = float("inf")

    def now_s(self) -> float:
        """Return the monotonic time."""
        return self._now_s()

    def is_over(self) -> bool:
        return not self.is_unlimited and self._now_s() >= self._until_s


class NodeRoom:
    """The `streamkit.dataflow.steps.Room` of one node in a task."""

    def __init__(
        self,
        budget: Budget,
        states: States,
        time: Watermarks | None,
        lifespan: Lifespan,
        node: Node,
    ) -> None:
        self._node = node
        self._lifespan = lifespan
        self._budget = budget
        self._states = states
        self._time = time
        # The offsets of rows that became no rows, since `begin`.
        self.empty: list[int] = []
        self._late: list[Chunk] = []

    def begin(self) -> None:
        """Begin one operator's work on one chunk."""
        self._budget.begin()
        self.empty = []

    def take_late(self) -> list[Chunk]:
        """Return the records that came too late since the last call."""
        late, self._late = self._late, []
        return late

    def is_over(self) -> bool:
        return self._budget.is_over()

    def lifespan(self) -> object:
        return self._lifespan.value

    def state(self, kind: type[S], name: str, form: StateFormat) -> S:
        return self._states.open(kind, name, form)

    def dropped(self, offsets: Sequence[int]) -> None:
        self.empty.extend(offsets)

    def late(self, chunk: Chunk) -> None:
        if len(chunk):
            self._late.append(chunk)
            self.empty.extend(chunk.offsets)

    def observe(self, chunk: Chunk) -> None:
        if self._time is not None:
            self._time.observe(chunk)

    def watermark_ms(self) -> int:
        return NEVER_MS if self._time is None else self._time.of_node(self._node)

    def highest_watermark_ms(self) -> int:
        return NEVER_MS if self._time is None else self._time.highest_of(self._node)

    def is_in_order(self) -> bool:
        return self._time is not None and self._time.is_in_order()

    def watermarks_ms(self, chunk: Chunk) -> Sequence[int]:
        if self._time is None:
            return [NEVER_MS] * len(chunk)
        return self._time.of_rows(self._node, chunk)
