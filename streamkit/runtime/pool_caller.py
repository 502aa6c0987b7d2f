"""Makes the calls of a stage in threads or processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from streamkit.dataflow.calling import Called
from streamkit.runtime.call_queue import CallQueue
from streamkit.runtime.caller import Call, Caller
from streamkit.runtime.task_env import TaskEnv


class Pool(Protocol):
    """Threads or processes that make calls."""

    def start(self, number: int, arguments: tuple[object, ...]) -> None: ...

    def began_s(self, number: int) -> float | None: ...

    def abandon(self, number: int) -> None: ...

    async def close(self) -> None: ...


NewPool = Callable[[Callable[[int, object, BaseException | None], None]], Pool]


class PoolCaller(Caller):
    """Makes calls in threads or processes."""

    def __init__(
        self,
        step: Called,
        queue: CallQueue,
        env: TaskEnv,
        on_change: Callable[[], None],
        new_pool: NewPool,
    ) -> None:
        super().__init__(step, queue, env, on_change)
        self._timeout_s = step.spec.timeout_s
        self._pool: Pool = new_pool(self._on_done)
        self._number = 0
        self._calls: dict[int, tuple[Call, float, asyncio.TimerHandle | None]] = {}

    def _begin(self, call: Call) -> None:
        self._number = number = self._number + 1
        began_s = self._now_s()
        try:
            arguments = self._step.arguments(call, self._lifespan)
        except Exception as error:  # the key is not what the context needs
            self._finish(call, None, error, began_s)
            return
        timer = None
        if self._timeout_s is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(self._timeout_s, self._end_late, number)
        self._calls[number] = (call, began_s, timer)
        self._pool.start(number, arguments)

    def _on_done(self, number: int, result: object, error: BaseException | None) -> None:
        found = self._calls.pop(number, None)
        if found is not None:
            call, began_s, timer = found
            if timer is not None:
                timer.cancel()
            self._finish(call, result, error, began_s)
            self.start()

    def _end_late(self, number: int) -> None:
        """Give up a call that takes too long; the start of a process does not count."""
        assert self._timeout_s is not None, "only then a call has a timer"
        call, began_s, _ = self._calls[number]
        loop = asyncio.get_running_loop()
        call_began_s = self._pool.began_s(number)
        if call_began_s is None or loop.time() < call_began_s + self._timeout_s:
            due_s = (call_began_s or loop.time()) + self._timeout_s
            timer = loop.call_at(due_s, self._end_late, number)
            self._calls[number] = (call, began_s, timer)
            return
        del self._calls[number]
        self._pool.abandon(number)
        error = TimeoutError(f"the call took longer than {self._timeout_s:g} s")
        self._finish(call, None, error, began_s)

    async def close(self) -> None:
        for _, _, timer in self._calls.values():
            if timer is not None:
                timer.cancel()
        self._calls = {}
        await self._pool.close()
