"""The lifespan of an app: something that is opened for a whole run."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from streamkit.dataflow.functions import call_problem, location_of, name_of
from streamkit.errors import TopologyError
from streamkit.record import Value

NewLifespan = Callable[[], AbstractAsyncContextManager[object]]


def as_lifespan(function: Callable[[], Value]) -> NewLifespan:
    """Return what opens the lifespan of an app.

    Raises:
        TopologyError: The function is neither an async generator nor one that returns an async
            context manager, or it has parameters.
    """
    at = str(location_of(function))
    problem = call_problem(function, ())
    if problem:
        raise TopologyError(
            f"the lifespan {name_of(function)!r} gets no arguments: {problem}", at=at
        )
    plain = inspect.unwrap(function)
    if inspect.isasyncgenfunction(function):
        return asynccontextmanager(function)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TopologyError(
            f"the lifespan {name_of(function)!r} is not an async generator",
            at=at,
            hint="write async def and yield what stages need, once",
        )
    if inspect.isasyncgenfunction(plain):  # of asynccontextmanager
        return function

    @asynccontextmanager
    async def entered() -> AsyncIterator[object]:
        manager = function()
        if not hasattr(manager, "__aenter__"):
            raise TypeError(
                f"the lifespan {name_of(function)!r} returned {type(manager).__name__}, which is "
                "not an async context manager"
            )
        async with manager as value:
            yield value

    return entered
