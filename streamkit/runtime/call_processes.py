"""Calls a user's function in processes, so its Python code uses several cores."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio

from streamkit.errors import ProcessDied, ProcessNotStarted, StreamKitError, UsageError
from streamkit.runtime.call_process import CallProcess
from streamkit.runtime.call_threads import CallThreads, OnDone
from streamkit.runtime.child_imports import MAIN_IN_CHILD, this_process
from streamkit.runtime.function_references import reference_to

_START_FAILURES_MAX: Final = 3
_BACKOFF_S: Final = 0.2
# How long a close waits for the threads, after all processes have ended.
_END_S: Final = 1.0
_POLL_S: Final = 0.005


@dataclass(slots=True, eq=False)
class _Work:
    """A call in progress. The lock of the pool protects ``process`` and ``is_abandoned``."""

    process: CallProcess | None = None
    is_abandoned: bool = False
    began_s: float | None = None


class _GivenUp(Exception):
    """The call was abandoned, or the pool is closing; nobody gets this error."""


class CallProcesses:
    """Runs calls of one function in spawned processes.

    Processes start when they are needed, and are reused. A process imports the user's modules
    once. One that ends during a call fails only that call with `ProcessDied`, and another one
    replaces it. If three starts in succession fail, every call fails with `ProcessNotStarted`.
    A thread of this process waits for each call. All methods must be called in the event loop
    that created the pool.

    Args:
        function: What to call. Other processes must be able to find it by its module and name.
        name: The name of the stage, for errors.
        processes: The maximum number of calls in progress.
        on_done: Called in the event loop with the number of a call, its result, and its error,
            which is None if it succeeded. It must not raise.

    Raises:
        TopologyError: Other processes cannot find the function.
        UsageError: This process carries out calls itself.
    """

    def __init__(
        self, function: Callable[..., object], name: str, processes: int, on_done: OnDone
    ) -> None:
        _check_that_this_is_no_child(name)
        self._reference = reference_to(function, name)
        if "__main__" in sys.modules:  # results may have classes of `__main__`
            sys.modules.setdefault(MAIN_IN_CHILD, sys.modules["__main__"])
        self._name = name
        self._on_done = on_done
        self._loop = asyncio.get_running_loop()
        self._threads = CallThreads(self._carry_out, name, processes, self._hand_over)
        self._work: dict[int, _Work] = {}
        self._lock = threading.Lock()
        self._spawning = threading.Lock()
        self._idle: list[CallProcess] = []
        # All processes that are not closed.
        self._processes: set[CallProcess] = set()
        self._closing = threading.Event()
        self._start_failures = 0
        self._start_failure: StreamKitError | None = None

    def start(self, number: int, arguments: tuple[object, ...]) -> None:
        """Begin a call; the caller never has more than ``processes`` calls in progress."""
        work = self._work[number] = _Work()
        self._threads.start(number, (work, arguments))

    def began_s(self, number: int) -> float | None:
        """Return when a process began a call, in the time of the event loop.

        It is None while the process is still starting, which may take seconds: a timeout of the
        call begins after that.
        """
        work = self._work.get(number)
        return None if work is None else work.began_s

    def abandon(self, number: int) -> None:
        """Give up a call: kill its process. `on_done` is not called for it."""
        work = self._work.pop(number, None)
        self._threads.abandon(number)
        if work is not None:
            self._kill(work)

    async def close(self) -> None:
        """Abandon the calls in progress and end all processes; nothing is left behind."""
        if self._closing.is_set():
            return
        with self._spawning:
            self._closing.set()
        try:
            for step in _STEPS:
                for each in self._running():
                    step.do(each)
                await _until(lambda: not self._running(), step.patience_s)
            # Each is closed by the thread that uses it.
            await _until(lambda: len(self._processes) == len(self._idle), _END_S)
        finally:
            for each in self._running():
                each.kill()
            for each in self._idle:
                self._release(each)
            self._idle.clear()
            await self._threads.close()

    def _running(self) -> list[CallProcess]:
        with self._lock:
            return [each for each in self._processes if not each.has_ended]

    def _hand_over(self, number: int, result: object, error: BaseException | None) -> None:
        self._work.pop(number, None)
        if not self._closing.is_set():
            self._on_done(number, result, error)

    def _kill(self, work: _Work) -> None:
        with self._lock:
            work.is_abandoned = True
            if work.process is not None:
                work.process.kill()

    def _carry_out(self, work: _Work, arguments: tuple[object, ...]) -> object:
        """Carry out a call; this and the methods below run in a thread of the pool."""
        process = self._idle_process(work) or self._started(work)
        try:
            work.began_s = self._loop.time()
            return process.call(arguments)
        finally:
            self._give_back(work, process)

    def _idle_process(self, work: _Work) -> CallProcess | None:
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
                work.process = process
            if process is None:
                return None
            if work.is_abandoned or not process.is_usable or process.has_ended:
                self._give_back(work, process)
            else:
                return process

    def _give_back(self, work: _Work, process: CallProcess) -> None:
        with self._lock:
            work.process = None
            is_kept = process.is_usable and not (work.is_abandoned or self._closing.is_set())
            if is_kept:
                self._idle.append(process)
        if not is_kept:
            self._release(process)

    def _release(self, process: CallProcess) -> None:
        process.close()
        with self._lock:
            self._processes.discard(process)

    def _started(self, work: _Work) -> CallProcess:
        """Start a process; try again for a limited number of times if it fails."""
        while True:
            if work.is_abandoned or self._closing.is_set():
                raise _GivenUp
            self._check_starts()
            try:
                process = self._spawned(work)
            except OSError as error:  # the system has no memory or no process number left
                self._count_failure(ProcessNotStarted(str(error)))
                continue
            try:
                process.prepare(self._reference)
            except (ProcessNotStarted, ProcessDied) as error:
                self._give_back(work, process)
                if not work.is_abandoned:
                    self._count_failure(error)
            except BaseException:
                self._give_back(work, process)
                raise
            else:
                self._start_failures = 0
                return process

    def _spawned(self, work: _Work) -> CallProcess:
        with self._spawning:  # the close waits for it, so no process starts after the close
            if self._closing.is_set():
                raise _GivenUp
            process = CallProcess(self._name)
            with self._lock:
                self._processes.add(process)
                work.process = process
                if work.is_abandoned:
                    process.kill()
        return process

    def _check_starts(self) -> None:
        failure = self._start_failure
        if self._start_failures < _START_FAILURES_MAX or failure is None:
            return
        raise ProcessNotStarted(
            f"no process for {self._name!r} can be started: {failure}", hint=failure.hint
        ) from failure

    def _count_failure(self, failure: StreamKitError) -> None:
        with self._lock:
            self._start_failure = failure
            self._start_failures += 1
            failures = self._start_failures
        if failures < _START_FAILURES_MAX:
            self._closing.wait(_BACKOFF_S * failures)


@dataclass(frozen=True, slots=True)
class _Step:
    """A step of a close, and how long it waits for the processes to end."""

    do: Callable[[CallProcess], None]
    patience_s: float


_STEPS: Final = (
    _Step(CallProcess.end_input, 1.0),
    _Step(CallProcess.terminate, 0.5),
    _Step(CallProcess.kill, 5.0),
)


def _check_that_this_is_no_child(name: str) -> None:
    if this_process.is_child:
        raise UsageError(
            f"{name!r} cannot start processes in a process that carries out calls itself",
            hint='put the main program under `if __name__ == "__main__":`',
        )


async def _until(condition: Callable[[], bool], timeout_s: float) -> None:
    with anyio.move_on_after(timeout_s):
        while not condition():  # noqa: ASYNC110  no event reports the end of a process
            await anyio.sleep(_POLL_S)
