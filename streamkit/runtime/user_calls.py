"""Calls of the user's code: whatever they return is waited for, whatever they raise is theirs."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from concurrent.futures import Future
from types import AsyncGeneratorType, CoroutineType, GeneratorType

_NEVER_DONE = (GeneratorType, AsyncGeneratorType, map, filter, zip)
_NOT_BEGUN = frozenset({CoroutineType, AsyncGeneratorType})


def unfinished_row(values: Sequence[object]) -> int | None:
    """Return the first row whose value is a coroutine: work of a stage that nobody has begun.

    A stage that returns one for its first record fails there. For a later record it would reach
    a sink, which may never look at it.
    """
    if _NOT_BEGUN.isdisjoint(map(type, values)):
        return None
    return next(row for row, value in enumerate(values) if type(value) in _NOT_BEGUN)


class Unfinished(TypeError):
    """A value is work that nobody has begun."""

    def __init__(self, value: object) -> None:
        super().__init__(
            "the value is a coroutine that was never awaited: a stage must not be async"
        )
        if isinstance(value, CoroutineType):
            value.close()  # else Python says the same once more, later and somewhere else


async def settle(result: object) -> None:
    """Wait for what a call returned, where there is something to wait for.

    A coroutine, a task, or a future of a thread or process pool is work that is still going on:
    the call has ended only when it has.

    Raises:
        TypeError: It is a generator or the like, so its work would never be done.
        BaseException: What the work raised.
    """
    if result is None:
        return
    if isinstance(result, Future):
        result = asyncio.wrap_future(result)
    if inspect.isawaitable(result):
        await result
    elif isinstance(result, _NEVER_DONE):
        raise TypeError(
            f"it returned a {type(result).__name__} object, so what it does would never be done: "
            "loop over the rows, without yield"
        )


def is_ours(error: BaseException) -> bool:
    """Tell whether an error of an awaited call is the engine's own cancellation.

    ``CancelledError`` is also what user code raises, or gets from a task that it cancelled: then
    nobody has asked the current task to end.
    """
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
