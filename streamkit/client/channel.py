"""One open connection: it moves bytes and decides nothing."""

from __future__ import annotations

import socket
import ssl
import struct
from collections import deque
from collections.abc import Generator
from typing import Any, Final, Generic, TypeVar, cast

import anyio
from anyio.abc import ByteStream, SocketAttribute

from streamkit.broadcast import Broadcast
from streamkit.client.tls import in_words
from streamkit.errors import (
    ConnectFailed,
    ConnectionLost,
    ProtocolError,
    RequestTimedOut,
    TooManyConnections,
    TransportError,
    UnsupportedServer,
)
from streamkit.limits import PENDING_REQUESTS_MAX
from streamkit.protocol.apis import Api
from streamkit.protocol.connection import ClientConnection

Q = TypeVar("Q")
A = TypeVar("A")

_READ_BYTES = 1 << 18
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
_LINGER_ZERO = struct.pack("ii", 1, 0)  # on, with zero seconds: close discards unsent data
TLS_ALERT: Final = b"\x15\x03"
USE_TLS: Final = "use TLS: Client.connect(..., tls=Tls(...)), --tls, or a profile with TLS"
# The errors of a connection that breaks. BusyResourceError is rare: TLS must respond to its peer
# while we are sending. The response is then lost, and the connection is unusable.
CONNECTION_ERRORS: Final = (
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.BusyResourceError,
)


class PendingResponse(Generic[A]):
    """The single response to a request. It can be awaited any number of times."""

    __slots__ = ("_event", "_failure", "_value")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._value: A | None = None
        self._failure: TransportError | None = None

    def deliver(self, body: A) -> None:
        self._value = body
        self._event.set()

    def fail(self, failure: TransportError) -> None:
        self._failure = failure
        self._event.set()

    def __await__(self) -> Generator[Any, Any, A]:
        return self._wait().__await__()

    async def _wait(self) -> A:
        await self._event.wait()
        if self._failure is not None:
            raise self._failure
        assert self._value is not None, "delivered before it is awaited"
        return self._value


class Responses(Generic[A]):
    """The responses of one stream, queued in order until they are received."""

    def __init__(self, correlation_id: int) -> None:
        self.correlation_id = correlation_id
        self._held: deque[A] = deque()
        self._event = anyio.Event()
        self._failure: TransportError | None = None

    def deliver(self, body: A) -> None:
        self._held.append(body)
        self._event.set()

    def fail(self, failure: TransportError) -> None:
        self._failure = failure
        self._event.set()

    async def receive(self) -> A:
        """Wait for the next response.

        Raises:
            ConnectionLost: The connection ended, and no response is left.
        """
        while not self._held:
            if self._failure is not None:
                raise self._failure
            self._event = anyio.Event()
            await self._event.wait()
        return self._held.popleft()


