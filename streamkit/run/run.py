"""Run an app: find the broker, open its sources and sinks, work, report.

| state | event | next |
|---|---|---|
| connecting | the broker accepts a connection | opening |
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
from typing import Any, Final

import anyio

from streamkit.client.backoff import Backoff
from streamkit.client.client import Client
from streamkit.dataflow.endpoints import TopicSink, TopicSource
from streamkit.dataflow.topology import Node, Topology
from streamkit.env import Clock
from streamkit.errors import ConnectFailed
from streamkit.observe.report import RateLimited, Reporter, Snapshot
from streamkit.run.ending import ended_report, records_of, time_report
from streamkit.run.opening import Opened, Opening
from streamkit.run.options import Job, RunOptions
from streamkit.runtime.failures import users_line
from streamkit.runtime.shutdown import Phase
from streamkit.runtime.signals import main_thread_stack
from streamkit.runtime.worker import Worker, WorkerOptions
from streamkit.settings import Settings
from streamkit.target import BrokerLease, Target, keep_broker_running

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
        self._topology: Topology = with_settings(app.topology, settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Worker | None = None
        self._early_signal: int | None = None
        self._has_ended = False
        self._begin_scope: anyio.CancelScope | None = None
        self._started_s = clock.monotonic_s()
        self._note_limited = RateLimited(reporter.note, clock.monotonic_s)
        # Called with the deadline when the job begins to stop, whatever the reason.
        self.on_stopping: Callable[[float], None] = lambda deadline_s: None

    def stop(self) -> None:
        """Stop in order, as after a SIGTERM; call it in the event loop."""
        self._signal(SIGTERM)

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
            await self._wait_for_broker()
        async with AsyncExitStack() as stack:
            client = None
            if self._early_signal is None:
                client = await stack.enter_async_context(self._client())
            with anyio.CancelScope() as self._begin_scope:
                if client is not None and self._early_signal is None:
                    opened = await self._open(client, stack)
                    self._worker = self._worker_of(opened)
            if self._worker is None:
                self._reporter.note(NOTHING_READ)
                return 0
            assert client is not None, "the worker was created with it"
            return await self._work(client, self._worker, opened.started.waiting)

    # --- beginning -------------------------------------------------------------------

    def _client(self) -> Client:
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

    async def _open(self, client: Client, stack: AsyncExitStack) -> Opened:
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
            _Observer(self._reporter),
            WorkerOptions(
                drains=self._options.drain,
                never_idle=self._options.once,
                commit_interval_s=self._options.commit_interval_s,
                stop_deadline_s=self._options.stop_deadline_s,
            ),
            on_stopping=self.on_stopping,
        )

    def _on_retry_of(self, what: str) -> Callable[[Exception, int], None]:
        def note_retry(error: Exception, attempt: int) -> None:
            if not self._has_ended:
                self._note_limited(what, f"{what}: {error}; retrying (attempt {attempt})")

        return note_retry

    # --- working ---------------------------------------------------------------------

    async def _work(self, client: Client, worker: Worker, total: int | None) -> int:
        self._started_s = self._clock.monotonic_s()  # the wait for the broker is not counted
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                keep_broker_running, self._lease, client, self._clock, self._reporter.note
            )
            tasks.start_soon(self._report_progress, worker, total)
            if self._early_signal is not None:
                worker.signal(self._early_signal)
            code = await worker.run()
            tasks.cancel_scope.cancel()
        self._has_ended = True
        self._report_end(worker, code)
        return code

    def _report_end(self, worker: Worker, code: int) -> None:
        elapsed_s = self._clock.monotonic_s() - self._started_s
        self._reporter.ended(
            ended_report(self._app.name, self._topology, worker, self._target, code, elapsed_s)
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
            )
            self._reporter.progress(snapshot, total=total if self._options.once else None)


class _Observer:
    """Passes the messages of the worker to the reporter."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def phase(self, phase: Phase, detail: str) -> None:
        self._reporter.phase(phase.label, detail)

    def note(self, text: str) -> None:
        self._reporter.note(text)


def with_settings(topology: Topology, settings: Settings) -> Topology:
    """Return the graph with the topic names of this environment."""
    renamed: dict[Node, Node] = {}
    for node in topology.nodes:
        endpoint: Any = node.endpoint
        if isinstance(endpoint, TopicSource | TopicSink):
            endpoint = replace(endpoint, topic=settings.topic(endpoint.topic))
        inputs = tuple(renamed[each] for each in node.inputs)
        tables = tuple(renamed[each] for each in node.tables)
        renamed[node] = replace(node, endpoint=endpoint, inputs=inputs, tables=tables)
    return Topology(list(renamed.values()))


def topics_of(topology: Topology) -> set[str]:
    """Return the topic names in the code of a job."""
    endpoints = [node.endpoint for node in topology.nodes]
    return {each.topic for each in endpoints if isinstance(each, TopicSource | TopicSink)}
