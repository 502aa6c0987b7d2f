"""The event loop in a thread of its own: one for all clients, started with the first."""

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
from streamkit.observe.streams import say

T = TypeVar("T")

# How long the end of the interpreter is held up by records that are not delivered yet.
EXIT_S_MAX: Final = 5.0
_STOP_S_MAX: Final = 2.0
_ENDING: Final = "the interpreter is ending, and the client's event loop with it"
_FORKED: Final = "the client belongs to the process that this one was forked from"


class Finishable(Protocol):
    """Something that must not be lost when the interpreter ends."""

    async def finish(self) -> None:
        """Finish it; cancelled when there is no time left. Never raises."""

    def left(self) -> str:
        """Say what could not be finished; nothing, if nothing is left."""


class LoopThread:
    """An asyncio loop in a daemon thread, and calls into it from other threads.

    Every wait lets other threads run, and ends with Ctrl-C.
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
        """Whether this is the child of a fork, which has no loop."""
        return self.problem is _FORKED

    def check(self) -> None:
        """Refuse a call that could only hang.

        Raises:
            UsageError: The loop does not run in this process, or the call comes from it.
        """
        if self.problem:
            hint = "connect after the fork" if self.problem is _FORKED else ""
            raise UsageError(self.problem, hint=hint)
        if threading.get_ident() == self._thread.ident:
            raise UsageError(
                "a callback of the client called streamkit.sync, which would wait for itself",
                hint="hand the work to another thread",
            )

    def check_not_forked(self) -> None:
        """Refuse a call in the child of a fork, where a lock may be held by nobody.

        Raises:
            UsageError: It is such a child.
        """
        if self.is_forked:
            self.check()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it; Ctrl-C cancels it.

        Raises:
            UsageError: The loop does not run in this process, or ends meanwhile.
        """
        try:
            self.check()
        except UsageError:
            work.close()
            raise
        return self.result_of(self.start(work))

    def ask(self, question: Callable[[], T]) -> T:
        """Run a plain function on the loop and wait for its answer."""

        async def answer() -> T:
            return question()

        return self.call(answer())

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def result_of(self, future: Future[T]) -> T:
        """Wait for what was started; Ctrl-C cancels it.

        Raises:
            UsageError: It was cancelled.
        """
        try:
            return future.result()
        except CancelledError:
            raise UsageError("the client was closed meanwhile") from None
        except BaseException:
            future.cancel()  # does nothing to one whose own error this is
            raise

    def post(self, callback: Callable[..., object], *args: object) -> None:
        """Have a callback run on the loop soon. Does nothing where the loop is gone."""
        if self.problem is _FORKED:
            return  # it would wake the parent's
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine function on the loop, from anywhere; nobody waits for it."""
        self.post(self._spawn, work)

    def must_finish(self, unfinished: Finishable) -> None:
        """Remember to finish something before the interpreter ends.

        Raises:
            UsageError: It is ending already.
        """
        with self._ending:
            if self._is_ending:
                raise UsageError(_ENDING)
            self._unfinished.add(unfinished)

    def is_finished(self, finished: Finishable) -> None:
        """Forget it again."""
        self._unfinished.discard(finished)

    def end(self) -> None:
        """Finish what is open, say on standard error what could not be, and stop the loop.

        Does nothing the second time.
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
                if left := each.left():
                    write_left(left)
            self.post(self._loop.stop)
            self._thread.join(_STOP_S_MAX)

    def forked(self) -> None:
        """Learn that this is the child of a fork, where only the thread that forked goes on."""
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


def _new_loop() -> asyncio.AbstractEventLoop:
    """Make a loop: of uvloop where it is installed, whose turns between two threads are shorter."""
    try:
        uvloop = import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def write_left(left: str) -> None:
    """Say on standard error what was not delivered: there is nobody left to raise it to."""
    say(f"streamkit: {left}")


class _NameLookups(ThreadPoolExecutor):
    """Threads for asyncio's name lookups, of which one still works while the interpreter ends.

    By then no pool takes work and no thread can be started, but a producer that was not closed
    may have to connect to deliver what it holds.
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
    """Return the loop of this process, which ends with it."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = LoopThread()
            _at_the_end(_shared.end)
        return _shared


def _at_the_end(end: Callable[[], None]) -> None:
    atexit.register(end)
    if "multiprocessing.process" in sys.modules:  # else this is none of its children
        from multiprocessing.process import parent_process
        from multiprocessing.util import Finalize

        if parent_process() is not None:
            # Such a child runs no functions of atexit, only these.
            Finalize(None, end, exitpriority=10)


def _forget() -> None:
    """Let the child of a fork begin anew; the parent's loop is of no use to it."""
    global _lock, _shared
    _lock = threading.Lock()  # another thread of the parent may have held the old one
    if _shared is not None:
        atexit.unregister(_shared.end)
        _shared.forked()
        _shared = None


os.register_at_fork(after_in_child=_forget)
