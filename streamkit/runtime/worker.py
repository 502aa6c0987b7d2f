"""One run of one task: connects intake, runner, committer and stop.

| part | what it does | ends |
|---|---|---|
| `intake` | reads every source, a chunk ahead | at the end of the sources, or at the stop |
| `runner` | processes slices, writes the outputs to the sinks | when the intake has ended |
| `committer` | prepares commits between two rounds, waits for the sinks | after the last commit |
| `stopping` | runs the phases of the stop within one deadline | with the exit code |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field
from functools import partial
from signal import SIGINT
from typing import Literal

import anyio

from streamkit.dataflow.contracts import AcknowledgedWriter
from streamkit.dataflow.topology import Node, Topology
from streamkit.env import Clock
from streamkit.errors import StageError, StreamKitError
from streamkit.observe.facts import Lookups, Waits
from streamkit.runtime.committer import Committer
from streamkit.runtime.failures import error_text
from streamkit.runtime.intake import Intake
from streamkit.runtime.letters import JobFacts, Poison
from streamkit.runtime.pending_queue import PendingQueue
from streamkit.runtime.ports import Port, Ports
from streamkit.runtime.positions import ChangedPositions
from streamkit.runtime.runner import Runner
from streamkit.runtime.shutdown import EXIT_FAILED, Failed, Finished, Phase, Signal
from streamkit.runtime.stopping import Observer, Stopping
from streamkit.runtime.task import Task
from streamkit.runtime.task_env import Lifespan, TaskEnv
from streamkit.runtime.user_calls import is_ours
from streamkit.runtime.work import Skip
from streamkit.state.states import StoredState

_SKIPS_NOTED_MAX = 5
# How long to wait for the signal of a Ctrl-C, which may end a process pool before it arrives.
_SIGNAL_DELAY_S = 1.0

# Why a job began to stop. Later events do not change it.
Cause = Literal["", "finished", "signalled", "failed"]


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker commits and ends.

    ``drains``: what waits for the watermark is emitted when the run ends. ``never_idle``: windows
    that a quiet partition holds open stay open. ``commit_interval_s`` is the time between commits
    while records arrive; stopping takes at most ``stop_deadline_s``. ``job`` is written into dead
    letters, and ``poison`` into those whatever its policy is; ``lifespan`` is what the function of
    ``@app.lifespan`` has yielded.
    """

    drains: bool = False
    never_idle: bool = False
    commit_interval_s: float = 1.0
    stop_deadline_s: float = 25.0
    job: JobFacts = field(default_factory=JobFacts)
    lifespan: Lifespan = field(default_factory=Lifespan)
    poison: Poison | None = None


class Progress:
    """Counts and latencies of a run so far."""

    def __init__(self, task: Task, committer: Committer, runner: Runner) -> None:
        self.counts = task.counts
        self._task = task
        self._committer = committer
        self._runner = runner

    @property
    def commits(self) -> int:
        return self._committer.commits

    def states(self) -> list[StoredState]:
        """Return the states of the stages."""
        return list(self._task.states.by_name.values())

    def watermarks(self) -> dict[str, int]:
        """Return the watermark of each stage that waits for it, in ms."""
        time = self._task.time
        return {} if time is None else {each.name: time.of_node(each) for each in time.plan.timed}

    def waits(self) -> dict[str, Waits]:
        """Return the calls and retries of the stages that have any."""
        pending = self._task.pending
        return {
            node.name: _waits_of(queue, pending.now_s()) for node, queue in pending.by_node.items()
        }

    def p99_ms(self) -> float:
        """Return the 99th percentile of the time of recent slices from arrival to the sinks."""
        return _percentile(self._runner.latencies_ms, 0.99) or 0.0


def _waits_of(queue: PendingQueue, now_s: float) -> Waits:
    oldest_s = queue.oldest_s()
    latencies_ms = [1_000 * each for each in queue.latencies_s]
    return Waits(
        queue.running,
        queue.parked,
        queue.retries,
        queue.is_paused,
        None if oldest_s is None else now_s - oldest_s,
        _percentile(latencies_ms, 0.5),
        _percentile(latencies_ms, 0.99),
    )


