"""An iterator over items that are produced on the event loop, for use in other threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from streamkit.errors import UsageError
from streamkit.limits import SIGNAL_WAIT_S_MAX
from streamkit.sync.loop_thread import LoopThread

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """A value, or an error instead of it, or neither at the end. Numbers start at 1."""

    number: int
    value: T | None = None
    error: Exception | None = None


class LoopIterator(Generic[T]):
    """Gets one item after another from a coroutine function that runs on the event loop.

    The caller requests an item with the number of the one before it, and an item is kept until
    the next one is requested. So nothing is lost if a caller is interrupted at any point: the same
    request returns the same item.

    Args:
        loop: The event loop thread on which ``fetch`` runs.
        fetch: Waits for the next value; None means the end. If it raises, the item has the error.
    """

    def __init__(self, loop: LoopThread, fetch: Callable[[], Awaitable[T | None]]) -> None:
        self._loop = loop
        self._fetch = fetch
        self._requested = asyncio.Event()
        self._arrived = threading.Event()
        self._requested_number = 0
        self._last_request = -1
        self._last: Item[T] = Item(0)
        self._is_closed = False
        self._task: Future[None] | None = None

    def after(self, number: int) -> Item[T]:
        """Wait for the item after the one with this number. Only one thread may call at a time.

        Raises:
            UsageError: The iterator was closed, or the process was forked.
        """
        self._loop.check()
        if self._task is None:
            self._task = self._loop.start(self._run())
        if self._requested_number <= number:
            self._arrived.clear()
            self._loop.post(self._request, number)
            self._requested_number = number + 1
        while self._last.number <= number:
            if self._is_closed:
                raise UsageError("the iterator or its client was closed during the call")
            self._arrived.wait(SIGNAL_WAIT_S_MAX)
        return self._last

    def close(self) -> None:
        """Stop fetching items; a waiting thread gets an error."""
        self._is_closed = True
        self._arrived.set()
        if self._task is not None:
            self._task.cancel()

    def _request(self, number: int) -> None:
        # An interrupted caller requests an item twice. A second fetch would replace the first
        # item, so it is skipped.
        if number > self._last_request:
            self._last_request = number
            self._requested.set()

    async def _run(self) -> None:
        try:
            while True:
                await self._requested.wait()
                self._requested.clear()
                number = self._last.number + 1
                try:
                    self._last = Item(number, await self._fetch())
                except Exception as error:  # raised in the thread that requested the item
                    self._last = Item(number, error=error)
                self._arrived.set()
        finally:
            self._is_closed = True
            self._arrived.set()
