"""A small correct source of lists in memory; the tests derive wrong ones from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import anyio

from streamkit.connectors import (
    Chunk,
    ConnectorEnv,
    Positions,
    Source,
    SourceFacts,
    SourceReader,
)
from streamkit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Lists(Source[bytes]):
    """Reads lists of JSON texts, each of which is one partition."""

    lists: tuple[tuple[bytes, ...], ...]
    rows: int = 3
    reader_class: type[ListReader] | None = None

    @property
    def name(self) -> str:
        return "lists"

    def place(self, topic: str, partition: int, offset: int) -> str:
        return f"{topic} {partition}, item {offset}"

    def reader(self, env: ConnectorEnv) -> ListReader:
        return (self.reader_class or ListReader)(self, env)


class ListReader(SourceReader):
    """Reads the lists in turns. A position is the number of the next item, as JSON."""

    def __init__(self, source: Lists, env: ConnectorEnv) -> None:
        self.source = source
        self.env = env
        self.next_item: list[int] = []
        self.turn = 0
        self.is_open = False

    async def open(self, committed: Positions) -> SourceFacts:
        if not self.source.lists:
            raise ConfigError("there are no lists")
        await anyio.lowlevel.checkpoint()
        self.next_item = [
            json.loads(committed.get(str(number), "0")) for number in range(len(self.source.lists))
        ]
        self.is_open = True
        starts = {str(number): json.dumps(item) for number, item in enumerate(self.next_item)}
        return SourceFacts("lists in memory", start_offsets=starts)

    async def next(self) -> Chunk | None:
        for _ in self.source.lists:
            number = self.turn % len(self.source.lists)
            self.turn += 1
            chunk = await self.part(number)
            if chunk is not None:
                return chunk
        return None

    async def part(self, number: int) -> Chunk | None:
        """Return the next rows of a list."""
        await anyio.lowlevel.checkpoint()
        first = self.next_item[number]
        values = self.source.lists[number][first : first + self.source.rows]
        if not values:
            return None
        await anyio.lowlevel.checkpoint()
        self.next_item[number] += len(values)
        count = len(values)
        offsets = range(first, first + count)
        return Chunk(values, [None] * count, [0] * count, offsets, "list", number)

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        return str(chunk.partition), json.dumps(chunk.offsets[-1] + 1)

    def backlog(self) -> Mapping[int, int]:
        return {}

    async def close(self) -> None:
        self.is_open = False
