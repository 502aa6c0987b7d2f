"""A webhook as a source: clients post records, and get a response when these are stored."""

from __future__ import annotations

import asyncio
import hmac
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, get_args

import msgspec

from streamkit.connectors.http.address import Duration, positive, seconds, size
from streamkit.connectors.http.inflate import GZIP, PLAIN, encoding_of
from streamkit.connectors.http.server import Request, Response, Server
from streamkit.dataflow.contracts import (
    ConnectorEnv,
    Positions,
    Source,
    SourceFacts,
    SourceReader,
)
from streamkit.errors import ConfigError, UsageError
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.settings.secret import Secret

Body = Literal["one", "array", "lines"]

_PART: Final = "0"
_CHUNK_BYTES_MAX: Final = 1 << 20
_RETRY_AFTER: Final = {"Retry-After": "1"}


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Webhook(Source[Any]):
    """An HTTP server whose clients post records.

    A client gets status 200 after the commit that covers its records: then their results are in
    every sink, and a crash cannot lose them. With any other status, the client must post again. A
    client that got no response must post again too, so records may come twice. Records cannot be
    replayed.

    | status | reason |
    |---|---|
    | 400, 415 | the body is not valid, or compressed with something else than gzip |
    | 401 | the token is missing or wrong |
    | 404, 405 | another path; a method other than POST |
    | 408 | the client took longer than ``request_timeout`` to send the request |
    | 413 | the body is larger than ``max_body_bytes`` |
    | 429 | ``max_records`` or ``max_bytes`` wait already |
    | 503 | no commit within ``commit_timeout``, the job stops, or too many connections |

    Attributes:
        path: The path of the URL.
        port: The port; with 0 the system chooses one, and the start report shows it.
        host: The address to listen on. Use ``0.0.0.0`` to accept clients on other machines; then
            set ``token`` and use a proxy with TLS.
        body: What a body contains: ``one`` record, a JSON ``array`` of records, or ``lines`` with
            one record each.
        token: Clients must send it as ``Authorization: Bearer TOKEN``.
        commit_timeout: How long a client waits for the commit.
        request_timeout: How long a client may take to send a request.
        max_body_bytes: The maximum size of a body, after decompression.
        max_records: How many records may wait for a commit.
        max_bytes: How many bytes may wait for a commit.
        max_connections: How many clients may be connected.

    Raises:
        UsageError: An option is not valid.
    """

    path: str
    port: int
    host: str = "127.0.0.1"
    body: Body = "one"
    token: Secret | None = None
    commit_timeout: Duration = "30s"
    request_timeout: Duration = "30s"
    max_body_bytes: int | str = "1MiB"
    max_records: int = 10_000
    max_bytes: int | str = "64MiB"
    max_connections: int = 256

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path.startswith("/") or "?" in self.path:
            raise UsageError(f"{self.path!r} is not a valid path", hint='for example "/orders"')
        if type(self.port) is not int or not 0 <= self.port <= 65_535:
            raise UsageError(f"port={self.port!r} is not a port from 0 to 65535")
        if self.body not in get_args(Body):
            raise UsageError(f"body={self.body!r}: use {', '.join(get_args(Body))}")
        if self.token is not None and not (isinstance(self.token, Secret) and self.token):
            raise UsageError("token= must be a Secret that is not empty")
        seconds(self.commit_timeout, "commit_timeout")
        seconds(self.request_timeout, "request_timeout")
        size(self.max_body_bytes, "max_body_bytes")
        size(self.max_bytes, "max_bytes")
        positive(self.max_records, "max_records")
        positive(self.max_connections, "max_connections")

    def __str__(self) -> str:
        return f"webhook http://{self.host}:{self.port}{self.path}"

    def __repr__(self) -> str:
        return f"Webhook({self.path!r}, port={self.port})"

    @property
    def name(self) -> str:
        return "webhook"

    def place(self, topic: str, partition: int, offset: int) -> str:
        """Return a text for the place of a record."""
        return f"webhook {self.path} record {offset}"

    def reader(self, env: ConnectorEnv) -> WebhookReader:
        """Create the reader that the engine uses."""
        return WebhookReader(self, env)


@dataclass(slots=True, eq=False)
class _Post:
    """The records of one request. ``end`` is the offset after them, once they are read."""

    rows: list[bytes]
    size_bytes: int
    response: asyncio.Future[Response]
    end: int | None = None


