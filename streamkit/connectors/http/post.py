"""A sink that posts records to an HTTP service."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, Literal, get_args

from streamkit.connectors.http.address import (
    Address,
    Duration,
    Headers,
    Login,
    Tls,
    positive,
    seconds,
)
from streamkit.connectors.http.exchange import Exchange, Outage, Refused, Transient
from streamkit.dataflow.contracts import (
    AtOnceWriter,
    ConnectorEnv,
    IsOver,
    Positions,
    Sink,
    WriteFailed,
)
from streamkit.errors import ConnectFailed, StreamKitError, TopologyError, UsageError
from streamkit.limits import PARKED_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.serde.binding import Serde
from streamkit.serde.finite import lost_float
from streamkit.serde.json_values import dumps
from streamkit.serde.values import ValueEncoder
from streamkit.settings.secret import Secret

Method = Literal["POST", "PUT", "PATCH"]
Body = Literal["array", "lines"]

# Of a response only its status counts; its body is shown in errors.
_RESPONSE_BYTES_MAX: Final = 4 << 10
_UNAUTHORIZED: Final = 401
# More than the records by which one branch may be behind another.
_SENT_MAX: Final = 5 * PARKED_RECORDS_MAX
_TYPES: Final = {"array": "application/json", "lines": "application/x-ndjson"}


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class HttpSink(Sink[Any]):
    """A service that gets each record, or each batch of records, as JSON in a request.

    A record is written when the service has responded with a status from 200 to 299. Lost
    connections, timeouts and responses with 408, 425, 429 or from 500 up are retried, by default
    for ever, in order; ``Retry-After`` is obeyed. 401 and a certificate that is not trusted end
    the job, because they are not about a record. A record that is refused with another status, or
    after ``attempts``, fails: ``on_error`` of the sink decides what happens to it, but a
    ``retry`` there does not send it again. If a batch fails, its records are sent one by one, so
    only the bad ones fail.

    After a crash, records after the last commit are sent again (at least once).

    Attributes:
        url: The URL of the service.
        method: ``POST``, ``PUT`` or ``PATCH``.
        batch: How many records a request has at most; by default one, which is sent as it is.
        body: The form of a batch: a JSON ``array``, or ``lines``.
        headers: Headers of each request. Use a `Secret` for a value that must not be shown.
        bearer: A token for ``Authorization: Bearer``.
        auth: User and password for ``Authorization: Basic``.
        timeout: The time for a request and its response.
        attempts: How many attempts a request has; None for no limit.
        idempotency: The name of a header, such as ``Idempotency-Key``, with a key that is the same
            each time a record is sent, also after a crash. The key of a batch is the same within
            a run only, because a batch may begin elsewhere after a crash.
        tls: For ``https``: an `ssl.SSLContext` with the CA certificates to trust and the client
            certificate, or a function that returns one when the job starts. By default, the CA
            certificates of the system are trusted.

    Raises:
        UsageError: An option is not valid.
    """

    url: str
    method: Method = "POST"
    batch: int | None = None
    body: Body = "array"
    headers: Headers = field(default_factory=dict)
    bearer: Secret | None = None
    auth: Login | None = None
    timeout: Duration = "30s"
    attempts: int | None = None
    idempotency: str | None = None
    tls: Tls | None = None

    def __post_init__(self) -> None:
        _ = self.address
        if self.method not in get_args(Method):
            raise UsageError(f"method={self.method!r}: use {', '.join(get_args(Method))}")
        if self.body not in get_args(Body):
            raise UsageError(f"body={self.body!r}: use {', '.join(get_args(Body))}")
        seconds(self.timeout, "timeout")
        if self.batch is not None:
            positive(self.batch, "batch")
        if self.attempts is not None:
            positive(self.attempts, "attempts")
        if self.idempotency is not None:
            Address(self.url, {self.idempotency: "key"})

    def __str__(self) -> str:
        return f"{self.method} {self.address}"

    def __repr__(self) -> str:
        return f"HttpSink({str(self.address)!r})"

    @property
    def name(self) -> str:
        return "http"

    @property
    def address(self) -> Address:
        """The URL with the headers and certificates."""
        return Address(self.url, self.headers, self.bearer, self.auth, self.tls)

    def encoder(self, kind: Any, serde: Serde | None) -> ValueEncoder:
        """Return how values are encoded: as JSON, unless they are bytes."""
        if serde is not None:
            raise TopologyError("value= is not possible here: an HTTP sink sends JSON")
        is_line = self.batch is not None and self.body == "lines"
        return ValueEncoder(_encode_line if is_line else _encode, lost_float)

    def writer(self, env: ConnectorEnv) -> HttpWriter:
        """Create the writer that the engine uses."""
        return HttpWriter(self, env)


def _encode(value: Any) -> bytes:
    return value if type(value) is bytes else dumps(value)


def _encode_line(value: Any) -> bytes:
    row = _encode(value)
    if not row or b"\n" in row:
        raise ValueError("bytes with a line break, or without content, are not one line")
    return row


class HttpWriter(AtOnceWriter):
    """Sends one request after another, so that the service gets the records in order."""

    def __init__(self, sink: HttpSink, env: ConnectorEnv) -> None:
        self._sink = sink
        self._env = env
        self._exchange = Exchange(
            sink.address,
            env.clock,
            timeout_s=seconds(sink.timeout, "timeout"),
            max_body_bytes=_RESPONSE_BYTES_MAX,
        )
        self._outage = Outage(str(sink), env.clock, env.note, sink.attempts)
        # How often the same values were sent for a source record; the oldest ones are dropped.
        self._sent: dict[bytes, int] = {}
        self.description = f"{sink} (at least once)"

    @property
    def is_per_record(self) -> bool:
        return self._sink.batch is None

    async def open(self, committed: Positions) -> None:
        self._exchange.open()

    async def write(self, chunk: Chunk, is_over: IsOver) -> int:
        step = self._sink.batch or 1
        for start in range(0, len(chunk), step):
            part = chunk.slice(start, start + step)
            try:
                await self._send(part)
            except ConnectFailed:
                raise  # nothing was sent, so it is not about these records
            except StreamKitError as error:
                if isinstance(error, Refused) and error.status == _UNAUTHORIZED:
                    raise  # every record would be refused
                raise WriteFailed(start, len(part)) from error
            if is_over():
                return start + len(part)
        return len(chunk)

    async def flush(self, *, is_last: bool) -> None:
        pass  # the response of each request came before the next one

    async def close(self) -> None:
        await self._exchange.close()

    async def _send(self, part: Chunk) -> None:
        """Send a request until a response is a success.

        Raises:
            StreamKitError: It is refused, or the attempts are used up.
        """
        headers = {"Content-Type": _TYPES[self._sink.body if self._sink.batch else "array"]}
        if self._sink.idempotency is not None:
            headers[self._sink.idempotency] = self._key(part)
        body = self._body(part.values)
        while True:
            try:
                await self._exchange.post(self._sink.method, body, headers)
            except Transient as error:
                await self._outage.wait(error)
                continue
            self._outage.over()
            return

    def _body(self, rows: Any) -> bytes:
        if self._sink.batch is None:
            body: bytes = rows[0]
            return body
        if self._sink.body == "lines":
            return b"\n".join([*rows, b""])
        return b"[" + b",".join(rows) + b"]"

    def _key(self, part: Chunk) -> str:
        """Return a key of the place of the records: the app, the sink, and the source record.

        One source record may give several records here, in any order: those with the same value
        are counted.
        """
        place = (part.topic, part.partition, part.offsets[0])
        parts = (self._env.app, self._env.name, *place, len(part))
        digest = blake2b(repr(parts).encode(), digest_size=16)
        for row in part.values:
            digest.update(row)
        own = digest.digest()
        copy = self._sent.pop(own, -1) + 1
        self._sent[own] = copy
        if len(self._sent) > _SENT_MAX:
            del self._sent[next(iter(self._sent))]
        digest.update(b"%d" % copy)
        return digest.hexdigest()
