"""A script that uses an official client, in a separate process that a test talks to."""

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
    """The running script. It sends and receives values as lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def answer(self) -> Any:
        """Wait for the next value that the script sends."""
        assert self._process.stdout is not None, "stdout is a pipe"
        line = await self._in_time(self._process.stdout.readline())
        assert line, f"the script ended without an answer: {self._log.read_text()}"
        return json.loads(line)

    async def send(self, value: object = "continue") -> None:
        """Send the value that the script waits for in its function `receive`."""
        assert self._process.stdin is not None, "stdin is a pipe"
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        await self._process.stdin.drain()

    async def remaining(self) -> list[Any]:
        """Wait until the script ends with exit code 0; return its remaining answers."""
        assert self._process.stdout is not None, "stdout is a pipe"
        out = await self._in_time(self._process.stdout.read())
        code = await self._in_time(self._process.wait())
        assert code == 0, f"exit code {code}: {self._log.read_text()}"
        return [json.loads(line) for line in out.splitlines()]

    async def _in_time(self, work: Any) -> Any:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await work
        except TimeoutError:
            text = f"no answer within {PATIENCE_S} s: {self._log.read_text()}"
            raise AssertionError(text) from None


@asynccontextmanager
async def started(
    command: Sequence[str | Path], log: Path, variables: Mapping[str, str]
) -> AsyncIterator[Peer]:
    """Start a script; it is killed at the end of the block if it still runs."""
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
