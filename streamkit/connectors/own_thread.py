"""A thread in which a connector makes its calls that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, TypeVar

import anyio

T = TypeVar("T")

# How long a close waits for the thread, which may hang in a call.
_END_S: Final = 1.0


class OwnThread:
    """Runs calls one after another in one daemon thread, which cannot block the exit.

    A call that is cancelled continues in the thread, and later calls wait for its end. So the
    function must keep a result that may not be lost.

    Args:
        name: A part of the name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._to_do: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function in the thread; raise what it raises.

        Raises:
            anyio.ClosedResourceError: The thread was closed, maybe while another task used it.
        """
        return await self.start(function)

    def start(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Begin a call; the future has its result. Call it in the event loop.

        Raises:
            anyio.ClosedResourceError: The thread was closed.
        """
        if self._is_closed:
            raise anyio.ClosedResourceError
        return self._queued(function)

    def _queued(self, function: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = function()
            except BaseException as error:  # raised again where the call is awaited
                _in_loop(loop, _fail, done, error)
            else:
                _in_loop(loop, _succeed, done, result)

        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name=f"streamkit-{self._name}", daemon=True
            )
            self._thread.start()
        self._to_do.put(run)
        return done

    async def close(self, function: Callable[[], None]) -> None:
        """Make a last call, and end the thread; one that hangs is given up after a second."""
        if self._is_closed:
            return
        self._is_closed = True  # first: a later call would open again what the last one closes
        if self._thread is None:
            function()
            return
        with anyio.move_on_after(_END_S, shield=True):
            try:
                await self._queued(function)
            finally:
                self._to_do.put(None)

    def _run(self) -> None:
        while (call := self._to_do.get()) is not None:
            call()


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *given: object) -> None:
    try:
        loop.call_soon_threadsafe(call, *given)
    except RuntimeError:
        pass  # the loop is closed, because the job has ended


def _succeed(done: asyncio.Future[T], result: T) -> None:
    if not done.done():  # otherwise the call was cancelled
        done.set_result(result)


def _fail(done: asyncio.Future[T], error: BaseException) -> None:
    if done.done():
        return
    if isinstance(error, StopIteration):  # a future does not take it
        error = RuntimeError("the call raised StopIteration")
    done.set_exception(error)
