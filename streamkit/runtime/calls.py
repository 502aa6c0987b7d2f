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
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from streamkit.dataflow.calling import Called, called_step
from streamkit.dataflow.topology import Node
from streamkit.record import Value
from streamkit.runtime.async_caller import AsyncCaller
from streamkit.runtime.call_queue import CallQueue
from streamkit.runtime.call_threads import CallThreads, listed
from streamkit.runtime.caller import Caller, PlainCaller
from streamkit.runtime.pending_queues import PendingQueues
from streamkit.runtime.pool_caller import NewPool, Pool, PoolCaller
from streamkit.runtime.task_env import TaskEnv
from streamkit.runtime.user_calls import settle


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


async def _settled(function: Callable[..., Value], *arguments: Value) -> None:
    """Call a plain function that is a sink, and wait for what it returns."""
    await settle(function(*arguments))
