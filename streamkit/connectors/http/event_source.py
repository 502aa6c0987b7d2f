"""Server-sent events as a source."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from streamkit.connectors.http.address import (
    Address,
    Duration,
    Headers,
    Login,
    Tls,
    positive,
    seconds,
    size,
)
from streamkit.connectors.http.event_stream import Event, EventStream
from streamkit.connectors.http.exchange import Exchange, Outage, Refused, Response, Transient
from streamkit.connectors.http.inflate import PLAIN, encoding_of
from streamkit.dataflow.contracts import (
    ConnectorEnv,
    Positions,
    Source,
    SourceFacts,
    SourceReader,
)
from streamkit.errors import StreamKitError
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.settings.secret import Secret

_PART: Final = "0"
_RECONNECT_S: Final = 3.0
_RECONNECT_S_MIN: Final = 0.5


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class ServerSentEvents(Source[Any]):
    """A stream of server-sent events; the data of each event is a record.

    The key of a record is the type of its event, or None for ``message``. The position is the id
    of the last event, which is sent as ``Last-Event-ID``; whether nothing is lost or repeated
    depends on the server. A stream that ends is requested again, after the time that the server
    has set with ``retry:``. The source ends if the server responds with 204, and with ``--once``
    at the end of the first stream.

    Attributes:
        url: The URL of the stream.
        events: The types of events to read; by default all of them.
        headers: Headers of the request. Use a `Secret` for a value that must not be shown.
        bearer: A token for ``Authorization: Bearer``.
        auth: User and password for ``Authorization: Basic``.
        timeout: The time to connect; and how long a stream may be silent until it is requested
            again. Servers send comments to keep a stream open.
        max_event_bytes: The maximum size of an event.
        attempts: How many attempts there are if the run ends by itself.
        tls: For ``https``: an `ssl.SSLContext` with the CA certificates to trust and the client
            certificate, or a function that returns one when the job starts. By default, the CA
            certificates of the system are trusted.

    Raises:
        UsageError: An option is not valid.
    """

    url: str
    events: tuple[str, ...] | None = None
    headers: Headers = field(default_factory=dict)
    bearer: Secret | None = None
    auth: Login | None = None
    timeout: Duration = "90s"
    max_event_bytes: int | str = "1MiB"
    attempts: int = 5
    tls: Tls | None = None

    def __post_init__(self) -> None:
        _ = self.address
        seconds(self.timeout, "timeout")
        size(self.max_event_bytes, "max_event_bytes")
        positive(self.attempts, "attempts")

    def __str__(self) -> str:
        return f"events of {self.address}"

    def __repr__(self) -> str:
        return f"ServerSentEvents({str(self.address)!r})"

    @property
    def name(self) -> str:
        return "server-sent-events"

    @property
    def address(self) -> Address:
        """The URL with the headers and certificates."""
        return Address(self.url, self.headers, self.bearer, self.auth, self.tls)

    def place(self, topic: str, partition: int, offset: int) -> str:
        """Return a text for the place of a record."""
        return f"{self.address} event {offset}"

    def reader(self, env: ConnectorEnv) -> ServerSentEventsReader:
        """Create the reader that the engine uses."""
        return ServerSentEventsReader(self, env)


class _Saved(msgspec.Struct, frozen=True):
    offset: int = 0
    last_id: str = ""


class ServerSentEventsReader(SourceReader):
    """Keeps one connection open. A call that is cancelled ends it; the next one connects again."""

    def __init__(self, source: ServerSentEvents, env: ConnectorEnv) -> None:
        self._source = source
        self._env = env
        self._timeout_s = seconds(source.timeout, "timeout")
        self._exchange = Exchange(
            source.address, env.clock, timeout_s=self._timeout_s, max_body_bytes=1 << 16
        )
        attempts = source.attempts if env.until_end else None
        self._outage = Outage(str(source), env.clock, env.note, attempts)
        self._ids: deque[tuple[int, str]] = deque()
        self._saved = _Saved()
        self._last_id = ""
        self._next_offset = 0
        self._retry_s = _RECONNECT_S
        self._events: deque[Event] = deque()
        self._stream = EventStream(max_event_bytes=1)
        self._body: AsyncIterator[bytes] | None = None
        self._connection = AsyncExitStack()
        self._is_over = False

    async def open(self, committed: Positions) -> SourceFacts:
        self._exchange.open()
        text = committed.get(_PART)
        if text is not None:
            self._saved = msgspec.json.decode(text, type=_Saved)
        self._last_id, self._next_offset = self._saved.last_id, self._saved.offset
        since = f" after {self._next_offset:,} events of earlier runs" if text else ""
        return SourceFacts(f"{self._source}{since}")

    async def next(self) -> Chunk | None:
        while not self._events:
            if self._is_over:
                return None
            try:
                await self._read_some()
            except BaseException:
                await self._disconnect()
                raise
        return self._chunk()

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        end, last_id = chunk.offsets[-1] + 1, self._saved.last_id
        while self._ids and self._ids[0][0] < end:
            last_id = self._ids.popleft()[1]
        self._saved = _Saved(end, last_id)
        return _PART, msgspec.json.encode(self._saved).decode()

    async def close(self) -> None:
        await self._disconnect()
        await self._exchange.close()

    async def _disconnect(self) -> None:
        self._body = None
        connection, self._connection = self._connection, AsyncExitStack()
        await connection.aclose()

    async def _read_some(self) -> None:
        """Read events of the open connection; connect first if there is none."""
        try:
            if self._body is None:
                await self._connect()
                return
            with self._exchange.failures():
                data = await anext(self._body, None)
        except Transient as error:
            await self._disconnect()
            await self._outage.wait(error)
            return
        if data is None:  # an incomplete event at the end is not an event
            self._take(self._stream.end())
            await self._disconnect()
            self._is_over = self._env.until_end
            if not self._is_over:
                await self._env.clock.sleep(self._retry_s)
            return
        self._take(self._stream.feed(data))

    def _take(self, events: list[Event]) -> None:
        self._outage.over()
        wanted = self._source.events
        self._events.extend(e for e in events if wanted is None or e.kind in wanted)
        self._last_id = self._stream.last_id
        if self._stream.retry_s is not None:
            self._retry_s = max(self._stream.retry_s, _RECONNECT_S_MIN)

    async def _connect(self) -> None:
        """Request the stream after the last event.

        Raises:
            Transient: A later attempt may succeed.
            StreamKitError: The server refuses, or does not return events.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        headers["Accept-Encoding"] = "identity"
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id.encode().decode("latin-1")
        url = self._source.address.target
        stack = AsyncExitStack()
        self._connection = stack
        received = await stack.enter_async_context(self._exchange.streamed("GET", url, headers))
        fields = {name.lower(): value for name, value in received.headers.items()}
        response = Response(received.status_code, fields, b"", url)
        problem = self._exchange.refusal(response, "GET")
        if problem is not None:
            raise problem
        if response.status == 204:
            self._is_over = True
            await self._disconnect()
            return
        kind = fields.get("content-type", "").partition(";")[0].strip().lower()
        if response.status != 200 or kind != "text/event-stream":
            raise Refused(
                f"{self._source.address} returned status {response.status} with the type {kind!r}",
                response.status,
                hint="a stream of events has status 200 and the type text/event-stream",
            )
        if encoding_of(fields) not in PLAIN:
            raise StreamKitError(
                f"the events of {self._source.address} have the encoding {encoding_of(fields)!r}, "
                "although the request asks for none"
            )
        limit = size(self._source.max_event_bytes, "max_event_bytes")
        self._stream = EventStream(self._last_id, max_event_bytes=limit)
        self._body = received.aiter_raw()

    def _chunk(self) -> Chunk:
        count = min(len(self._events), CHUNK_RECORDS_MAX)
        events = [self._events.popleft() for _ in range(count)]
        first, self._next_offset = self._next_offset, self._next_offset + count
        self._ids.extend((first + row, event.last_id) for row, event in enumerate(events))
        keys = [None if event.kind == "message" else event.kind.encode() for event in events]
        now_ms = self._env.clock.wall_ms()
        values = [event.data for event in events]
        offsets = range(first, first + count)
        return Chunk(values, keys, [now_ms] * count, offsets, self._env.name, 0)
