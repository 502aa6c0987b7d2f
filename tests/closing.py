"""Closes asyncio streams and servers in order, so that the garbage collector closes none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress


async def close_writer(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until it is closed."""
    writer.close()
    with suppress(OSError):  # a reset connection is closed too
        await writer.wait_closed()


async def close_servers(*servers: asyncio.Server, abort: Callable[[], None]) -> None:
    """Close servers, and wait for every connection that they accepted.

    Nothing else may run in the loop.

    Args:
        servers: The servers to close.
        abort: Aborts all open connections. It is called until none is left, because connections
            that were accepted before may still appear.
    """
    loop = asyncio.get_running_loop()
    for server in servers:
        for listener in server.sockets:
            # Accept no more, but close later: asyncio forgets the socket of a connection that
            # is being accepted when its server is closed.
            loop.remove_reader(listener)
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        abort()
        await asyncio.wait(tasks, timeout=0.1)
    for server in servers:
        server.close()
