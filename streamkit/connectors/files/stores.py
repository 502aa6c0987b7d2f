"""Stores of objects and HTTP servers as obstore opens them, and its errors as ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from streamkit.connectors.files.urls import is_http, shown
from streamkit.errors import ConfigError, DataError
from streamkit.settings import Secret

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# What obstore takes apart from the configuration of a store, where these names would end in a
# panic.
_OF_CLIENT: Final = frozenset(
    (
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "default_content_type",
        "default_headers",
        "http1_only",
        "http2_keep_alive_interval",
        "http2_keep_alive_timeout",
        "http2_keep_alive_while_idle",
        "http2_only",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_url",
        "proxy_ca_certificate",
        "proxy_excludes",
        "randomize_addresses",
        "read_timeout",
        "root_certificate",
        "timeout",
        "user_agent",
    )
)
_ENDPOINTS: Final = ("endpoint", "endpoint_url", "endpoint_url_s3", "base_url", "storage_endpoint")
# Where obstore finds an endpoint that is not in the options.
_ENDPOINT_VARIABLES: Final = {
    "s3": ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_SECRET_PARTS: Final = ("key", "secret", "token", "password")
_SECRET_CHARACTERS_MIN: Final = 4  # to hide shorter ones would make a text unreadable
_CREDENTIALS: Final = {
    "s3": "access_key_id and secret_access_key",
    "gs": "service_account, the path of a key file, or bearer_token",
    "az": "account_name, and account_key or sas_key",
}


class NoParts(DataError):
    """A server does not send parts of files."""


class Replaced(DataError):
    """An object is not the one that was found; it may also be deleted."""


class CutAnswer(DataError):
    """A connection was lost in the middle of an answer."""


class Stores:
    """Opens the stores of URLs.

    Args:
        options: The configuration, as obstore names it; the rest is taken from the environment.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        plain = {
            name: each.reveal() if isinstance(each, Secret) else each
            for name, each in options.items()
        }
        self._client = {name: each for name, each in plain.items() if name in _OF_CLIENT}
        self._config = {name: each for name, each in plain.items() if name not in _OF_CLIENT}
        self._secrets = sorted(_secrets_of(options), key=len, reverse=True)
        self._opened: dict[str, ObjectStore] = {}

    def of(self, root: str) -> ObjectStore:
        """Return the store of a bucket, or of the URL of one file of an HTTP server.

        Raises:
            ConfigError: The options are not valid for it.
        """
        store = self._opened.get(root)
        if store is None:
            store = self._opened[root] = self._open(root)
        return store

    def close(self) -> None:
        """Close the connections, which are kept open for the next request."""
        self._opened.clear()

    def _open(self, root: str) -> ObjectStore:
        client: Any = self._client_options(root)
        try:
            from obstore.store import HTTPStore, from_url

            if is_http(root):  # `from_url` takes some hosts for S3 or Azure
                return HTTPStore(root, client_options=client or None)
            config: Any = self._config
            return from_url(root, config=config, client_options=client or None)
        except Exception as error:  # obstore has several kinds for options that are not valid
            raise ConfigError(
                f"store= for {shown(root)} is not valid: {self.hidden(error)}",
                hint=f"the names are those of obstore's configuration, such as {_hint(root)}",
            ) from None

    def _client_options(self, root: str) -> dict[str, object]:
        found = dict(self._client)
        if any(each.startswith("http://") for each in self._endpoints(root)):
            found.setdefault("allow_http", True)
        if _kind(root) == "gs":  # without it, Google decompresses objects, and ignores ranges
            headers = {"accept-encoding": "gzip"}
            given = found.get("default_headers")
            found["default_headers"] = {**headers, **(given if isinstance(given, dict) else {})}
        return found

    def _endpoints(self, root: str) -> list[str]:
        if is_http(root):
            return [root]
        given = [
            str(each)
            for name, each in self._config.items()
            if name.lower().removeprefix("aws_").removeprefix("google_").removeprefix("azure_")
            in _ENDPOINTS
        ]
        variables = _ENDPOINT_VARIABLES[_kind(root)]
        return given or [os.environ[name] for name in variables if name in os.environ]

    @contextmanager
    def errors(self, place: str, done: str = "read") -> Iterator[None]:
        """Turn errors of obstore into ours, without secrets.

        Raises:
            FileNotFoundError: There is no such object.
            CutAnswer: The connection was lost in the middle of the answer.
            NoParts: The server does not send parts of files.
            Replaced: The object is not the one of the condition.
            StreamKitError: Anything else.
        """
        from obstore import exceptions

        try:
            yield
        except (FileNotFoundError, exceptions.NotFoundError):
            if place.count("/") > 2:
                raise FileNotFoundError(errno.ENOENT, "there is no such object", place) from None
            raise ConfigError(f"{place} does not exist", hint="correct the name") from None
        except exceptions.PreconditionError:
            raise Replaced(
                f"{place} was replaced by another object while it was read",
                hint="run the job again: it reads the new object from its beginning",
            ) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise self._denied(place, done, error) from None
        except exceptions.NotSupportedError as error:
            raise NoParts(self.hidden(error)) from None
        except exceptions.BaseError as error:
            # A list of objects has only the common error.
            if "404 Not Found" in str(error):
                raise ConfigError(f"{place} does not exist", hint="correct the name") from None
            if "403 Forbidden" in str(error) or "401 Unauthorized" in str(error):
                raise self._denied(place, done, error) from None
            kind = CutAnswer if "body error" in str(error) else DataError
            raise kind(f"{place} cannot be {done}: {self.hidden(error)}") from None

    def _denied(self, place: str, done: str, error: Exception) -> ConfigError:
        hint = "the URL may have expired"
        if not is_http(place):
            hint = f"give the credentials in store= or in the environment: {_hint(place)}"
        return ConfigError(
            f"{place} cannot be {done}: access is denied: {self.hidden(error)}", hint=hint
        )

    def hidden(self, error: Exception) -> str:
        """Return the text of an error without secrets and queries."""
        text = str(error).partition("\n\nDebug source:")[0].strip()
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return shown(" ".join(text.split()))


def obstore() -> ModuleType:
    """Return the library.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import obstore
    except ImportError as error:
        raise ConfigError(
            f"URLs of objects need the library obstore, which cannot be imported: {error}",
            hint="it needs `pip install 'fluvio-streamkit[objects]'`",
        ) from None
    return obstore


def _secrets_of(options: Mapping[str, object]) -> set[str]:
    """Return the values that must not be shown: also those that were given as plain text."""
    found = {each.reveal() for each in options.values() if isinstance(each, Secret)}
    for name, each in options.items():
        is_named = any(part in name.lower() for part in _SECRET_PARTS)
        if is_named and isinstance(each, str) and not name.lower().endswith("_id"):
            found.add(each)
    return {each for each in found if len(each) >= _SECRET_CHARACTERS_MIN}


def _kind(root: str) -> str:
    scheme = root.partition("://")[0]
    return "az" if scheme.startswith("abfs") else scheme


def _hint(place: str) -> str:
    return _CREDENTIALS.get(_kind(place), "timeout")
