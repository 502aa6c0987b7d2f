"""Opens clients in tests of broken connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from streamkit import Client
from streamkit.env import Clock, SystemClock
from streamkit.errors import TransportError


@asynccontextmanager
async def retrying_client(address: str, *, clock: Clock | None = None) -> AsyncIterator[Client]:
    """Open a client, with retries until it succeeds."""
    async with AsyncExitStack() as stack:
        while True:
            try:
                client = await stack.enter_async_context(
                    Client(address, clock=clock or SystemClock())
                )
                break
            except TransportError:
                pass
        yield client
