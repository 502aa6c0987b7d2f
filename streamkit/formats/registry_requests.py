"""Requests to a schema registry over HTTP, with a limit on the time of each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from streamkit.errors import RegistryError, UsageError
from streamkit.formats.format import missing_library
from streamkit.settings.secret import Secret

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
Auth = tuple[str, Secret]
Json = dict[str, Any]
_MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_TEXT_SHOWN_MAX: Final = 500
_REASONS: Final = {
    401: "it refuses the login",
    403: "it refuses the login",
    409: "the schema is not compatible with an earlier version",
    422: "it refuses the schema",
}
_HINTS: Final = {
    401: 'use auth=("user", Secret("password")) with a valid user and password',
    403: "the user of auth= may not do this",
    404: "is the url that of a registry?",
    409: "change the schema so that the compatibility rule of the subject allows it, or change the "
    "rule in the registry",
}


class _Refusal(msgspec.Struct):
    error_code: int = 0
    message: str = ""


class Refused(Exception):
    """The registry does not know what was asked for; ``code`` is that of the registry."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Requests:
    """Sends requests to one registry; each opens a connection of its own and closes it.

    Args:
        url: Without a slash at the end.
        auth: User and password, or a function that returns them.
        timeout_s: How long a request may take in total.

    Raises:
        UsageError: httpx2 is not installed.
    """

    def __init__(self, url: str, auth: Auth | Callable[[], Auth] | None, timeout_s: float) -> None:
        try:
            import httpx2  # noqa: F401  # only users of a registry need it
        except ImportError:
            raise missing_library("httpx2", "http", "a schema registry") from None
        self._url = url
        self._auth = auth
        self._timeout_s = timeout_s

    def send(self, method: str, path: str, body: Json | None = None) -> Json:
        """Send a request and return the object in its response.

        Raises:
            Refused: The registry answers that it does not know the schema, subject or version.
            RegistryError: There is no usable response.
        """
        import httpx2

        user = self._user()
        try:
            with httpx2.Client(auth=user, timeout=self._timeout_s) as client:
                response = within(
                    self._timeout_s, lambda: self._exchange(client, method, path, body)
                )
        except (TimeoutError, httpx2.TimeoutException):
            raise RegistryError(
                f"the schema registry {self._url} has not answered {method} {path} within "
                f"{self._timeout_s:g} s",
                retryable=True,
                hint="try again later, or use a longer timeout=",
            ) from None
        except Exception as error:  # also of TLS, and of variables for proxies and certificates
            raise RegistryError(
                f"the schema registry {self._url} cannot be reached: {error or repr(error)}",
                retryable=True,
                hint="is it running, and is its url right?",
            ) from error
        return self._result(response, f"{method} {path}")

    def _user(self) -> tuple[str, str] | None:
        try:
            auth = self._auth() if callable(self._auth) else self._auth
            return None if auth is None else (check_auth(auth)[0], auth[1].reveal())
        except Exception as error:  # of the user's function
            raise RegistryError(f"the function auth= of {self._url} has failed: {error}") from error

    def _exchange(
        self, client: httpx2.Client, method: str, path: str, body: Json | None
    ) -> httpx2.Response:
        return client.request(
            method,
            f"{self._url}{path}",
            content=None if body is None else msgspec.json.encode(body),
            headers={"Accept": f"{_MEDIA_TYPE}, application/json", "Content-Type": _MEDIA_TYPE},
        )

    def _result(self, response: httpx2.Response, what: str) -> Json:
        status = response.status_code
        if response.is_success:
            try:
                return msgspec.json.decode(response.content, type=Json)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise self._error(what, status, f"its response is not JSON: {error}") from None
        try:
            refusal = msgspec.json.decode(response.content, type=_Refusal)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            refusal = _Refusal()
        if status == 404 and refusal.error_code // 100 == 404:
            raise Refused(refusal.error_code, refusal.message)
        text = refusal.message or response.text[:_TEXT_SHOWN_MAX].strip() or "no text"
        reason = _REASONS.get(status, f"status {status}")
        raise self._error(what, status, f"{reason}: {text}")

    def _error(self, what: str, status: int, text: str) -> RegistryError:
        return RegistryError(
            f"{what} failed at the schema registry {self._url}: {text}",
            status=status,
            retryable=status >= 500 or status == 429,
            hint=_HINTS.get(status, "is the url that of a registry?" if status < 400 else ""),
        )


def within(seconds: float, call: Callable[[], T]) -> T:
    """Make a call in a thread and return its result.

    The limits of an HTTP client are for each packet, so a server that sends slowly could take for
    ever. After a timeout the client is closed, so the thread ends with the next packet or timeout.

    Raises:
        TimeoutError: The call takes longer.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # raised again in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, name="streamkit-registry", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]


def check_auth(auth: Auth) -> Auth:
    """Return a user and a password.

    Raises:
        UsageError: They are something else.
    """
    is_pair = isinstance(auth, tuple) and len(auth) == 2
    if not is_pair or not isinstance(auth[0], str) or not isinstance(auth[1], Secret):
        raise UsageError(
            "auth= is not a pair of a user and a Secret",
            hint='for example auth=("user", Secret("password"))',
        )
    return auth
