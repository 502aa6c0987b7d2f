"""Awaits the calls of a stage that is an async function."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from streamkit.dataflow.calling import Called
from streamkit.record import Value
from streamkit.runtime.call_queue import CallQueue
from streamkit.runtime.caller import TURN_S, Call, Caller
from streamkit.runtime.task_env import TaskEnv

# How long a cancelled call may take to end, before it is given up.
_CANCEL_S: Final = 1.0
_CLOSE_S: Final = 1.0
# After so many values of one async generator, other tasks have their turn.
_VALUES_PER_TURN: Final = 256


class _Worker:
    """A task that makes one call after another.

    One that was cancelled, by the user's code or by the end of the event loop, finishes its call.
    """

    __slots__ = ("call", "has_timed_out", "is_cancelled", "is_given_up", "next", "task")

    def __init__(self) -> None:
        self.call: Call | None = None
        self.has_timed_out = False
        self.is_given_up = False
        self.is_cancelled = False
        self.next: asyncio.Future[Call] | None = None
        self.task: asyncio.Task[None]


class AsyncCaller(Caller):
    """Awaits calls, each in one of as many tasks as calls are in progress at most."""

    def __init__(
        self, step: Called, queue: CallQueue, env: TaskEnv, on_change: Callable[[], None]
    ) -> None:
        super().__init__(step, queue, env, on_change)
        self._function = _collected(step.function) if step.yields else step.function
        self._timeout_s = step.spec.timeout_s
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._is_closing = False
        self._turn_s = 0.0
        # When the calls in progress are late, in this order, because each may take as long.
        self._due_s: dict[_Worker, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def _begin(self, call: Call) -> None:
        while self._idle:
            worker = self._idle.pop()
            assert worker.next is not None, "an idle worker waits for it"
            if not worker.next.done():  # it is cancelled if the user has cancelled the task
                worker.next.set_result(call)
                return
        worker = _Worker()
        self._workers.add(worker)
        worker.task = asyncio.get_running_loop().create_task(self._work(worker, call))

    async def close(self) -> None:
        self._is_closing = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = [worker.task for worker in self._workers]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_S)

    async def _work(self, worker: _Worker, call: Call) -> None:
        function, arguments_of, now_s = self._function, self._step.arguments, self._now_s
        lifespan, queue = self._lifespan, self.queue
        began_s = now_s()
        while True:
            worker.call = call
            if self._timeout_s is not None:
                self._expect(worker, self._timeout_s)
            result, error = None, None
            try:
                result = await function(*arguments_of(call, lifespan))
            except BaseException as raised:
                error = self._caught(worker, raised)
            if self._timeout_s is not None:
                self._due_s.pop(worker, None)
            if worker.task.cancelling():
                await self._take_cancellation(worker)
            if worker.is_given_up:
                break
            worker.has_timed_out = False
            ended_s = self._finish(call, result, error, began_s)
            self._turn_s += ended_s - began_s
            began_s = ended_s
            if self._turn_s > TURN_S:
                self._turn_s = 0.0
                await asyncio.sleep(0)
                began_s = now_s()
            if worker.is_cancelled:
                break
            call = queue.next_call(began_s)
            if not call:
                call = await self._next(worker)
                began_s = now_s()
        self._workers.discard(worker)

    async def _next(self, worker: _Worker) -> Call:
        """Wait for the next call, as an idle worker."""
        worker.call = None
        worker.next = asyncio.get_running_loop().create_future()
        self._idle.append(worker)
        try:
            return await worker.next
        except asyncio.CancelledError:
            self._workers.discard(worker)
            if self._is_closing or worker.next.cancelled():
                raise
            worker.is_cancelled = True
            return worker.next.result()

    async def _take_cancellation(self, worker: _Worker) -> None:
        """Take a cancellation that may not have arrived, because the call has not waited since.

        Otherwise it would arrive in the next call.
        """
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._is_closing:
                raise
        worker.is_cancelled = worker.is_cancelled or not worker.has_timed_out
        while worker.task.uncancel():
            pass

    def _caught(self, worker: _Worker, error: BaseException) -> BaseException:
        """Return the error of a call.

        Raises:
            CancelledError: The job ends.
        """
        if not isinstance(error, asyncio.CancelledError):
            return error
        if self._is_closing:
            raise error
        if not worker.has_timed_out:
            worker.is_cancelled = True
            return error  # of the user, who has cancelled something
        late = TimeoutError(f"the call took longer than {self._timeout_s:g} s")
        return late.with_traceback(error.__traceback__)

    # --- calls that take too long ----------------------------------------------------

    def _expect(self, worker: _Worker, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._due_s[worker] = due_s = loop.time() + timeout_s
        if self._timer is None:
            self._timer = loop.call_at(due_s, self._end_late)

    def _end_late(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._due_s:
            worker = next(iter(self._due_s))
            if self._due_s[worker] > loop.time():
                self._timer = loop.call_at(self._due_s[worker], self._end_late)
                return
            del self._due_s[worker]
            worker.has_timed_out = True
            worker.task.cancel()
            loop.call_later(_CANCEL_S, self._give_up, worker, worker.call)

    def _give_up(self, worker: _Worker, call: Call | None) -> None:
        """Leave a call behind that does not end although it was cancelled."""
        if call is None or worker.call is not call or self._is_closing:
            return
        worker.is_given_up = True
        error = TimeoutError(
            f"the call took longer than {self._timeout_s:g} s, and did not end when it was "
            "cancelled"
        )
        self._finish(call, None, error, self._now_s())


def _collected(function: Callable[..., Value]) -> Callable[..., Awaitable[list[Value]]]:
    """Return a function that lists what an async generator yields."""

    async def collect(*arguments: Value) -> list[Value]:
        values: list[Value] = []
        async for value in function(*arguments):
            values.append(value)
            if not len(values) % _VALUES_PER_TURN:  # it may never wait for anything
                await asyncio.sleep(0)
        return values

    return collect
