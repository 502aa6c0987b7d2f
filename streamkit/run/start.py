"""Starts a run from its options: chooses the broker, and handles the signals of a process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Final

import anyio

from streamkit.env import SystemClock
from streamkit.errors import UsageError
from streamkit.observe.report import JsonReporter, Reporter, TextReporter
from streamkit.observe.streams import fill_standard_descriptors
from streamkit.run.graph import needs_broker
from streamkit.run.heap import frozen_heap
from streamkit.run.options import Job, RunOptions
from streamkit.run.run import NOTHING_READ, Run
from streamkit.run.settings import settings_of
from streamkit.runtime.signals import stop_signals
from streamkit.settings.hiding import Hiding
from streamkit.target import BrokerLease, Target, choose

_LOOP_ENDED: Final = (
    "the event loop ended before the job was stopped; the next run repeats the records since the "
    "last commit"
)

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
    start = Start(app, options, JsonReporter() if options.json else TextReporter())
    start.on_stopping = on_stopping
    with frozen_heap() as start.on_running:
        return _run_in_thread(start, options)


def _run_in_thread(start: Start, options: RunOptions) -> int:
    """Run a job in this thread; if it is the main one, handle the signals of the process."""
    if threading.current_thread() is not threading.main_thread():
        return start.run()
    try:
        with stop_signals(
            start.signal,
            on_interrupt=start.interrupt,
            deadline_s=options.stop_deadline_s,
            on_forced_exit=start.on_forced_exit,
        ) as watchdog:
            given = start.on_stopping

            def begin(deadline_s: float) -> None:
                watchdog.arm_deadline(deadline_s)
                given(deadline_s)

            start.on_stopping = begin
            return start.run()
    except _StoppedEarly:
        start.reporter.note(NOTHING_READ)
        return 0


def _refuse_in_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(
        "an event loop already runs in this thread, for example in a notebook",
        hint="use `await app.run_async()` with the same options, or `app.start()`",
    )


class _StoppedEarly(BaseException):
    """A signal arrived before the run existed. Like KeyboardInterrupt, it is a BaseException."""


class Start:
    """Creates the run; passes signals to it, or keeps them until it exists.

    Raises:
        StreamKitError: The graph cannot run, or the options or settings are not valid.
    """

    def __init__(self, app: Job, options: RunOptions, reporter: Reporter) -> None:
        app.check()
        self._app = app
        self._options = options
        found = settings_of(app, options.settings)
        self._settings = found.settings
        self._values = found.values
        self._target: Target = choose(
            cluster=options.cluster,
            profile=options.profile,
            embedded=options.embedded,
            data_dir=options.data_dir,
            settings_cluster=self._settings.cluster,
            given_cluster=self._settings.given_cluster,
            tls=options.tls,
        )
        self._needs_broker = needs_broker(app.topology, options)
        self._hiding = reporter.hide = Hiding(found.values)
        self.reporter = reporter
        for text in found.notes:
            self.reporter.note(text)
        # Called in the event loop: the sources and sinks are open; the job begins to stop.
        self.on_running: Callable[[], None] = lambda: None
        self.on_stopping: OnStopping = lambda deadline_s: None
        self.run_of_job: Run | None = None
        self._early_signal: int | None = None
        self._run_lock = threading.Lock()

    def run(self) -> int:
        """Run the job in an event loop of its own; return the exit code."""
        with self._own_settings(), BrokerLease(self._target, is_needed=self._needs_broker) as lease:
            return anyio.run(self._run_with(lease).main)

    async def run_in_loop(self) -> int:
        """Run the job in the running event loop; return the exit code."""
        with self._own_settings():
            lease = BrokerLease(self._target, is_needed=self._needs_broker)
            await anyio.to_thread.run_sync(lease.__enter__)
            with contextlib.closing(lease):
                try:
                    return await self._run_with(lease).main()
                except asyncio.CancelledError:  # only the end of the event loop cancels this task
                    self.reporter.note(_LOOP_ENDED)
                    raise

    @contextlib.contextmanager
    def _own_settings(self) -> Iterator[None]:
        """Let the app read its own settings in a block; errors of the block show no secret."""
        own = self._app.own_settings
        used = contextlib.nullcontext() if own is None else own.used_by_a_run(self._values)
        with used, self._hiding.in_errors():
            yield

    def _run_with(self, lease: BrokerLease) -> Run:
        run = Run(
            self._app,
            self._options,
            self._settings,
            self._target,
            lease,
            self.reporter,
            SystemClock(),
        )
        run.on_running = self.on_running
        run.on_stopping = self.on_stopping
        with self._run_lock:
            self.run_of_job = run
        if self._early_signal is not None:
            run.signal_from_anywhere(self._early_signal)
        return run

    def signal(self, number: int) -> None:
        """Pass a signal to the run; can be called in any thread."""
        with self._run_lock:
            if self.run_of_job is None:
                self._early_signal = number
                return
        self.run_of_job.signal_from_anywhere(number)

    def interrupt(self) -> None:
        """Interrupt the wait of the main thread if there is no run yet."""
        if self.run_of_job is None:
            raise _StoppedEarly

    def on_forced_exit(self, code: int) -> None:
        if self.run_of_job is not None:
            self.run_of_job.on_forced_exit(code)
