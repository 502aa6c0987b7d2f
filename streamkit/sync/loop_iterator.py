"""What the loop brings, taken by other threads: one thing at a time, when asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from streamkit.errors import UsageError
from streamkit.sync.loop_thread import LoopThread

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """A thing, or the error in its place, or neither. Numbers count from 1."""

    number: int
    thing: T | None = None
    error: Exception | None = None


class LoopIterator(Generic[T]):
    """Takes one thing after another from a coroutine function that runs on the loop.

    Each is asked for by the number of the one before it, and kept until then. So an interrupt
    loses nothing, whenever it comes: who asks again gets the same.

    Args:
        loop: Where ``bring`` runs.
        bring: Waits for the next thing; None says that there is none. Its error takes the
            place of one.
    """

    def __init__(self, loop: LoopThread, bring: Callable[[], Awaitable[T | None]]) -> None:
        self._loop = loop
        self._bring = bring
        self._wanted = asyncio.Event()
        self._arrived = threading.Event()
        self._asked_for = 0
        self._asked_last = -1
        self._last: Item[T] = Item(0)
        self._is_closed = False
        self._task: Future[None] | None = None

    def after(self, number: int) -> Item[T]:
        """Wait for the thing behind that of a number; one thread at a time may.

        Raises:
            UsageError: It was closed, or the process was forked.
        """
        self._loop.check()
        if self._task is None:
            self._task = self._loop.start(self._run())
        if self._asked_for <= number:
            self._arrived.clear()
            self._loop.post(self._ask, number)
            self._asked_for = number + 1
        while self._last.number <= number:
            if self._is_closed:
                raise UsageError("it was closed meanwhile, or its client was")
            self._arrived.wait()
        return self._last

    def close(self) -> None:
        """Bring nothing more; whoever waits is told."""
        self._is_closed = True
        self._arrived.set()
        if self._task is not None:
            self._task.cancel()

    def _ask(self, number: int) -> None:
        # An interrupted caller asks twice, also while the thing is on its way: what would be
        # brought for that would take the place of the first.
        if number > self._asked_last:
            self._asked_last = number
            self._wanted.set()

    async def _run(self) -> None:
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                number = self._last.number + 1
                try:
                    self._last = Item(number, await self._bring())
                except Exception as error:  # it belongs to the thread that asked
                    self._last = Item(number, error=error)
                self._arrived.set()
        finally:
            self._is_closed = True
            self._arrived.set()
