"""Runs one task: reads its sources, processes, writes its sinks, commits, stops in order.

| part | what it does | ends |
|---|---|---|
| a reader per source | takes chunks, one ahead | end of source, or the stop |
| the loop | processes a slice, hands outputs on, notes the position | all is read, or the stop |
| the committer | seals between two slices, waits for the sinks, commits | the stop |
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio

from streamkit.dataflow.topology import Node, Topology
from streamkit.env import Clock
from streamkit.errors import StageError
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.runtime.ports import SinkPort, SourceReader, WriteFailed
from streamkit.runtime.shutdown import (
    EXIT_FAILED,
    Abandon,
    Begin,
    Command,
    Done,
    Event,
    Exit,
    Failed,
    Finished,
    Phase,
    Shutdown,
    Signal,
    Tick,
)
from streamkit.runtime.task import Counts, Output, Task, describe_failure
from streamkit.state.store import SourcePositions, Store

_LATENCIES_KEPT = 4_096
# A commit that the disk refuses is tried again until the job is stopped.
_COMMIT_RETRY_S = 1.0


class Observer(Protocol):
    """Who is told what happens."""

    def phase(self, phase: Phase, detail: str) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(slots=True)
class Progress:
    """What has been done so far."""

    counts: dict[Node, Counts]
    commits: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))

    def p99_ms(self) -> float:
        """Return how long all but 1 % of the recent slices took from arrival to the sinks."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if ordered else 0.0


