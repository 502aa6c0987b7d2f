"""Runs the writer of a file sink commit by commit, as a job does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio.lowlevel

from streamkit.connectors import ConnectorEnv
from streamkit.connectors.files import FileSink
from streamkit.env import SystemClock
from streamkit.record import Chunk


class ManualClock(SystemClock):
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def wall_ms(self) -> int:
        return self.now_ms


class Writing:
    """One run of a file sink. Leave it without `end` for a run that was killed."""

    def __init__(
        self,
        sink: FileSink,
        folder: Path,
        kind: Any = None,
        *,
        name: str = "out",
        clock: ManualClock | None = None,
    ) -> None:
        encoder = sink.encoder(kind, None)
        self._encode = None if encoder is None else encoder.dumps
        self.notes: list[str] = []
        env = ConnectorEnv(
            name, "app", folder, clock or ManualClock(), note=self.notes.append, kind=kind
        )
        self.writer = sink.writer(env)

    async def start(self, committed: dict[str, str]) -> Writing:
        await self.writer.open(committed)
        return self

    async def write(self, *values: Any) -> None:
        count = len(values)
        rows = list(values if self._encode is None else map(self._encode, values))
        chunk = Chunk(rows, [None] * count, [0] * count, range(count))
        await self.writer.write(self.writer.on_chunk(chunk))

    async def commit(self, committed: dict[str, str], *, is_last: bool = False) -> None:
        """Commit what was written, remember the positions in ``committed``, and show the files."""
        await (await self.prepare(committed, is_last=is_last))()

    async def prepare(
        self, committed: dict[str, str], *, is_last: bool = False
    ) -> Callable[[], Awaitable[None]]:
        """Do the same, but return what shows the files."""
        prepared = self.writer.prepare_commit(is_last=is_last)
        await prepared.wait()
        committed.update(prepared.positions)
        return prepared.publish or anyio.lowlevel.checkpoint

    async def end(self, committed: dict[str, str]) -> None:
        await self.commit(committed, is_last=True)
        await self.writer.close()
