"""Calls a user's function in threads, so a call that blocks does not block the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final

from streamkit.forks import SameProcess

OnDone = Callable[[int, object, BaseException | None], None]

# How long a close waits for idle threads, which need less than a millisecond to end.
_END_S: Final = 1.0


def listed(function: Callable[..., Iterable[object]], *arguments: object) -> list[object]:
    """Call a generator function and collect its values.

    Use ``partial(listed, function)`` as the function of a pool. Otherwise the code of the
    generator would run where its values are read, which is the event loop.
    """
    return list(function(*arguments))


@dataclass(slots=True, eq=False)
class _Call:
    number: int
    arguments: tuple[object, ...]
    began_s: float


class CallThreads:
    """Runs calls of one function in daemon threads, which cannot block the interpreter's exit.

    Threads start when they are needed, and are reused. Each runs in a copy of the context that
    created the pool. All methods must be called in the event loop that created it.

    Args:
        function: What to call. It may raise anything, even an error such as `SystemExit`.
        name: The name of the stage, which is part of the names of the threads.
        threads: The maximum number of calls in progress.
        on_done: Called in the event loop with the number of a call, its result, and its error,
            which is None if it succeeded. It must not raise.
    """

    def __init__(
        self, function: Callable[..., object], name: str, threads: int, on_done: OnDone
    ) -> None:
        self._function = function
        self._name = name
        self._threads_max = threads
        self._on_done = on_done
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._same_process = SameProcess()
        self._is_closed = False
        self._started = 0
        # Threads that are not given up.
        self._threads = 0
        self._all_ended = asyncio.Event()
        # Calls whose result will be handed over; only the event loop uses it.
        self._open: dict[int, _Call] = {}
        self._to_do: SimpleQueue[_Call | None] = SimpleQueue()
        # Calls that nobody has taken out yet: the thread when the call is done, or `abandon`.
        # Removing an element is atomic, so exactly one of them succeeds.
        self._running: set[_Call] = set()
        self._done: deque[tuple[_Call, object, BaseException | None]] = deque()
        self._is_loop_woken = False

    def start(self, number: int, arguments: tuple[object, ...]) -> None:
        """Begin a call; the caller never has more than ``threads`` calls in progress."""
        assert not self._is_closed, "a call was started after the close"
        assert number not in self._open, "two calls in progress have the same number"
        call = _Call(number, arguments, self._loop.time())
        self._open[number] = call
        if len(self._open) > self._threads:
            assert self._threads < self._threads_max, "more calls than threads"
            try:
                self._start_thread()
            except RuntimeError as error:  # the system has a limit on threads
                self._done.append((call, None, error))
                self._loop.call_soon(self._hand_over)
                return
        self._running.add(call)
        self._to_do.put(call)

    def began_s(self, number: int) -> float | None:
        """Return when a call began, in the time of the event loop; None if it has ended."""
        call = self._open.get(number)
        return None if call is None else call.began_s

    def abandon(self, number: int) -> None:
        """Give up a call: `on_done` is not called for it, and another thread replaces its own."""
        call = self._open.pop(number, None)
        if call is not None and self._is_taken_out(call):
            self._threads -= 1

    async def close(self) -> None:
        """End the idle threads and abandon the calls in progress."""
        if not self._is_closed:
            self._is_closed = True
            for number in list(self._open):
                self.abandon(number)
            for _ in range(self._threads):
                self._to_do.put(None)
        if self._threads:
            try:
                await asyncio.wait_for(self._all_ended.wait(), _END_S)
            except TimeoutError:
                pass  # the machine is overloaded; the threads end as soon as they run

    def _start_thread(self) -> None:
        self._started += 1
        threading.Thread(
            target=self._context.copy().run,
            args=(self._work,),
            name=f"streamkit-call-{self._name}-{self._started}",
            daemon=True,
        ).start()
        self._threads += 1

    def _work(self) -> None:
        """Carry out calls in a thread until it is given up or the pool closes."""
        while self._carry_out(self._to_do.get()):
            pass

    def _carry_out(self, call: _Call | None) -> bool:
        """Carry out a call; return whether its thread continues.

        This is a function so that an idle thread keeps no arguments and results alive.
        """
        if call is None:
            self._in_loop(self._end, threading.current_thread())
            return False
        if call not in self._running:
            return False
        result: object = None
        error: BaseException | None = None
        try:
            result = self._function(*call.arguments)
        except BaseException as raised:
            error = raised
        self._same_process.check()
        if not self._is_taken_out(call):
            return False
        self._done.append((call, result, error))
        error = None  # otherwise the error and this frame would refer to each other
        if self._is_loop_woken:
            return True
        self._is_loop_woken = True
        return self._in_loop(self._hand_over)

    def _is_taken_out(self, call: _Call) -> bool:
        """Take a call out of the running ones; return whether it was there."""
        try:
            self._running.remove(call)
        except KeyError:
            return False
        return True

    def _hand_over(self) -> None:
        # This comes first: a thread that finishes a call after the loop below wakes it again.
        self._is_loop_woken = False
        while self._done:
            call, result, error = self._done.popleft()
            if self._open.get(call.number) is call:
                del self._open[call.number]
                self._on_done(call.number, result, error)

    def _end(self, thread: threading.Thread) -> None:
        thread.join(_END_S)  # it has nothing left to do
        self._threads -= 1
        if not self._threads:
            self._all_ended.set()

    def _in_loop(self, callback: Callable[..., None], *arguments: object) -> bool:
        """Call a function in the event loop; return false if it is closed: the job has ended."""
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            return False
        return True
