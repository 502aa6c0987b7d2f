"""Makes the calls of stages in a test, and keeps the lifespan of the app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from streamkit.dataflow.topology import Node
from streamkit.record import Value
from streamkit.runtime.call_queue import CallQueue
from streamkit.runtime.calls import Calls
from streamkit.runtime.pending_queues import Release
from streamkit.runtime.task import Task
from streamkit.runtime.task_env import TaskEnv

NewLifespan = Callable[[], AbstractAsyncContextManager[object]]


class PendingWork:
    """The calls of the tasks of one test; all methods run in the test's event loop.

    Args:
        env: Time, as the test sets it.
        functions: What the calls of sink objects call.
    """

    def __init__(self, env: TaskEnv, functions: Mapping[Node, Callable[..., Value]]) -> None:
        self._env = env
        self._functions = functions
        self._task: Task | None = None
        self._calls: Calls | None = None
        self._changed = asyncio.Event()
        self._leave = asyncio.Event()
        self._lifespan: asyncio.Task[None] | None = None

    async def ready(self, task: Task) -> list[Release]:
        """Make calls until results are ready; an empty list if only retries are left.

        Batches begin that are not full, and the limit of the rate does not count.
        """
        if self._task is not task:
            self._task = task
            for queue in task.pending.by_node.values():
                if isinstance(queue, CallQueue):
                    queue.is_paced = False
            self._calls = Calls(task.pending, self._env, self._changed.set, self._functions)
            self._calls.flush()
        assert self._calls is not None, "it was created"
        while True:
            self._changed.clear()
            self._calls.start()
            found = task.pending.release()
            if found or not any(each.running for each in task.pending.by_node.values()):
                return found
            await self._changed.wait()

    async def enter(self, new: NewLifespan) -> object:
        """Enter the lifespan of the app; return what it yields."""
        loop = asyncio.get_running_loop()
        entered: asyncio.Future[object] = loop.create_future()
        self._lifespan = loop.create_task(self._hold(new, entered))
        return await entered

    async def close_calls(self) -> None:
        """End the calls."""
        calls, self._calls, self._task = self._calls, None, None
        if calls is not None:
            await calls.close()

    async def leave(self) -> None:
        """Leave the lifespan of the app."""
        self._leave.set()
        if self._lifespan is not None:
            await self._lifespan

    async def _hold(self, new: NewLifespan, entered: asyncio.Future[object]) -> None:
        """Enter and leave in one task, because some libraries need that."""
        try:
            async with new() as value:
                entered.set_result(value)
                await self._leave.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)
