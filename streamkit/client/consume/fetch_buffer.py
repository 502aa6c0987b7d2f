"""A buffer of chunks for the application: partitions take turns, and bytes are limited."""

from __future__ import annotations

from collections import deque

from streamkit.broadcast import Broadcast
from streamkit.record import Chunk


class FetchBuffer:
    """The chunks that partition readers have received and the application has not taken yet.

    Partitions take turns, so a partition with a long backlog does not delay the others.

    Args:
        prefetch_bytes: The total limit. Each partition has an equal share of it, and may exceed
            its share by one response.
    """

    def __init__(self, prefetch_bytes: int) -> None:
        self._prefetch_bytes = prefetch_bytes
        self._partitions = 0
        self._held: dict[int, deque[tuple[Chunk, int]]] = {}
        self._held_bytes: dict[int, int] = {}
        self._turns: deque[int] = deque()
        self._arrived = Broadcast()
        self._room = Broadcast()

    @property
    def share_bytes(self) -> int:
        """How many bytes may be buffered per partition."""
        return max(1, self._prefetch_bytes // max(1, self._partitions))

    @property
    def held_bytes(self) -> int:
        return sum(self._held_bytes.values())

    def add_partition(self, partition: int) -> None:
        """Add a partition; the shares of all others become smaller."""
        self._held[partition] = deque()
        self._held_bytes[partition] = 0
        self._partitions += 1

    def holds(self, partition: int) -> bool:
        """Whether chunks of a partition are buffered."""
        return bool(self._held[partition])

    def has_room(self, partition: int) -> bool:
        """Whether a partition may request more records."""
        return self._held_bytes[partition] < self.share_bytes

    async def wait_for_room(self, partition: int) -> None:
        while not self.has_room(partition):
            await self._room.wait()

    def put(self, partition: int, chunk: Chunk, size_bytes: int) -> None:
        """Append a chunk to the queue of its partition."""
        held = self._held[partition]
        assert size_bytes > 0, "a chunk has records"
        if not held:
            self._turns.append(partition)
        held.append((chunk, size_bytes))
        self._held_bytes[partition] += size_bytes
        self.wake()

    def take(self) -> Chunk | None:
        """Take the next chunk of the partition whose turn it is; None if the buffer is empty."""
        if not self._turns:
            return None
        partition = self._turns.popleft()
        held = self._held[partition]
        chunk, size_bytes = held.popleft()
        self._held_bytes[partition] -= size_bytes
        assert (self._held_bytes[partition] > 0) == bool(held), "each chunk is counted once"
        if held:
            self._turns.append(partition)
        self._room.notify()
        return chunk

    def drop(self, partition: int) -> None:
        """Discard the buffered chunks of a partition."""
        if self._held[partition]:
            self._turns.remove(partition)
        self._held[partition].clear()
        self._held_bytes[partition] = 0
        self._room.notify()

    def wake(self) -> None:
        """Wake all tasks in `wait`, because of a chunk, an end or an error."""
        self._arrived.notify()

    async def wait(self) -> None:
        """Wait for the next call of `wake`; earlier calls do not count."""
        await self._arrived.wait()
