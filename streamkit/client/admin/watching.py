"""Watches: first the full list of one kind of object, then every change.

Each watch has its own connection. The protocol cannot end a watch, so only closing the connection
stops the server. Also, a watch that is not read does not delay anything else.

Source: docs/protocol/admin.md, "Watch" and "Keeping a copy of the metadata".
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

import anyio

from streamkit.client.admin.watch_state import WatchEvent, WatchState
from streamkit.client.backoff import Backoff
from streamkit.client.channel import Channel, Responses
from streamkit.client.cluster import Cluster
from streamkit.errors import StreamKitError
from streamkit.protocol.apis import WATCH
from streamkit.protocol.connection import check_platform
from streamkit.protocol.control_plane import Metadata, WatchRequest, WatchResponse
from streamkit.protocol.specs import ObjectKind

logger = logging.getLogger("streamkit.client")

T = TypeVar("T")


class Watch(Generic[T]):
    """An iterator of events: first `Listed`, then `Added`, `Changed` and `Removed`, in order.

    After a lost connection it reconnects, without a time limit, and starts with `Listed` again;
    this list includes the changes in between. No change that was received is lost, even if a wait
    is cancelled. Events that are not read yet are kept in memory.

    The end of ``async with``, a call of `close`, or the end of the client ends the iteration.

    Raises:
        UnsupportedServer: The server is not an SC, or does not support watches.
    """

    def __init__(
        self, cluster: Cluster, kind: ObjectKind, describe: Callable[[Metadata], T]
    ) -> None:
        self._cluster = cluster
        # A summary has no payload of SmartModules; other kinds of objects are complete.
        self._request = WatchRequest(kind, summary=True)
        self._state = WatchState(describe)
        self._events: deque[WatchEvent[T]] = deque()
        self._channel: Channel | None = None
        self._responses: Responses[WatchResponse] | None = None
        self._backoff = Backoff()
        self._is_closed = False

    def __aiter__(self) -> Watch[T]:
        return self

    async def __anext__(self) -> WatchEvent[T]:
        while not self._events:
            if self._is_over:
                raise StopAsyncIteration
            try:
                await self._advance()
            except StreamKitError as error:
                if not error.retryable and not self._is_over:
                    await self._disconnect()
                    raise
                await self._pause(error)
        return self._events.popleft()

    async def close(self) -> None:
        """End the watch; a task that waits for an event reaches the end of the iteration."""
        self._is_closed = True
        await self._disconnect()

    async def __aenter__(self) -> Watch[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.close()

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self._cluster.is_closed

    async def _advance(self) -> None:
        """Connect if necessary, and receive one response."""
        if self._responses is None:
            self._responses = await self._open()
        response = await self._responses.receive()
        self._events += self._state.take(response)
        self._backoff.reset()

    async def _open(self) -> Responses[WatchResponse]:
        self._channel = channel = await self._cluster.connect(self._cluster.address)
        if self._is_closed:
            await self._disconnect()  # `close` was called during the connect
        check_platform(channel.platform_version)
        responses = await channel.open_stream(WATCH, self._request)
        self._state.forget()
        return responses

    async def _pause(self, error: StreamKitError) -> None:
        await self._disconnect()
        if self._is_over:
            return
        pause_s = self._backoff.next_s()
        logger.info(
            "watching %s: %s; reconnecting in %g s", self._request.kind.name, error, pause_s
        )
        await self._cluster.clock.sleep(pause_s)

    async def _disconnect(self) -> None:
        channel, self._channel, self._responses = self._channel, None, None
        if channel is not None:
            await channel.close()
