"""What the loop brings, taken by other threads: one thing at a time, when asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Generic, TypeVar

from streamkit.errors import UsageError
from streamkit.sync.loop_thread import LoopThread

T = TypeVar("T")


class Pull(Generic[T]):
    """Takes one thing after another from a coroutine function that runs on the loop.

    Each is only asked for when it is wanted. A wait that is interrupted loses nothing: what
    it waited for is what the next one gets.

    Args:
        loop: Where ``bring`` runs.
        bring: Waits for the next thing. `next` raises its error, and may be called again.
    """

    def __init__(self, loop: LoopThread, bring: Callable[[], Awaitable[T]]) -> None:
        self._loop = loop
        self._bring = bring
        self._asked = asyncio.Event()
        self._is_asked = False
        self._is_closed = False
        self._brought: SimpleQueue[Callable[[], T]] = SimpleQueue()
        self._in_turn = threading.Lock()
        self._task: Future[None] | None = None

    def next(self) -> T:
        """Wait for the next thing.

        Raises:
            UsageError: It was closed, or the process was forked.
        """
        self._loop.check()
        with self._in_turn:
            if self._is_closed:
                raise _closed()
            if self._task is None:
                self._task = self._loop.start(self._run())
            if not self._is_asked:
                self._loop.post(self._asked.set)
                self._is_asked = True
            brought = self._brought.get()
            self._is_asked = False
        return brought()

    def close(self) -> None:
        """Bring nothing more; whoever waits is told."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                try:
                    thing = await self._bring()
                except Exception as error:  # it belongs to the thread that asked
                    self._brought.put(_Failure(error))
                else:
                    self._brought.put(_Thing(thing))
        finally:
            self._is_closed = True
            self._brought.put(_Failure(_closed()))


class _Thing(Generic[T]):
    def __init__(self, thing: T) -> None:
        self._thing = thing

    def __call__(self) -> T:
        return self._thing


class _Failure:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self) -> T:  # type: ignore[type-var]
        raise self._error


def _closed() -> UsageError:
    return UsageError("it was closed meanwhile")