class Channel:
    """Send requests to one address. Many tasks may use it concurrently.

    `run` must be running for responses to arrive. When the connection ends, `is_open` becomes
    false permanently, and all pending calls fail with ConnectionLost.
    """

    def __init__(self, stream: ByteStream, address: str, client_id: str) -> None:
        self.address = address
        self.is_open = True
        self.streams_opened = 0
        self._stream = stream
        self._protocol = ClientConnection(client_id, server=address)
        self._waiting: dict[int, PendingResponse[Any] | Responses[Any]] = {}
        self._writing = anyio.Lock(fast_acquire=True)  # saves an event loop cycle for each write
        self._greeted = anyio.Event()
        self._responded = Broadcast()
        self._failure = "the server closed the connection"
        self._protocol_failure: ProtocolError | None = None
        self._cause: Exception | None = None
        self._requires_tls = False

    @property
    def platform_version(self) -> str:
        """The version that the server reported."""
        return self._protocol.platform_version

    def version_of(self, api: Api[Any, Any]) -> int:
        """Return the negotiated version of an API.

        Raises:
            UnsupportedServer: The server does not list the API, or has no version in common.
        """
        return self._protocol.version_of(api)

    async def greet(self) -> None:
        """Exchange versions. This must be the first request of a connection.

        Raises:
            ConnectionLost: The server closed the connection without a response.
            ConnectFailed: The server accepts only TLS.
            TooManyConnections: The server accepts no more connections.
            UnsupportedServer: The server is not a Fluvio server.
        """
        await self._send(self._protocol.hello())
        await self._greeted.wait()
        if self._requires_tls:
            raise ConnectFailed(
                self.address,
                "it accepts only TLS",
                hint=USE_TLS,
                retryable=False,
            )
        if self._protocol.refusal:
            raise TooManyConnections(self.address, self._protocol.refusal)
        if self._protocol_failure is not None:
            raise UnsupportedServer(
                f"{self.address} does not speak the Fluvio protocol: {self._protocol_failure}",
                hint="check the port; clients connect to the SC, the first port of a broker",
            ) from self._protocol_failure
        if not self.is_open:
            raise ConnectionLost(f"{self.address}: {self._failure}", sent=False) from self._cause

    async def post(self, api: Api[Q, A], request: Q) -> PendingResponse[A]:
        """Send a request and return its response, to be awaited later.

        If the connection has too many open requests, this waits until one of them is answered.

        Raises:
            ConnectionLost: The connection is closed; ``sent`` shows whether the server may have
                processed the request.
            LocalProtocolError: A value cannot be encoded.
        """
        while self.is_open and self._protocol.unanswered >= PENDING_REQUESTS_MAX:
            await self._responded.wait()
        self._check_open()
        correlation_id, data = self._protocol.send(api, request)
        response: PendingResponse[A] = PendingResponse()
        await self._write(data, correlation_id, response)
        return response

    async def call(self, api: Api[Q, A], request: Q, *, timeout_s: float | None = None) -> A:
        """Send a request and wait for its response.

        Raises:
            ConnectionLost: See `post`.
            RequestTimedOut: No response within ``timeout_s``.
        """
        with anyio.move_on_after(timeout_s) as scope:
            response = await self.post(api, request)
            return await response
        assert scope.cancelled_caught
        raise RequestTimedOut(
            f"{self.address}: no response to {api.name} within {timeout_s} s", sent=True
        )

    async def open_stream(self, api: Api[Q, A], request: Q) -> Responses[A]:
        """Send a request that gets many responses.

        Raises:
            ConnectionLost: The connection is closed.
        """
        self._check_open()
        self.streams_opened += 1
        correlation_id, data = self._protocol.send(api, request)
        responses: Responses[A] = Responses(correlation_id)
        await self._write(data, correlation_id, responses)
        return responses

    def forget(self, responses: Responses[Any]) -> None:
        """Ignore further responses of a stream, because the protocol cannot cancel it."""
        self._forget(responses.correlation_id)

    def _forget(self, correlation_id: int) -> None:
        self._waiting.pop(correlation_id, None)
        self._protocol.forget(correlation_id)
        self._responded.notify()  # another request may be sent now

    async def run(self) -> None:
        """Deliver responses until the connection ends. Never raises."""
        sock = self._stream.extra(SocketAttribute.raw_socket, None)
        try:
            while True:
                if _QUICKACK is not None and sock is not None:
                    # The kernel resets this option. Without it each response of a busy stream
                    # is delayed by 40 ms.
                    sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
                data = await self._stream.receive(_READ_BYTES)
                self._deliver(data)
        except anyio.EndOfStream:
            pass  # a normal end; `_end` fails the pending calls
        except ProtocolError as error:
            self._failure = str(error)
            self._protocol_failure = error
            self._requires_tls = not self._greeted.is_set() and data.startswith(TLS_ALERT)
        except CONNECTION_ERRORS as error:
            self._record_failure(error)
        finally:
            self._end()
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()

    def discard_when_closed(self, user_timeout_ms: int) -> None:
        """Discard unsent data on close, and break the connection if data stays unacknowledged.

        Args:
            user_timeout_ms: How long the kernel waits for the peer to acknowledge sent data.
        """
        sock = self._stream.extra(SocketAttribute.raw_socket, None)
        if sock is None:
            return  # the stream is not a socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        if _USER_TIMEOUT is not None:
            sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, user_timeout_ms)

    async def close(self) -> None:
        """Close the connection; pending calls fail."""
        await self._stream.aclose()
        self._end()

    def _deliver(self, data: bytes) -> None:
        for response in self._protocol.receive(data):
            if not self._greeted.is_set():
                self._greeted.set()
                continue
            waiting = (
                self._waiting.pop(response.correlation_id, None)
                if response.is_last
                else self._waiting.get(response.correlation_id)
            )
            if waiting is not None:
                waiting.deliver(response.body)
            if response.is_last:
                self._responded.notify()

    def _check_open(self) -> None:
        if not self.is_open:
            raise ConnectionLost(f"{self.address}: {self._failure}", sent=False)

    def _record_failure(self, error: Exception) -> None:
        words = in_words(error) if isinstance(error, ssl.SSLError) else str(error)
        self._failure = words or "the connection broke"
        self._cause = error

    def _end(self) -> None:
        self.is_open = False
        self._greeted.set()
        failure = ConnectionLost(f"{self.address}: {self._failure}", sent=True)
        for waiting in self._waiting.values():
            waiting.fail(failure)
        self._waiting.clear()
        self._responded.notify()

    async def _write(
        self,
        data: bytes | bytearray,
        correlation_id: int,
        waiting: PendingResponse[Any] | Responses[Any],
    ) -> None:
        """Write a request when the lock is free. Cancelling before that is harmless."""
        self._waiting[correlation_id] = waiting
        try:
            await self._writing.acquire()
        except BaseException:
            self._forget(correlation_id)
            raise
        try:
            self._check_open()
            await self._send(data)
        finally:
            self._writing.release()

    async def _send(self, data: bytes | bytearray) -> None:
        # A frame that is only partly written ends the connection: the server could not know
        # where the next one starts.
        try:
            # Every stream accepts any buffer, so megabytes are not copied just to get `bytes`.
            await self._stream.send(cast("bytes", data))
        except CONNECTION_ERRORS as error:
            self._record_failure(error)
            self._end()
            raise ConnectionLost(f"{self.address}: {self._failure}", sent=True) from error
        except BaseException:
            self._end()
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()
            raise
