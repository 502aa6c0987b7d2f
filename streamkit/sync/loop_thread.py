"""The event loop thread: one for all clients, started with the first client."""

from __future__ import annotations

import asyncio
import atexit
import os
import queue
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from importlib import import_module
from typing import Any, Final, Protocol, TypeVar

from streamkit.errors import UsageError
from streamkit.limits import SIGNAL_WAIT_S_MAX
from streamkit.observe.streams import say

T = TypeVar("T")

# How long undelivered records may delay the end of the interpreter.
EXIT_S_MAX: Final = 5.0
_STOP_S_MAX: Final = 2.0
_ENDING: Final = "the interpreter is ending, and the client's event loop with it"
_FORKED: Final = "the client was created before this process was forked"


class Finishable(Protocol):
    """An object with work that must be finished before the interpreter ends."""

    async def finish(self) -> None:
        """Finish the work. Never raises. It is cancelled when the time is over."""

    def unfinished_text(self) -> str:
        """Return a text about unfinished work; empty if everything is finished."""


class LoopThread:
    """An asyncio loop in a daemon thread, and calls into it from other threads.

    While a call waits, other threads run. Ctrl-C ends the wait.
    """

    def __init__(self) -> None:
        self._loop = _new_loop()
        self._loop.set_default_executor(_NameLookups())
        self._thread = threading.Thread(target=self._serve, name="streamkit-sync", daemon=True)
        self._unfinished: set[Finishable] = set()
        self._ending = threading.Lock()
        self._is_ending = False
        self._spawned: set[asyncio.Task[None]] = set()
        self.problem = ""
        self._thread.start()

    @property
    def is_forked(self) -> bool:
        """Whether this is a forked child process, where the loop does not run."""
        return self.problem is _FORKED

    def check(self) -> None:
        """Refuse a call that would never return.

        Raises:
            UsageError: The loop does not run in this process, or the call comes from the loop.
        """
        if self.problem:
            hint = "connect after the fork" if self.problem is _FORKED else ""
            raise UsageError(self.problem, hint=hint)
        if threading.get_ident() == self._thread.ident:
            raise UsageError(
                "a callback of the client called streamkit.sync, which would wait for itself",
                hint="do the work in another thread",
            )

    def check_not_forked(self) -> None:
        """Refuse a call in a forked child process, where a lock may stay locked forever.

        Raises:
            UsageError: This is a forked child process.
        """
        if self.is_forked:
            self.check()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it; Ctrl-C cancels it.

        Raises:
            UsageError: The loop does not run in this process, or ended during the call.
        """
        try:
            self.check()
        except UsageError:
            work.close()
            raise
        return self.result_of(self.start(work))

    def ask(self, question: Callable[[], T]) -> T:
        """Run a plain function on the loop and wait for its result."""

        async def answer() -> T:
            return question()

        return self.call(answer())

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def result_of(self, future: Future[T]) -> T:
        """Wait for a coroutine that was started; Ctrl-C cancels it.

        Raises:
            UsageError: The coroutine was cancelled.
        """
        try:
            return wait_for(future)
        except CancelledError:
            raise UsageError("the client was closed during the call") from None
        except BaseException:
            future.cancel()  # has no effect if the coroutine itself raised this error
            raise

    def post(self, callback: Callable[..., object], *args: object) -> None:
        """Schedule a callback on the loop. Does nothing if the loop has ended."""
        if self.problem is _FORKED:
            return  # it would wake the parent's loop
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine function on the loop, from any thread, without waiting for it."""
        self.post(self._spawn, work)

    def add_unfinished(self, unfinished: Finishable) -> None:
        """Register an object to finish before the interpreter ends.

        Raises:
            UsageError: The interpreter is already ending.
        """
        with self._ending:
            if self._is_ending:
                raise UsageError(_ENDING)
            self._unfinished.add(unfinished)

    def remove_unfinished(self, finished: Finishable) -> None:
        """Remove an object that `add_unfinished` registered."""
        self._unfinished.discard(finished)

    def end(self) -> None:
        """Finish all registered objects and stop the loop. A second call does nothing.

        Unfinished work is reported on standard error.
        """
        if self.problem:
            return
        with self._ending:
            self._is_ending = True
            unfinished = list(self._unfinished)
        ends = [self.start(each.finish()) for each in unfinished]
        try:
            wait(ends, EXIT_S_MAX)
        finally:
            self.problem = _ENDING
            for each in unfinished:
                if text := each.unfinished_text():
                    report_undelivered(text)
            self.post(self._loop.stop)
            self._thread.join(_STOP_S_MAX)

    def mark_forked(self) -> None:
        """Mark this as a forked child process, where the loop's thread does not exist."""
        self.problem = _FORKED
        self._unfinished = set()

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._loop.create_task(work())
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


def wait_for(future: Future[T]) -> T:
    """Wait for a future; a signal is handled meanwhile."""
    while True:
        try:
            return future.result(SIGNAL_WAIT_S_MAX)
        except TimeoutError:
            if future.done():  # then it may be its own error
                return future.result()


def _new_loop() -> asyncio.AbstractEventLoop:
    """Create a loop; from uvloop if it is installed, because it switches threads faster."""
    try:
        uvloop = import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def report_undelivered(text: str) -> None:
    """Report undelivered records on standard error, because no caller is left for an error."""
    say(f"streamkit: {text}")


class _NameLookups(ThreadPoolExecutor):
    """Threads for asyncio's name lookups, and one for lookups while the interpreter ends.

    At that time no pool accepts work and no thread can start. But a producer that was not closed
    may still have to connect to deliver its records.
    """

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="streamkit-sync-lookup")
        self._late: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work_late, name="streamkit-sync-late", daemon=True).start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:  # the interpreter is ending
            future: Future[T] = Future()

            def run() -> None:
                try:
                    future.set_result(fn(*args, **kwargs))
                except Exception as error:
                    future.set_exception(error)

            self._late.put(run)
            return future

    def _work_late(self) -> None:
        while True:
            self._late.get()()


_lock = threading.Lock()
_shared: LoopThread | None = None


def shared_loop() -> LoopThread:
    """Return the loop thread of this process, which ends with the process."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = LoopThread()
            _at_the_end(_shared.end)
        return _shared


def _at_the_end(end: Callable[[], None]) -> None:
    atexit.register(end)
    if "multiprocessing.process" in sys.modules:  # otherwise it did not start this process
        from multiprocessing.process import parent_process
        from multiprocessing.util import Finalize

        if parent_process() is not None:
            # Such a child does not run functions of atexit, only finalizers.
            Finalize(None, end, exitpriority=10)


def _forget() -> None:
    """Let a forked child start its own loop, because the parent's loop does not run there."""
    global _lock, _shared
    _lock = threading.Lock()  # another thread of the parent may have held the old one
    if _shared is not None:
        atexit.unregister(_shared.end)
        _shared.mark_forked()
        _shared = None


os.register_at_fork(after_in_child=_forget)
