"""Waits for results of user code, and separates its errors from the engine's cancellation."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from concurrent.futures import Future
from types import AsyncGeneratorType, CoroutineType, GeneratorType

from streamkit.frames.column_rows import ColumnRows

_NEVER_DONE = (GeneratorType, AsyncGeneratorType, map, filter, zip)
_NOT_BEGUN = frozenset({CoroutineType, AsyncGeneratorType})


def unfinished_row(values: Sequence[object]) -> int | None:
    """Return the first row whose value is a coroutine that nobody awaits, or None.

    A stage that returns a coroutine for its first record fails there. For a later record, the
    coroutine would reach a sink, which may ignore its value.
    """
    if type(values) is ColumnRows or _NOT_BEGUN.isdisjoint(map(type, values)):
        return None
    return next(row for row, value in enumerate(values) if type(value) in _NOT_BEGUN)


class NotAwaited(TypeError):
    """A value is a coroutine or an async generator that was never started."""

    def __init__(self, value: object) -> None:
        super().__init__(
            "the value is a coroutine that was never awaited: a stage must not be async"
        )
        if isinstance(value, CoroutineType):
            value.close()  # otherwise Python warns about it again later, at another place


async def settle(result: object) -> None:
    """Wait for the result of a call if it is awaitable.

    A coroutine, a task, or a future of a thread or process pool is work in progress, so the call
    is done only when that work is done.

    Raises:
        TypeError: The result is a generator or similar, so its work would never be done.
        BaseException: The work raised it.
    """
    if result is None:
        return
    if isinstance(result, Future):
        result = asyncio.wrap_future(result)
    if inspect.isawaitable(result):
        await result
    elif isinstance(result, _NEVER_DONE):
        raise TypeError(
            f"it returned a {type(result).__name__} object, whose code would never run: "
            "use a plain loop over the rows, without yield"
        )


def is_ours(error: BaseException) -> bool:
    """Return whether an error of an awaited call is the engine's own cancellation.

    User code may also raise ``CancelledError``, for example from a task that it cancelled. In
    that case nobody has cancelled the current task.
    """
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
