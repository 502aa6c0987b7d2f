"""HTTP/1.1 messages: reads a request from a stream, and formats a response."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

BODY_BYTES_MAX: Final = 64 << 20
_END_OF_HEAD: Final = b"\r\n\r\n"


class InvalidRequest(Exception):
    """A request that the service cannot read. The connection is closed after the response."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """A request; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    keeps_alive: bool

    @property
    def key(self) -> str:
        """The header Idempotency-Key, or else the last part of the path."""
        return self.headers.get("idempotency-key") or self.path.rpartition("/")[2]


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Return the next request of a connection, or None at its end.

    Raises:
        InvalidRequest: It is not a valid request, or it is too large.
    """
    try:
        head = await reader.readuntil(_END_OF_HEAD)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise InvalidRequest(400, "the connection ended within a request") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise InvalidRequest(431, "the headers are too large") from error
    line, *rest = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in map(_split, rest)}
    try:
        method, target, version = line.split(" ")
    except ValueError as error:
        raise InvalidRequest(400, f"not a request line: {line!r}") from error
    body = await reader.readexactly(_body_bytes(headers))
    option = headers.get("connection", "").lower()
    keeps_alive = option != "close" if version == "HTTP/1.1" else option == "keep-alive"
    return Request(method, target.partition("?")[0], headers, body, keeps_alive)


def response(
    status: int, body: bytes, headers: dict[str, str] | None = None, *, keeps_alive: bool = True
) -> bytes:
    """Format a response with a body of JSON."""
    fields = {
        "Date": formatdate(usegmt=True),
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "keep-alive" if keeps_alive else "close",
        **(headers or {}),
    }
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join(lines).encode("latin-1") + _END_OF_HEAD + body


def _split(line: str) -> tuple[str, str, str]:
    return line.partition(":")


def _body_bytes(headers: dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise InvalidRequest(501, "a body in chunks is not supported: send Content-Length")
    text = headers.get("content-length", "0")
    if not text.isdecimal():
        raise InvalidRequest(400, f"Content-Length is {text!r}")
    if int(text) > BODY_BYTES_MAX:
        raise InvalidRequest(413, f"a body of {text} bytes is too large")
    return int(text)
