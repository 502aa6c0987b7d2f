"""A client of a few lines: frames over a socket, answers found by their correlation id."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import Any, Final

from streamkit.protocol.apis import SC_APIS, SPU_APIS, Api
from streamkit.protocol.schema import decode, encode
from tests.closing import close_writer

PATIENCE_S: Final = 60.0
CLIENT_ID: Final = b"\x00\x05probe"
APIS: Final = {"sc": SC_APIS, "spu": SPU_APIS}


class Wire:
    """One connection. Every wait ends in an error when the broker stays silent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()
        self._aside: dict[int, deque[bytes]] = defaultdict(deque)
        self._asked: dict[int, tuple[Api[Any, Any], int]] = {}
        self._next_id = 1_000

    @classmethod
    async def open(cls, address: str) -> Wire:
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(self, *_: object) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await close_writer(self._writer)

    def close(self) -> None:
        self._writer.close()

    def end_writing(self) -> None:
        self._writer.write_eof()

    # --- bytes -------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def frame(self) -> bytes:
        """Return the next frame with its length before it.

        Raises:
            IncompleteReadError: The broker has closed the connection.
        """
        async with asyncio.timeout(PATIENCE_S):
            head = await self._reader.readexactly(4)
            return head + await self._reader.readexactly(int.from_bytes(head, "big"))

    async def frame_for(self, correlation_id: int) -> bytes:
        """Return the next frame that answers a request, and put others aside."""
        while not self._aside[correlation_id]:
            async with self._turn:
                if not self._aside[correlation_id]:
                    found = await self.frame()
                    self._aside[int.from_bytes(found[4:8], "big")].append(found)
        return self._aside[correlation_id].popleft()

    def set_aside(self, correlation_id: int) -> list[bytes]:
        """Return the frames that came for a request and nobody has asked for."""
        return list(self._aside.pop(correlation_id, ()))

    async def until_closed(self) -> bytes:
        """Return what comes before the broker closes the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    # --- messages ------------------------------------------------------------------

    def start(self, api: Api[Any, Any], body: Any, version: int | None = None) -> int:
        """Send a request and return its correlation id."""
        version = api.max_version if version is None else version
        self._next_id += 1
        self._asked[self._next_id] = api, version
        payload = (
            api.key.to_bytes(2, "big")
            + version.to_bytes(2, "big")
            + self._next_id.to_bytes(4, "big")
            + CLIENT_ID
            + encode(api.request, body, version)
        )
        self.send(len(payload).to_bytes(4, "big") + payload)
        return self._next_id

    async def reply(self, correlation_id: int) -> Any:
        """Return the next answer to a request."""
        api, version = self._asked[correlation_id]
        return decode(api.response, await self.frame_for(correlation_id), version, at=8)

    async def ask(self, api: Api[Any, Any], body: Any, version: int | None = None) -> Any:
        """Send a request and return its one answer."""
        return await self.reply(self.start(api, body, version))
