"""Which keys have something to do at which time, with one entry for each key."""

from __future__ import annotations

import heapq
from collections.abc import Iterable


class DueKeys:
    """Keys in order of the time at which they must be looked at.

    The time of a key is the earliest one that was added since it was taken. Something that was
    put off is found to be so when the key is taken; then it is added again.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, bytes]] = []
        self._times_ms: dict[bytes, int] = {}

    def add(self, key: bytes, time_ms: int) -> None:
        """Look at a key at a time, unless it is looked at earlier."""
        known_ms = self._times_ms.get(key)
        if known_ms is None or time_ms < known_ms:
            self._times_ms[key] = time_ms
            heapq.heappush(self._heap, (time_ms, key))

    def first_ms(self) -> int | None:
        """Return the earliest time."""
        heap = self._heap
        while heap and self._times_ms.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take(self, time_ms: int) -> list[bytes]:
        """Remove and return the keys up to a time, in order of their times."""
        taken = []
        while (first_ms := self.first_ms()) is not None and first_ms <= time_ms:
            _, key = heapq.heappop(self._heap)
            del self._times_ms[key]
            taken.append(key)
        return taken

    def reset(self, times: Iterable[tuple[bytes, int]]) -> None:
        """Begin again with other keys and times."""
        self._heap, self._times_ms = [], {}
        for key, time_ms in times:
            self.add(key, time_ms)
