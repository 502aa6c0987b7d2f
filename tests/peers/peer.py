"""A program on an official client, in a process of its own, that a test talks with."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

PATIENCE_S: Final = 60.0
_LINE_BYTES_MAX: Final = 1 << 26


class Peer:
    """The running program: what it answers are values in lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def answer(self) -> Any:
        """Wait for the next value that it answers."""
        assert self._process.stdout is not None, "it is a pipe"
        line = await self._in_time(self._process.stdout.readline())
        assert line, f"it ended without an answer: {self._log.read_text()}"
        return json.loads(line)

    async def tell(self, value: object = "go on") -> None:
        """Give it the value that it waits for in `told`."""
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        await self._process.stdin.drain()

    async def rest(self) -> list[Any]:
        """Wait until it ends well; return what else it answers."""
        assert self._process.stdout is not None, "it is a pipe"
        out = await self._in_time(self._process.stdout.read())
        code = await self._in_time(self._process.wait())
        assert code == 0, f"exit code {code}: {self._log.read_text()}"
        return [json.loads(line) for line in out.splitlines()]

    async def _in_time(self, work: Any) -> Any:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await work
        except TimeoutError:
            raise AssertionError(f"nothing in {PATIENCE_S} s: {self._log.read_text()}") from None


@asynccontextmanager
async def started(
    command: Sequence[str | Path], log: Path, variables: Mapping[str, str]
) -> AsyncIterator[Peer]:
    """Start a program; what is left of it when the block ends is killed."""
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **variables},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=_LINE_BYTES_MAX,
        )
    try:
        yield Peer(process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
