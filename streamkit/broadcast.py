"""An event that many tasks can wait for, any number of times."""

from __future__ import annotations

import anyio


class Broadcast:
    """Wakes every task that is waiting when `notify` is called.

    A notification is not stored: it does not wake a task that starts to wait later. So check the
    condition first, and wait without an ``await`` in between.
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
