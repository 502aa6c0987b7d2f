"""Run an app: find the broker, open its sources and sinks, work, report.

| state | event | next |
|---|---|---|
| connecting | the broker answers | opening |
| | a signal | ended, exit 0: nothing was begun |
| opening | topics, state, sources and sinks are there | running |
| | one of them is not | ended, exit code of the error |
| running | see `runtime.worker` | ended |
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import anyio

from streamkit.client.backoff import Backoff
from streamkit.client.client import Client
from streamkit.client.tls import Tls
from streamkit.connectors.topics import TopicReader, TopicWriter, prepare_topics
from streamkit.dataflow.endpoints import FunctionSink, FunctionSource, TopicSink, TopicSource
from streamkit.dataflow.topology import Node, Topology
from streamkit.env import Clock, SystemClock
from streamkit.errors import ConnectFailed, StreamKitError, TopologyError
from streamkit.observe.report import (
    Ended,
    JsonReporter,
    RateLimited,
    Reporter,
    Snapshot,
    StageCounts,
    Started,
    TextReporter,
)
from streamkit.observe.streams import fill_standard_descriptors
from streamkit.runtime.function_sinks import FunctionWriter, ObjectWriter
from streamkit.runtime.function_source import FunctionReader
from streamkit.runtime.ports import SinkPort, SourceReader
from streamkit.runtime.shutdown import Phase
from streamkit.runtime.signals import main_thread_stack, stop_signals
from streamkit.runtime.task import users_line
from streamkit.runtime.worker import Worker
from streamkit.settings import Settings, load_settings
from streamkit.state.store import Store, StoreFacts
from streamkit.where import Hold, Where, choose

_STORE_NAME = "main.sqlite"
# Short enough that an absent broker is told of within two seconds.
_CONNECT_S = 1.5
# How soon it is noticed that the embedded broker was killed.
_HOLD_CHECK_S = 0.2
_NOTHING_READ = "stopped before the job began; nothing was read"
_WRITER_METHODS = ("open", "write", "flush", "close")


class Job(Protocol):
    """What is run: an `App`, or what looks like one."""

    @property
    def name(self) -> str: ...

    @property
    def topology(self) -> Topology: ...

    def check(self) -> None:
        """Refuse a graph that cannot run."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run; the options of `streamkit run`. Durations in seconds."""

    cluster: str | None = None
    profile: str | None = None
    embedded: bool = False
    tls: Tls | None = None
    data_dir: Path | None = None
    once: bool = False
    fresh_state: bool = False
    create_topics: bool = False
    commit_interval_s: float = 1.0
    stop_deadline_s: float = 25.0
    json: bool = False
    settings: dict[str, str] = field(default_factory=dict)


def run_app(app: Job, options: RunOptions) -> int:
    """Run an app until it ends or is signalled; return the exit code.

    Raises:
        StreamKitError: It could not begin.
    """
    fill_standard_descriptors()
    app.check()
    settings = load_settings(Path.cwd(), os.environ, options.settings)
    where = choose(
        cluster=options.cluster,
        profile=options.profile,
        embedded=options.embedded,
        data_dir=options.data_dir,
        settings_cluster=settings.cluster,
        given_cluster=settings.given_cluster,
        tls=options.tls,
    )
    reporter: Reporter = JsonReporter() if options.json else TextReporter()
    for text in (*settings.notes, *settings.check_topics(_topics_of(app.topology))):
        reporter.note(text)
    start = _Start(app, options, settings, where, reporter)
    if threading.current_thread() is not threading.main_thread():
        return start.run()
    try:
        with stop_signals(
            start.signal,
            on_interrupt=start.interrupt,
            deadline_s=options.stop_deadline_s,
            last_words=start.last_words,
        ):
            return start.run()
    except _StoppedEarly:
        reporter.note(_NOTHING_READ)
        return 0


class _StoppedEarly(BaseException):
    """A signal came before there was anything to stop. As KeyboardInterrupt, it is no error."""


