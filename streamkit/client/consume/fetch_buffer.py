"""Chunks that wait for the application: taken in turn from each partition, bounded in bytes."""

from __future__ import annotations

from collections import deque

from streamkit.broadcast import Broadcast
from streamkit.record import Chunk


class FetchBuffer:
    """What the partitions' readers have brought and nobody has taken yet.

    Partitions take turns, so that one with a long backlog never hides another.

    Args:
        prefetch_bytes: What may wait in all. Each partition has an equal share of it, and may
            go over that by the one response it was waiting for.
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
        """What one partition may have waiting."""
        return max(1, self._prefetch_bytes // max(1, self._partitions))

    @property
    def held_bytes(self) -> int:
        return sum(self._held_bytes.values())

    def add_partition(self, partition: int) -> None:
        """Give a partition its place, and all others a smaller share."""
        self._held[partition] = deque()
        self._held_bytes[partition] = 0
        self._partitions += 1

    def holds(self, partition: int) -> bool:
        """Whether something of a partition waits to be taken."""
        return bool(self._held[partition])

    def has_room(self, partition: int) -> bool:
        """Whether a partition may ask for more."""
        return self._held_bytes[partition] < self.share_bytes

    async def wait_for_room(self, partition: int) -> None:
        while not self.has_room(partition):
            await self._room.wait()

    def put(self, partition: int, chunk: Chunk, size_bytes: int) -> None:
        """Add a chunk behind those of its partition."""
        held = self._held[partition]
        if not held:
            self._turns.append(partition)
        held.append((chunk, size_bytes))
        self._held_bytes[partition] += size_bytes
        self.wake()

    def take(self) -> Chunk | None:
        """Take the next chunk of the partition whose turn it is; None if nothing waits."""
        if not self._turns:
            return None
        partition = self._turns.popleft()
        held = self._held[partition]
        chunk, size_bytes = held.popleft()
        self._held_bytes[partition] -= size_bytes
        if held:
            self._turns.append(partition)
        self._room.notify()
        return chunk

    def drop(self, partition: int) -> None:
        """Forget what waits of a partition."""
        if self._held[partition]:
            self._turns.remove(partition)
        self._held[partition].clear()
        self._held_bytes[partition] = 0
        self._room.notify()

    def wake(self) -> None:
        """Let `wait` return, for all who wait: there is a chunk, an end or an error."""
        self._arrived.notify()

    async def wait(self) -> None:
        """Wait for something to happen. What has happened before does not count."""
        await self._arrived.wait()
