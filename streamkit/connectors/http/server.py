"""A small HTTP/1.1 server for one path: reads bounded requests, and waits for their results."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from streamkit.connectors.http.inflate import GZIP, Inflate, encoding_of
from streamkit.errors import ConfigError

if TYPE_CHECKING:
    import h11

_HEAD_BYTES_MAX: Final = 16 << 10
_READ_BYTES: Final = 64 << 10
_IDLE_S: Final = 60.0
_WRITE_S: Final = 10.0
_CLOSE_S: Final = 5.0
_LINGER_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its body; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    """A response with a short text as its body."""

    status: int
    text: str = ""
    headers: dict[str, str] = field(default_factory=dict)


Judge = Callable[[Request], Response | None]
Accept = Callable[[bytes], Awaitable[Response]]


class Server:
    """Accepts connections and serves the requests of each, one after another.

    Args:
        judge: Called with each request before its body is read; returns a response to refuse it.
        accept: Called with each body; returns the response when it is known.
        request_timeout_s: How long a client may take to send a request.
        max_body_bytes: The maximum size of a body, after decompression.
        max_connections: More connections than this are closed with 503.
    """

    def __init__(
        self,
        judge: Judge,
        accept: Accept,
        *,
        request_timeout_s: float,
        max_body_bytes: int,
        max_connections: int,
    ) -> None:
        self._judge = judge
        self._accept = accept
        self._request_timeout_s = request_timeout_s
        self._max_body_bytes = max_body_bytes
        self._max_connections = max_connections
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def open(self, host: str, port: int) -> int:
        """Listen; return the port.

        Raises:
            ConfigError: The address cannot be used, or h11 is not installed.
        """
        _library()
        try:
            self._server = await asyncio.start_server(self._connected, host, port)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                hint="another program may listen there; use another port",
            ) from error
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    def stop(self) -> None:
        """Accept no more connections, and close those without a request."""
        self._is_stopping = True
        if self._server is not None:
            self._server.close()
        for task in self._idle:
            task.cancel()

    async def close(self) -> None:
        """Stop, wait a few seconds until the responses are sent, then close every connection."""
        self.stop()
        tasks = self._tasks - {asyncio.current_task()}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio calls this in a task"
        self._tasks.add(task)
        try:
            # A client may reset its connection at any time, and a stop cancels idle connections.
            with suppress(OSError, asyncio.CancelledError):
                await self._serve(_Connection(reader, writer), task)
        finally:
            self._tasks.discard(task)
            self._idle.discard(task)
            writer.transport.abort() if self._is_stopping else writer.close()
            with suppress(OSError, asyncio.CancelledError, TimeoutError):
                async with asyncio.timeout(_WRITE_S):
                    await writer.wait_closed()

    async def _serve(self, connection: _Connection, task: asyncio.Task[None]) -> None:
        if len(self._tasks) > self._max_connections or self._is_stopping:
            await connection.send(_BUSY, closes=True)
            await connection.linger()
            return
        keeps = True
        while keeps and not self._is_stopping:
            self._idle.add(task)
            try:
                async with asyncio.timeout(_IDLE_S):
                    if not await connection.wait():
                        return
            except TimeoutError:
                return
            self._idle.discard(task)
            keeps = await self._serve_request(connection)

    async def _serve_request(self, connection: _Connection) -> bool:
        """Serve one request; return whether the connection can be used again."""
        library = _library()
        try:
            async with asyncio.timeout(self._request_timeout_s):
                found = await self._read(connection)
        except TimeoutError:
            found = Response(408, f"the request took longer than {self._request_timeout_s:g} s")
        except library.RemoteProtocolError as error:
            found = Response(error.error_status_hint, str(error))
        if found is None:
            return False
        if isinstance(found, Response):  # the body is not read, so no request can follow
            await connection.send(found, closes=True)
            await connection.linger()
            return False
        closes = self._is_stopping
        await connection.send(await self._accept(found), closes=closes or self._is_stopping)
        return not closes and connection.next_request()

    async def _read(self, connection: _Connection) -> bytes | Response | None:
        """Read a request; return its body, or the response that refuses it, or None at the end."""
        request = await connection.head()
        if request is None:
            return None
        refused = self._judge(request)
        if refused is not None:
            return refused
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced[:20]) > self._max_body_bytes:
            return self._too_large()
        inflate = Inflate() if encoding_of(request.headers) in GZIP else None
        body = bytearray()
        async for part in connection.body():
            try:
                room = self._max_body_bytes - len(body)
                body += part if inflate is None else inflate.feed(part, room)
            except ValueError as error:
                return Response(400, str(error))
            if len(body) > self._max_body_bytes:
                return self._too_large()
        if inflate is not None and not inflate.is_complete:
            return Response(400, "the compressed body is not complete")
        return bytes(body)

    def _too_large(self) -> Response:
        return Response(413, f"the body is larger than {self._max_body_bytes} bytes")


_BUSY: Final = Response(503, "too many connections", {"Retry-After": "1"})


class _Connection:
    """One connection: bytes to events of h11 and back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        library = _library()
        self._reader = reader
        self._writer = writer
        self._is_head = False
        self._state = library.Connection(library.SERVER, max_incomplete_event_size=_HEAD_BYTES_MAX)

    async def wait(self) -> bool:
        """Wait for the first bytes of a request; return False at the end of the connection."""
        if self._state.trailing_data[0]:
            return True
        data = await self._reader.read(_READ_BYTES)
        if data:
            self._state.receive_data(data)
        return bool(data)

    async def head(self) -> Request | None:
        """Read the head of a request; None if the connection has ended."""
        library = _library()
        event = await self._event()
        if not isinstance(event, library.Request):
            return None
        if sum(len(name) + len(value) for name, value in event.headers) > _HEAD_BYTES_MAX:
            raise library.RemoteProtocolError("the headers are too large", error_status_hint=431)
        self._is_head = event.method == b"HEAD"
        headers: dict[str, str] = {}
        for name, value in event.headers:
            headers[name.decode("latin-1")] = value.decode("latin-1")
        path = event.target.decode("latin-1").partition("?")[0]
        return Request(event.method.decode("latin-1"), path, headers)

    async def body(self) -> Any:
        """Yield the parts of the body."""
        library = _library()
        if self._state.they_are_waiting_for_100_continue:
            go_on = library.InformationalResponse(status_code=100, headers=[])
            await self._write(self._state.send(go_on))
        while isinstance(event := await self._event(), library.Data):
            yield bytes(event.data)

    async def send(self, response: Response, *, closes: bool) -> None:
        """Send a response."""
        library = _library()
        if self._state.our_state not in (library.IDLE, library.SEND_RESPONSE):
            return
        body = (response.text + "\n").encode() if response.text else b""
        headers = {
            "Date": formatdate(usegmt=True),
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(body)),
            **response.headers,
            **({"Connection": "close"} if closes else {}),
        }
        head = library.Response(status_code=response.status, headers=list(headers.items()))
        data = self._state.send(head) or b""
        if not self._is_head:
            data += self._state.send(library.Data(data=body)) or b""
        data += self._state.send(library.EndOfMessage()) or b""
        await self._write(data)

    async def linger(self) -> None:
        """Discard what the client still sends, for a short time, and then close.

        To close a socket with bytes that were not read resets the connection, and the client
        would lose the response.
        """
        with suppress(OSError, TimeoutError):
            self._writer.write_eof()
            async with asyncio.timeout(_LINGER_S):
                while await self._reader.read(_READ_BYTES):
                    pass

    def next_request(self) -> bool:
        """Prepare for the next request; return False if the connection must be closed."""
        library = _library()
        if self._state.our_state is not library.DONE or self._state.their_state is not library.DONE:
            return False
        self._state.start_next_cycle()
        return True

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        library = _library()
        while (event := self._state.next_event()) is library.NEED_DATA:
            self._state.receive_data(await self._reader.read(_READ_BYTES))
        found: h11.Event | type[h11.PAUSED] = event
        return found

    async def _write(self, data: bytes | None) -> None:
        self._writer.write(data or b"")
        # A client that does not read is not waited for.
        with suppress(TimeoutError):
            async with asyncio.timeout(_WRITE_S):
                await self._writer.drain()


def _library() -> Any:
    try:
        import h11
    except ImportError:
        raise ConfigError(
            "webhooks need the library h11",
            hint="it needs `pip install 'fluvio-streamkit[http]'`",
        ) from None
    return h11
