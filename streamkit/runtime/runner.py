"""The loop of one task: takes chunks, processes them in slices, and records positions.

| between two rounds | what may happen |
|---|---|
| the boundary lock is free | a commit is prepared: every sink has received the same records |
| the event loop gets a turn | signals, acknowledgements and reports are handled |
| the runner checks for a stop | the rest of the slice is dropped; the next run reads it again |
| results of calls are ready | they go on from their stage, like a slice of a source |
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

from streamkit.broadcast import Broadcast
from streamkit.dataflow.contracts import AtOnceWriter
from streamkit.dataflow.topology import Node
from streamkit.errors import StageError
from streamkit.forks import SameProcess
from streamkit.frames.column_rows import ColumnRows
from streamkit.limits import CHUNK_BYTES_MAX, CHUNK_RECORDS_MAX, COLUMNS_RECORDS_MAX
from streamkit.line_block import LineBlock
from streamkit.record import Chunk
from streamkit.runtime.calls import Calls
from streamkit.runtime.delivery import Delivery
from streamkit.runtime.intake import Arrival, Intake
from streamkit.runtime.pending_queues import Release
from streamkit.runtime.ports import Ports
from streamkit.runtime.positions import ChangedPositions
from streamkit.runtime.slice_size import SliceSize
from streamkit.runtime.task import Task
from streamkit.runtime.task_env import TaskEnv
from streamkit.runtime.work import Work

# How long the user's stages should work on one slice. It is longer if a sink gets lists, because
# a longer slice gives longer lists.
SLICE_S: Final = 0.01
SLICE_FOR_LISTS_S: Final = 0.2
_ROWS_FIRST: Final = 64
# How often the task looks whether results are complete while no records arrive.
_TICK_S: Final = 0.25
_STEP_S_MAX: Final = 2 * _TICK_S
_LATENCIES_KEPT: Final = 4_096
_SAMPLES: Final = 64


class Runner:
    """Runs one task over the chunks of the intake.

    Args:
        intake: Where chunks come from.
        task: Processes the chunks.
        ports: What is open: where the outputs go, and which positions come after chunks.
        positions: Where positions are recorded.
        env: The job, and the time.
    """

    def __init__(
        self,
        intake: Intake,
        task: Task,
        ports: Ports,
        positions: ChangedPositions,
        env: TaskEnv,
    ) -> None:
        self._intake = intake
        self._task = task
        self._delivery = Delivery(ports.writers, env.now_s, task)
        self._readers = ports.readers
        self._positions = positions
        self._now_s = env.now_s
        self._last_s = env.now_s()
        self._calls = Calls(task.pending, env, self._on_call_ended, ports.functions())
        # Notified when records that had waited are delivered.
        self.released = Broadcast()
        # Whether a stop waits for retries too.
        self.waits_for_retries = False
        self.has_ended = False
        self._is_waiting = False
        self._pauses = 0
        makes_lists = any(
            isinstance(each, AtOnceWriter) and not each.is_per_record
            for each in ports.writers.values()
        )
        target_s = SLICE_FOR_LISTS_S if makes_lists else SLICE_S
        self._slice_sizes = {
            node: SliceSize(target_s, first=_ROWS_FIRST, most=COLUMNS_RECORDS_MAX)
            for node in ports.readers
        }
        self._same_process = SameProcess()
        self.boundary = anyio.Lock()
        self.latencies_ms: deque[float] = deque(maxlen=_LATENCIES_KEPT)

    async def run(self, drains: Callable[[], bool] = lambda: False) -> None:
        """Process chunks until the intake ends, and no call is in progress.

        If the sources have ended by themselves, what waits is processed too. Otherwise it is left
        for the last commit, if it can be stored.

        Args:
            drains: Asked at the end: whether to emit what waits for the watermark, as if no record
                could come any more.

        Raises:
            StageError: A record failed; everything before it is written, and its position recorded.
        """
        try:
            await self._run()
            if drains():
                await self._drain()
            await self._end_calls()
        except StageError:
            await self._end_calls()
            raise
        finally:
            self._task.pending.stop()
            self.has_ended = True
            self.released.notify()

    async def _run(self) -> None:
        if self._task.time is None and not self._task.pending:
            while (arrival := await self._intake.next()) is not None:
                await self._process(arrival)
            return
        while not await self._has_ended():
            arrival = None
            if not (self._pauses or self._task.pending.is_full):
                arrival = self._intake.take(self._behind)
            if arrival is None:
                await self._wait()
            else:
                await self._process(arrival)

    async def _has_ended(self) -> bool:
        """Deliver what is ready; return whether nothing is left to do."""
        time, pending, intake = self._task.time, self._task.pending, self._intake
        if intake.is_over:
            self._calls.flush()
        await self._release()
        if time is not None:
            now_s = self._now_s()
            # A step that took longer has kept the job from getting records.
            time.elapse(min(now_s - self._last_s, _STEP_S_MAX))
            self._last_s = now_s
            time.ended = intake.ended()
            await self._deliver_waiting(self._task.tick)
        if not intake.is_over:
            return False
        return not (pending.is_working if self._leaves_rest else pending.count)

    @property
    def _leaves_rest(self) -> bool:
        """Whether what waits is left for the next run."""
        return self._intake.is_stopping and not self.waits_for_retries

    async def _wait(self) -> None:
        """Wait for a chunk, the end of a call, or a moment at which something is due."""
        due_s = self._task.pending.next_s()
        wait_s = None if due_s is None else max(0.0, due_s - self._now_s())
        if self._task.time is not None:
            wait_s = _TICK_S if wait_s is None else min(wait_s, _TICK_S)
        self._is_waiting = True
        with anyio.move_on_after(wait_s):
            await self._intake.changed.wait()
        self._is_waiting = False

    def _on_call_ended(self) -> None:
        if self._is_waiting:
            self._intake.changed.notify()

    # --- records that have waited ----------------------------------------------------

    async def _release(self) -> None:
        """Begin calls, and process the records whose turn has come in their stages."""
        pending = self._task.pending
        while True:
            if self._leaves_rest:
                pending.hold()
            self._calls.start()
            releases = pending.release()
            if not releases:
                return
            for release in releases:
                await self._resume(release)
            self.released.notify()
            await checkpoint()

    async def _resume(self, release: Release) -> None:
        async with self.boundary if self._task.states else nullcontext():
            work = self._task.resume(release)
            self._same_process.check()
            await self._deliver(work)

    async def _end_calls(self) -> None:
        """Wait for the calls in progress, and note what sinks have written."""
        pending = self._task.pending
        pending.stop()
        while pending.is_calling:
            await self._wait()
        while releases := pending.written():
            for release in releases:
                await self._resume(release)

    async def _make_room(self, source: Node) -> None:
        """Wait until the stages can take more records."""
        await self._release()
        while self._pauses or self._task.pending.is_full:
            if not self._intake.is_active(source):
                return
            await self._wait()
            await self._release()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take no more records from the sources meanwhile."""
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            self._intake.changed.notify()

    async def close(self) -> None:
        """End the calls that are in progress."""
        await self._calls.close()

    async def _drain(self) -> None:
        """Emit what waits for the watermark, and what comes of it after calls."""
        await self._deliver_waiting(self._task.drain)
        while self._task.pending.count:
            while not await self._has_ended():
                await self._wait()
            if self._leaves_rest:
                return
            await self._deliver_waiting(self._task.drain)

    async def _deliver_waiting(self, make: Callable[[], Work | None]) -> None:
        async with self.boundary:
            work = make()
            if work is not None:
                self._same_process.check()
                await self._deliver(work)

    def _behind(self, arrival: Arrival) -> int:
        """Rank chunks by watermark, so that no source gets far ahead of the others."""
        time = self._task.time
        return 0 if time is None else time.of_partition(arrival.source, arrival.chunk.partition)

    async def _process(self, arrival: Arrival) -> None:
        source, chunk = arrival.source, arrival.chunk
        slice_size = self._slice_sizes[source]
        rows_max = _rows_within(chunk, CHUNK_BYTES_MAX)
        if self._task.pending:  # each record is an object there
            rows_max = min(rows_max, CHUNK_RECORDS_MAX)
        done = 0
        while done < len(chunk) and self._intake.is_active(source):
            if self._task.pending:
                await self._make_room(source)
            # With state, a commit must not come inside a slice, so the slice is the boundary.
            async with self.boundary if self._task.states else nullcontext():
                began_s = self._now_s()
                work = self._task.process(
                    source, chunk.slice(done, done + min(slice_size.rows, rows_max))
                )
                self._same_process.check()
                rows = bisect_left(work.part.offsets, work.end)
                slice_size.adjust(rows, self._now_s() - began_s)
                await self._deliver(work)
            done += rows
            self.latencies_ms.append((self._now_s() - arrival.at_s) * 1_000)

    async def _deliver(self, work: Work) -> None:
        """Write the outputs of a `Work` to the sinks, in rounds.

        Raises:
            StageError: A record failed; everything before it is written.
        """
        try:
            reached = await self._rounds(work)
        finally:  # also if it is cancelled: a last commit may follow
            self._task.settle(work, work.counted_to)
        if reached >= work.end and work.failure is not None:
            raise work.failure

    async def _rounds(self, work: Work) -> int:
        """Write rounds until all is written or the job stops; return the offset reached."""
        reached = work.part.offsets[0]
        while True:
            async with nullcontext() if self._task.states else self.boundary:
                start, reached = reached, await self._delivery.round(work, reached)
                self._same_process.check()
                self._task.account(work, reached)
                self._note_position(work, start, reached)
            await checkpoint()
            if reached >= work.end or not self._intake.is_active(work.source):
                return reached

    def _note_position(self, work: Work, start: int, reached: int) -> None:
        if reached <= start or work.source is None:
            return
        offsets = work.part.offsets
        done = work.part.slice(bisect_left(offsets, start), bisect_left(offsets, reached))
        part, position = self._readers[work.source].position_after(done)
        self._positions.note(work.source.name, part, position)


def _rows_within(chunk: Chunk, bytes_max: int) -> int:
    """Return how many rows have about ``bytes_max`` bytes, estimated from a sample."""
    values = chunk.values
    if type(values) is ColumnRows:
        return COLUMNS_RECORDS_MAX
    if type(values) is LineBlock:
        return min(CHUNK_RECORDS_MAX, max(1, bytes_max * len(values) // (len(values.text) + 1)))
    if type(values[0]) is not bytes:
        return CHUNK_RECORDS_MAX
    sample = values[:: max(1, len(values) // _SAMPLES)]
    mean_bytes = sum(len(each) for each in sample if type(each) is bytes) / len(sample)
    return max(1, min(CHUNK_RECORDS_MAX, int(bytes_max / max(1.0, mean_bytes))))
