"""A TLS proxy for one broker, on loopback: decrypts, records the server names, and forwards.

The ports of the proxy are known before the broker starts, so the broker can announce them:

    with TlsProxy(certificate) as proxy:
        ...  # streamkit broker start --spu-public-address {proxy.spu_address}
        proxy.forward_to(sc_port, spu_port)
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

import trustme
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.closing import close_servers, close_writer

_HOST: Final = "127.0.0.1"
_READ_BYTES: Final = 1 << 16

Side = Literal["sc", "spu"]
T = TypeVar("T")


class TlsProxy:
    """A proxy for a broker or for no broker, which runs while the ``with`` block runs.

    Args:
        certificate: The certificate of the SC's port.
        spu_certificate: The certificate of the SPU's port; by default the same.
        clients_of: The CA that must have signed client certificates; by default none is needed.
        newest: The newest accepted version of TLS.
    """

    def __init__(
        self,
        certificate: trustme.LeafCert,
        *,
        spu_certificate: trustme.LeafCert | None = None,
        clients_of: trustme.CA | None = None,
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> None:
        self.names: dict[Side, list[str | None]] = {"sc": [], "spu": []}
        self.clients: dict[Side, list[str]] = {"sc": [], "spu": []}
        self.sc_address = self.spu_address = ""
        self._certificates = {"sc": certificate, "spu": spu_certificate or certificate}
        self._clients_of = clients_of
        self._newest = newest
        self._ports: dict[Side, int] = {}
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_up = threading.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._main(),), daemon=True
        )

    def __enter__(self) -> TlsProxy:
        self._thread.start()
        self._is_up.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def forward_to(self, sc_port: int, spu_port: int) -> None:
        """Set the ports of the broker."""
        self._ports = {"sc": sc_port, "spu": spu_port}

    async def _main(self) -> None:
        self.sc_address, sc = await self._listen("sc")
        self.spu_address, spu = await self._listen("spu")
        self._is_up.set()
        await self._stop.wait()
        await close_servers(sc, spu, abort=self._abort_all)

    def _abort_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _context(self, side: Side) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.maximum_version = self._newest
        self._certificates[side].configure_cert(context)
        if self._clients_of is not None:
            self._clients_of.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED

        def note(_secured: Any, name: str | None, _context: ssl.SSLContext) -> None:
            self.names[side].append(name)

        context.sni_callback = note
        return context

    async def _listen(self, side: Side) -> tuple[str, asyncio.Server]:
        context = self._context(side)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with self._closing(writer):
                await self._join(side, _Secured(context, reader, writer))

        server = await asyncio.start_server(serve, _HOST, 0)
        return f"{_HOST}:{server.sockets[0].getsockname()[1]}", server

    async def _join(self, side: Side, near: _Secured) -> None:
        if not await near.do_handshake():
            return
        self.clients[side] += near.client_names()
        reader, writer = await asyncio.open_connection(_HOST, self._ports[side])
        async with self._closing(writer):
            directions = [
                asyncio.ensure_future(_carry(near.read, writer)),
                asyncio.ensure_future(_carry(reader.read, near)),
            ]
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    @asynccontextmanager
    async def _closing(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        """Abort a connection when the block ends; `_abort_all` may do it before."""
        self._writers.add(writer)
        try:
            yield
        except OSError:
            pass  # one side has closed the connection
        finally:
            writer.transport.abort()
            await close_writer(writer)
            self._writers.discard(writer)


class _Secured:
    """The server side of TLS. Unlike that of asyncio, it sends an alert to a refused client."""

    def __init__(
        self,
        context: ssl.SSLContext,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._in, self._out, server_side=True)
        self._reader, self._writer = reader, writer

    async def do_handshake(self) -> bool:
        """Do the handshake; return whether it succeeded. If not, the client gets an alert."""
        try:
            await self._do(self._ssl.do_handshake)
            return True
        except ssl.SSLError:
            self._writer.write(self._out.read())
            self._writer.write_eof()
            while await self._reader.read(_READ_BYTES):
                pass  # closing with unread bytes would reset the connection and lose the alert
            return False

    def client_names(self) -> list[str]:
        shown = self._ssl.getpeercert(binary_form=True)
        if shown is None:
            return []
        names = x509.load_der_x509_certificate(shown).subject
        return [str(name.value) for name in names.get_attributes_for_oid(NameOID.COMMON_NAME)]

    async def read(self, size_bytes: int) -> bytes:
        return await self._do(self._ssl.read, size_bytes)

    def write(self, data: bytes) -> None:
        self._ssl.write(data)
        self._writer.write(self._out.read())

    async def drain(self) -> None:
        await self._writer.drain()

    async def _do(self, function: Callable[..., T], *arguments: Any) -> T:
        while True:
            try:
                result = function(*arguments)
                self._writer.write(self._out.read())
                return result
            except ssl.SSLWantReadError:
                self._writer.write(self._out.read())
                data = await self._reader.read(_READ_BYTES)
                if data:
                    self._in.write(data)
                else:
                    self._in.write_eof()


async def _carry(
    read: Callable[[int], Awaitable[bytes]], writer: asyncio.StreamWriter | _Secured
) -> None:
    while data := await read(_READ_BYTES):
        writer.write(data)
        await writer.drain()
