"""A server on loopback whose responses are the bytes that a test wants, and a clock for it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from streamkit.connectors import Chunk, ConnectorEnv, SourceReader
from tests.closing import close_writer


@dataclass(frozen=True)
class Asked:
    """A request that a server got."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))


Script = Callable[[Asked], bytes | Awaitable[bytes]]


def reply(
    body: Any = b"", status: int = 200, headers: dict[str, str] | None = None, length: int = -1
) -> bytes:
    """Format a response; another ``length`` than that of the body is a lie."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data) if length < 0 else length}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


class Scripted:
    """Answers each request with what the script returns, then closes the connection."""

    def __init__(self, script: Script) -> None:
        self.asked: list[Asked] = []
        self.url = ""
        self._script = script

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # The client may close its connection at any time.
            with suppress(OSError, asyncio.IncompleteReadError):
                request = await _read(reader)
                self.asked.append(request)
                found = self._script(request)
                writer.write(found if isinstance(found, bytes) else await found)
                await writer.drain()
        finally:
            await close_writer(writer)


async def _read(reader: asyncio.StreamReader) -> Asked:
    line, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (e.partition(":") for e in rest)}
    method, target, _ = line.split(" ")
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, target, headers, body)


@asynccontextmanager
async def scripted(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    """Run a server while the block runs."""
    found = Scripted(script)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):
            await found.serve(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    found.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Waits:
    """A clock whose sleeps end at once; it keeps their durations."""

    slept: list[float] = field(default_factory=list)

    def monotonic_s(self) -> float:
        return 0.0

    def wall_ms(self) -> int:
        return 1_700_000_000_000

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def assert_doubles(slept: list[float]) -> None:
    """Assert that each wait is twice the one before, up to a minute; half of it is random."""
    for at, wait_s in enumerate(slept):
        longest_s = min(0.5 * 2**at, 60.0)
        assert longest_s / 2 <= wait_s <= longest_s, slept


@dataclass
class Run:
    """What a reader gets of a run, and what it has noted."""

    until_end: bool = True
    clock: Waits = field(default_factory=Waits)
    notes: list[str] = field(default_factory=list)

    @property
    def env(self) -> ConnectorEnv:
        return ConnectorEnv(
            "node", "app", Path("unused"), self.clock, self.until_end, self.notes.append
        )


async def read_all(reader: SourceReader, committed: dict[str, str] | None = None) -> list[bytes]:
    """Open a reader, read it to its end, and close it."""
    return [row for chunk in await read_chunks(reader, committed) for row in chunk.values]


async def read_chunks(reader: SourceReader, committed: dict[str, str] | None = None) -> list[Chunk]:
    found = []
    try:
        await reader.open(committed or {})
        while (chunk := await reader.next()) is not None:
            found.append(chunk)
    finally:
        await reader.close()
    return found


async def read_rows(
    reader: SourceReader, count: int, committed: dict[str, str]
) -> tuple[list[bytes], dict[str, str]]:
    """Read rows one by one, until there are ``count``; return them and the position after them."""
    rows: list[bytes] = []
    position = dict(committed)
    try:
        await reader.open(committed)
        while len(rows) < count and (chunk := await reader.next()) is not None:
            for at in range(min(len(chunk), count - len(rows))):
                part = chunk.slice(at, at + 1)
                rows += part.values
                key, text = reader.position_after(part)
                position[key] = text
    finally:
        await reader.close()
    return rows, position