class WebhookReader(SourceReader):
    """Holds requests until their records are committed.

    | a request | event | next |
    |---|---|---|
    | waiting | `next` returns its records | in the job |
    | | stop | gets 503 |
    | in the job | `committed` reaches its last record | gets 200 |
    | | close | gets 503 |
    | any | the commit timeout | gets 503; its records are processed nevertheless |
    """

    def __init__(self, source: Webhook, env: ConnectorEnv) -> None:
        self._source = source
        self._env = env
        self._commit_timeout_s = seconds(source.commit_timeout, "commit_timeout")
        self._max_bytes = size(source.max_bytes, "max_bytes")
        self._server = Server(
            self._judge,
            self._accept,
            request_timeout_s=seconds(source.request_timeout, "request_timeout"),
            max_body_bytes=size(source.max_body_bytes, "max_body_bytes"),
            max_connections=source.max_connections,
        )
        self._waiting: deque[_Post] = deque()
        self._in_job: deque[_Post] = deque()
        self._records = 0
        self._bytes = 0
        self._next_offset = 0
        self._rows_sent = 0  # of the first request that waits
        self._is_stopping = False
        self._arrived = asyncio.Event()

    async def open(self, committed: Positions) -> SourceFacts:
        if self._env.until_end:
            raise ConfigError(
                "a webhook has no end, so a run with --once cannot read it",
                hint="run the job without --once, and stop it with SIGTERM",
            )
        self._next_offset = int(committed.get(_PART, "0"))
        port = await self._server.open(self._source.host, self._source.port)
        url = f"http://{self._source.host}:{port}{self._source.path}"
        return SourceFacts(f"webhook {url}, cannot be replayed after a crash", is_replayable=False)

    async def next(self) -> Chunk | None:
        while not self._waiting:
            if self._is_stopping:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._chunk()

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        return _PART, str(chunk.offsets[-1] + 1)

    async def committed(self, positions: Positions) -> None:
        if _PART not in positions:
            return
        end = int(positions[_PART])
        while self._in_job and self._in_job[0].end is not None and self._in_job[0].end <= end:
            self._settle(self._in_job.popleft(), Response(200, "stored"))

    def lag(self) -> int | None:
        return sum(len(each.rows) for each in self._waiting) - self._rows_sent

    def stop(self) -> bool:
        self._is_stopping = True
        self._server.stop()
        for post in self._waiting:
            self._settle(post, _STOPS)
        self._waiting.clear()
        self._arrived.set()
        return False

    async def close(self) -> None:
        self.stop()
        while self._in_job:
            self._settle(self._in_job.popleft(), _STOPS)
        await self._server.close()

    def _chunk(self) -> Chunk:
        """Return the records of the requests that wait, as many as a chunk may have."""
        rows: list[bytes] = []
        total = 0
        while self._waiting and len(rows) < CHUNK_RECORDS_MAX and total < _CHUNK_BYTES_MAX:
            post = self._waiting[0]
            start = self._rows_sent
            part = post.rows[start : start + CHUNK_RECORDS_MAX - len(rows)]
            rows += part
            total += sum(map(len, part))
            self._rows_sent += len(part)
            if self._rows_sent == len(post.rows):
                post.end = self._next_offset + len(rows)
                self._in_job.append(self._waiting.popleft())
                self._rows_sent = 0
        first, self._next_offset = self._next_offset, self._next_offset + len(rows)
        now_ms, count = self._env.clock.wall_ms(), len(rows)
        offsets = range(first, self._next_offset)
        return Chunk(rows, [None] * count, [now_ms] * count, offsets, self._env.name, 0)

    # --- in the tasks of the connections ----------------------------------------------

    def _judge(self, request: Request) -> Response | None:
        """Return the response to a request that is refused before its body is read."""
        token = self._source.token
        if token is not None:
            expected = f"Bearer {token.reveal()}".encode()
            given = request.headers.get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, expected):
                return Response(401, "a valid token is required", {"WWW-Authenticate": "Bearer"})
        if request.path != self._source.path:
            return Response(404, "no such path")
        if request.method != "POST":
            return Response(405, "use POST", {"Allow": "POST"})
        if encoding_of(request.headers) not in (*PLAIN, *GZIP):
            return Response(415, "compress the body with gzip only", {"Accept-Encoding": "gzip"})
        if self._is_stopping:
            return _STOPS
        return _FULL if self._is_full(0, 0) else None

    async def _accept(self, body: bytes) -> Response:
        """Return the response to a body, after the commit that covers its records."""
        try:
            rows = _rows_of(body, self._source.body)
        except ValueError as error:
            return Response(400, str(error))
        if not rows:
            return Response(200, "no records")
        if len(rows) > self._source.max_records or len(body) > self._max_bytes:
            return Response(413, f"more than {self._source.max_records} records in one request")
        if self._is_stopping:
            return _STOPS
        if self._is_full(len(rows), len(body)):
            return _FULL
        post = _Post(rows, len(body), asyncio.get_running_loop().create_future())
        self._records += len(rows)
        self._bytes += len(body)
        post.response.add_done_callback(partial(self._release, post))
        self._waiting.append(post)
        self._arrived.set()
        try:
            async with asyncio.timeout(self._commit_timeout_s):
                return await asyncio.shield(post.response)
        except TimeoutError:
            return Response(503, "the records are not stored yet; post them again", _RETRY_AFTER)

    def _is_full(self, rows: int, size_bytes: int) -> bool:
        return (
            self._records + max(rows, 1) > self._source.max_records
            or self._bytes + size_bytes > self._max_bytes
        )

    def _settle(self, post: _Post, response: Response) -> None:
        if not post.response.done():
            post.response.set_result(response)

    def _release(self, post: _Post, _: asyncio.Future[Response]) -> None:
        self._records -= len(post.rows)
        self._bytes -= post.size_bytes


_STOPS: Final = Response(503, "the job stops", _RETRY_AFTER)
_FULL: Final = Response(429, "too many records wait to be stored", _RETRY_AFTER)


def _rows_of(body: bytes, kind: Body) -> list[bytes]:
    """Return the records of a body.

    Raises:
        ValueError: It does not contain what the webhook expects.
    """
    if kind == "one":
        if not body:
            raise ValueError("the body is empty")
        return [body]
    if kind == "lines":
        return [line for line in (each.strip() for each in body.split(b"\n")) if line]
    try:
        return list(map(bytes, msgspec.json.decode(body, type=list[msgspec.Raw])))
    except msgspec.MsgspecError as error:
        raise ValueError(f"the body is not a JSON array: {error}") from None
