"""Shared by the servers of tests: a port, arriving requests, and versions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

from streamkit.protocol import apis
from streamkit.protocol.connection import IncomingRequest, ServerConnection
from streamkit.protocol.control_plane import ApiRange, ApiVersionsResponse
from streamkit.protocol.error_codes import NO_ERROR


async def listen(
    tasks: TaskGroup, listeners: AsyncExitStack, serve: Callable[[SocketStream], Any]
) -> int:
    """Serve connections until the task group ends; return the port."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    await listeners.enter_async_context(listener)
    tasks.start_soon(listener.serve, serve)
    port: int = listener.extra(SocketAttribute.local_port)
    return port


async def requests_of(
    stream: SocketStream, table: dict[int, apis.Api[Any, Any]]
) -> AsyncIterator[IncomingRequest]:
    """Read requests until the client closes the connection."""
    connection = ServerConnection(table)
    try:
        while True:
            for request in connection.receive(await stream.receive()):
                yield request
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return  # the client closed the connection


def versions(
    table: dict[int, apis.Api[Any, Any]], newest: int = apis.SPU_VERSION
) -> ApiVersionsResponse:
    """Return the supported versions: for record APIs up to ``newest``, for others all."""
    of_records = (apis.PRODUCE, apis.STREAM_FETCH)
    ranges = [
        ApiRange(key, 0, min(api.max_version, newest) if api in of_records else api.max_version)
        for key, api in table.items()
        if api is not apis.API_VERSIONS
    ]
    return ApiVersionsResponse(NO_ERROR, tuple(ranges), "0.18.2")
