"""Reads all sources, one chunk ahead of the runner."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import anyio

from streamkit.broadcast import Broadcast
from streamkit.dataflow.contracts import SourceReader
from streamkit.dataflow.topology import Node
from streamkit.record import Chunk


@dataclass(frozen=True, slots=True)
class Arrival:
    """A chunk of a source and its arrival time."""

    source: Node
    chunk: Chunk
    at_s: float


class Intake:
    """Reads every source until its end or the stop.

    | state of a source | event | next |
    |---|---|---|
    | reading | a chunk | waiting until the runner takes it |
    | | its end, or a failure | ended |
    | | stop, and records read ahead can be read again | ended |
    | | stop, and records read ahead cannot be read again | finishing |
    | finishing | its end | ended |

    Args:
        readers: The open sources.
        now_s: Returns the monotonic time in seconds.
        on_failure: Called when a source fails; its earlier chunks stay valid.
    """

    def __init__(
        self,
        readers: Mapping[Node, SourceReader],
        now_s: Callable[[], float],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._readers = readers
        self._now_s = now_s
        self._on_failure = on_failure
        self._queue: deque[Arrival] = deque()
        # Notified when a chunk has come, a source has ended, or the job stops.
        self.changed = Broadcast()
        self._taken = {node: anyio.Event() for node in readers}
        self._scopes = {node: anyio.CancelScope() for node in readers}
        self._ended: set[Node] = set()
        self._failed: set[Node] = set()
        self._must_finish: set[Node] = set()
        self.is_stopping = False
        # Tables that are not read to their end yet, with the records they had at the start.
        self._unread_tables = {
            node: sum(reader.backlog().values())
            for node, reader in readers.items()
            if node.is_table
        }

    @property
    def has_ended(self) -> bool:
        """Whether every source has ended without a failure."""
        return self._ended == set(self._readers) and not self._failed

    def is_active(self, source: Node | None) -> bool:
        """Return whether records of a source should still be processed; None is for no source."""
        return source is None or not self.is_stopping or source in self._must_finish

    def ended(self) -> set[Node]:
        """Return the sources that have ended for good and whose chunks were all taken."""
        waiting = {arrival.source for arrival in self._queue}
        return {
            node for node in self._ended - waiting if self._readers[node].ends_for_good
        } - self._failed

    async def run(self) -> None:
        """Read until every source has ended."""
        async with anyio.create_task_group() as tasks:
            for node in self._readers:
                tasks.start_soon(self._read, node)

    async def next(self, priority: Callable[[Arrival], int] = lambda arrival: 0) -> Arrival | None:
        """Wait for the next chunk; None when no more chunks can arrive.

        Of several, it is the first with the lowest ``priority``. After a stop it may be a chunk
        that must not be processed: see `is_active`.
        """
        while True:
            arrival = self.take(priority)
            if arrival is not None or self.is_over:
                return arrival
            await self.changed.wait()

    def take(self, priority: Callable[[Arrival], int] = lambda arrival: 0) -> Arrival | None:
        """Return the next chunk if there is one now; see `next`."""
        allowed = self._allowed()
        if not allowed:
            return None
        arrival = min(allowed, key=priority)
        self._queue.remove(arrival)
        if arrival.source in self._unread_tables:
            self._unread_tables[arrival.source] -= len(arrival.chunk)
        self._taken[arrival.source].set()
        return arrival

    @property
    def is_over(self) -> bool:
        """Whether no more chunks can arrive, and none is left."""
        active = self._must_finish if self.is_stopping else set(self._readers)
        return active <= self._ended and not self._queue

    def _allowed(self) -> list[Arrival]:
        """Return the chunks that may be taken: those of tables come first, to their end."""
        waiting = list(self._queue)
        if self.is_stopping:
            return waiting
        for node, count in list(self._unread_tables.items()):
            is_over = node in self._ended and all(each.source is not node for each in waiting)
            if is_over or count <= 0 or not sum(self._readers[node].backlog().values()):
                del self._unread_tables[node]
        if not self._unread_tables:
            return waiting
        return [each for each in waiting if each.source.is_table]

    def stop(self) -> None:
        """Stop reading, except for records that a source could not read again."""
        self._must_finish = {node for node, reader in self._readers.items() if reader.stop()}
        self.is_stopping = True
        for node, scope in self._scopes.items():
            if node not in self._must_finish:
                scope.cancel()
        self.changed.notify()

    def cancel(self) -> None:
        """Stop reading immediately, even if records are lost."""
        self.is_stopping = True
        self._must_finish = set()
        for scope in self._scopes.values():
            scope.cancel()
        self.changed.notify()

    async def _read(self, node: Node) -> None:
        reader = self._readers[node]
        with self._scopes[node]:
            try:
                while (chunk := await reader.next()) is not None:
                    self._taken[node] = anyio.Event()
                    self._queue.append(Arrival(node, chunk, self._now_s()))
                    self.changed.notify()
                    await self._taken[node].wait()
            except Exception as error:  # raised by the source
                self._failed.add(node)
                self._on_failure(error)
        self._ended.add(node)
        self.changed.notify()
