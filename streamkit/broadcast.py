"""One event for many waiters, again and again."""

from __future__ import annotations

import anyio


class Broadcast:
    """Wakes every task that is waiting when `notify` is called.

    A notification is not stored: a task that begins to wait after it waits for the next one. So
    check the condition first, and wait without an ``await`` in between.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    @property
    def next(self) -> anyio.Event:
        """The event that the next `notify` sets, for a task that has other work before it waits."""
        return self._event

    def notify(self) -> None:
        """Wake all tasks that are waiting now. Call it on the event loop of these tasks."""
        event, self._event = self._event, anyio.Event()
        event.set()

    async def wait(self) -> None:
        """Wait for the next `notify`."""
        await self._event.wait()
