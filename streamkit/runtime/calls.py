"""Makes the calls of stages that are called outside of slices.

| calls | are made by | a call that takes too long |
|---|---|---|
| async | tasks of the job's event loop, which are used again and again | is cancelled |
| in threads | `CallThreads` | is given up: its thread goes on, another one replaces it |
| in processes | `CallProcesses` | its process is killed, another one replaces it |
| plain, in batches | the event loop itself, between two slices | cannot be stopped |
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from streamkit.dataflow.calling import Called, called_step
from streamkit.dataflow.topology import Node
from streamkit.record import Value
from streamkit.runtime.call_queue import CallQueue
from streamkit.runtime.call_threads import CallThreads, listed
from streamkit.runtime.pending_queues import PendingQueues
from streamkit.runtime.task_env import TaskEnv
from streamkit.runtime.user_calls import settle
from streamkit.state.pending import PendingRecord

# How long calls that do not wait for anything may keep the event loop.
_TURN_S: Final = 0.02
# How long a cancelled call may take to end, before it is given up.
_CANCEL_S: Final = 1.0
_CLOSE_S: Final = 1.0
# After so many values of one async generator, other tasks have their turn.
_VALUES_PER_TURN: Final = 256

Call = list[PendingRecord]


class Calls:
    """The calls of all stages of a task.

    Args:
        queues: What waits in the stages.
        env: Time, and what the lifespan of the app has yielded.
        on_change: Called when a call has ended.
        functions: What sinks call that are objects: their writers take care of the object.
    """

    def __init__(
        self,
        queues: PendingQueues,
        env: TaskEnv,
        on_change: Callable[[], None],
        functions: Mapping[Node, Callable[..., Value]],
    ) -> None:
        self._callers: dict[Node, Caller] = {}
        for node, queue in queues.by_node.items():
            step = called_step(node)
            if step is not None and isinstance(queue, CallQueue):
                step = replace(step, function=functions.get(node, step.function))
                self._callers[node] = _caller_of(node, step, queue, env, on_change)

    def start(self) -> None:
        """Begin every call that may begin now."""
        for caller in self._callers.values():
            caller.start()

    def flush(self) -> None:
        """Begin batches that are not full too, because no more records come."""
        for caller in self._callers.values():
            caller.queue.is_flushing = True

    async def close(self) -> None:
        """End all calls; those in progress are given up."""
        await asyncio.gather(*(each.close() for each in self._callers.values()))


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
            if self._turn_s > _TURN_S:
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


class PlainCaller(Caller):
    """Calls a plain function, one call after another, in the event loop."""

    def start(self) -> None:
        until_s = self._now_s() + _TURN_S
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


def _caller_of(
    node: Node, step: Called, queue: CallQueue, env: TaskEnv, on_change: Callable[[], None]
) -> Caller:
    spec = step.spec
    if spec.how == "plain" and step.is_sink:  # it may return something that is to be awaited
        step = replace(step, function=partial(_settled, step.function))
        return AsyncCaller(step, queue, env, on_change)
    if spec.how == "async":
        return AsyncCaller(step, queue, env, on_change)
    if spec.how == "plain":
        return PlainCaller(step, queue, env, on_change)
    if spec.how == "thread":
        pool: Callable[..., Pool] = CallThreads
    else:
        from streamkit.runtime.call_processes import CallProcesses

        pool = CallProcesses
    function = partial(listed, step.function) if step.yields else step.function
    new_pool: NewPool = partial(pool, function, node.name, spec.concurrency)
    return PoolCaller(step, queue, env, on_change, new_pool)


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


async def _settled(function: Callable[..., Value], *arguments: Value) -> None:
    """Call a plain function that is a sink, and wait for what it returns."""
    await settle(function(*arguments))
