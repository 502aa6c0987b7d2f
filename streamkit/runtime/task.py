"""A running graph: chunks go in at the sources and come out at the sinks. No I/O.

Everything that one chunk leads to is worked out before any of it is handed to a sink, so a
stage that fails leaves nothing of its chunk behind.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamkit.dataflow.operators import ContextFlatMap, FlatMap, Operator, RowFailed
from streamkit.dataflow.topology import Node, Topology
from streamkit.errors import StageError
from streamkit.record import Chunk

_VALUE_SHOWN_MAX = 200
_LIBRARIES = (f"{Path(__file__).parents[1]}/", f"{sysconfig.get_path('stdlib')}/")


@dataclass(slots=True)
class Counts:
    """Inputs of one stage: taken = handled + dropped + skipped. Outputs are counted apart."""

    taken: int = 0
    dropped: int = 0
    skipped: int = 0
    given: int = 0

    @property
    def handled(self) -> int:
        return self.taken - self.dropped - self.skipped


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """A chunk for a sink, by one way through the graph."""

    sink: Node
    chunk: Chunk


@dataclass(slots=True)
class _Step:
    """A node with its readers, ready to run."""

    node: Node
    readers: list[_Step] = field(default_factory=list)


OnSkip = Callable[[StageError], None]
OnResult = Callable[[Node, Chunk], None]


class Task:
    """Runs the nodes of a graph over chunks.

    Args:
        topology: The graph.
        on_skip: Told of each record left out under ``on_error="skip"``.
        on_result: Told what each node gives, for tests.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        on_skip: OnSkip | None = None,
        on_result: OnResult | None = None,
    ) -> None:
        self.counts = {node: Counts() for node in topology.nodes}
        self._counts_before: dict[Node, Counts] = {}
        self._on_skip = on_skip
        self._on_result = on_result
        steps = {node: _Step(node) for node in topology.nodes}
        for node in topology.nodes:
            steps[node].readers = [steps[reader] for reader in topology.readers(node)]
        self._steps = steps

    def process(self, source: Node, chunk: Chunk) -> list[Output]:
        """Take a chunk that a source has read and give what the sinks shall write, in order.

        There is one output, if only an empty one, for each way from the source to a sink: they
        stand in the same places whatever the chunk holds.

        Raises:
            StageError: A function of the user's raised, and its stage says ``fail``. The
                counts are then those from before the chunk.
        """
        self._counts_before = {node: _copied(counts) for node, counts in self.counts.items()}
        outputs: list[Output] = []
        try:
            self._run(self._steps[source], chunk, outputs)
        except StageError:
            self.take_back()
            raise
        return outputs

    def take_back(self) -> None:
        """Forget what the last `process` counted: what it gave is not used."""
        self.counts.update(self._counts_before)

    def _run(self, step: _Step, chunk: Chunk, outputs: list[Output]) -> None:
        node = step.node
        counts = self.counts[node]
        taken = len(chunk.values)
        counts.taken += taken
        for operator in node.operators:
            chunk = self._apply(node, operator, chunk, counts)
        given = len(chunk.values)
        counts.given += given
        if self._on_result is not None:
            self._on_result(node, chunk)
        if node.kind == "sink":
            outputs.append(Output(node, chunk))
        for reader in step.readers:
            self._run(reader, chunk, outputs)

    def _apply(self, node: Node, operator: Operator, chunk: Chunk, counts: Counts) -> Chunk:
        taken = len(chunk.values)
        try:
            result = operator.on_chunk(chunk)
        except RowFailed as failed:
            result, skipped = self._without_failures(node, operator, chunk, failed)
            counts.skipped += skipped
            taken -= skipped
        counts.dropped += _dropped(operator, result, taken)
        return result

    def _without_failures(
        self, node: Node, operator: Operator, chunk: Chunk, failed: RowFailed
    ) -> tuple[Chunk, int]:
        """Leave out the rows that fail, where that is the policy; each is tried once."""
        done: list[Chunk] = []
        skipped = 0
        while True:
            error = stage_error(node, chunk, failed)
            if node.on_error == "fail":
                raise error from failed.__cause__
            if self._on_skip is not None:
                self._on_skip(error)
            skipped += 1
            done.append(failed.before)
            chunk = chunk.slice(failed.row + 1, len(chunk.values))
            try:
                done.append(operator.on_chunk(chunk))
                return _joined(done), skipped
            except RowFailed as again:
                failed = again


def stage_error(node: Node, chunk: Chunk, failed: RowFailed) -> StageError:
    """Say which record a function failed on, and where in the user's code."""
    cause = failed.__cause__
    assert cause is not None, "a row fails by an error"
    return describe_failure(node, chunk, failed.row, cause)


def describe_failure(
    node: Node, chunk: Chunk, row: int, cause: BaseException, *, rows: int = 1
) -> StageError:
    """Make the error for one row, or for ``rows`` from there on that failed as one: what,
    where, which value, why.
    """
    offset = chunk.offsets[row]
    where = f"{chunk.topic}-{chunk.partition} offset {offset}" if chunk.topic else f"row {offset}"
    if rows > 1:
        where += f" to {chunk.offsets[row + rows - 1]}"
    key = chunk.keys[row]
    lines = [
        f"stage {node.name!r} failed on {where}: {type(cause).__name__}: {cause}",
        f"  at: {users_line(traceback.extract_tb(cause.__traceback__)) or node.location}",
        f"  value: {shown(chunk.values[row])}",
    ]
    if key is not None:
        lines.insert(2, f"  key: {shown(key)}")
    return StageError(
        "\n".join(lines),
        stage=node.name,
        topic=chunk.topic,
        partition=chunk.partition,
        offset=offset,
    )


def shown(value: Any) -> str:
    """Show a value on one line, cut to a bound, with nothing a terminal would obey."""
    text = repr(value)
    if len(text) > _VALUE_SHOWN_MAX:
        text = f"{text[:_VALUE_SHOWN_MAX]}... ({len(text)} characters)"
    return text


def users_line(frames: traceback.StackSummary) -> str:
    """Return the innermost line that is not ours nor a library's; empty if there is none."""
    for frame in reversed(frames):
        if (
            not frame.filename.startswith((*_LIBRARIES, "<"))
            and "site-packages" not in frame.filename
        ):
            return f"{frame.filename}:{frame.lineno} in {frame.name}: {(frame.line or '').strip()}"
    return ""


def _dropped(operator: Operator, after: Chunk, taken: int) -> int:
    """Count the rows that led to nothing. Rows that one row led to share its offset."""
    if isinstance(operator, FlatMap | ContextFlatMap):
        return max(0, taken - len(set(after.offsets)))
    return taken - len(after.values)


def _joined(chunks: list[Chunk]) -> Chunk:
    first = chunks[0]
    values: list[Any] = []
    keys: list[bytes | None] = []
    stamps: list[int] = []
    offsets: list[int] = []
    for chunk in chunks:
        values.extend(chunk.values)
        keys.extend(chunk.keys)
        stamps.extend(chunk.timestamps_ms)
        offsets.extend(chunk.offsets)
    return Chunk(values, keys, stamps, offsets, first.topic, first.partition)


def _copied(counts: Counts) -> Counts:
    return Counts(counts.taken, counts.dropped, counts.skipped, counts.given)
