"""A minimal client: frames over a socket, responses matched by correlation id."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import Any, Final

from streamkit.protocol.apis import SC_APIS, SPU_APIS, Api
from streamkit.protocol.schema import decode, encode
from tests.closing import close_writer

TIMEOUT_S: Final = 60.0
CLIENT_ID: Final = b"\x00\x05probe"
APIS: Final = {"sc": SC_APIS, "spu": SPU_APIS}


class Wire:
    """One connection. Every wait has a timeout."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._read_lock = asyncio.Lock()
        self._received: dict[int, deque[bytes]] = defaultdict(deque)
        self._requests: dict[int, tuple[Api[Any, Any], int]] = {}
        self._next_id = 1_000

    @classmethod
    async def open(cls, address: str) -> Wire:
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(self, *_: object) -> None:
        async with asyncio.timeout(TIMEOUT_S):
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
        async with asyncio.timeout(TIMEOUT_S):
            head = await self._reader.readexactly(4)
            return head + await self._reader.readexactly(int.from_bytes(head, "big"))

    async def frame_for(self, correlation_id: int) -> bytes:
        """Return the next response frame to a request, and keep others for later."""
        while not self._received[correlation_id]:
            async with self._read_lock:
                if not self._received[correlation_id]:
                    found = await self.frame()
                    self._received[int.from_bytes(found[4:8], "big")].append(found)
        return self._received[correlation_id].popleft()

    def unread_frames(self, correlation_id: int) -> list[bytes]:
        """Return the received frames for a request that were not read yet."""
        return list(self._received.pop(correlation_id, ()))

    async def until_closed(self) -> bytes:
        """Wait until the broker closes the connection; return the bytes received until then."""
        async with asyncio.timeout(TIMEOUT_S):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    # --- messages ------------------------------------------------------------------

    def start(self, api: Api[Any, Any], body: Any, version: int | None = None) -> int:
        """Send a request and return its correlation id."""
        version = api.max_version if version is None else version
        self._next_id += 1
        self._requests[self._next_id] = api, version
        payload = (
            api.key.to_bytes(2, "big")
            + version.to_bytes(2, "big")
            + self._next_id.to_bytes(4, "big")
            + CLIENT_ID
            + encode(api.request, body, version)
        )
        self.send(len(payload).to_bytes(4, "big") + payload)
        return self._next_id

    async def response(self, correlation_id: int) -> Any:
        """Return the next response to a request."""
        api, version = self._requests[correlation_id]
        return decode(api.response, await self.frame_for(correlation_id), version, at=8)

    async def call(self, api: Api[Any, Any], body: Any, version: int | None = None) -> Any:
        """Send a request and return its response."""
        return await self.response(self.start(api, body, version))
