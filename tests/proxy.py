"""A TCP proxy between a client and a broker, on loopback, which injects chosen faults.

One event loop in its own thread serves both ports of a broker. The SPU port in responses of the SC
is replaced by the proxy's port, so all bytes of the client pass through the proxy. Bytes are
counted per flow, over all connections of the flow.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal

from tests.closing import close_servers, close_writer

Flow = Literal["sc up", "sc down", "spu up", "spu down"]
FLOWS: Final[tuple[Flow, ...]] = ("sc up", "sc down", "spu up", "spu down")
_HOST: Final = "127.0.0.1"
_READ_BYTES: Final = 1 << 16
_WAIT_S: Final = 60.0


class Fault:
    """A fault on the bytes of a flow. ``fired`` counts how often it took effect."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.fired = 0


class Cut(Fault):
    """Close the connection after byte ``at`` of the flow, once."""

    def __init__(self, flow: Flow, at: int) -> None:
        super().__init__(flow)
        self.at = at


class Stall(Fault):
    """Stop forwarding at byte ``at`` of the flow, until it is released."""

    def __init__(self, flow: Flow, at: int = 0) -> None:
        super().__init__(flow)
        self.at = at
        self.has_fired = threading.Event()
        self.is_over = threading.Event()

    def release(self) -> None:
        self.is_over.set()


class Delay(Fault):
    """Delay every piece; pieces keep their order."""

    def __init__(self, flow: Flow, seconds: float) -> None:
        super().__init__(flow)
        self.seconds = seconds


class Split(Fault):
    """Forward single bytes."""


class Flip(Fault):
    """Change one bit of the first byte of ``mark``, up to ``times`` times."""

    def __init__(self, flow: Flow, mark: bytes, times: int = 1) -> None:
        super().__init__(flow)
        self.mark = mark
        self.times = times


class FlipAt(Fault):
    """Change one bit of byte ``at`` of the flow, once."""

    def __init__(self, flow: Flow, at: int, bit: int) -> None:
        super().__init__(flow)
        self.at = at
        self.bit = bit


class Repeat(Fault):
    """Forward ``size`` bytes, starting at byte ``at`` of the flow, twice. Happens only once."""

    def __init__(self, flow: Flow, at: int, size: int) -> None:
        super().__init__(flow)
        self.at = at
        self.size = size


class Replace(Fault):
    """Replace each frame with the result of a function; None keeps the frame."""

    def __init__(self, flow: Flow, function: Callable[[bytes], bytes | None]) -> None:
        super().__init__(flow)
        self.function = function


@dataclass(eq=False, slots=True)
class _Link:
    """A connection of a client and the matching one to the broker."""

    up: Flow
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter

    def abort(self) -> None:
        for writer in (self.near, self.far):
            writer.transport.abort()


