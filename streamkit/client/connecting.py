"""Opens a connection: TCP, TLS if configured, and the first request."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Final

import anyio
from anyio.abc import ByteStream, SocketAttribute

from streamkit.client.channel import USE_TLS, Channel
from streamkit.client.tls import CERT_HINT, ServerTls
from streamkit.errors import (
    ConnectFailed,
    ConnectionLost,
)

# With these options, the loss of a peer is detected within about two minutes instead of hours.
# A platform without one of these options uses its own default.
_KEEPALIVE: Final = tuple(
    (getattr(socket, option), value)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
    if hasattr(socket, option)
)


async def open_channel(
    address: str,
    client_id: str,
    start: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
    *,
    connect_s: float = 5.0,
    tls: ServerTls | None = None,
) -> Channel:
    """Connect and exchange versions.

    Args:
        address: ``host:port``.
        client_id: The name that this client sends to the server.
        start: Starts the task that reads from the channel.
        connect_s: The timeout for connecting and the first response together.
        tls: How to secure the connection; None means no TLS.

    Raises:
        ConnectFailed: No connection or no response in time, or a certificate is not trusted.
        UnsupportedServer: The server is not a Fluvio server.
    """
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port[:6]) < 1 << 16:
        raise ConnectFailed(address, "the address must be host:port, such as 127.0.0.1:9103")
    waits_for = ""
    try:
        with anyio.fail_after(connect_s):
            stream: ByteStream = await anyio.connect_tcp(host.strip("[]"), int(port))
            waits_for = " to the TLS handshake: does it use TLS?"
            stream = await _configured(stream, address, tls)
            waits_for = " to the first request: is it a Fluvio server"
            waits_for += ", and one without TLS?" if tls is None else "?"
            return await _greeted_channel(stream, address, client_id, start)
    except TimeoutError as error:
        raise ConnectFailed(address, f"no response within {connect_s:g} s{waits_for}") from error
    except (OSError, ConnectionLost) as error:
        raise _connect_failure(address, error, tls) from error
    except ValueError as error:  # from the lookup: a label of the name is empty or too long
        raise ConnectFailed(address, f"{host!r:.80} is not a valid host name: {error}") from error


async def _configured(stream: ByteStream, address: str, tls: ServerTls | None) -> ByteStream:
    try:
        _set_options(stream, address)
        return stream if tls is None else await tls.secured(stream, address)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise


def _set_options(stream: ByteStream, address: str) -> None:
    sock = stream.extra(SocketAttribute.raw_socket)
    if sock.getsockname() == sock.getpeername():
        # No server listens, and the kernel chose the same port for our side of the connection.
        raise ConnectFailed(address, "connection refused")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def _greeted_channel(
    stream: ByteStream,
    address: str,
    client_id: str,
    start: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
) -> Channel:
    channel = Channel(stream, address, client_id)
    try:
        start(channel.run)
        await channel.greet()
        return channel
    except BaseException:
        # The reader may be cancelled before it starts; then it does not close the channel.
        with anyio.CancelScope(shield=True):
            await channel.close()
        raise


def _connect_failure(
    address: str, error: OSError | ConnectionLost, tls: ServerTls | None
) -> ConnectFailed:
    if isinstance(error, OSError):
        return ConnectFailed(address, _reason_of(error))
    if tls is not None and isinstance(error.__cause__, ssl.SSLError):
        return tls.failure(address, error.__cause__)
    needed, hint = ("TLS", USE_TLS) if tls is None else ("a client certificate", CERT_HINT)
    return ConnectFailed(
        address,
        f"it closed the connection without a response: does it require {needed}, "
        "or does it have too many connections?",
        hint=hint,
    )


def _reason_of(error: Exception) -> str:
    """Return why no connection was opened: anyio groups the errors of several addresses."""
    cause = error.__cause__
    if isinstance(cause, ExceptionGroup):
        cause = cause.exceptions[0]
    if not isinstance(cause, OSError):
        cause = error  # there was only one address
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno).lower()  # the text from asyncio repeats the address
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(error)
