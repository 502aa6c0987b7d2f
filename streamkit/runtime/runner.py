"""The loop of one task: takes chunks, processes them in slices, and records positions.

| between two rounds | what may happen |
|---|---|
| the boundary lock is free | a commit is prepared: every sink has received the same records |
| the event loop gets a turn | signals, acknowledgements and reports are handled |
| the runner checks for a stop | the rest of the slice is dropped; the next run reads it again |
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

from streamkit.dataflow.topology import Node
from streamkit.forks import SameProcess
from streamkit.limits import CHUNK_BYTES_MAX, CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.runtime.contracts import AtOnceWriter, SinkWriter, SourceReader
from streamkit.runtime.delivery import Delivery
from streamkit.runtime.intake import Arrival, Intake
from streamkit.runtime.positions import ChangedPositions
from streamkit.runtime.slice_size import SliceSize
from streamkit.runtime.task import Task
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
        writers: Where the outputs go.
        readers: The sources, which return the position after a chunk.
        positions: Where positions are recorded.
        now_s: Returns the monotonic time in seconds.
    """

    def __init__(
        self,
        intake: Intake,
        task: Task,
        writers: Mapping[Node, SinkWriter],
        readers: Mapping[Node, SourceReader],
        positions: ChangedPositions,
        now_s: Callable[[], float],
    ) -> None:
        self._intake = intake
        self._task = task
        self._delivery = Delivery(writers, now_s)
        self._readers = readers
        self._positions = positions
        self._now_s = now_s
        makes_lists = any(
            isinstance(each, AtOnceWriter) and not each.is_per_record for each in writers.values()
        )
        target_s = SLICE_FOR_LISTS_S if makes_lists else SLICE_S
        self._slice_sizes = {
            node: SliceSize(target_s, first=_ROWS_FIRST, most=CHUNK_RECORDS_MAX) for node in readers
        }
        self._same_process = SameProcess()
        self.boundary = anyio.Lock()
        self.latencies_ms: deque[float] = deque(maxlen=_LATENCIES_KEPT)

    async def run(self) -> None:
        """Process chunks until the intake ends.

        Raises:
            StageError: A record failed; everything before it is written, and its position recorded.
        """
        time = self._task.time
        if time is None:
            while (arrival := await self._intake.next()) is not None:
                await self._process(arrival)
            return
        last_s = self._now_s()
        while True:
            arrival = None
            with anyio.move_on_after(_TICK_S) as wait:
                arrival = await self._intake.next(self._behind)
            now_s = self._now_s()
            # A step that took longer has kept the job from getting records.
            time.elapse(min(now_s - last_s, _STEP_S_MAX))
            last_s = now_s
            if arrival is not None:
                await self._process(arrival)
            elif not wait.cancelled_caught:
                return
            time.ended = self._intake.ended()
            if arrival is None:
                await self._deliver_waiting(self._task.tick)

    async def drain(self) -> None:
        """Emit what waits for the watermark, as if no record could come any more.

        Raises:
            StageError: A result failed; nothing of what waits is written or gone.
        """
        await self._deliver_waiting(self._task.drain)

    async def _deliver_waiting(self, make: Callable[[], Work | None]) -> None:
        async with self.boundary:
            work = make()
            if work is not None:
                self._same_process.check()
                await self._deliver(work)

    def _behind(self, arrival: Arrival) -> int:
        """Rank chunks by watermark, so that no source gets far ahead of the others."""
        assert self._task.time is not None, "chunks are ranked only then"
        return self._task.time.of_partition(arrival.source, arrival.chunk.partition)

    async def _process(self, arrival: Arrival) -> None:
        source, chunk = arrival.source, arrival.chunk
        slice_size = self._slice_sizes[source]
        rows_max = _rows_within(chunk, CHUNK_BYTES_MAX)
        done = 0
        while done < len(chunk) and self._intake.is_active(source):
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
    if type(values[0]) is not bytes:
        return CHUNK_RECORDS_MAX
    sample = values[:: max(1, len(values) // _SAMPLES)]
    mean_bytes = sum(map(len, sample)) / len(sample)
    return max(1, min(CHUNK_RECORDS_MAX, int(bytes_max / max(1.0, mean_bytes))))