class Proxy:
    """A proxy for one broker, which runs while the ``with`` block runs.

    With ``is_framed=False`` it carries the bytes of any other server, such as PostgreSQL.
    """

    def __init__(self, sc_port: int, spu_port: int, *faults: Fault, is_framed: bool = True) -> None:
        self.carried: Counter[str] = Counter()
        self.address = ""
        self._faults = faults
        self._is_framed = is_framed
        self._sc_port, self._spu_port = sc_port, spu_port
        self._own_spu_port = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._links: set[_Link] = set()
        self._links_changed = threading.Condition()
        self._joins: dict[asyncio.Task[Any], Flow] = {}
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._is_up.wait()
        return self

    def restart(self, *faults: Fault, keeps_sc: bool = False) -> None:
        """Close all connections, count bytes from 0 and use other faults. Blocks.

        Args:
            faults: The new faults.
            keeps_sc: Keep the connections to the SC open; their bytes also count from 0.
        """
        self.wait_for(self._restart(faults, keeps_sc))

    def wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the proxy's event loop, and wait for it. Blocks."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for fault in self._faults:
            if isinstance(fault, Stall):
                fault.release()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def port(self) -> int:
        """The port of the proxy that leads to the server's first port."""
        return int(self.address.rpartition(":")[2])

    @property
    def connections(self) -> int:
        """The current number of connections."""
        return len(self._links)

    def wait_for_connections(self, count: int) -> None:
        """Wait until the proxy has this number of connections."""
        with self._links_changed:
            is_so = self._links_changed.wait_for(lambda: len(self._links) == count, _WAIT_S)
        assert is_so, f"{len(self._links)} connections after {_WAIT_S} s, not {count}"

    def cut_all(self) -> None:
        """Close every connection."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def _run(self) -> None:
        self._loop.run_until_complete(self._main())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _restart(self, faults: tuple[Fault, ...], keeps_sc: bool) -> None:
        while ended := [task for task, up in self._joins.items() if up != "sc up" or not keeps_sc]:
            for link in list(self._links):
                if link.up != "sc up" or not keeps_sc:
                    link.abort()
            await asyncio.wait(ended, timeout=0.1)
        self.carried.clear()
        self._faults = faults

    async def _main(self) -> None:
        spu = await asyncio.start_server(self._serve_spu, _HOST, 0)
        self._own_spu_port = spu.sockets[0].getsockname()[1]
        sc = await asyncio.start_server(self._serve_sc, _HOST, 0)
        self.address = f"{_HOST}:{sc.sockets[0].getsockname()[1]}"
        self._is_up.set()
        await self._stop.wait()
        await close_servers(sc, spu, abort=self._abort_all)

    def _abort_all(self) -> None:
        for link in list(self._links):
            link.abort()

    async def _serve_sc(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._join("sc up", "sc down", self._sc_port, reader, writer)

    async def _serve_spu(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._join("spu up", "spu down", self._spu_port, reader, writer)

    async def _join(
        self,
        up: Flow,
        down: Flow,
        port: int,
        reader: asyncio.StreamReader,
        near: asyncio.StreamWriter,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._joins[task] = up
        try:
            far_reader, far = await asyncio.open_connection(_HOST, port)
        except OSError:
            await close_writer(near)  # the broker is down, so the client's connection is closed
        else:
            await self._carry_both(_Link(up, near, far), down, reader, far_reader)
        finally:
            del self._joins[task]

    async def _carry_both(
        self,
        link: _Link,
        down: Flow,
        reader: asyncio.StreamReader,
        far_reader: asyncio.StreamReader,
    ) -> None:
        with self._links_changed:
            self._links.add(link)
            self._links_changed.notify_all()
        try:
            await asyncio.gather(
                self._carry(link.up, reader, link.far, link),
                self._carry(down, far_reader, link.near, link),
            )
        finally:
            # A peer that does not read delays the closing; until then the link can be aborted.
            await asyncio.gather(close_writer(link.far), close_writer(link.near))
            with self._links_changed:
                self._links.discard(link)
                self._links_changed.notify_all()

    async def _carry(
        self, flow: Flow, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link
    ) -> None:
        frames = self._is_framed and (
            flow.endswith("down")
            or any(isinstance(each, Replace) and each.flow == flow for each in self._faults)
        )
        try:
            while data := await (_frame(reader) if frames else reader.read(_READ_BYTES)):
                if self._is_framed and flow == "sc down":
                    data = self._rewritten(data)
                faults = [fault for fault in self._faults if fault.flow == flow]
                await self._pass_on(flow, data, writer, faults)
            writer.write_eof()
        except (OSError, asyncio.IncompleteReadError):
            link.abort()  # a reset is forwarded as a reset

    def _rewritten(self, frame: bytes) -> bytes:
        """Replace the SPU's port with the proxy's port: port, one ingress, its name."""
        ingress = b"\x00\x00\x00\x01\x01\x00\x09" + _HOST.encode()
        return frame.replace(
            self._spu_port.to_bytes(2, "big") + ingress,
            self._own_spu_port.to_bytes(2, "big") + ingress,
        )

    async def _pass_on(
        self,
        flow: Flow,
        data: bytes,
        writer: asyncio.StreamWriter,
        faults: list[Fault],
    ) -> None:
        pieces = [data]
        for fault in faults:
            start = self.carried[flow]
            match fault:
                case Replace():
                    changed = fault.function(data)
                    if changed is not None:
                        fault.fired += 1
                        pieces = [changed]
                case Flip() if fault.mark in data and fault.fired < fault.times:
                    fault.fired += 1
                    at = data.index(fault.mark)
                    pieces = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]]
                case FlipAt() if _is_within(fault.at, start, data):
                    fault.fired += 1
                    at = fault.at - start
                    pieces = [data[:at] + bytes([data[at] ^ (1 << fault.bit)]) + data[at + 1 :]]
                case Repeat() if not fault.fired and _is_within(fault.at, start, data):
                    fault.fired += 1
                    end = fault.at - start + fault.size
                    pieces = [data[:end], data[fault.at - start :]]
                case Split():
                    fault.fired += 1
                    pieces = [data[at : at + 1] for at in range(len(data))]
                case Delay():
                    fault.fired += 1
                    await asyncio.sleep(fault.seconds)
                case Stall() if start + len(data) > fault.at and not fault.is_over.is_set():
                    fault.fired += 1
                    fault.has_fired.set()
                    await asyncio.to_thread(fault.is_over.wait)
                case Cut() if not fault.fired and start + len(data) > fault.at:
                    fault.fired += 1
                    self.carried[flow] += len(data)
                    writer.write(data[: fault.at - start])
                    await writer.drain()
                    raise ConnectionAbortedError
                case _:
                    pass
        self.carried[flow] += len(data)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()


def _is_within(at: int, start: int, data: bytes) -> bool:
    return start <= at < start + len(data)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.read(1)
    if not head:
        return b""
    head += await reader.readexactly(3)
    return head + await reader.readexactly(int.from_bytes(head, "big"))
