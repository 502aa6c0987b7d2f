"""Starts a run from its options: chooses the broker and the reporter, and handles signals."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import anyio

from streamkit.env import SystemClock
from streamkit.errors import UsageError
from streamkit.observe.report import JsonReporter, Reporter, TextReporter
from streamkit.observe.streams import fill_standard_descriptors
from streamkit.run.options import Job, RunOptions
from streamkit.run.run import NOTHING_READ, Run
from streamkit.run.settings import settings_of
from streamkit.runtime.signals import stop_signals
from streamkit.settings.hiding import Hiding
from streamkit.target import BrokerLease, Target, choose

OnStopping = Callable[[float], None]


def run_app(
    app: Job, options: RunOptions, on_stopping: OnStopping = lambda deadline_s: None
) -> int:
    """Run an app until it ends or receives a signal; return the exit code.

    ``on_stopping`` is called with the deadline when the job begins to stop.

    Raises:
        StreamKitError: The job could not be started.
        UsageError: An event loop already runs in this thread.
    """
    _refuse_in_a_loop()
    fill_standard_descriptors()
    start = _Start(app, options)
    if threading.current_thread() is not threading.main_thread():
        return start.run(on_stopping)
    try:
        with stop_signals(
            start.signal,
            on_interrupt=start.interrupt,
            deadline_s=options.stop_deadline_s,
            on_forced_exit=start.on_forced_exit,
        ) as watchdog:

            def begin(deadline_s: float) -> None:
                watchdog.arm_deadline(deadline_s)
                on_stopping(deadline_s)

            return start.run(begin)
    except _StoppedEarly:
        start.reporter.note(NOTHING_READ)
        return 0


async def run_app_async(app: Job, options: RunOptions) -> int:
    """Run an app in the running event loop; return the exit code.

    It does not handle signals: the program does. Cancelling this call stops the job in order:
    every sink is flushed and the positions are committed before it ends.

    Raises:
        StreamKitError: The job could not be started.
    """
    start = _Start(app, options)
    with start.own_settings():
        return await _run_until_cancelled(start)


async def _run_until_cancelled(start: _Start) -> int:
    lease = BrokerLease(start.target)
    await anyio.to_thread.run_sync(lease.__enter__)
    try:
        run = start.run_with(lease)
        task = asyncio.get_running_loop().create_task(run.main())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await _stopped(run, task)
            raise
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lease.__exit__, None, None, None)


async def _stopped(run: Run, task: asyncio.Task[int]) -> None:
    """Stop a job in order; another cancellation counts as a second signal."""
    while not task.done():
        run.stop()
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            continue
    if not task.cancelled():
        task.exception()  # retrieved, so asyncio does not log it; the caller gets the cancellation


def _refuse_in_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(
        "an event loop already runs in this thread, for example in a notebook",
        hint="use `await app.run_async()` with the same options",
    )


class _StoppedEarly(BaseException):
    """A signal arrived before the run existed. Like KeyboardInterrupt, it is a BaseException."""


class _Start:
    """Creates the run; passes signals to it, or keeps them until it exists."""

    def __init__(self, app: Job, options: RunOptions) -> None:
        app.check()
        self._app = app
        self._options = options
        found = settings_of(app, options.settings)
        self._settings = found.settings
        self._values = found.values
        self.target: Target = choose(
            cluster=options.cluster,
            profile=options.profile,
            embedded=options.embedded,
            data_dir=options.data_dir,
            settings_cluster=self._settings.cluster,
            given_cluster=self._settings.given_cluster,
            tls=options.tls,
        )
        self._hiding = Hiding(found.values)
        self.reporter: Reporter = (
            JsonReporter(hide=self._hiding) if options.json else TextReporter(hide=self._hiding)
        )
        for text in found.notes:
            self.reporter.note(text)
        self._run: Run | None = None
        self._early_signal: int | None = None
        self._run_lock = threading.Lock()

    def run(self, on_stopping: OnStopping) -> int:
        with self.own_settings(), BrokerLease(self.target) as lease:
            run = self.run_with(lease)
            run.on_stopping = on_stopping
            with self._run_lock:
                self._run = run
            if self._early_signal is not None:
                run.signal_from_anywhere(self._early_signal)
            return anyio.run(run.main)

    @contextmanager
    def own_settings(self) -> Iterator[None]:
        """Let the app read its own settings in a block; errors of the block show no secret."""
        own = self._app.own_settings
        used = nullcontext() if own is None else own.used_by_a_run(self._values)
        with used, self._hiding.in_errors():
            yield

    def run_with(self, lease: BrokerLease) -> Run:
        return Run(
            self._app,
            self._options,
            self._settings,
            self.target,
            lease,
            self.reporter,
            SystemClock(),
        )

    def signal(self, number: int) -> None:
        """Pass a signal to the run; called in the thread that receives signals."""
        with self._run_lock:
            if self._run is None:
                self._early_signal = number
                return
        self._run.signal_from_anywhere(number)

    def interrupt(self) -> None:
        """Interrupt the wait of the main thread if there is no run yet."""
        if self._run is None:
            raise _StoppedEarly

    def on_forced_exit(self, code: int) -> None:
        if self._run is not None:
            self._run.on_forced_exit(code)