def _percentile(values: Collection[float], share: float) -> float | None:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


class Worker:
    """One run of one task.

    Args:
        topology: The graph.
        ports: What is open. `run` closes it, except for the store.
        clock: Source of time.
        observer: Receives phases and messages.
        options: How it commits, stops and drains.
        on_stopping: Called with the deadline when the job begins to stop.
    """

    def __init__(
        self,
        topology: Topology,
        ports: Ports,
        clock: Clock,
        observer: Observer,
        options: WorkerOptions,
        *,
        on_stopping: Callable[[float], None] = lambda deadline_s: None,
    ) -> None:
        self._ports = ports
        self._observer = observer
        self._options = options
        self._skips_noted = 0
        self._stop_signal: int | None = None
        self.cause: Cause = ""
        self.failure: BaseException | None = None
        env = TaskEnv.of_clock(clock, options.job, options.lifespan, options.poison)
        task = self._new_task(topology, env)
        positions = ChangedPositions()
        self._intake = Intake(ports.readers, env.now_s, self._source_failed)
        self._runner = Runner(self._intake, task, ports, positions, env)
        self._runner.waits_for_retries = options.drains
        self._committer = Committer(
            ports.store,
            positions,
            ports.readers,
            ports.writers,
            self._runner,
            clock,
            observer.note,
            task,
        )
        self._committer.on_failure = self._broken
        self._processing = anyio.CancelScope()
        self._committing = anyio.CancelScope()
        self._is_idle = anyio.Event()
        self._signalled = anyio.Event()
        self._stopping = Stopping(
            {
                Phase.STOPPING_SOURCES: self._stop_sources,
                Phase.DRAINING: self._is_idle.wait,
                Phase.FLUSHING: self._committer.finish,
                Phase.COMMITTING: self._committer.commit_last,
                Phase.CLOSING: self._close,
            },
            on_abandon={Phase.DRAINING: self._processing.cancel},
            unacknowledged=lambda: self.unacknowledged,
            clock=clock,
            observer=observer,
            deadline_s=options.stop_deadline_s,
            on_failure=self._broken,
            on_begin=on_stopping,
        )
        self.progress = Progress(task, self._committer, self._runner)

    # --- from outside ----------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Handle a stop signal; call it in the event loop."""
        self._stop_signal = self._stop_signal or number
        self._signalled.set()
        self._begin("signalled")
        self._stopping.happen(Signal(number))

    @property
    def unacknowledged(self) -> dict[str, int]:
        """How many written records may still be lost, by sink."""
        held = {
            node.name: writer.unacknowledged
            for node, writer in self._ports.writers.items()
            if isinstance(writer, AcknowledgedWriter)
        }
        return {name: count for name, count in held.items() if count}

    def lag(self) -> int | None:
        """Return how many records are not read yet in all sources; None if that is not known."""
        lags = [reader.lag() for reader in self._ports.readers.values()]
        return None if None in lags else sum(lag for lag in lags if lag is not None)

    def bytes_read(self) -> tuple[int, int] | None:
        """Return how many bytes all sources have read, and of how many; None if not known."""
        parts = [reader.bytes_read() for reader in self._ports.readers.values()]
        known = [part for part in parts if part is not None]
        if not known or len(known) < len(parts):
            return None
        return sum(done for done, _ in known), sum(total for _, total in known)

    def lookups(self) -> dict[str, Lookups]:
        """Return what the lookups of each stage have cost."""
        return {node.name: each.figures() for node, each in self._ports.lookups.items()}

    async def run(self) -> int:
        """Run until the end, a failure or a signal; return the exit code."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._guarded, self._intake.run, anyio.CancelScope())
            tasks.start_soon(self._guarded, self._process, self._processing)
            tasks.start_soon(self._guarded, self._commit_at_intervals, self._committing)
            code = await self._stopping.follow(tasks)
            tasks.cancel_scope.cancel()
        return code

    # --- the parts -------------------------------------------------------------------

    async def _guarded(self, part: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
        """Run a part; if it ends with an error, the job fails and stops in order."""
        with scope:
            try:
                await part()
            except asyncio.CancelledError:
                if scope.cancel_called or self._stopping.exit_code is not None:
                    raise
                self._broken(StreamKitError("user code cancelled an internal task of the job"))
            except Exception as error:
                self._broken(error)

    async def _process(self) -> None:
        try:
            await self._runner.run(self._drains)
            if self._intake.has_ended and not self._stopping.has_begun:
                self._begin("finished")
                self._stopping.happen(Finished())
        except StageError as error:
            if not await self._is_from_the_same_interrupt(error):
                self._fail(error, can_commit=True)
        finally:
            self._is_idle.set()

    def _drains(self) -> bool:
        """Return whether the run ends as if no record could come any more."""
        has_ended = self._intake.has_ended and self._intake.ended() == set(self._ports.readers)
        return self.failure is None and (self._options.drains or has_ended)

    def _new_task(self, topology: Topology, env: TaskEnv) -> Task:
        """Create the task, and let its watermarks know what the sources have not read yet."""
        writers = self._ports.writers.items()
        task = Task(
            topology,
            last_operators={
                node: each for node, each in writers if isinstance(each, AcknowledgedWriter)
            },
            on_skip=self._skipped,
            env=env,
            states=self._ports.states,
            never_idle=self._options.never_idle,
        )
        for node, queue in task.pending.by_node.items():
            queue.circuit.on_change = partial(self._note_of, node)
        if task.time is None:
            return task
        readers = self._ports.readers
        task.time.backlog = lambda source: readers[source].backlog() if source in readers else {}
        for node, reader in readers.items():
            if reader.ends_for_good:  # a generator, which does not know what it has yet to yield
                task.time.expect(node, 0)
        return task

    async def _commit_at_intervals(self) -> None:
        await self._committer.run(self._options.commit_interval_s)

    async def _is_from_the_same_interrupt(self, error: StageError) -> bool:
        """Return whether an error comes from the Ctrl-C that stops the job.

        A terminal sends Ctrl-C to the user's process pools too, and the error of a pool may
        arrive before the signal. The next run starts with the record that was interrupted.
        """
        if not isinstance(error.__cause__, KeyboardInterrupt | BrokenExecutor):
            return False
        with anyio.move_on_after(_SIGNAL_DELAY_S):
            await self._signalled.wait()
        return self._stop_signal == SIGINT

    # --- failures --------------------------------------------------------------------

    def _source_failed(self, error: BaseException) -> None:
        self._fail(error, can_commit=True)

    def _broken(self, error: BaseException) -> None:
        self._fail(error, can_commit=False)

    def _fail(self, error: BaseException, *, can_commit: bool) -> None:
        if self.failure is None:
            self.failure = error
        self._begin("failed")
        code = getattr(error, "exit_code", EXIT_FAILED)
        self._stopping.happen(Failed(code if isinstance(code, int) else EXIT_FAILED, can_commit))

    def _begin(self, cause: Cause) -> None:
        self.cause = self.cause or cause

    def _note_of(self, node: Node, text: str) -> None:
        self._observer.note(f"stage {node.name!r}: {text}")

    def _skipped(self, skip: Skip) -> None:
        self._skips_noted += 1
        if self._skips_noted <= _SKIPS_NOTED_MAX:
            done = "put aside" if skip.is_letter else "skipped"
            self._observer.note(f"{done}: {skip.error}")
        if self._skips_noted == _SKIPS_NOTED_MAX:
            self._observer.note("further records that fail are counted but not shown")

    # --- phases of the stop ----------------------------------------------------------

    async def _stop_sources(self) -> None:
        self._intake.stop()

    async def _close(self) -> None:
        """Close all ports concurrently, so one that hangs does not block the others."""
        self._intake.cancel()
        self._processing.cancel()
        self._committing.cancel()
        await self._runner.close()

        async def close(name: str, port: Port) -> None:
            try:
                await port.close()
            except BaseException as error:  # the others must still be closed
                if is_ours(error):
                    raise
                text = f"{name!r} could not be closed: {error_text(error)}"
                failure = error if isinstance(error, StreamKitError) else StreamKitError(text)
                failure.__cause__ = None if failure is error else error
                self._broken(failure)

        async with anyio.create_task_group() as tasks:
            for node, port in self._ports.all():
                tasks.start_soon(close, node.name, port)
