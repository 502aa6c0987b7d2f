"""Two small correct sinks of lists in memory; the tests derive wrong ones from them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import anyio

from streamkit.connectors import (
    AcknowledgedWriter,
    AtOnceWriter,
    Chunk,
    ConnectorEnv,
    Positions,
    Prepared,
    RowFailed,
    Sink,
    SinkWriter,
)
from streamkit.dataflow.contracts import IsOver
from streamkit.errors import ConfigError


@dataclass(slots=True)
class Memory:
    """A place: rows that others see, and rows of each commit that are safe but not shown yet."""

    shown: list[Any] = field(default_factory=list)
    safe: dict[int, list[Any]] = field(default_factory=dict)
    last_shown: int = 0

    def clear(self) -> None:
        self.shown.clear()
        self.safe.clear()
        self.last_shown = 0


@dataclass(frozen=True, slots=True)
class MemorySink(Sink[Any]):
    """Writes to a list."""

    memory: Memory | None
    writer_class: type[Any]

    def writer(self, env: ConnectorEnv) -> SinkWriter:
        made: SinkWriter = self.writer_class(self.memory)
        return made


class AtLeastOnce(AcknowledgedWriter):
    """Keeps rows until `wait`, which shows them."""

    description = "a list"

    def __init__(self, memory: Memory | None) -> None:
        self.memory = memory
        self.buffer: list[Any] = []

    @property
    def shown(self) -> list[Any]:
        assert self.memory is not None
        return self.memory.shown

    @property
    def unacknowledged(self) -> int:
        return len(self.buffer)

    async def open(self, committed: Positions) -> None:
        await anyio.lowlevel.checkpoint()
        if self.memory is None:
            raise ConfigError("there is no list")

    def on_chunk(self, chunk: Chunk) -> Chunk:
        for row, value in enumerate(chunk.values):
            if value == "poison":
                raise RowFailed(row, chunk.slice(0, row))
        return chunk

    async def write(self, chunk: Chunk) -> None:
        await anyio.lowlevel.checkpoint()
        self.buffer += chunk.values

    def prepare_commit(self, *, is_last: bool) -> Prepared:
        count = len(self.buffer)

        async def wait() -> None:
            await anyio.lowlevel.checkpoint()
            self.shown.extend(self.buffer[:count])
            del self.buffer[:count]

        return Prepared(wait, {})

    async def close(self) -> None:
        pass


class ExactlyOnce(AtLeastOnce):
    """Makes rows safe in `wait`, under the number of their commit, and shows them in `publish`."""

    def __init__(self, memory: Memory | None) -> None:
        super().__init__(memory)
        self.number = 0

    async def open(self, committed: Positions) -> None:
        await super().open(committed)
        assert self.memory is not None
        self.number = json.loads(committed.get("commit", "0"))
        for number in sorted(self.memory.safe):
            if number > self.number:
                del self.memory.safe[number]
        await self.show()

    async def show(self) -> None:
        """Show the rows of every commit that is stored."""
        assert self.memory is not None
        for number in sorted(self.memory.safe):
            if number <= self.number:
                self.shown.extend(self.memory.safe.pop(number))

    def prepare_commit(self, *, is_last: bool) -> Prepared:
        rows, self.buffer = self.buffer, []
        if not rows:
            return Prepared(self.nothing, {})
        self.number += 1
        number = self.number

        async def wait() -> None:
            await anyio.lowlevel.checkpoint()
            assert self.memory is not None
            self.memory.safe[number] = rows

        return Prepared(wait, {"commit": json.dumps(number)}, self.show)

    async def nothing(self) -> None:
        pass


class AtOnce(AtOnceWriter):
    """Shows each row immediately."""

    description = "a list"

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    @property
    def is_per_record(self) -> bool:
        return True

    async def open(self, committed: Positions) -> None:
        pass

    async def write(self, chunk: Chunk, is_over: IsOver) -> int:
        self.memory.shown.append(chunk.values[0])
        return 1

    async def flush(self, *, is_last: bool) -> None:
        pass

    async def close(self) -> None:
        pass
