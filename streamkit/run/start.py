"""From the options to a run: where it works, how it reports, who hears of signals."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import anyio

from streamkit.env import SystemClock
from streamkit.errors import UsageError
from streamkit.observe.report import JsonReporter, Reporter, TextReporter
from streamkit.observe.streams import fill_standard_descriptors
from streamkit.run.options import Job, RunOptions
from streamkit.run.run import NOTHING_READ, Run, topics_of
from streamkit.runtime.signals import stop_signals
from streamkit.settings import Settings, load_settings
from streamkit.target import BrokerLease, Target, choose

OnStopping = Callable[[float], None]


def run_app(
    app: Job, options: RunOptions, on_stopping: OnStopping = lambda deadline_s: None
) -> int:
    """Run an app until it ends or is signalled; return the exit code.

    ``on_stopping`` is called with the deadline when the job begins to stop.

    Raises:
        StreamKitError: It could not begin.
        UsageError: An event loop runs in this thread already.
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
            last_words=start.last_words,
        ) as watchdog:

            def begin(deadline_s: float) -> None:
                watchdog.arm_deadline(deadline_s)
                on_stopping(deadline_s)

            return start.run(begin)
    except _StoppedEarly:
        start.reporter.note(NOTHING_READ)
        return 0


async def run_app_async(app: Job, options: RunOptions) -> int:
    """Run an app in the event loop that runs already; return the exit code.

    Signals stay with whoever owns the loop. Cancelling this call stops the job in order: every
    sink is flushed and the positions are committed before it ends.

    Raises:
        StreamKitError: It could not begin.
    """
    start = _Start(app, options)
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
    """Stop a job in order; being cancelled again counts as a second signal."""
    while not task.done():
        run.stop()
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            continue
    if not task.cancelled():
        task.exception()  # seen: the caller gets the cancellation


def _refuse_in_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(
        "an event loop runs already in this thread, as in a notebook",
        hint="write `await app.run_async()` there, with the same options",
    )


class _StoppedEarly(BaseException):
    """A signal came before there was anything to stop. As KeyboardInterrupt, it is no error."""


class _Start:
    """From the options to a run. Signals find whichever there is already."""

    def __init__(self, app: Job, options: RunOptions) -> None:
        app.check()
        self._app = app
        self._options = options
        self._settings: Settings = load_settings(Path.cwd(), os.environ, options.settings)
        self.target: Target = choose(
            cluster=options.cluster,
            profile=options.profile,
            embedded=options.embedded,
            data_dir=options.data_dir,
            settings_cluster=self._settings.cluster,
            given_cluster=self._settings.given_cluster,
            tls=options.tls,
        )
        self.reporter: Reporter = JsonReporter() if options.json else TextReporter()
        settings = self._settings
        for text in (*settings.notes, *settings.check_topics(topics_of(app.topology))):
            self.reporter.note(text)
        self._run: Run | None = None
        self._early_signal: int | None = None
        self._handing_over = threading.Lock()

    def run(self, on_stopping: OnStopping) -> int:
        with BrokerLease(self.target) as lease:
            run = self.run_with(lease)
            run.on_stopping = on_stopping
            with self._handing_over:
                self._run = run
            if self._early_signal is not None:
                run.signal_from_anywhere(self._early_signal)
            return anyio.run(run.main)

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
        """Pass on a signal; in the thread that hears of it."""
        with self._handing_over:
            if self._run is None:
                self._early_signal = number
                return
        self._run.signal_from_anywhere(number)

    def interrupt(self) -> None:
        """Leave what the main thread waits for, where there is no run yet."""
        if self._run is None:
            raise _StoppedEarly

    def last_words(self, code: int) -> None:
        if self._run is not None:
            self._run.last_words(code)
