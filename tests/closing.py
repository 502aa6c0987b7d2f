"""Ends of what asyncio's streams opened, in order: nothing is left to the garbage collector."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress


async def close_writer(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until it is."""
    writer.close()
    with suppress(OSError):  # it was reset, which is an end as well
        await writer.wait_closed()


async def close_servers(*servers: asyncio.Server, abort: Callable[[], None]) -> None:
    """Close servers, and wait for every connection that they accepted.

    Nothing else may run in the loop.

    Args:
        servers: What is to be closed.
        abort: Break off the connections there are. It is called until none is left: more may
            come that were accepted before.
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
