"""The nodes of a graph, ready to run: passes chunks from node to node. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from streamkit.dataflow.calling import Called
from streamkit.dataflow.steps import Operator
from streamkit.dataflow.topology import Node, Topology
from streamkit.record import Chunk, in_order
from streamkit.runtime.applying import Applying
from streamkit.runtime.failures import describe_failure
from streamkit.runtime.isolation import ChangedInPlace, ValueCopy
from streamkit.runtime.node_room import NodeRoom
from streamkit.runtime.pending_queues import PendingQueues
from streamkit.runtime.rows_to_try import rows_to_try
from streamkit.runtime.running_node import Reader, RunningNode
from streamkit.runtime.work import Fed, Output, Work


class RunningGraph:
    """The nodes of one task.

    Args:
        topology: The graph.
        room_of: Returns what a node gets of the task.
        pending: What waits in the nodes.
        last_operators: The operator of a sink's writer, applied after the steps of its node.
        applying: Runs the operators.
    """

    def __init__(
        self,
        topology: Topology,
        room_of: Callable[[Node], NodeRoom],
        pending: PendingQueues,
        last_operators: Mapping[Node, Operator],
        applying: Applying,
    ) -> None:
        self._applying = applying
        # Whether the results of all nodes are kept, for tests.
        self.keeps_results = False
        # Whether a stage fails that changes a value in place which others read, for tests.
        self.is_isolated = False
        self.nodes = {node: RunningNode(node) for node in topology.nodes}
        for node, running in self.nodes.items():
            room = running.room = room_of(node)
            running.queue = pending.by_node.get(node)
            running.operators = [(step.open(room), step.expands) for step in node.steps]
            if node in last_operators:
                running.operators.append((last_operators[node], False))
            for number, step in enumerate(node.steps):
                if isinstance(step, Called):
                    running.called = number
            for reader in topology.readers(node):
                sides = [side for side, each in enumerate(reader.inputs) if each is node]
                readers = running.late_readers if reader.is_late else running.readers
                readers += [(self.nodes[reader], side) for side in sides]
        self._merging: dict[Node, list[Chunk]] = {}

    def merge_in_order(self, *, has_states: bool) -> None:
        """Put rows in order before the nodes where streams merge.

        It matters only with states, and where rows may wait for earlier ones. A test for changes in
        place looks at each stream alone.
        """
        is_ordered = has_states and not self.is_isolated
        self._merging = {
            node: []
            for node, running in self.nodes.items()
            if len(node.inputs) > 1
            and not running.is_two_sided
            and (is_ordered or running.is_retrying)
        }

    def begin(self, node: Node, chunk: Chunk, work: Work, *, is_resumed: bool = False) -> None:
        """Run a node over a chunk, and all nodes after it."""
        self.run((self.nodes[node], 0), chunk, work, is_resumed=is_resumed)

    def forget(self) -> None:
        """Forget a slice that could not be processed."""
        self._merging = {node: [] for node in self._merging}

    def run(self, reader: Reader, chunk: Chunk, work: Work, *, is_resumed: bool = False) -> None:
        """Run a node over a chunk, then the nodes that read it."""
        running, side = reader
        node = running.node
        chunk = work.within(chunk)
        taken: Sequence[int] = chunk.offsets
        first = 0
        inputs = chunk
        if is_resumed:
            taken = ()
            if running.called is not None:
                first = running.called
                chunk = chunk.with_values(work.records[: len(chunk)])
        if running.is_retrying:
            chunk = inputs = rows_to_try(running, chunk, work, is_resumed=is_resumed)
        for number in range(first, len(running.operators)):
            if number == running.called and not is_resumed:
                marks_ms = None if running.marks is None else running.marks(chunk)
                work.fed.append(Fed(node, chunk, marks_ms))
                work.nodes.append((node, taken, ()))
                return
            chunk = self._applying.apply(running, number, side, chunk, inputs, work)
        work.nodes.append((node, taken, chunk.offsets))
        self.send_letters(work)
        self.give(running, chunk, inputs, work)

    def send_letters(self, work: Work) -> None:
        """Give dead letters to their sinks."""
        while work.letters:
            sink = work.letters[0][0]
            chunks = [chunk for node, chunk in work.letters if node is sink]
            work.letters = [each for each in work.letters if each[0] is not sink]
            self.run((self.nodes[sink], 0), in_order(chunks), work)

    def give(self, running: RunningNode, chunk: Chunk, inputs: Chunk, work: Work) -> None:
        """Give the results of a node to its readers, and the records that were too late."""
        node = running.node
        if self.keeps_results:
            work.results.append((node, chunk))
        if node.kind == "sink":
            work.outputs.append(Output(node, chunk, inputs))
        late = running.room.take_late()
        for each in late:
            work.late.append((node, each.offsets))
            for reader in running.late_readers:
                self.run(reader, each, work)
        is_shared = self.is_isolated and len(running.readers) > 1
        for reader in running.readers:
            if reader[0].node in self._merging:
                self._merging[reader[0].node].append(chunk)
                continue
            before = ValueCopy(chunk) if is_shared else None
            self.run(reader, chunk, work)
            row = None if before is None else before.changed_row()
            if row is not None:
                failure = describe_failure(reader[0].node, chunk, row, ChangedInPlace())
                work.fail(failure, chunk.offsets[row])

    def run_merged(self, work: Work) -> None:
        """Run the nodes where streams merge, inputs first, each with all its rows in order."""
        for node, chunks in self._merging.items():
            if chunks:
                self._merging[node] = []
                self.run((self.nodes[node], 0), in_order(chunks), work)