class _Start:
    """From the options to a run. Signals find whichever there is already."""

    def __init__(
        self, app: Job, options: RunOptions, settings: Settings, where: Where, reporter: Reporter
    ) -> None:
        self._parts = (app, options, settings, where)
        self._where = where
        self._reporter = reporter
        self._run: Run | None = None
        self._early_signal: int | None = None
        self._handing_over = threading.Lock()

    def run(self) -> int:
        with Hold(self._where) as hold:
            run = Run(*self._parts, hold, self._reporter, SystemClock())
            with self._handing_over:
                self._run = run
            if self._early_signal is not None:
                run.signal_from_anywhere(self._early_signal)
            return anyio.run(run.main)

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


class Run:
    """One run of an app, from connecting to the end report."""

    def __init__(
        self,
        app: Job,
        options: RunOptions,
        settings: Settings,
        where: Where,
        hold: Hold,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self._app = app
        self._options = options
        self._settings = settings
        self._where = where
        self._hold = hold
        self._reporter = reporter
        self._clock = clock
        self._topology: Topology = with_settings(app.topology, settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Worker | None = None
        self._early_signal: int | None = None
        self._has_ended = False
        self._begin_scope: anyio.CancelScope | None = None
        self._started_s = clock.monotonic_s()
        self._note_trouble = RateLimited(reporter.note, clock.monotonic_s)

    def signal_from_anywhere(self, number: int) -> None:
        """Take a signal, in any thread."""
        if self._loop is None:
            self._early_signal = number
        if self._loop is not None:  # it may have come just now
            with contextlib.suppress(RuntimeError):  # the loop is closed: the run has ended
                self._loop.call_soon_threadsafe(self._signal, number)

    def last_words(self, code: int) -> None:
        """Report the end where the event loop does not turn any more; from another thread."""
        where = users_line(main_thread_stack())
        if where:
            self._reporter.note(f"the job hangs at {where}")
        if self._worker is not None and not self._has_ended:
            self._reporter.ended(self._ended(self._worker, code))

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
                    worker, total = await self._open(client, stack)
                    self._worker = worker
            if self._worker is None:
                self._reporter.note(_NOTHING_READ)
                return 0
            assert client is not None, "the worker was made with it"
            return await self._work(client, self._worker, total)

    # --- beginning -------------------------------------------------------------------

    def _client(self) -> Client:
        return Client(
            self._hold.address,
            client_id=self._app.name,
            use_local_address=self._where.uses_local_address,
            tls=self._where.tls,
            connect_timeout=_CONNECT_S,
        )

    async def _wait_for_broker(self) -> None:
        """Return when the broker answers; while it is absent, say so and go on trying."""
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
                self._note_trouble(
                    "connect",
                    f"waiting for the broker at {self._hold.address}: {error} "
                    f"(attempt {backoff.attempt + 1}, for {waited_s:.0f} s)",
                )
                await self._clock.sleep(backoff.next_s())

    async def _open(self, client: Client, stack: AsyncExitStack) -> tuple[Worker, int | None]:
        endpoints = [node.endpoint for node in self._topology.nodes]
        is_embedded = self._where.kind == "embedded"
        await prepare_topics(
            client,
            [each for each in endpoints if isinstance(each, TopicSource)],
            [each for each in endpoints if isinstance(each, TopicSink)],
            creates_sinks=is_embedded or self._options.create_topics,
            creates_sources=self._options.create_topics,
            on_created=lambda topic, partitions: self._reporter.note(
                f"created topic {topic!r} with {partitions} partition(s)"
            ),
        )
        store = Store(self._where.data_dir / "state" / self._app.name / _STORE_NAME)
        stack.callback(store.close)
        cluster = "embedded" if is_embedded else self._hold.address
        facts = store.open(app=self._app.name, cluster=cluster, fresh=self._options.fresh_state)
        readers = self._readers(client, facts)
        writers = self._writers(client)
        for writer in writers.values():
            await writer.open()
        committed = store.positions()
        sources = []
        waiting: list[int | None] = []
        for node, reader in readers.items():
            opened = await reader.open(committed.get(node.name, {}))
            sources.append(f"{node.name}: {opened.description}")
            waiting.append(opened.waiting)
        total = None if None in waiting else sum(each for each in waiting if each is not None)
        self._reporter.started(
            Started(
                self._app.name,
                self._where_text(),
                self._state_text(facts),
                sources,
                [f"{node.name}: {writer.description}" for node, writer in writers.items()],
                total,
            )
        )
        worker = Worker(
            self._topology,
            readers,
            writers,
            store,
            self._clock,
            _Observer(self._reporter),
            commit_interval_s=self._options.commit_interval_s,
            stop_deadline_s=self._options.stop_deadline_s,
        )
        return worker, total

    def _readers(self, client: Client, facts: StoreFacts) -> dict[Node, SourceReader]:
        readers: dict[Node, SourceReader] = {}
        for node in self._topology.of_kind("source"):
            match node.endpoint:
                case TopicSource() as source:
                    readers[node] = TopicReader(
                        client,
                        source,
                        app=self._app.name,
                        until_end=self._options.once,
                        resumes_from_broker=facts.is_new and not self._options.fresh_state,
                        on_retry=self._trouble(f"source {node.name}"),
                    )
                case FunctionSource() as source:
                    readers[node] = FunctionReader(node.name, source, self._clock)
                case other:
                    raise TopologyError(f"{other!r} is no source", at=str(node.location))
        return readers

    def _writers(self, client: Client) -> dict[Node, SinkPort]:
        writers: dict[Node, SinkPort] = {}
        for node in self._topology.of_kind("sink"):
            endpoint = node.endpoint
            if isinstance(endpoint, TopicSink):
                trouble = self._trouble(f"sink {node.name}")
                writers[node] = TopicWriter(client, endpoint, on_retry=trouble)
            elif isinstance(endpoint, FunctionSink):
                writers[node] = FunctionWriter(endpoint)
            elif hasattr(endpoint, "writer"):
                writers[node] = endpoint.writer()
            elif all(hasattr(endpoint, method) for method in _WRITER_METHODS):
                writers[node] = ObjectWriter(endpoint)
            else:
                raise TopologyError(
                    f"nothing can be written to {endpoint!r}",
                    at=str(node.location),
                    hint="name a topic, give a connector, or a class with open, write, flush "
                    "and close",
                )
        return writers

    def _trouble(self, what: str) -> Callable[[Exception, int], None]:
        def tell(error: Exception, attempt: int) -> None:
            if not self._has_ended:
                self._note_trouble(what, f"{what}: {error}; trying again (attempt {attempt})")

        return tell

    def _where_text(self) -> str:
        if self._where.kind == "embedded":
            folder = self._where.data_dir
            return f"the embedded broker at {self._hold.address} in {folder} ({self._where.why})"
        return f"the cluster at {self._hold.address} ({self._where.why})"

    def _state_text(self, facts: StoreFacts) -> str:
        if self._options.fresh_state:
            return f"{facts.path.parent} (started over, --fresh-state)"
        return f"{facts.path.parent} ({'new' if facts.is_new else 'goes on from its commit'})"

    # --- working ---------------------------------------------------------------------

    async def _work(self, client: Client, worker: Worker, total: int | None) -> int:
        self._started_s = self._clock.monotonic_s()  # waiting for a broker is no work
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hold_on, client)
            tasks.start_soon(self._report_progress, worker, total)
            if self._early_signal is not None:
                worker.signal(self._early_signal)
            code = await worker.run()
            tasks.cancel_scope.cancel()
        self._has_ended = True
        self._reporter.ended(self._ended(worker, code))
        return code

    async def _hold_on(self, client: Client) -> None:
        """Start the embedded broker again if it ends under the job."""
        while True:
            await self._clock.sleep(_HOLD_CHECK_S)
            if not self._hold.is_lost():
                continue
            self._reporter.note("the embedded broker has ended; starting it again")
            try:
                await anyio.to_thread.run_sync(self._hold.renew, abandon_on_cancel=True)
            except StreamKitError as error:
                self._note_trouble("broker", f"the embedded broker does not start: {error}")
                continue
            client.cluster.move(self._hold.address)
            self._reporter.note(f"the embedded broker is back at {self._hold.address}")

    async def _report_progress(self, worker: Worker, total: int | None) -> None:
        while True:
            await self._clock.sleep(self._reporter.progress_every_s)
            records_in, records_out = self._records(worker)
            snapshot = Snapshot(
                records_in,
                records_out,
                self._clock.monotonic_s() - self._started_s,
                worker.lag(),
                worker.progress.commits,
            )
            self._reporter.progress(snapshot, total=total if self._options.once else None)

    def _records(self, worker: Worker) -> tuple[int, int]:
        counts = worker.progress.counts
        records_in = sum(counts[node].taken for node in self._topology.of_kind("source"))
        records_out = sum(counts[node].given for node in self._topology.of_kind("sink"))
        return records_in, records_out

    def _ended(self, worker: Worker, code: int) -> Ended:
        records_in, records_out = self._records(worker)
        elapsed_s = self._clock.monotonic_s() - self._started_s
        stages = [
            StageCounts(
                node.name,
                node.kind,
                counts.taken,
                counts.handled,
                counts.dropped,
                counts.skipped,
                counts.given,
            )
            for node, counts in worker.progress.counts.items()
        ]
        failure = worker.failure
        topics = [
            node.endpoint.topic
            for node in self._topology.of_kind("sink")
            if isinstance(node.endpoint, TopicSink)
        ]
        return Ended(
            app=self._app.name,
            exit_code=code,
            reason=self._reason(code, failure),
            records_in=records_in,
            records_out=records_out,
            dropped=sum(stage.dropped for stage in stages),
            skipped=sum(stage.skipped for stage in stages),
            elapsed_s=elapsed_s,
            rate=records_in / elapsed_s if elapsed_s > 0 else 0.0,
            p99_ms=worker.progress.p99_ms(),
            commits=worker.progress.commits,
            unacknowledged=worker.unacknowledged,
            stages=stages,
            look=self._look(topics),
            lag=worker.lag(),
            error="" if failure is None else _words(failure),
            hint=getattr(failure, "hint", "") if failure is not None else "",
            sink_topics=topics,
        )

    def _reason(self, code: int, failure: BaseException | None) -> str:
        if failure is not None:
            return "failed"
        if code == 0:
            return "all is read" if self._options.once else "stopped"
        return "stopped at the deadline" if code == 3 else "stopped by force"

    def _look(self, topics: list[str]) -> str:
        if not topics:
            return ""
        options = ""
        if self._where.kind == "embedded":
            if str(self._where.data_dir) != ".streamkit":
                options = f" --data-dir {self._where.data_dir}"
        elif self._where.kind == "cluster":
            options = f" --cluster {self._where.address}"
        return f"streamkit{options} consume {topics[0]} -B -d"


class _Observer:
    """Passes on what the worker tells."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def phase(self, phase: Phase, detail: str) -> None:
        self._reporter.phase(phase.label, detail)

    def note(self, text: str) -> None:
        self._reporter.note(text)


def _topics_of(topology: Topology) -> set[str]:
    """Return what a job calls its topics."""
    endpoints = [node.endpoint for node in topology.nodes]
    return {each.topic for each in endpoints if isinstance(each, TopicSource | TopicSink)}


def with_settings(topology: Topology, settings: Settings) -> Topology:
    """Return the graph with the topic names of this environment."""
    renamed: dict[Node, Node] = {}
    for node in topology.nodes:
        endpoint: Any = node.endpoint
        if isinstance(endpoint, TopicSource | TopicSink):
            endpoint = replace(endpoint, topic=settings.topic(endpoint.topic))
        inputs = tuple(renamed[each] for each in node.inputs)
        renamed[node] = replace(node, endpoint=endpoint, inputs=inputs)
    return Topology(list(renamed.values()))


def _words(failure: BaseException) -> str:
    if isinstance(failure, StreamKitError):
        return str(failure)
    return f"{type(failure).__name__}: {failure}"
