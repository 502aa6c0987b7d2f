"""One client connection: bytes in, requests to the session of the port, responses in order."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from streamkit.env import Clock
from streamkit.errors import LocalProtocolError, RemoteProtocolError
from streamkit.limits import (
    BYTES_IN_FLIGHT_MAX,
    CONNECTION_BYTES_IN_FLIGHT_MAX,
    CONNECTIONS_MAX,
    CONNECTIONS_PER_ADDRESS_MAX,
    FRAME_S_MAX,
    HANDSHAKE_S_MAX,
    IDLE_S_MAX,
    PENDING_REQUESTS_MAX,
    REFUSALS_MAX,
)
from streamkit.protocol.apis import API_VERSIONS, Api
from streamkit.protocol.connection import IncomingRequest, ServerConnection, encode_response
from streamkit.protocol.control_plane import ApiVersionsResponse
from streamkit.protocol.error_codes import other

logger = logging.getLogger("streamkit.broker")

# The build metadata identifies this broker; version comparison treats it as Fluvio 0.18.2.
PLATFORM_VERSION = "0.18.2+streamkit.1"
_REFUSALS_LOGGED_S = 10.0
# The body of any response.
ResponseBody = Any


class PortSession(Protocol):
    """Handles the requests of one connection."""

    def respond(
        self, request: IncomingRequest
    ) -> ResponseBody | asyncio.Future[ResponseBody] | None:
        """Return the body of the response, a future of it, or None for a request of a stream.

        Raises:
            RemoteProtocolError: The request violates the protocol; the connection is closed.
        """

    def close(self) -> None:
        """Clean up after the connection has ended."""


class Port:
    """State shared by the connections of one port."""

    def __init__(
        self,
        name: str,
        apis: dict[int, Api[Any, Any]],
        clock: Clock,
        usage: Usage,
        open_session: Callable[[Connection], PortSession],
    ) -> None:
        self.name = name
        self.apis = apis
        self.clock = clock
        self.usage = usage
        self.open_session = open_session
        self.connections: set[Connection] = set()

    def sweep(self) -> None:
        """Close the connections that exceed a timeout."""
        now_s = self.clock.monotonic_s()
        for connection in list(self.connections):
            connection.close_if_late(now_s)

    def close(self) -> None:
        for connection in list(self.connections):
            connection.close("the broker is stopping")


class Usage:
    """The connections and bytes in flight of the whole broker, and the limits on connections.

    Args:
        connections_max: Maximum number of connections.
        per_address_max: Maximum number of connections from one address.
        refusals_max: Maximum number of further connections that get an error response.
    """

    def __init__(
        self,
        connections_max: int = CONNECTIONS_MAX,
        per_address_max: int = CONNECTIONS_PER_ADDRESS_MAX,
        refusals_max: int = REFUSALS_MAX,
    ) -> None:
        self.bytes_in_flight = 0
        self.connections = 0
        self.by_address: Counter[str] = Counter()
        self.refusals = 0
        self.refusals_max = refusals_max
        self._connections_max = connections_max
        self._per_address_max = per_address_max
        self._refused_since_log = 0
        self._logged_s = -math.inf

    def add(self, host: str) -> str:
        """Count a connection, or return the reason why it is refused."""
        if self.by_address[host] >= self._per_address_max:
            limit = f"{self._per_address_max:,} from {host} are open (the limit per address)"
        elif self.connections >= self._connections_max:
            limit = f"{self._connections_max:,} are open (the total limit)"
        else:
            self.connections += 1
            self.by_address[host] += 1
            return ""
        return f"the server accepts no more connections: {limit}"

    def remove(self, host: str) -> None:
        """Stop counting a connection that has ended."""
        self.connections -= 1
        self.by_address[host] -= 1
        if self.by_address[host] <= 0:
            del self.by_address[host]

    def log_refusal(self, why: str, now_s: float) -> None:
        """Log a refused connection, but at most one line per _REFUSALS_LOGGED_S seconds."""
        self._refused_since_log += 1
        if now_s - self._logged_s >= _REFUSALS_LOGGED_S:
            logger.warning("%s (%d refused since the last warning)", why, self._refused_since_log)
            self._logged_s, self._refused_since_log = now_s, 0


class Connection(asyncio.Protocol):
    """Handles requests in order and sends responses in order; streams send between them."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._protocol = ServerConnection(port.apis)
        self._session: PortSession | None = None
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[IncomingRequest, asyncio.Future[Any]]] = deque()
        self._queued: deque[IncomingRequest] = deque()
        self._in_flight_bytes = 0
        self._opened_s = self._since_s = port.clock.monotonic_s()
        self._frame_since_s: float | None = None
        self._is_reading = True
        self._peer_reads = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusal = ""
        self.address = ""
        self.streams = 0

    # --- for the session -------------------------------------------------------

    def push(self, request: IncomingRequest, body: Any) -> None:
        """Send one more response of a stream."""
        self._write(encode_response(request, body))
        unread = 0 if self._transport is None else self._transport.get_write_buffer_size()
        if unread > CONNECTION_BYTES_IN_FLIGHT_MAX:
            self.close(f"the client does not read: {unread} bytes are waiting")

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that is cancelled when the connection ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self, reason: str) -> None:
        """Close the connection without a response, as the protocol requires."""
        if self._transport is not None and not self._transport.is_closing():
            logger.debug("%s: closing %s: %s", self._port.name, self.address, reason)
            self._transport.close()

    # --- asyncio calls these -----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername") or ("?", 0)
        self.address = f"{peer[0]}:{peer[1]}"
        usage = self._port.usage
        self._port.connections.add(self)
        self._refusal = usage.add(peer[0])
        if not self._refusal:
            self._session = self._port.open_session(self)
            return
        usage.log_refusal(self._refusal, self._port.clock.monotonic_s())
        usage.refusals += 1
        if usage.refusals > usage.refusals_max:
            self.close(self._refusal)

    def data_received(self, data: bytes) -> None:
        try:
            requests = self._protocol.receive(data)
            self._update_timeouts(bool(requests))
            for request in requests:
                self._take(request)
        except RemoteProtocolError as error:
            logger.warning("%s: closing %s: %s", self._port.name, self.address, error)
            self._abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        host = self.address.rpartition(":")[0]
        usage = self._port.usage
        if self._refusal:
            usage.refusals -= 1
        else:
            usage.remove(host)
        usage.bytes_in_flight -= self._in_flight_bytes
        self._in_flight_bytes = 0
        self._port.connections.discard(self)
        for task in self._tasks:
            task.cancel()
        if self._session is not None:
            self._session.close()

    def pause_writing(self) -> None:
        self._peer_reads = False
        self._balance()

    def resume_writing(self) -> None:
        self._peer_reads = True
        self._balance()

    # --- requests ------------------------------------------------------------------

    def _refuse(self, request: IncomingRequest) -> None:
        """Respond to the first request with the reason, for the client to show, and close."""
        if request.api is API_VERSIONS:
            body = ApiVersionsResponse(other(self._refusal), (), PLATFORM_VERSION)
            self._write(encode_response(request, body))
        self.close(self._refusal)

    def _take(self, request: IncomingRequest) -> None:
        if self._refusal:
            self._refuse(request)
            return
        self._in_flight_bytes += request.size_bytes
        self._port.usage.bytes_in_flight += request.size_bytes
        self._queued.append(request)
        self._handle_queued()

    def _handle_queued(self) -> None:
        while self._queued and len(self._waiting) < PENDING_REQUESTS_MAX and self._peer_reads:
            self._handle(self._queued.popleft())
        self._balance()

    def _handle(self, request: IncomingRequest) -> None:
        assert self._session is not None
        response = self._session.respond(request)
        if isinstance(response, asyncio.Future):
            self._waiting.append((request, response))
            response.add_done_callback(self._flush_responses)
        elif response is None:
            self._release(request)
        elif self._waiting:
            done = asyncio.get_running_loop().create_future()
            done.set_result(response)
            self._waiting.append((request, done))
        else:
            self._send_response(request, response)

    def _flush_responses(self, _: object = None) -> None:
        while self._waiting and self._waiting[0][1].done():
            request, response = self._waiting.popleft()
            if response.cancelled():
                continue
            failure = response.exception()
            if failure is not None:
                logger.error("%s: %s failed", self._port.name, request.api.name, exc_info=failure)
                self._abort()
                return
            self._send_response(request, response.result())
        if self._queued:
            try:
                self._handle_queued()
            except RemoteProtocolError as error:
                logger.warning("%s: closing %s: %s", self._port.name, self.address, error)
                self._abort()
        self._balance()

    def _send_response(self, request: IncomingRequest, body: Any) -> None:
        try:
            self._write(encode_response(request, body))
        except LocalProtocolError as error:
            logger.error("%s: no response to %s: %s", self._port.name, request.api.name, error)
            self._abort()
        self._release(request)

    def _release(self, request: IncomingRequest) -> None:
        self._since_s = self._port.clock.monotonic_s()
        released = min(request.size_bytes, self._in_flight_bytes)
        self._in_flight_bytes -= released
        self._port.usage.bytes_in_flight -= released

    def _write(self, data: bytes | bytearray) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # --- limits ------------------------------------------------------------------

    def _balance(self) -> None:
        """Pause reading while a limit is reached; resume it afterwards."""
        has_room = (
            not self._queued
            and self._peer_reads
            and self._in_flight_bytes < CONNECTION_BYTES_IN_FLIGHT_MAX
            and self._port.usage.bytes_in_flight < BYTES_IN_FLIGHT_MAX
        )
        if self._transport is None or has_room == self._is_reading or self._transport.is_closing():
            return
        self._is_reading = has_room
        if has_room:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _update_timeouts(self, completed: bool) -> None:
        now_s = self._port.clock.monotonic_s()
        self._since_s = now_s
        if not self._protocol.held_bytes:
            self._frame_since_s = None
        elif completed or self._frame_since_s is None:
            self._frame_since_s = now_s

    def close_if_late(self, now_s: float) -> None:
        """Close if the handshake, a frame or any activity exceeds its timeout."""
        silent_s = now_s - self._since_s
        if not self._is_reading:
            # There is no notification when other connections free shared capacity.
            self._balance()
        elif not self._protocol.has_received_request and now_s - self._opened_s > HANDSHAKE_S_MAX:
            self.close("timeout of the first request")
        elif self._frame_since_s is not None and now_s - self._frame_since_s > FRAME_S_MAX:
            self.close("timeout of a frame")
        elif silent_s > IDLE_S_MAX and not self.streams and not self._waiting:
            self.close("idle timeout")
