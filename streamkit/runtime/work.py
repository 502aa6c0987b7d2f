"""What one slice has made: its outputs for the sinks, its failure, and what is to be counted."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from streamkit.dataflow.topology import Node
from streamkit.errors import StageError
from streamkit.record import Chunk
from streamkit.runtime.pending_queue import Later
from streamkit.state.pending import PendingRecord

# The offset of a row, and how many rows before it have the same one.
Place = tuple[int, int]


@dataclass(slots=True)
class Counts:
    """Counts of a stage.

    Inputs: ``taken``, the sum of `handled`, ``dropped``, ``skipped``, ``dead_lettered`` and
    ``pending``. Those that are pending wait in the stage; at the start, those of the last run are
    taken again. Outputs: ``given``. Of the dropped records, ``late`` came too late for every
    window.
    """

    taken: int = 0
    dropped: int = 0
    skipped: int = 0
    dead_lettered: int = 0
    pending: int = 0
    given: int = 0
    late: int = 0

    @property
    def handled(self) -> int:
        return self.taken - self.dropped - self.skipped - self.dead_lettered - self.pending


@dataclass(slots=True, eq=False)
class Output:
    """A chunk for a sink, from one path through the graph.

    ``inputs`` are the inputs of the sink that it was made of.
    """

    sink: Node
    chunk: Chunk
    inputs: Chunk


@dataclass(frozen=True, slots=True, eq=False)
class Skip:
    """A record that failed and is left out, with its error.

    ``is_written``: it was counted as given before it failed. ``is_letter``: it was put aside.
    """

    node: Node
    offset: int
    error: StageError
    is_written: bool = False
    is_letter: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Fed:
    """A chunk for a stage that is called outside of slices.

    ``marks_ms`` are the watermarks by which its records are judged later; None if none is.
    """

    node: Node
    chunk: Chunk
    marks_ms: Sequence[int] | None


@dataclass(frozen=True, slots=True, eq=False)
class Aside:
    """A record that waits in a stage: until it is tried again, or behind one of its group.

    ``row`` is its row among the inputs of the stage.
    """

    node: Node
    record: PendingRecord
    row: int
    later: Later | None


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """The offsets of the rows before and after one operator.

    ``gone`` are the offsets of rows that were left out or wait. ``empty`` are the offsets of rows
    that it expanded to no rows; None if it does not expand rows.
    """

    node: Node
    taken: Sequence[int]
    given: Sequence[int]
    gone: Sequence[int]
    empty: Sequence[int] | None


class Work:
    """The outputs of one slice of a source, up to the offset ``end``.

    It has one output, possibly empty, for each path from the source to a sink. Results of stages
    that wait for the watermark have the offset of the last record.

    Args:
        source: The source; None if the slice has no records, only results that were waiting. Its
            part then has one row, which stands for the time that has passed.
        part: The records.
        node: The stage that gets them, if they do not come from a source but have waited there.
        records: Those that have waited, one for each row.
    """

    def __init__(
        self,
        source: Node | None,
        part: Chunk,
        node: Node | None = None,
        records: Sequence[PendingRecord] = (),
    ) -> None:
        self.source = source
        self.part = part
        self.node = node
        self.records = records
        self.fed: list[Fed] = []
        self.asides: list[Aside] = []
        # The groups that must wait in a stage, because a record of them waits since this slice.
        self.blocked: dict[Node, set[Hashable]] = {}
        # The slice that this one makes again, after a part of it was delivered.
        self.earlier: Work | None = None
        # By stage with retries, the places of inputs that were not tried, and of others that wait
        # or failed; see `places_of`.
        self.held: dict[Node, set[Place]] = {}
        self.failed: dict[Node, set[Place]] = {}
        # Dead letters that their sinks have not got yet.
        self.letters: list[tuple[Node, Chunk]] = []
        self.end: int = end_of(part)
        self.outputs: list[Output] = []
        self.failure: StageError | None = None
        self._failed_at = self.end
        self.counted_to: int = part.offsets[0] if len(part) else 0
        self.nodes: list[tuple[Node, Sequence[int], Sequence[int]]] = []
        self.passes: list[Pass] = []
        self.skips: list[Skip] = []
        self.late: list[tuple[Node, Sequence[int]]] = []
        self.results: list[tuple[Node, Chunk]] = []
        # Whether what failed was a result that had waited, not a record of this slice.
        self.has_failed_firing = False

    def first(self, rows: int) -> Work:
        """Return the first rows as a work that has not been processed."""
        return Work(self.source, self.part.slice(0, rows), self.node, self.records[:rows])

    def within(self, chunk: Chunk) -> Chunk:
        """Remove the rows of records that are no longer part of this work."""
        offsets = chunk.offsets
        if not len(offsets) or offsets[-1] < self.end:
            return chunk
        return chunk.slice(0, bisect_left(offsets, self.end))

    def end_at(self, offset: int) -> None:
        """End before ``offset``; a later slice processes that record and those after it."""
        self.end = min(self.end, offset)

    def fail(self, error: StageError, offset: int) -> None:
        """End before the record that failed; if several fail, keep the error of the first."""
        if self.failure is None or offset < self._failed_at:
            self.failure, self._failed_at = error, offset
        self.end_at(offset)

    def finish(self) -> None:
        """Cut every output at the same record."""
        if self._failed_at > self.end:
            self.failure = None  # a later slice processes that record again
        for output in self.outputs:
            output.chunk = self.within(output.chunk)


def end_of(part: Chunk) -> int:
    """Return the offset after the last record of a slice."""
    return part.offsets[-1] + 1 if len(part) else 0


def places_of(chunk: Chunk) -> list[Place]:
    """Return where each row is in a chunk; it is the same in the first part of the chunk."""
    offsets = chunk.offsets
    return [(offset, row - bisect_left(offsets, offset)) for row, offset in enumerate(offsets)]


def input_rows(inputs: Chunk, chunk: Chunk, row: int) -> list[int]:
    """Return the input that a row of a later chunk comes from; all that it may come from.

    Rows of a record have its offset; if there are as many as before, their order is the same.
    """
    offset = chunk.offsets[row]
    first = bisect_left(inputs.offsets, offset)
    found = range(first, bisect_right(inputs.offsets, offset, first))
    start = bisect_left(chunk.offsets, offset)
    same = bisect_right(chunk.offsets, offset, start) - start
    return [found[row - start]] if same == len(found) else list(found)


def between(offsets: Sequence[int], start: int, end: int) -> int:
    """Count the offsets from ``start`` up to ``end``; offsets must ascend."""
    if not len(offsets):
        return 0
    first = 0 if offsets[0] >= start else bisect_left(offsets, start)
    last = len(offsets) if offsets[-1] < end else bisect_left(offsets, end)
    return last - first


def dropped(each: Pass, start: int, end: int) -> int:
    if each.empty is not None:
        return between(each.empty, start, end)
    taken, given = between(each.taken, start, end), between(each.given, start, end)
    return taken - given - between(each.gone, start, end)


def add_counts(work: Work, reached: int, counts: Mapping[Node, Counts]) -> list[Skip]:
    """Add a `Work` to counts, up to the offset ``reached``; return the records it left out."""
    start, work.counted_to = work.counted_to, reached
    for node, taken, given in work.nodes:
        counts[node].taken += between(taken, start, reached)
        counts[node].given += between(given, start, reached)
    for each in work.passes:
        counts[each.node].dropped += dropped(each, start, reached)
    for node, offsets in work.late:
        counts[node].late += between(offsets, start, reached)
    skips = [skip for skip in work.skips if start <= skip.offset < reached]
    for skip in skips:
        if skip.is_letter:
            counts[skip.node].dead_lettered += 1
        else:
            counts[skip.node].skipped += 1
        counts[skip.node].given -= skip.is_written
    return skips
