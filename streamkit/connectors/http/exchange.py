"""Requests with bounds on time and size, and the wait between attempts during an outage."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import anyio

from streamkit.connectors.http.address import Address, is_same_origin, joined, masked
from streamkit.connectors.http.inflate import GZIP, PLAIN, Inflate, encoding_of
from streamkit.env import Clock, random_bits
from streamkit.errors import ConfigError, ConnectFailed, StreamKitError

if TYPE_CHECKING:
    import httpx2

# Statuses that a later attempt may not have; so are those from 500 up.
_TRANSIENT: Final = frozenset({408, 425, 429})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_MAX: Final = 5
_REDIRECTED: Final = 300
_NOT_MODIFIED: Final = 304
_FIRST_DELAY_S: Final = 0.5
_DELAY_S_MAX: Final = 60.0
_SHARE_BITS: Final = 16
# A server may ask for a longer wait, but not for one that never ends.
_RETRY_AFTER_S_MAX: Final = 3_600.0
_BODY_SHOWN_MAX: Final = 200
_WRONG_NAME: Final = (62, 64)  # OpenSSL's codes for another host, and another IP address
_NAME_HINT: Final = "use a URL with a host that the certificate names"
_CA_HINT: Final = "to trust its CA, give tls=ssl.create_default_context(cafile=...)"


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    url: str = ""


class Transient(Exception):
    """A request failed in a way that a later attempt may not."""

    def __init__(self, why: str, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class Refused(StreamKitError):
    """The service refused a request, and would refuse the same request again."""

    def __init__(self, message: str, status: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Outage:
    """Waits longer and longer between the attempts of one request.

    Half of each wait is random, so that many jobs do not come back at the same moment.

    Args:
        what: What is not possible at the moment, for messages.
        attempts: After this many attempts it gives up; None for never.
    """

    def __init__(
        self, what: str, clock: Clock, note: Callable[[str], None], attempts: int | None
    ) -> None:
        self._what = what
        self._clock = clock
        self._note = note
        self._attempts = attempts
        self._failed = 0

    async def wait(self, error: Transient) -> None:
        """Wait after a failed attempt. Only the first failure of an outage is noted.

        Raises:
            StreamKitError: It was the last attempt.
        """
        self._failed += 1
        if self._attempts is not None and self._failed >= self._attempts:
            count, self._failed = self._failed, 0
            times = "1 attempt" if count == 1 else f"{count} attempts"
            raise StreamKitError(f"{self._what} failed after {times}: {error}") from error
        delay_s = min(_FIRST_DELAY_S * 2 ** min(self._failed - 1, 20), _DELAY_S_MAX)
        delay_s *= 0.5 + 0.5 * random_bits(_SHARE_BITS) / (1 << _SHARE_BITS)
        delay_s = max(delay_s, min(error.retry_after_s, _RETRY_AFTER_S_MAX))
        if self._failed == 1:
            next_s = f"{round(delay_s, 2):g}"
            self._note(f"{self._what} failed and is retried: {error}; next in {next_s} s")
        await self._clock.sleep(delay_s)

    def over(self) -> None:
        """Learn that an attempt succeeded."""
        if self._failed > 1:
            self._note(f"{self._what} works again after {self._failed} failed attempts")
        self._failed = 0


class Exchange:
    """Sends requests to one address.

    Args:
        address: Where the requests go. Credentials are not sent to another origin.
        timeout_s: The time for a whole request and its response.
        max_body_bytes: The maximum size of a decompressed body.
    """

    def __init__(
        self, address: Address, clock: Clock, *, timeout_s: float, max_body_bytes: int
    ) -> None:
        self._address = address
        self._clock = clock
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._client: httpx2.AsyncClient | None = None

    def open(self) -> None:
        """Create the client; no connection is opened yet.

        Raises:
            ConfigError: httpx2 is not installed, or ``tls=`` failed.
        """
        library = _library()
        if self._client is None:
            self._client = library.AsyncClient(
                verify=self._address.context() or True,
                timeout=library.Timeout(self._timeout_s),
                trust_env=False,
                follow_redirects=False,
            )

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def get(self, url: str, headers: Mapping[str, str]) -> Response:
        """Get a URL; follow redirects within its origin.

        Raises:
            Transient: A later attempt may succeed.
            Refused: The service refuses the request.
            StreamKitError: The response is too large, or redirects to another origin.
        """
        for _ in range(_REDIRECTS_MAX):
            response = await self.send("GET", url, headers)
            if response.status not in _REDIRECTS or "location" not in response.headers:
                return self._checked(response, "GET")
            target = joined(url, response.headers["location"])
            if not is_same_origin(target, url):
                raise StreamKitError(
                    f"{masked(url)} redirects to another origin, {masked(target)}",
                    hint="use the new URL; headers and secrets are not sent to another origin",
                )
            url = target
        raise StreamKitError(f"{masked(url)} has more than {_REDIRECTS_MAX} redirects")

    async def post(self, method: str, body: bytes, headers: Mapping[str, str]) -> Response:
        """Send a body; a redirect is an error.

        The status is the result: with 2xx, the service has accepted the body, so nothing that
        fails later may send it again.

        Raises:
            Transient: A later attempt may succeed.
            Refused: The service refuses the request.
        """
        url, response = self._address.target, None
        fields = {"Accept-Encoding": "identity", **headers}
        try:
            with anyio.fail_after(self._timeout_s):
                async with self.streamed(method, url, fields, body) as received:
                    response = Response(received.status_code, _lower(received.headers), b"", url)
                    async for data in received.aiter_raw():
                        response = replace(response, body=response.body + data)
                        if len(response.body) > self._max_body_bytes:
                            break
        except (TimeoutError, Transient) as error:
            if response is None:
                raise (error if isinstance(error, Transient) else _late(self._timeout_s)) from None
        assert response is not None, "otherwise an error was raised"
        return self._checked(response, method)

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Response:
        """Send one request and read the response, whatever its status is."""
        try:
            with anyio.fail_after(self._timeout_s):
                async with self.streamed(method, url, headers, body) as received:
                    is_success = received.status_code < _REDIRECTED
                    data = await (self._read(received) if is_success else _beginning(received))
        except TimeoutError:
            raise _late(self._timeout_s) from None
        return Response(received.status_code, _lower(received.headers), data, url)

    @asynccontextmanager
    async def streamed(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        read_timeout_s: float | None = None,
    ) -> AsyncIterator[httpx2.Response]:
        """Send one request; yield the response, whose body is not read yet."""
        library = _library()
        assert self._client is not None, "open comes first"
        fields = {"Accept-Encoding": "gzip", **self._address.fields(), **headers}
        timeout = library.Timeout(self._timeout_s, read=read_timeout_s or self._timeout_s)
        with self.failures():
            async with self._client.stream(
                method, url, headers=fields, content=body, timeout=timeout
            ) as received:
                yield received

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Raise the errors of httpx2 as those of a request.

        Raises:
            Transient: The connection failed.
            ConnectFailed: The certificate of the server is not trusted.
            StreamKitError: The request is not valid.
        """
        library = _library()
        try:
            yield
        except (library.LocalProtocolError, library.UnsupportedProtocol, library.InvalidURL):
            # The text may have the value of a header, which may be secret.
            raise StreamKitError(f"the request to {self._address} is not valid HTTP") from None
        except library.TransportError as error:
            untrusted = _verification_error(error)
            if untrusted is not None:
                has_other_name = untrusted.verify_code in _WRONG_NAME
                raise ConnectFailed(
                    str(self._address),
                    f"its certificate is not trusted: {untrusted.verify_message}",
                    hint=_NAME_HINT if has_other_name else _CA_HINT,
                    retryable=False,
                ) from error
            raise Transient(f"{type(error).__name__} {error}".rstrip()) from error

    def refusal(self, response: Response, method: str) -> Transient | Refused | None:
        """Return why a response is not a success; None if it is one."""
        status = response.status
        if status < _REDIRECTED or (status == _NOT_MODIFIED and method == "GET"):
            return None
        text = f"{method} {masked(response.url)} returned status {status}"
        if status in _TRANSIENT or status >= 500:
            return Transient(text, self.retry_after_s(response.headers))
        shown = response.body[:_BODY_SHOWN_MAX].decode("utf-8", "replace").strip()
        shown = "".join(each if each.isprintable() else " " for each in shown)
        shown = self._address.hidden(shown)
        hint = "check bearer=, auth= and headers=" if status in (401, 403) else ""
        return Refused(f"{text}: {shown}" if shown else text, status, hint=hint)

    def retry_after_s(self, headers: Mapping[str, str]) -> float:
        """Return how long the server asks to wait; 0 if it does not ask, or not clearly."""
        text = headers.get("retry-after", "").strip()
        if text.isdecimal() and len(text) < 10:
            return float(text)
        try:
            until = parsedate_to_datetime(text).timestamp()
        except (ValueError, TypeError, OverflowError):
            return 0.0
        return max(0.0, until - self._clock.wall_ms() / 1_000)

    def _checked(self, response: Response, method: str) -> Response:
        problem = self.refusal(response, method)
        if problem is not None:
            raise problem
        return response

    async def _read(self, received: httpx2.Response) -> bytes:
        """Read a body. It is decompressed here, because httpx2 has no bound on the result."""
        encoding = encoding_of(received.headers)
        if encoding not in (*PLAIN, *GZIP):
            raise StreamKitError(f"the response has the encoding {encoding!r}, not gzip")
        inflate = Inflate() if encoding in GZIP else None
        parts: list[bytes] = []
        room = self._max_body_bytes
        async for data in received.aiter_raw():
            try:
                part = data if inflate is None else inflate.feed(data, room)
            except ValueError as error:
                raise Transient(str(error)) from error
            room -= len(part)
            if room < 0:
                raise StreamKitError(
                    f"the response of {masked(str(received.url))} is larger than "
                    f"{self._max_body_bytes} bytes",
                    hint="increase max_body_bytes=, or request smaller pages",
                )
            parts.append(part)
        if inflate is not None and not inflate.is_complete:
            raise Transient("the compressed body is incomplete")
        return b"".join(parts)


async def _beginning(received: httpx2.Response) -> bytes:
    """Return the beginning of a body that is only shown; nothing if it is encoded."""
    data = b""
    if encoding_of(received.headers) not in PLAIN:
        return data
    async for part in received.aiter_raw():
        data += part
        if len(data) >= _BODY_SHOWN_MAX:
            break
    return data


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _late(timeout_s: float) -> Transient:
    return Transient(f"no complete response within {timeout_s:g} s")


def _verification_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return the error of a certificate that caused an error of httpx2; None if another did."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _library() -> Any:
    try:
        import httpx2
    except ImportError:
        raise ConfigError(
            "HTTP connectors need the library httpx2",
            hint="it needs `pip install 'fluvio-streamkit[http]'`",
        ) from None
    return httpx2
