"""URLs and headers of requests: checked when they are given, and shown without secrets."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urljoin, urlsplit, urlunsplit

from streamkit.errors import ConfigError, StreamKitError, UsageError, shown
from streamkit.settings.secret import Secret
from streamkit.units import parse_duration_s, parse_size_bytes

Duration = float | str | timedelta
Headers = Mapping[str, str | Secret]
Login = tuple[str, Secret]
Tls = ssl.SSLContext | Callable[[], ssl.SSLContext]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """Where requests go, with which headers and certificates.

    Raises:
        UsageError: The URL or a header is not valid.
    """

    url: str
    headers: Headers = field(default_factory=dict)
    bearer: Secret | None = None
    auth: Login | None = None
    tls: Tls | None = None

    def __post_init__(self) -> None:
        found = _parts(self.url)
        if found is None or found.scheme not in _PORTS or not found.hostname:
            raise UsageError(
                f"{masked(self.url)!r} is not a valid URL",
                hint="use a URL with a host, such as https://example.com/orders",
            )
        if any(each <= " " or each > "~" for each in self.url):
            raise UsageError("a URL must have no spaces, control or non-ASCII characters")
        if self.bearer is not None and self.auth is not None:
            raise UsageError("bearer= and auth= exclude each other: both are for Authorization")
        _check_secret(self.bearer, "bearer=")
        if self.auth is not None:
            _check_secret(self.auth[1], "the password of auth=")
        _check_tls(self.tls, found.scheme)
        for name, value in self.fields().items():
            if not _TOKEN.fullmatch(name):
                raise UsageError(f"{name!r} is not a valid name of a header")
            if not value.isascii() or any(each in value for each in "\r\n\0"):
                raise UsageError(
                    f"the value of the header {name} has a line break, a zero byte or a character "
                    "that is not ASCII"
                )

    def __str__(self) -> str:
        return masked(self.url)

    @property
    def target(self) -> str:
        """The URL for requests, without user and password."""
        found = urlsplit(self.url)
        return urlunsplit(found._replace(netloc=found.netloc.rpartition("@")[2], fragment=""))

    def context(self) -> ssl.SSLContext | None:
        """Return the context for TLS; None for the default.

        Raises:
            ConfigError: The function for it failed, or returned something else.
        """
        if self.tls is None or isinstance(self.tls, ssl.SSLContext):
            return self.tls
        try:
            found = self.tls()
        except OSError as error:
            raise ConfigError(f"tls= of {self} failed: {error}") from error
        if not isinstance(found, ssl.SSLContext):
            raise ConfigError(f"tls= of {self} returned {type(found).__name__}, no ssl.SSLContext")
        return found

    def hidden(self, text: str) -> str:
        """Return a text of the service, which may repeat the request, without secrets."""
        found = [each.reveal() for each in self.headers.values() if isinstance(each, Secret)]
        found.append(self.auth[1].reveal() if self.auth else "")
        found.append(unquote(urlsplit(self.url).password or ""))
        found.append(self.fields().get("Authorization", "").partition(" ")[2])
        for each in filter(None, found):
            text = text.replace(each, "***")
        return text

    def fields(self) -> dict[str, str]:
        """Return the headers with the secrets revealed; for requests only."""
        found = {name: _revealed(value) for name, value in self.headers.items()}
        parts = urlsplit(self.url)
        if self.bearer is not None:
            found["Authorization"] = f"Bearer {self.bearer.reveal()}"
        elif self.auth is not None:
            found["Authorization"] = _basic(self.auth[0], self.auth[1].reveal())
        elif parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
            found["Authorization"] = _basic(user, password)
        return found


def masked(url: str) -> str:
    """Return a URL without the password, and without the query, which often has a token."""
    found = _parts(url)
    if found is None:
        return "***"
    login, at, host = found.netloc.rpartition("@")
    netloc = f"{login.partition(':')[0]}:***@{host}" if at else host
    return urlunsplit(found._replace(netloc=netloc, query="", fragment=""))


def joined(url: str, target: str) -> str:
    """Return the URL that a response names, relative to that of the request.

    Raises:
        StreamKitError: It is not a URL.
    """
    try:
        found = urljoin(url, target)
    except ValueError:
        found = ""
    if _parts(found) is None or not found:
        raise StreamKitError(f"a response of {masked(url)} names {shown(target)}, which is no URL")
    return found


def is_same_origin(url: str, other: str) -> bool:
    """Return whether two URLs have the same scheme, host and port."""
    return _origin(url) == _origin(other)


def with_parameter(url: str, name: str, value: str) -> str:
    """Return a URL with a parameter of its query set."""
    found = urlsplit(url)
    pairs = [pair for pair in parse_qsl(found.query, keep_blank_values=True) if pair[0] != name]
    return urlunsplit(found._replace(query=urlencode([*pairs, (name, value)])))


def seconds(value: Duration, name: str) -> float:
    """Return a duration in seconds, given as a number, a text or a timedelta.

    Raises:
        UsageError: It is not a positive duration.
    """
    try:
        found = parse_duration_s(value) if isinstance(value, str) else value
    except ValueError as error:
        raise UsageError(f"{name}={value!r}: {error}") from None
    found = found.total_seconds() if isinstance(found, timedelta) else found
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < 1e9:
        raise UsageError(f"{name}={value!r} is not a positive duration (examples: 90, 500ms, 2m)")
    return float(found)


def size(value: int | str, name: str) -> int:
    """Return a size in bytes, given as a number or a text such as ``16MiB``.

    Raises:
        UsageError: It is not at least 1 byte.
    """
    try:
        found: Any = parse_size_bytes(value) if isinstance(value, str) else value
    except ValueError as error:
        raise UsageError(f"{name}={value!r}: {error}") from None
    return positive(found, name)


def positive(value: Any, name: str) -> int:
    """Return a whole number of at least 1.

    Raises:
        UsageError: It is something else.
    """
    if type(value) is not int or value < 1:
        raise UsageError(f"{name}={value!r} must be a whole number of at least 1")
    return value


def _parts(url: Any) -> SplitResult | None:
    try:
        found = urlsplit(url)
        _ = found.port
    except (ValueError, TypeError, AttributeError):
        return None
    return found if isinstance(found, SplitResult) else None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    found = urlsplit(url)
    return found.scheme, found.hostname, found.port or _PORTS.get(found.scheme)


def _revealed(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _check_secret(value: Any, name: str) -> None:
    if value is not None and not isinstance(value, Secret):
        raise UsageError(
            f"{name} must be a Secret, so that it is never shown",
            hint='for example Secret(os.environ["TOKEN"])',
        )


def _check_tls(tls: Any, scheme: str) -> None:
    if tls is None:
        return
    if not isinstance(tls, ssl.SSLContext) and not callable(tls):
        raise UsageError(
            f"tls= must be an ssl.SSLContext or a function that returns one, "
            f"not {type(tls).__name__}",
            hint='for example tls=ssl.create_default_context(cafile="ca.pem")',
        )
    if scheme != "https":
        raise UsageError("tls= has no effect on a URL with http", hint="use https")
