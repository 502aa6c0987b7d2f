"""Runs an app in a thread of its own, for programs that have other things to do."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from signal import SIGTERM
from types import TracebackType
from typing import Any, Final, TypeVar

import anyio

from streamkit.errors import NotFlushed, StreamKitError, UsageError
from streamkit.forks import in_children
from streamkit.limits import SIGNAL_WAIT_S_MAX
from streamkit.observe.embedded import EmbeddedReporter
from streamkit.observe.facts import Snapshot
from streamkit.run import at_exit
from streamkit.run.options import Job, RunOptions
from streamkit.run.start import Start
from streamkit.runtime.failures import error_text, users_line
from streamkit.runtime.shutdown import EXIT_LATE, FORCED_CLOSING_S
from streamkit.runtime.signals import thread_stack
from streamkit.units import counted

T = TypeVar("T")

# How long after the deadline the event loop may still end the job.
_GRACE_S: Final = 1.0


class RunningJob:
    """A job that runs in a thread of its own; `App.start` returns it.

    The end of a ``with`` block stops the job in order. All methods can be called in any thread
    except the job's own.
    """

    def __init__(self, app: Job, options: RunOptions) -> None:
        self.name = app.name
        self._reporter = EmbeddedReporter(app.name, is_json=options.json)
        self._start = Start(app, options, self._reporter)
        self._start.on_running = self._has_opened
        self._start.on_stopping = self._expect_end
        self._deadline_s = options.stop_deadline_s
        self._opened: Future[bool] = _future()
        self._over: Future[None] = _future()
        self._code = 0
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._is_stop_requested = False
        self._late_timer: threading.Timer | None = None
        self._has_ended = False
        self._is_forked = False
        self._unregister: Callable[[], None] = lambda: None
        # Threads that the job starts inherit `daemon`, so none of them can delay the exit.
        self._thread = threading.Thread(
            target=self._run, name=f"streamkit-job-{app.name}", daemon=True
        )

    # --- for the program -------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether the job has not ended yet; false in a forked child process."""
        return not (self._has_ended or self._is_forked)

    @property
    def progress(self) -> Snapshot:
        """The progress of the job: up to one second old while it runs, exact after its end."""
        return self._reporter.latest

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the job has ended; return its exit code.

        Args:
            timeout: The longest time to wait, in seconds. The job continues after it.

        Raises:
            TimeoutError: The job has not ended within ``timeout``.
            NotFlushed: The job did not stop within its deadline; the message names the sinks with
                unacknowledged records, and the line where user code hangs.
            Exception: The error that stopped the job.
            UsageError: This is the job's own thread, or a forked child process.
        """
        self._check_caller()
        if not _is_done_within(self._over, timeout):
            raise TimeoutError(f"the job {self.name!r} has not ended within {timeout} s")
        if self._has_ended:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._code

    def stop(self) -> int:
        """Stop the job in order, and wait for its end; return its exit code.

        The job flushes every sink and commits, within ``stop_deadline``. Ctrl-C during this call
        abandons the work in progress.

        Raises:
            NotFlushed: The job did not stop within its deadline; see `wait`.
            Exception: The error that stopped the job.
            UsageError: This is the job's own thread, or a forked child process.
        """
        self._check_caller()
        self.request_stop()
        try:
            return self.wait()
        except (KeyboardInterrupt, SystemExit):
            self.abandon()
            _is_done_within(self._over, None)
            raise

    def __enter__(self) -> RunningJob:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_forked:
            return  # the job belongs to the parent process
        try:
            self.stop()
        except Exception as failure:
            if error is None:
                raise
            self.note_failure(error, failure)

    # --- for the functions below and `at_exit` ---------------------------------------

    def begin(self) -> Future[bool]:
        """Start the thread; the result is whether the sources and sinks have been opened."""
        self._unregister = in_children(self._forked)
        at_exit.stop_at_exit(self)
        self._thread.start()
        return self._opened

    def request_stop(self) -> None:
        """Begin to stop in order; a second call does nothing."""
        with self._lock:
            if self._is_stop_requested:
                return
            self._is_stop_requested = True
        self._start.signal(SIGTERM)
        self._expect_end(self._deadline_s)

    def abandon(self) -> None:
        """Abandon the work in progress of a job that stops; the last commit stays valid."""
        self._start.signal(SIGTERM)
        self._expect_end(FORCED_CLOSING_S, again=True)

    @property
    def over(self) -> Future[None]:
        """Done when the job has ended, or when its deadline has passed."""
        return self._over

    def late_text(self) -> str:
        """Wait until the job is over; return a text if it did not stop in time."""
        _is_done_within(self._over, None)
        return str(self._error) if isinstance(self._error, NotFlushed) else ""

    def note_failure(self, error: BaseException, failure: BaseException) -> None:
        """Add the failure of the job to the error of the block that used it."""
        if failure is not error:
            error.add_note(f"the job {self.name!r} failed too: {error_text(failure)}")

    # --- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._end(self._start.run(), None)
        except BaseException as error:  # the program gets it from `wait`
            self._end(0, error)

    def _end(self, code: int, error: BaseException | None) -> None:
        run = self._start.run_of_job
        error = error or (run.failure if run is not None else None)
        if error is None and code == EXIT_LATE:
            error = self._late_error(run.hangs_at if run is not None else "")
        self._unregister()
        at_exit.forget(self)
        with self._lock:
            self._has_ended = True
            if self._late_timer is not None:
                self._late_timer.cancel()
        self._finish(code, None if error is None else self._raisable(error))
        if not self._opened.done():
            self._opened.set_result(False)

    def _has_opened(self) -> None:
        self._opened.set_result(True)

    def _finish(self, code: int, error: Exception | None) -> None:
        """Keep the first outcome: a job may end after its deadline."""
        with self._lock:
            if not self._over.done():
                self._code, self._error = code, error
                self._over.set_result(None)

    def _raisable(self, error: BaseException) -> Exception:
        if isinstance(error, Exception):
            return error
        # Raised in another thread, it would look as if that thread was interrupted.
        wrapped = StreamKitError(f"the job {self.name!r} ended with {error_text(error)}")
        wrapped.__cause__ = error
        return wrapped

    # --- a job that does not stop ----------------------------------------------------

    def _expect_end(self, seconds: float, *, again: bool = False) -> None:
        """Give up waiting for the end of the job after this time and a second."""
        with self._lock:
            if self._has_ended or (self._late_timer is not None and not again):
                return
            if self._late_timer is not None:
                self._late_timer.cancel()
            self._late_timer = threading.Timer(seconds + _GRACE_S, self._is_late)
            self._late_timer.name = f"streamkit-deadline-{self.name}"
            self._late_timer.daemon = True
            self._late_timer.start()

    def _is_late(self) -> None:
        self._finish(EXIT_LATE, self._late_error(users_line(thread_stack(self._thread))))

    def _late_error(self, hangs_at: str) -> NotFlushed:
        parts = [f"the job {self.name!r} did not stop within {self._deadline_s:g} s"]
        if hangs_at:
            parts.append(f"it hangs at {hangs_at}")
        run = self._start.run_of_job
        for sink, count in (run.unacknowledged if run is not None else {}).items():
            parts.append(f"not flushed: {counted(count, 'record')} for {sink}")
        return NotFlushed(
            "; ".join(parts), hint="the next run repeats the records since the last commit"
        )

    # --- callers that cannot wait ----------------------------------------------------

    def _check_caller(self) -> None:
        if self._is_forked:
            raise UsageError(
                f"the job {self.name!r} runs in the parent process",
                hint="start the job after the fork",
            )
        if threading.current_thread() is self._thread:
            raise UsageError(
                f"the job {self.name!r} would wait for itself", hint="call it in another thread"
            )

    def _forked(self) -> None:
        self._is_forked = True
        at_exit.forget(self)


def start_app(app: Job, options: RunOptions) -> RunningJob:
    """Run an app in a thread of its own; return when its sources and sinks are open.

    Raises:
        StreamKitError: The job could not be started.
    """
    job = RunningJob(app, options)
    try:
        opened = job.begin()
        _is_done_within(opened, None)
        if not opened.result():
            job.wait()  # raises the error of a job that could not start
    except (KeyboardInterrupt, SystemExit) as error:
        job.__exit__(type(error), error, error.__traceback__)
        raise
    return job


@asynccontextmanager
async def start_app_async(app: Job, options: RunOptions) -> AsyncIterator[RunningJob]:
    """Run an app in a thread of its own, without blocking the event loop of the caller.

    Raises:
        StreamKitError: The job could not be started.
    """
    job = RunningJob(app, options)
    try:
        if not await asyncio.wrap_future(job.begin()):
            job.wait()
        yield job
    except BaseException as error:
        try:
            await _stop(job)
        except Exception as failure:
            job.note_failure(error, failure)
        raise
    await _stop(job)


async def _stop(job: RunningJob) -> None:
    """Stop a job in order; raise its error. A cancellation abandons the work in progress."""
    job.request_stop()
    cancelled: asyncio.CancelledError | None = None
    while not job.over.done():
        try:
            # A cancelled scope of anyio cancels again and again, which is not a second signal.
            with anyio.CancelScope(shield=True):
                await asyncio.wrap_future(job.over)
        except asyncio.CancelledError as error:
            cancelled = error
            job.abandon()
    if cancelled is not None:
        raise cancelled
    job.wait()


def _is_done_within(future: Future[Any], timeout_s: float | None) -> bool:
    """Wait until a future is done, or for a time; return whether it is done."""
    left_s = math.inf if timeout_s is None else timeout_s
    while not concurrent.futures.wait((future,), min(SIGNAL_WAIT_S_MAX, left_s)).done:
        left_s -= SIGNAL_WAIT_S_MAX
        if left_s <= 0:
            return False
    return True


def _future() -> Future[T]:
    """Return a future that a caller cannot cancel."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    return future
