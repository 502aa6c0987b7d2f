"""The HTTP service: looks up customers and accepts rows, with faults on purpose.

``GET /customers/ID`` responds with a customer, whatever the ID is. ``POST /rows`` accepts a list of
rows, or one row. Each row is an object with a field ``id``. On another port, ``GET /control``
responds with the tally, and ``POST /control`` changes the service first: see ``Service.control``.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterable
from contextlib import suppress
from email.utils import formatdate
from typing import Any, Final, Literal, get_args

from tests.http_service.endpoint import Endpoint
from tests.http_service.faults import Fault, Kind, checked, fault_of, from_json
from tests.http_service.messages import InvalidRequest, Request, read_request, response
from tests.http_service.tally import SharedTally

Down = Literal["refuse", "close", "unavailable"]
DOWNS: Final = get_args(Down)
_COUNTRIES: Final = ("DE", "FR", "NL", "PL", "SE")
_ERROR: Final = {"error": "a fault on purpose"}


def customer(key: str) -> dict[str, str]:
    """Return the customer that the service responds with."""
    return {"id": key, "name": f"Customer {key}", "country": _COUNTRIES[sum(key.encode()) % 5]}


class Service:
    """The service in an event loop. All methods are called there."""

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self.tally = SharedTally()
        self._faults = checked(faults)
        self._seed = seed
        self._down: Down | None = None
        self._release = asyncio.Event()
        self._endpoint = Endpoint(self._serve)
        self._control = Endpoint(self._serve_control)

    @property
    def url(self) -> str:
        return self._endpoint.url

    @property
    def control_url(self) -> str:
        return f"{self._control.url}/control"

    def open(self) -> None:
        self._endpoint.open()
        self._control.open()

    async def close(self) -> None:
        try:
            await self._endpoint.close()
        finally:
            await self._control.close()

    def use(self, faults: Iterable[Fault], *, seed: int | None = None) -> None:
        """Use other faults from the next request on; the counts continue."""
        self._faults = checked(faults)
        self._seed = self._seed if seed is None else seed

    async def be_down(self, how: Down | None) -> None:
        """Be down until this is called with None.

        Args:
            how: ``refuse`` closes all connections, and nothing listens. ``close`` closes each
                connection that a request is on. ``unavailable`` responds with 503 to everything.
        """
        if how is not None and how not in DOWNS:
            raise ValueError(f"{how!r} is not valid: use one of {', '.join(DOWNS)}, or null")
        self._down = how
        if how == "refuse":
            await self._endpoint.refuse()
        else:
            self._endpoint.open()

    def release(self) -> None:
        """Respond to the requests that hang now."""
        self._release.set()
        self._release = asyncio.Event()

    async def control(self, changes: dict[str, Any]) -> None:
        """Change the service.

        Args:
            changes: ``faults`` (a list of objects with the fields of ``Fault``), ``seed``, ``down``
                (see ``be_down``), ``release: true`` and ``reset: true``, which counts from 0.

        Raises:
            ValueError: A name or a value is not valid; nothing is changed.
        """
        if unknown := changes.keys() - {"faults", "seed", "down", "release", "reset"}:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        faults = from_json(changes["faults"]) if "faults" in changes else self._faults
        if "down" in changes:
            await self.be_down(changes["down"])
        self.use(faults, seed=changes.get("seed"))
        if changes.get("release"):
            self.release()
        if changes.get("reset"):
            self.tally.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self.tally.change() as tally:
            tally.connections += 1
            tally.connections_accepted += 1
            tally.connections_max = max(tally.connections, tally.connections_max)
        try:
            while (request := await read_request(reader)) is not None:
                if not await self._exchange(request, reader, writer):
                    return
        except InvalidRequest as error:
            body = _encoded({"error": str(error)})
            await self._write(writer, error.status, body, keeps_alive=False)
        finally:
            with self.tally.change() as tally:
                tally.connections -= 1

    async def _exchange(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Respond to a request; return whether the connection stays open."""
        fault = self._arrived(request.key)
        try:
            return await self._respond(request, fault, reader, writer)
        finally:
            with self.tally.change() as tally:
                tally.in_flight -= 1

    def _arrived(self, key: str) -> Fault | None:
        with self.tally.change() as tally:
            tally.arrivals_s.setdefault(key, []).append(time.monotonic())
            tally.in_flight += 1
            tally.in_flight_max = max(tally.in_flight, tally.in_flight_max)
            number = len(tally.arrivals_s[key])
            fault = self._outage() or fault_of(self._faults, self._seed, key, number)
            if fault is not None:
                tally.fired[fault.label] += 1
        return fault

    def _outage(self) -> Fault | None:
        if self._down is None:
            return None
        return Fault("status" if self._down == "unavailable" else "drop", "down", status=503)

    async def _respond(
        self,
        request: Request,
        fault: Fault | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        keeps_alive = request.keeps_alive
        kind = fault.kind if fault is not None else None
        if kind == "drop":
            return False
        if fault is not None and kind == "status":
            headers = _retry_after(fault)
            await self._write(writer, fault.status, _encoded(_ERROR), headers, keeps_alive)
            return keeps_alive
        if fault is not None and kind == "slow":
            await asyncio.sleep(fault.seconds)
        if kind == "hang":
            if not await self._is_released(reader):
                return False
            keeps_alive = False
        status, body = self._processed(request)
        if kind == "cut":
            await self._write(writer, status, body, missing_bytes=len(body) // 2)
            return False
        await self._write(writer, status, _spoiled(body, kind), keeps_alive=keeps_alive)
        return keeps_alive

    async def _is_released(self, reader: asyncio.StreamReader) -> bool:
        """Wait until hanging requests are released; return False if the client gives up first."""
        released = asyncio.ensure_future(self._release.wait())
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((released, gone), return_when=asyncio.FIRST_COMPLETED)
            return not gone.done()
        finally:
            released.cancel()
            gone.cancel()
            await asyncio.gather(released, gone, return_exceptions=True)

    def _processed(self, request: Request) -> tuple[int, bytes]:
        match request.method, request.path.strip("/").split("/"):
            case "GET", ["customers", key] if key:
                return 200, _encoded(customer(key))
            case "POST", ["rows", *_]:
                return self._accepted(request.body)
            case _, ["customers" | "rows", *_]:
                return 405, _encoded({"error": "not allowed"})
        return 404, _encoded({"error": "not found"})

    def _accepted(self, body: bytes) -> tuple[int, bytes]:
        try:
            found = json.loads(body)
            ids = [str(row["id"]) for row in (found if isinstance(found, list) else [found])]
        except (ValueError, TypeError, KeyError) as error:
            return 400, _encoded({"error": f"not a list of rows: {error!r}"})
        with self.tally.change() as tally:
            tally.rows.update(ids)
        return 200, _encoded({"accepted": len(ids)})

    async def _write(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        keeps_alive: bool = True,
        missing_bytes: int = 0,
    ) -> None:
        data = response(status, body, headers, keeps_alive=keeps_alive)
        with self.tally.change() as tally:
            tally.statuses[status] += 1
        writer.write(data[: len(data) - missing_bytes])
        await writer.drain()

    async def _serve_control(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(InvalidRequest):
            while (request := await read_request(reader)) is not None:
                status, answer = await self._controlled(request)
                writer.write(response(status, _encoded(answer), keeps_alive=request.keeps_alive))
                await writer.drain()
                if not request.keeps_alive:
                    return

    async def _controlled(self, request: Request) -> tuple[int, dict[str, Any]]:
        try:
            if request.method == "POST":
                await self.control(json.loads(request.body))
        except (ValueError, AttributeError) as error:  # AttributeError: it is not an object
            return 400, {"error": str(error)}
        return 200, {"down": self._down, **self.tally.copy().as_json()}


def _encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _spoiled(body: bytes, kind: Kind | None) -> bytes:
    match kind:
        case "truncated-json":
            return body[: len(body) // 2]
        case "invalid-json":
            return b"<html>not JSON</html>"
    return body


def _retry_after(fault: Fault) -> dict[str, str]:
    if fault.retry_after_s is None:
        return {}
    if not fault.retry_after_is_date:
        return {"Retry-After": str(fault.retry_after_s)}
    # A date has whole seconds: it is rounded up, so that the wait is not shorter.
    date = formatdate(math.ceil(time.time()) + fault.retry_after_s, usegmt=True)
    return {"Retry-After": date}
