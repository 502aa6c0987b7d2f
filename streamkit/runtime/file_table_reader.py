"""Reads the rows of a file that is a table."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import anyio

from streamkit.dataflow.contracts import Positions, SourceFacts, SourceReader
from streamkit.dataflow.endpoints import FileTable
from streamkit.env import Clock
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.units import counted

_PART: Final = "0"


class FileTableReader(SourceReader):
    """Reads a whole file at each start, so it has no position."""

    def __init__(self, name: str, table: FileTable, kind: Any, clock: Clock) -> None:
        self._name = name
        self._table = table
        self._kind = kind
        self._clock = clock
        self._chunks: deque[Chunk] = deque()
        self._left = 0

    async def open(self, committed: Positions) -> SourceFacts:
        rows = await anyio.to_thread.run_sync(self._table.rows, self._kind)
        self._chunks.extend(chunks_of(self._name, rows, self._clock.wall_ms()))
        self._left = len(rows)
        return SourceFacts(f"{self._table} with {counted(len(rows), 'row')}, read at each start")

    async def next(self) -> Chunk | None:
        return self._chunks.popleft() if self._chunks else None

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        self._left -= len(chunk)
        return _PART, "read"

    def lag(self) -> int | None:
        return self._left

    def backlog(self) -> Mapping[int, int]:
        return {0: self._left}

    @property
    def ends_for_good(self) -> bool:
        return True

    async def close(self) -> None:
        self._chunks.clear()


def chunks_of(name: str, rows: list[Any], now_ms: int) -> list[Chunk]:
    """Divide the rows of a table into chunks."""
    chunks = []
    for first in range(0, len(rows), CHUNK_RECORDS_MAX):
        part = rows[first : first + CHUNK_RECORDS_MAX]
        offsets = range(first, first + len(part))
        chunks.append(Chunk(part, [None] * len(part), [now_ms] * len(part), offsets, name, 0))
    return chunks