class Worker:
    """One run of one task.

    Args:
        topology: The graph.
        readers: Where each source reads.
        writers: Where each sink writes.
        store: Where positions are kept; open already.
        clock: Time.
        observer: Who is told.
        commit_interval_s: How often positions are committed while there is work.
        stop_deadline_s: How long stopping may take in all.
    """

    def __init__(
        self,
        topology: Topology,
        readers: dict[Node, SourceReader],
        writers: dict[Node, SinkPort],
        store: Store,
        clock: Clock,
        observer: Observer,
        *,
        commit_interval_s: float = 1.0,
        stop_deadline_s: float = 25.0,
    ) -> None:
        self._readers = readers
        self._writers = writers
        self._store = store
        self._clock = clock
        self._observer = observer
        self._commit_interval_s = commit_interval_s
        self._task = Task(topology, on_skip=self._skipped)
        self._positions: SourcePositions = store.positions()
        self._committed: SourcePositions = deepcopy(self._positions)
        self._shutdown = Shutdown(stop_deadline_s)
        self._inbox: deque[tuple[Node, Chunk, float]] = deque()
        self._arrived = anyio.Event()
        self._taken = {node: anyio.Event() for node in readers}
        self._reading = len(readers)
        self._is_stopping = False
        self._is_idle = anyio.Event()
        self._boundary = anyio.Lock()
        self._storing = anyio.Lock()
        self._ended: set[Node] = set()
        self._must_finish: set[Node] = set()
        self._finishing: set[Node] = set()
        self._reading_scope = anyio.CancelScope()
        self._reading_scopes = {node: anyio.CancelScope() for node in readers}
        self._processing_scope = anyio.CancelScope()
        self._committing_scope = anyio.CancelScope()
        self._events: deque[Event] = deque()
        self._something_happened = anyio.Event()
        self._phase_scope: anyio.CancelScope | None = None
        self._last_seal = _Sealed({}, [])
        self._skips_told = 0
        self.failure: BaseException | None = None
        self.exit_code: int | None = None
        self.progress = Progress(self._task.counts)

    # --- from outside ----------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Take a signal to stop; on the event loop."""
        self._happen(Signal(number))

    @property
    def unacknowledged(self) -> dict[str, int]:
        """Records by sink that were written and may still be lost."""
        held = {node.name: writer.unacknowledged for node, writer in self._writers.items()}
        return {name: count for name, count in held.items() if count}

    def lag(self) -> int | None:
        """Return how many records lie ahead in all sources; None where nobody knows."""
        lags = [reader.lag() for reader in self._readers.values()]
        return None if None in lags else sum(lag for lag in lags if lag is not None)

    async def run(self) -> int:
        """Work until the end, a failure or a signal; return the exit code.

        Readers and writers must be open; they are closed when this returns.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run_readers)
            tasks.start_soon(self._process_all)
            tasks.start_soon(self._commit_now_and_then)
            await self._follow_the_stop(tasks)
            tasks.cancel_scope.cancel()
        assert self.exit_code is not None, "the stop ends with an exit"
        return self.exit_code

    # --- reading ---------------------------------------------------------------------

    async def _run_readers(self) -> None:
        with self._reading_scope:
            async with anyio.create_task_group() as tasks:
                for node in self._readers:
                    tasks.start_soon(self._read, node)

    async def _read(self, node: Node) -> None:
        reader = self._readers[node]
        with self._reading_scopes[node]:
            try:
                while (chunk := await reader.next()) is not None:
                    self._taken[node] = anyio.Event()
                    self._inbox.append((node, chunk, self._clock.monotonic_s()))
                    self._arrived.set()
                    await self._taken[node].wait()
            except Exception as error:  # of the source: what was read before it is good
                self._fail(error, can_commit=True)
            else:
                self._reading -= 1
            self._ended.add(node)
            self._finishing.discard(node)
            self._arrived.set()

    # --- processing ------------------------------------------------------------------

    async def _process_all(self) -> None:
        with self._processing_scope:
            try:
                while (arrival := await self._next_arrival()) is not None:
                    await self._process(*arrival)
            except _StopProcessing:
                pass  # the failure is told already
            except Exception as error:
                self._fail(error, can_commit=False)
        self._is_idle.set()

    async def _next_arrival(self) -> tuple[Node, Chunk, float] | None:
        while True:
            while self._inbox:
                arrival = self._inbox.popleft()
                self._taken[arrival[0]].set()
                if self._is_wanted(arrival[0]):
                    return arrival
            if self._is_stopping and not self._finishing:
                return None
            if not self._is_stopping and not self._reading:
                self._happen(Finished())
                return None
            self._arrived = anyio.Event()
            await self._arrived.wait()

    def _is_wanted(self, node: Node) -> bool:
        """Tell whether records of a source are still to be processed."""
        return not self._is_stopping or node in self._must_finish

    async def _process(self, node: Node, chunk: Chunk, arrived_s: float) -> None:
        for start in range(0, len(chunk), CHUNK_RECORDS_MAX):
            if not self._is_wanted(node):
                return
            part = chunk.slice(start, start + CHUNK_RECORDS_MAX)
            async with self._boundary:
                await self._process_part(node, part)
            self.progress.latencies_ms.append((self._clock.monotonic_s() - arrived_s) * 1_000)
            await anyio.lowlevel.checkpoint()

    async def _process_part(self, node: Node, part: Chunk) -> None:
        """Work out what a slice leads to, hand it to the sinks, note the position.

        First come sinks whose effects cannot be taken back. Where one of them fails on a
        record, the slice ends in front of it for all that follow: then nothing before that
        record is repeated by the next run.
        """
        failure: StageError | None = None
        done = 0
        while True:
            outputs = self._outputs_of(node, part)
            at_once = [each for each in outputs if self._writers[each.sink].has_effects_at_once]
            failed = await self._write_at_once(at_once[done:])
            if failed is None:
                break
            output, error = failed
            done = at_once.index(output) + 1
            failure = _failure_at(output, error)
            before = sum(each < output.chunk.offsets[error.row] for each in part.offsets)
            part = part.slice(0, before)
            self._task.take_back()
        for output in outputs:
            if len(output.chunk) and not self._writers[output.sink].has_effects_at_once:
                await self._writers[output.sink].write(output.chunk)
        if len(part):
            self._note_position(node, part)
        if failure is not None:
            self._fail(failure, can_commit=True)
            raise _StopProcessing from failure

    def _outputs_of(self, node: Node, part: Chunk) -> list[Output]:
        try:
            return self._task.process(node, part)
        except StageError as error:
            self._fail(error, can_commit=True)
            raise _StopProcessing from error

    async def _write_at_once(self, outputs: list[Output]) -> tuple[Output, WriteFailed] | None:
        """Hand outputs to their sinks up to the first that fails, and return that one."""
        for output in outputs:
            if not len(output.chunk):
                continue
            try:
                await self._writers[output.sink].write(output.chunk)
            except WriteFailed as error:
                if output.sink.on_error == "fail":
                    return output, error
                await self._write_without(output, error)
        return None

    async def _write_without(self, output: Output, error: WriteFailed) -> None:
        """Go on behind rows that a sink of the user's refuses.

        Rows that it refused in one call are given again one by one: only it knows which is bad.
        """
        node, writer = output.sink, self._writers[output.sink]
        pieces = deque(self._around_failure(node, output.chunk, error))
        while pieces:
            piece = pieces.popleft()
            try:
                await writer.write(piece)
            except WriteFailed as again:
                pieces.extendleft(reversed(self._around_failure(node, piece, again)))

    def _around_failure(self, node: Node, chunk: Chunk, error: WriteFailed) -> list[Chunk]:
        """Return what is still to be written of a chunk, without the row that failed."""
        end = error.row + error.rows
        rest = [chunk.slice(end, len(chunk))] if end < len(chunk) else []
        if error.rows > 1:
            return [*(chunk.slice(row, row + 1) for row in range(error.row, end)), *rest]
        self._skipped(describe_failure(node, chunk, error.row, error.__cause__ or error))
        self._task.counts[node].skipped += 1
        self._task.counts[node].given -= 1
        return rest

    def _note_position(self, node: Node, part: Chunk) -> None:
        key, position = self._readers[node].position_after(part)
        self._positions.setdefault(node.name, {})[key] = position

    def _skipped(self, error: StageError) -> None:
        self._skips_told += 1
        if self._skips_told <= 5:
            self._observer.note(f"skipped: {error}")
        if self._skips_told == 5:
            self._observer.note("further skipped records are only counted")

    # --- committing ------------------------------------------------------------------

    async def _commit_now_and_then(self) -> None:
        with self._committing_scope:
            while True:
                await self._clock.sleep(self._commit_interval_s)
                try:
                    await self._commit(await self._seal())
                except Exception as error:  # whatever it is, nothing may be committed any more
                    self._fail(error, can_commit=False)
                    return

    async def _seal(self) -> _Sealed:
        """Mark, between two slices, what has been processed and written so far."""
        async with self._boundary:
            positions = deepcopy(self._positions)
            waits = [writer.seal() for writer in self._writers.values()]
        return _Sealed(positions, waits)

    async def _commit(self, sealed: _Sealed) -> None:
        """Wait until everything written before the seal is safe, then keep the positions."""
        await _all_of(sealed.waits)
        if sealed.positions == self._committed:
            return
        await self._store_positions(sealed.positions)
        self._committed = sealed.positions
        self.progress.commits += 1
        for node, reader in self._readers.items():
            await reader.committed(sealed.positions.get(node.name, {}))

    async def _store_positions(self, positions: SourcePositions) -> None:
        while True:
            try:
                # The last commit of a stop must not meet the one before it, still in its thread.
                async with self._storing:
                    with anyio.CancelScope(shield=True):
                        await anyio.to_thread.run_sync(self._store.commit, positions)
                return
            except sqlite3.OperationalError as error:
                self._observer.note(
                    f"the commit waits: {error} ({self._store.path}); it is tried again"
                )
                await self._clock.sleep(_COMMIT_RETRY_S)

    # --- stopping --------------------------------------------------------------------

    def _happen(self, event: Event) -> None:
        self._events.append(event)
        self._something_happened.set()

    def _fail(self, error: BaseException, *, can_commit: bool) -> None:
        if self.failure is None:
            self.failure = error
        code = getattr(error, "exit_code", EXIT_FAILED)
        self._happen(Failed(code, can_commit))

    async def _follow_the_stop(self, tasks: Any) -> None:
        """Feed what happens to the stop machine and carry out what it says."""
        while self.exit_code is None:
            now_s = self._clock.monotonic_s()
            if not self._events:
                self._something_happened = anyio.Event()
                due_s = self._shutdown.due_in_s(now_s)
                with anyio.move_on_after(None if due_s == float("inf") else due_s):
                    await self._something_happened.wait()
            event = self._events.popleft() if self._events else Tick()
            for command in self._shutdown.handle(event, self._clock.monotonic_s()):
                self._carry_out(command, tasks)

    def _carry_out(self, command: Command, tasks: Any) -> None:
        match command:
            case Begin(phase):
                self._observer.phase(phase, self._detail_of(phase))
                tasks.start_soon(self._run_phase, phase)
            case Abandon(phase):
                self._observer.note(f"gave up on {phase.label}{self._left_text()}")
                if self._phase_scope is not None:
                    self._phase_scope.cancel()
            case Exit(code):
                self.exit_code = code

    async def _run_phase(self, phase: Phase) -> None:
        work: dict[Phase, Callable[[], Any]] = {
            Phase.STOPPING_SOURCES: self._stop_sources,
            Phase.DRAINING: self._drain,
            Phase.FLUSHING: self._flush,
            Phase.COMMITTING: self._commit_last,
            Phase.CLOSING: self._close,
        }
        with anyio.CancelScope() as scope:
            self._phase_scope = scope
            try:
                await work[phase]()
            except Exception as error:  # a full disk, say: the job must still end in order
                self._fail(error, can_commit=False)
                return
            self._happen(Done(phase))

    async def _stop_sources(self) -> None:
        self._must_finish = {node for node, reader in self._readers.items() if reader.stop()}
        self._finishing = self._must_finish - self._ended
        self._is_stopping = True
        for node, scope in self._reading_scopes.items():
            if node not in self._must_finish:
                scope.cancel()
        self._arrived.set()

    async def _drain(self) -> None:
        """Let the slice in work end.

        What was read ahead is dropped, for it is not committed; but what no source would give
        again is worked off.
        """
        await self._is_idle.wait()

    async def _flush(self) -> None:
        self._committing_scope.cancel()
        self._last_seal = await self._seal()
        await _all_of(self._last_seal.waits)
        self._last_seal = _Sealed(self._last_seal.positions, [])

    async def _commit_last(self) -> None:
        await self._commit(self._last_seal)

    async def _close(self) -> None:
        self._is_stopping = True
        self._arrived.set()
        self._reading_scope.cancel()
        self._committing_scope.cancel()
        self._processing_scope.cancel()
        ports: list[SourceReader | SinkPort] = [
            *self._readers.values(),
            *self._writers.values(),
        ]
        for port in ports:
            try:
                await port.close()
            except Exception as error:  # the others must be closed all the same
                self._fail(error, can_commit=False)

    def _detail_of(self, phase: Phase) -> str:
        return self._left_text().strip(": ") if phase is Phase.FLUSHING else ""

    def _left_text(self) -> str:
        left = self.unacknowledged
        if not left:
            return ""
        held = ", ".join(f"{count} for {name}" for name, count in left.items())
        return f": unacknowledged records: {held}"


def _failure_at(output: Output, error: WriteFailed) -> StageError:
    cause = error.__cause__ or error
    failure = describe_failure(output.sink, output.chunk, error.row, cause, rows=error.rows)
    failure.__cause__ = cause
    return failure


@dataclass(frozen=True, slots=True)
class _Sealed:
    """Positions as of a boundary, and what to await before they may be committed."""

    positions: SourcePositions
    waits: list[Awaitable[None]]


async def _all_of(waits: list[Awaitable[None]]) -> None:
    """Await sinks side by side, so that one which hangs keeps no other from being safe.

    Raises:
        Exception: That of the first that fails; the rest is not waited for.
    """
    failures: list[Exception] = []

    async def wait_for(wait: Awaitable[None]) -> None:
        try:
            await wait
        except Exception as error:  # raised below, without the group around it
            failures.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for wait in waits:
            tasks.start_soon(wait_for, wait)
    if failures:
        raise failures[0]


class _StopProcessing(Exception):
    """Leaves the loop; whoever stops it has told why."""
