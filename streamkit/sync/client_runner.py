"""A client that lives on the loop, and calls into it from other threads."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from streamkit.client import Client as AsyncClient
from streamkit.client import checks
from streamkit.errors import UsageError
from streamkit.sync.loop_iterator import LoopIterator
from streamkit.sync.loop_thread import LoopThread, shared_loop
from streamkit.sync.send_queue import SendQueue

T = TypeVar("T")


class ClientRunner:
    """Keeps an async client open on the loop: from the first call, or from `open`, to `close`."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.loop: LoopThread = shared_loop()
        self._opening = threading.Lock()
        self._life: Future[None] | None = None
        self._leave = asyncio.Event()
        # What follows changes under this lock.
        self._state = threading.Lock()
        self._is_closed = False
        self._closers = 0
        self._outboxes: weakref.WeakSet[SendQueue] = weakref.WeakSet()
        self._pulls: weakref.WeakSet[LoopIterator[Any]] = weakref.WeakSet()

    def open(self) -> None:
        """Connect, unless that is done.

        Raises:
            UsageError: It is closed.
            StreamKitError: As entering the async client does.
        """
        self.loop.check()
        if self._life is not None and not self._is_closed:
            return
        with self._opening:
            if self._is_closed:
                raise self._closed()
            if self._life is None:
                self._begin_life()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it; connect first, where that is not done."""
        try:
            self.open()
        except BaseException:
            work.close()
            raise
        return self.loop.call(work)

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def opened(self, send_queue: SendQueue) -> None:
        """Learn of a producer that `close` has to close first.

        Raises:
            UsageError: It is being closed.
        """
        with self._state:
            if self._closers or self._is_closed:
                raise self._closed()
            self._outboxes.add(send_queue)

    def iterate(self, bring: Callable[[], Awaitable[T | None]]) -> LoopIterator[T]:
        """Take things from a coroutine function, until `close` at the latest."""
        iterate = LoopIterator(self.loop, bring)
        with self._state:
            self._pulls.add(iterate)
        return iterate

    def close(self, *, deadline_s: float | None = None) -> None:
        """Flush what producers hold, then leave the client. Does nothing the second time.

        No producer opens meanwhile; interrupted, the client stays as it is.

        Raises:
            NotFlushed: The deadline passed; the text says how many records are open.
            StreamKitError: The first refusal of a producer that was not flushed.
        """
        checks.optional(checks.seconds, "deadline_s", deadline_s)
        self.loop.check_not_forked()
        with self._state:
            if self._is_closed or self._life is None:
                self._is_closed = True
                return
            self._closers += 1
            outboxes = list(self._outboxes)
        for send_queue in outboxes:
            send_queue.shut()
        try:
            outcomes = self.loop.call(_closed(outboxes, deadline_s))
        except BaseException:
            for send_queue in outboxes:
                send_queue.reopen()
            with self._state:
                self._closers -= 1
            raise
        self._is_closed = True
        with self._state:
            pulls = list(self._pulls)
        for iterate in pulls:
            iterate.close()
        self.loop.post(self._leave.set)
        self.loop.result_of(self._life)
        problems = [outcome for outcome in outcomes if outcome is not None]
        if problems:
            for other in problems[1:]:
                problems[0].add_note(str(other))
            raise problems[0]

    def partition_count(self, topic: str) -> int | None:
        """Return how many partitions a topic is known to have; None if that is not known."""
        return self.client.cluster.metadata.partition_count(topic) or None

    def _closed(self) -> UsageError:
        return UsageError(f"the client of {self.client.address} is closed")

    def _begin_life(self) -> None:
        entered: Future[None] = Future()
        life = self.loop.start(self._live(entered))
        try:
            entered.result()
        except BaseException:
            life.cancel()
            raise
        with self._state:
            self._life = life
            is_late = self._is_closed
        if is_late:  # by another thread, which found nothing to leave
            self.loop.post(self._leave.set)
            raise self._closed()

    async def _live(self, entered: Future[None]) -> None:
        try:
            async with self.client:
                entered.set_result(None)
                await self._leave.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)


async def _closed(
    outboxes: list[SendQueue], deadline_s: float | None
) -> list[BaseException | None]:
    """Close them all at once; return what each raised."""
    closing = [each.close(deadline_s) for each in outboxes]
    return await asyncio.gather(*closing, return_exceptions=True)
