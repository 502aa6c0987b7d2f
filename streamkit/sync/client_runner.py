"""Runs an async client on the event loop thread, and calls it from other threads."""

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
from streamkit.sync.loop_thread import LoopThread, shared_loop, wait_for
from streamkit.sync.send_queue import SendQueue

T = TypeVar("T")


class ClientRunner:
    """Keeps an async client open on the event loop, until `close`; the first call opens it."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.loop: LoopThread = shared_loop()
        self._opening = threading.Lock()
        self._client_task: Future[None] | None = None
        self._close_requested = asyncio.Event()
        # This lock protects the fields below.
        self._state = threading.Lock()
        self._is_closed = False
        self._closers = 0
        self._send_queues: weakref.WeakSet[SendQueue] = weakref.WeakSet()
        self._iterators: weakref.WeakSet[LoopIterator[Any]] = weakref.WeakSet()

    def open(self) -> None:
        """Connect, unless the client is connected already.

        Raises:
            UsageError: The client is closed.
            StreamKitError: The client cannot connect.
        """
        self.loop.check()
        if self._client_task is not None and not self._is_closed:
            return
        with self._opening:
            if self._is_closed:
                raise self._closed()
            if self._client_task is None:
                self._start_client()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it; connect first if necessary."""
        try:
            self.open()
        except BaseException:
            work.close()
            raise
        return self.loop.call(work)

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def add_send_queue(self, send_queue: SendQueue) -> None:
        """Register the send queue of a producer, which `close` closes first.

        Raises:
            UsageError: The client is being closed.
        """
        with self._state:
            if self._closers or self._is_closed:
                raise self._closed()
            self._send_queues.add(send_queue)

    def iterate(self, fetch: Callable[[], Awaitable[T | None]]) -> LoopIterator[T]:
        """Return an iterator over the results of a coroutine function, which `close` ends."""
        iterator = LoopIterator(self.loop, fetch)
        with self._state:
            self._iterators.add(iterator)
        return iterator

    def close(self, *, deadline_s: float | None = None) -> None:
        """Flush the producers, then close the client. A second call does nothing.

        Meanwhile no producer can open. If this is interrupted, the client stays open.

        Raises:
            NotFlushed: The deadline passed; the message shows the number of unacknowledged records.
            StreamKitError: The first refusal of a producer that was not flushed.
        """
        checks.optional(checks.seconds, "deadline_s", deadline_s)
        self.loop.check_not_forked()
        with self._state:
            if self._is_closed or self._client_task is None:
                self._is_closed = True
                return
            self._closers += 1
            send_queues = list(self._send_queues)
        for send_queue in send_queues:
            send_queue.shut()
        try:
            outcomes = self.loop.call(_closed(send_queues, deadline_s))
        except BaseException:
            for send_queue in send_queues:
                send_queue.reopen()
            with self._state:
                self._closers -= 1
            raise
        self._is_closed = True
        with self._state:
            iterators = list(self._iterators)
        for iterator in iterators:
            iterator.close()
        self.loop.post(self._close_requested.set)
        self.loop.result_of(self._client_task)
        problems = [outcome for outcome in outcomes if outcome is not None]
        if problems:
            for other in problems[1:]:
                problems[0].add_note(str(other))
            raise problems[0]

    def partition_count(self, topic: str) -> int | None:
        """Return the number of partitions of a topic; None if it is not known yet."""
        return self.client.cluster.metadata.partition_count(topic) or None

    def _closed(self) -> UsageError:
        return UsageError(f"the client of {self.client.address} is closed")

    def _start_client(self) -> None:
        entered: Future[None] = Future()
        client_task = self.loop.start(self._run_client(entered))
        try:
            wait_for(entered)
        except BaseException:
            client_task.cancel()
            raise
        with self._state:
            self._client_task = client_task
            is_late = self._is_closed
        if is_late:  # another thread closed the client before it was open
            self.loop.post(self._close_requested.set)
            raise self._closed()

    async def _run_client(self, entered: Future[None]) -> None:
        try:
            async with self.client:
                entered.set_result(None)
                await self._close_requested.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)


async def _closed(
    send_queues: list[SendQueue], deadline_s: float | None
) -> list[BaseException | None]:
    """Close all send queues concurrently; return the error of each, or None."""
    closing = [each.close(deadline_s) for each in send_queues]
    return await asyncio.gather(*closing, return_exceptions=True)
