"""A port that accepts connections, and that can be closed and opened again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from tests.closing import close_writer
from tests.ports import HeldPort

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_BACKLOG: Final = 1024


class Endpoint:
    """A port and its connections. Every method runs in the event loop."""

    def __init__(self, serve: Serve) -> None:
        self.port = HeldPort()
        self._serve = serve
        self._listener: socket.socket | None = None
        self._connections: dict[asyncio.Task[None], socket.socket] = {}
        self._errors: list[BaseException] = []

    @property
    def url(self) -> str:
        return f"http://{self.port.address}"

    def open(self) -> None:
        """Accept connections. Does nothing if it does so already."""
        if self._listener is not None:
            return
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setblocking(False)
        host, port = self.port.address.split(":")
        self._listener.bind((host, int(port)))
        self._listener.listen(_BACKLOG)
        # Not `asyncio.start_server`: it forgets a connection that is being accepted when it closes.
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def refuse(self) -> None:
        """Close every connection and refuse new ones. The port stays reserved."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        ended = dict(self._connections)
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        for connection in ended.values():
            connection.close()  # of a task that had not begun yet

    async def close(self) -> None:
        """Close every connection and release the port. Raises what a connection has raised."""
        await self.refuse()
        self.port.close()
        if self._errors:
            raise self._errors[0]

    def _accept(self) -> None:
        assert self._listener is not None, "it is called only while the port is open"
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # the client has closed it in the meantime
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.get_running_loop().create_task(self._serve_one(connection))
        self._connections[task] = connection
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._connections[task]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._errors.append(error)

    async def _serve_one(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            # The client may close or reset its connection at any time.
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()  # the client may not read what is left
            raise
        finally:
            await close_writer(writer)
