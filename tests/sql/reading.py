"""Runs readers of sources as the engine does: chunks, positions, and a clock of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from streamkit.connectors.sql import SqlQuery, SqlTable
from streamkit.dataflow.contracts import ConnectorEnv
from streamkit.env import SystemClock
from streamkit.record import Chunk

Source = SqlTable | SqlQuery


class FastClock(SystemClock):
    """Passes at each sleep as much time as is slept, without waiting. ``slept`` are the pauses.

    ``on_sleep`` is called before each pause.
    """

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.passed_s = 0.0
        self.on_sleep: Any = lambda seconds: None

    def monotonic_s(self) -> float:
        return self.passed_s

    async def sleep(self, seconds: float) -> None:
        self.on_sleep(seconds)
        self.slept.append(seconds)
        self.passed_s += max(0.0, seconds)
        await anyio.lowlevel.checkpoint()


class Reading:
    """An open reader, with all that it has returned."""

    def __init__(self, source: Source, *, until_end: bool = True) -> None:
        self.clock = FastClock()
        self.notes: list[str] = []
        env = ConnectorEnv("rows", "app", Path(), self.clock, until_end, self.notes.append)
        self.reader = source.reader(env)
        self.positions: dict[str, str] = {}
        self.description = ""

    async def open(self, committed: dict[str, str]) -> None:
        facts = await self.reader.open(committed)
        self.description = facts.description
        self.positions = dict(facts.start_offsets or {})

    async def next(self) -> Chunk | None:
        return await self.reader.next()

    def take(self, chunk: Chunk) -> list[dict[str, Any]]:
        """Return the rows of a chunk as the task does after it has processed them."""
        name, position = self.reader.position_after(chunk)
        self.positions[name] = position
        return list(chunk.values)

    async def rows(self, count: int | None = None) -> list[dict[str, Any]]:
        """Read to the end, or until at least this number of rows."""
        found: list[dict[str, Any]] = []
        while count is None or len(found) < count:
            chunk = await self.next()
            if chunk is None:
                break
            found += self.take(chunk)
        return found


@asynccontextmanager
async def reading(
    source: Source, committed: dict[str, str] | None = None, *, until_end: bool = True
) -> AsyncIterator[Reading]:
    run = Reading(source, until_end=until_end)
    try:
        await run.open(committed or {})
        yield run
    finally:
        await run.reader.close()


async def read_all(source: Source, committed: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Read to the present end."""
    async with reading(source, committed) as run:
        return await run.rows()
