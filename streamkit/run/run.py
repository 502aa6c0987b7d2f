"""Run an app: find the broker, open its sources and sinks, work, report.

| state | event | next |
|---|---|---|
| connecting | the broker accepts a connection, or the job has no topics | opening |
| | a signal | ended, exit 0: the job has not started |
| opening | topics, state, sources and sinks are open | running |
| | one of them cannot be opened | ended, exit code of the error |
| running | see `runtime.worker` | ended |
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from signal import SIGTERM
from typing import TYPE_CHECKING, Final

import anyio

from streamkit.client.backoff import Backoff
from streamkit.dataflow.topology import Node, Topology
from streamkit.env import Clock
from streamkit.errors import ConnectFailed
from streamkit.observe.facts import Crash, Snapshot
from streamkit.observe.report import RateLimited, Reporter
from streamkit.run.crashes import note_crash, poison_of
from streamkit.run.ending import ended_report, records_of, time_report
from streamkit.run.graph import needs_broker, with_letters, with_replays, with_settings
from streamkit.run.held_lifespan import HeldLifespan
from streamkit.run.opening import Opened, Opening
from streamkit.run.options import Job, RunOptions
from streamkit.runtime.failures import users_line
from streamkit.runtime.hanging import awaiting_line
from streamkit.runtime.letters import JobFacts
from streamkit.runtime.shutdown import EXIT_CRASH_LOOP, EXIT_LATE, Phase
from streamkit.runtime.signals import main_thread_stack
from streamkit.runtime.stopping import ABANDONED
from streamkit.runtime.task_env import Lifespan
from streamkit.runtime.worker import Worker, WorkerOptions
from streamkit.settings import Settings
from streamkit.state.store import Store
from streamkit.target import BrokerLease, Target, keep_broker_running

if TYPE_CHECKING:
    from streamkit.client.client import Client

# Short enough to report a missing broker within two seconds.
_CONNECT_S = 1.5
NOTHING_READ: Final = "stopped before the job began; nothing was read"


class Run:
    """One run of an app, from connecting to the end report."""

    def __init__(
        self,
        app: Job,
        options: RunOptions,
        settings: Settings,
        target: Target,
        lease: BrokerLease,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self._app = app
        self._options = options
        self._settings = settings
        self._target = target
        self._lease = lease
        self._reporter = reporter
        self._clock = clock
        graph = with_replays(with_settings(app.topology, settings), options.replay)
        self._letters: Node | None = None
        if options.on_crash_loop == "dead-letter":
            graph, self._letters = with_letters(graph, app.name)
        self._topology: Topology = graph
        self._needs_broker = needs_broker(graph, options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Worker | None = None
        self._early_signal: int | None = None
        self._has_ended = False
        self._lifespan = Lifespan()
        self._held: HeldLifespan | None = None
        self._store: Store | None = None
        self._crash: Crash | None = None
        # Where a coroutine of the user waited when a phase of the stop was abandoned.
        self.hangs_at = ""
        self._begin_scope: anyio.CancelScope | None = None
        self._started_s = clock.monotonic_s()
        self._note_limited = RateLimited(reporter.note, clock.monotonic_s)
        # Called when the sources and sinks are open.
        self.on_running: Callable[[], None] = lambda: None
        # Called with the deadline when the job begins to stop, whatever the reason.
        self.on_stopping: Callable[[float], None] = lambda deadline_s: None

    def stop(self) -> None:
        """Stop in order, as after a SIGTERM; call it in the event loop."""
        self._signal(SIGTERM)

    @property
    def failure(self) -> BaseException | None:
        """The error that stopped the job, if one did."""
        return None if self._worker is None else self._worker.failure

    @property
    def unacknowledged(self) -> dict[str, int]:
        """How many written records may still be lost, by sink."""
        return {} if self._worker is None else self._worker.unacknowledged

    def signal_from_anywhere(self, number: int) -> None:
        """Handle a signal; can be called in any thread."""
        if self._loop is None:
            self._early_signal = number
        if self._loop is not None:  # checked again, because the loop may have started just now
            with contextlib.suppress(RuntimeError):  # the loop is closed: the run has ended
                self._loop.call_soon_threadsafe(self._signal, number)

    def on_forced_exit(self, code: int) -> None:
        """Report the end if the event loop is blocked; called in another thread."""
        line = users_line(main_thread_stack())
        if line:
            self._reporter.note(f"the job hangs at {line}")
        if self._worker is not None and not self._has_ended:
            self._report_end(self._worker, code)

    def _signal(self, number: int) -> None:
        if self._worker is not None:
            self._worker.signal(number)
        else:
            self._early_signal = number
            if self._begin_scope is not None:
                self._begin_scope.cancel()

    async def main(self) -> int:
        """Connect, open, work, report; return the exit code."""
        self._loop = asyncio.get_running_loop()
        with anyio.CancelScope() as self._begin_scope:
            if self._early_signal is not None:
                self._begin_scope.cancel()
            if self._needs_broker:
                await self._wait_for_broker()
        async with AsyncExitStack() as stack:
            client = self._client() if self._needs_broker else None
            if client is not None and self._early_signal is None:
                await stack.enter_async_context(client)
            with anyio.CancelScope() as self._begin_scope:
                if self._early_signal is None:
                    await self._enter_lifespan(stack)
                    opened = await self._open(client, stack)
                    self._worker = self._worker_of(opened)
                    self._store = opened.ports.store
            if self._worker is None:
                self._reporter.note(NOTHING_READ)
                return 0
            return await self._work(client, self._worker, opened.started.waiting)

    # --- beginning -------------------------------------------------------------------

    async def _enter_lifespan(self, stack: AsyncExitStack) -> None:
        """Enter the lifespan of the app; it is left after the sources and sinks are closed.

        Raises:
            StreamKitError: The function of the user failed.
        """
        new = self._app.new_lifespan
        if new is not None:
            self._held = HeldLifespan(self._app.name, new)
            stack.push_async_callback(self._leave_lifespan)
            self._lifespan.value = await self._held.enter()

    async def _leave_lifespan(self, worker: Worker | None = None, code: int = 0) -> int:
        """Leave the lifespan; return the exit code of the run."""
        held, self._held = self._held, None
        failure = None if held is None else await held.leave(self._options.stop_deadline_s)
        if held is None or failure is None:
            return code
        if worker is None:  # the error that has ended the run is raised
            self._reporter.note(str(failure))
            return code
        worker.failure = worker.failure or failure
        return code or (EXIT_LATE if held.is_late else failure.exit_code)

    def _client(self) -> Client:
        from streamkit.client.client import Client

        return Client(
            self._lease.address,
            client_id=self._app.name,
            use_local_address=self._target.uses_local_address,
            tls=self._target.tls,
            connect_timeout=_CONNECT_S,
        )

    async def _wait_for_broker(self) -> None:
        """Wait until the broker accepts a connection; report and retry until then."""
        backoff = Backoff()
        since_s = self._clock.monotonic_s()
        while True:
            try:
                async with self._client():
                    return
            except ConnectFailed as error:
                if not error.retryable:
                    raise
                waited_s = self._clock.monotonic_s() - since_s
                self._note_limited(
                    "connect",
                    f"waiting for the broker at {self._lease.address}: {error} "
                    f"(attempt {backoff.attempt + 1}, for {waited_s:.0f} s)",
                )
                await self._clock.sleep(backoff.next_s())

    async def _open(self, client: Client | None, stack: AsyncExitStack) -> Opened:
        opening = Opening(
            self._app.name,
            self._topology,
            self._options,
            self._target,
            self._lease.address,
            self._clock,
            self._reporter.note,
            self._on_retry_of,
        )
        opened = await opening.open(client, stack)
        self._reporter.started(replace(opened.started, settings=list(self._settings.reports)))
        return opened

    def _worker_of(self, opened: Opened) -> Worker:
        return Worker(
            self._topology,
            opened.ports,
            self._clock,
            _Observer(self._reporter, self._hangs),
            WorkerOptions(
                drains=self._options.drain,
                never_idle=self._options.once or self._options.replay_only,
                commit_interval_s=self._options.commit_interval_s,
                stop_deadline_s=self._options.stop_deadline_s,
                job=JobFacts(self._app.name, self._app.version),
                lifespan=self._lifespan,
                poison=poison_of(opened.ports.store, self._letters),
            ),
            on_stopping=self.on_stopping,
        )

    def _hangs(self, line: str) -> None:
        self.hangs_at = line
        self._reporter.note(f"the job hangs at {line}")

    def _on_retry_of(self, what: str) -> Callable[[Exception, int], None]:
        def note_retry(error: Exception, attempt: int) -> None:
            if not self._has_ended:
                self._note_limited(what, f"{what}: {error}; retrying (attempt {attempt})")

        return note_retry

    # --- working ---------------------------------------------------------------------

    async def _work(self, client: Client | None, worker: Worker, total: int | None) -> int:
        self._started_s = self._clock.monotonic_s()  # the wait for the broker is not counted
        self.on_running()
        async with anyio.create_task_group() as tasks:
            if client is not None:
                tasks.start_soon(
                    keep_broker_running, self._lease, client, self._clock, self._reporter.note
                )
            tasks.start_soon(self._report_progress, worker, total)
            if self._early_signal is not None:
                worker.signal(self._early_signal)
            code = await worker.run()
            tasks.cancel_scope.cancel()
        code = await self._leave_lifespan(worker, code)
        self._has_ended = True
        assert self._store is not None, "it was opened before the worker"
        self._crash = note_crash(self._store, worker.failure)
        if self._crash is not None and self._crash.is_loop:
            code = EXIT_CRASH_LOOP
        self._report_end(worker, code)
        return code

    def _report_end(self, worker: Worker, code: int) -> None:
        elapsed_s = self._clock.monotonic_s() - self._started_s
        self._reporter.ended(
            replace(
                ended_report(self._app.name, self._topology, worker, self._target, code, elapsed_s),
                crash=self._crash,
            )
        )

    async def _report_progress(self, worker: Worker, total: int | None) -> None:
        while True:
            await self._clock.sleep(self._reporter.progress_every_s)
            records_in, records_out = records_of(self._topology, worker)
            snapshot = Snapshot(
                records_in,
                records_out,
                self._clock.monotonic_s() - self._started_s,
                worker.lag(),
                worker.progress.commits,
                time_report(worker),
                sum(counts.pending for counts in worker.progress.counts.values()),
                sum(counts.dead_lettered for counts in worker.progress.counts.values()),
                worker.progress.waits(),
                worker.bytes_read(),
            )
            self._reporter.progress(snapshot, total=total if self._options.once else None)


class _Observer:
    """Passes the messages of the worker to the reporter."""

    def __init__(self, reporter: Reporter, on_hanging: Callable[[str], None]) -> None:
        self._reporter = reporter
        self._on_hanging = on_hanging

    def phase(self, phase: Phase, detail: str) -> None:
        self._reporter.phase(phase.label, detail)

    def note(self, text: str) -> None:
        self._reporter.note(text)
        if text.startswith(ABANDONED) and (line := awaiting_line()):
            self._on_hanging(line)
