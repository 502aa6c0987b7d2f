"""Runs writers of sinks as the engine does, with commits that may end early."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from streamkit.connectors.sql import SqlSink
from streamkit.connectors.sql.writer import SqlWriter
from streamkit.dataflow.contracts import ConnectorEnv
from streamkit.record import Chunk
from tests.sql.reading import FastClock

# What a commit has done when the process ends.
End = Literal["nothing", "prepared", "waited", "stored", "published"]


@dataclass
class Job:
    """What outlives a run: the folder and the stored positions of the sink."""

    folder: Path
    kind: Any
    app: str = "app"
    positions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    clock: FastClock = field(default_factory=FastClock)
    shared: dict[object, Any] = field(default_factory=dict)

    @asynccontextmanager
    async def run(self, sink: SqlSink) -> AsyncIterator[Writing]:
        """Open a writer; at the end it is closed without a commit, as after a crash."""
        env = ConnectorEnv(
            "totals",
            self.app,
            self.folder,
            self.clock,
            note=self.notes.append,
            kind=self.kind,
            shared=self.shared,
        )
        writer = sink.writer(env)
        assert isinstance(writer, SqlWriter)
        try:
            await writer.open(dict(self.positions))
            # The engine stores what sinks give at the start.
            self.positions.update(writer.prepare_commit(is_last=False).positions)
            yield Writing(self, writer)
        finally:
            await writer.close()


@dataclass
class Writing:
    """An open writer."""

    job: Job
    writer: SqlWriter

    def chunk(self, values: Sequence[Any], keys: Sequence[bytes | None] = ()) -> Chunk:
        count = len(values)
        return Chunk(values, keys or [None] * count, [0] * count, range(count))

    async def write(self, values: Sequence[Any], keys: Sequence[bytes | None] = ()) -> None:
        await self.writer.write(self.writer.on_chunk(self.chunk(values, keys)))

    async def commit(self, until: End = "published", *, is_last: bool = False) -> None:
        """Commit, or stop after a step."""
        if until == "nothing":
            return
        prepared = self.writer.prepare_commit(is_last=is_last)
        if until == "prepared":
            return
        await prepared.wait()
        if until == "waited":
            return
        self.job.positions.update(prepared.positions)
        if until == "published" and prepared.publish is not None:
            await prepared.publish()
