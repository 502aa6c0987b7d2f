"""What makes the calls of one stage: the common part of all kinds of calls, and plain calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final

from streamkit.dataflow.calling import Called
from streamkit.record import Value
from streamkit.runtime.call_queue import CallQueue
from streamkit.runtime.task_env import TaskEnv
from streamkit.state.pending import PendingRecord

# How long calls that do not wait for anything may keep the event loop.
TURN_S: Final = 0.02

Call = list[PendingRecord]


class Caller(ABC):
    """Makes the calls of one stage."""

    def __init__(
        self, step: Called, queue: CallQueue, env: TaskEnv, on_change: Callable[[], None]
    ) -> None:
        self.queue = queue
        self._step = step
        self._now_s = env.now_s
        self._lifespan = env.lifespan.value
        self._on_change = on_change

    def start(self) -> None:
        """Begin every call that may begin now."""
        while call := self.queue.next_call(self._now_s()):
            self._begin(call)

    @abstractmethod
    def _begin(self, call: Call) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    def _finish(
        self, call: Call, result: Value, error: BaseException | None, began_s: float
    ) -> float:
        """Note the end of a call; return the time."""
        now_s = self._now_s()
        results: Sequence[Value] = ()
        if error is None:
            try:
                results = self._step.results(call, result)
            except BaseException as wrong:  # also of an iterator that the function returned
                error = wrong
        self.queue.latencies_s.append(now_s - began_s)
        self.queue.finish(call, results, error, now_s)
        self._on_change()
        return now_s


class PlainCaller(Caller):
    """Calls a plain function, one call after another, in the event loop."""

    def start(self) -> None:
        until_s = self._now_s() + TURN_S
        while call := self.queue.next_call(self._now_s()):
            self._begin(call)
            if self._now_s() > until_s:
                self._on_change()  # more of them after others had their turn
                return

    def _begin(self, call: Call) -> None:
        began_s = self._now_s()
        result, error = None, None
        try:
            result = self._step.function(*self._step.arguments(call, self._lifespan))
            if self._step.yields:
                result = list(result)
        except BaseException as raised:
            error = raised
        self._finish(call, result, error, began_s)

    async def close(self) -> None:
        pass  # no call is in progress
