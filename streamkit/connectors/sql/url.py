"""Addresses of databases, which never show a password."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from streamkit.errors import UsageError
from streamkit.settings.secret import HIDDEN, Secret

System = Literal["postgresql", "sqlite", "sqlalchemy"]

_SCHEME: Final = re.compile(r"[a-z][a-z0-9_]*(?:\+[a-z0-9_]+)?", re.IGNORECASE)
# A host, an IPv6 address in brackets, or a folder of sockets; libpq accepts several.
_HOST: Final = re.compile(
    r"(?:[\w.\-]*|\[[0-9a-fA-F:.%]+\]|(?:%2F[\w.\-]*)+)(?::\d{1,5})?", re.ASCII
)
_POSTGRES: Final = ("postgresql", "postgres")
_SECRET_OPTIONS: Final = ("password", "sslpassword", "oauth_client_secret")
_EXAMPLES: Final = "postgresql://user:password@host/database or sqlite:///path/to/file.db"
# A shorter text may be a part of any other word, such as a host name.
_CHARACTERS_MIN: Final = 4


@dataclass(frozen=True, slots=True)
class Database:
    """A database: how to open it, and how to name it in texts.

    ``shown`` has no password and no options. ``path`` is the file of an SQLite database.
    """

    system: System
    url: Secret
    shown: str
    path: Path | None = None

    def __str__(self) -> str:
        return self.shown

    def hidden(self, text: str) -> str:
        """Return a text, such as that of an error, without the URL and its passwords."""
        for secret in _secrets(self.url.reveal()):
            text = text.replace(secret, HIDDEN)
        return text


def database_of(url: str | Secret) -> Database:
    """Read the URL of a database.

    Raises:
        UsageError: It is not a valid URL. The text does not show the URL, which may have a
            password.
    """
    if not isinstance(url, str | Secret):
        raise UsageError(
            f"the URL of a database must be text, not {type(url).__name__}", hint=_EXAMPLES
        )
    text = url.reveal() if isinstance(url, Secret) else url
    scheme, separator, rest = text.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        raise UsageError("the URL of a database must begin with scheme://", hint=_EXAMPLES)
    secret = url if isinstance(url, Secret) else Secret(url)
    name = scheme.lower()
    if name == "sqlite":
        path = _sqlite_path(rest)
        return Database("sqlite", secret, f"sqlite:///{path}", path)
    system: System = "postgresql" if name in _POSTGRES else "sqlalchemy"
    return Database(system, secret, _without_secrets(name, text))


def _sqlite_path(rest: str) -> Path:
    # As in SQLAlchemy: three slashes before a relative path, four before an absolute one.
    path, _, options = rest.partition("?")
    if options:
        raise UsageError("the URL of an SQLite database has no options", hint=_EXAMPLES)
    if not path.startswith("/"):
        raise UsageError(
            "the URL of an SQLite database needs three slashes before its path",
            hint="sqlite:///file.db for a relative path, sqlite:////folder/file.db for an "
            "absolute one",
        )
    if path[1:] in ("", ":memory:"):
        raise UsageError(
            "an SQLite database needs a file: one in memory exists only for one connection",
            hint="sqlite:///file.db",
        )
    return Path(unquote(path[1:]))


def _without_secrets(scheme: str, url: str) -> str:
    """Return the part of a URL that may be shown.

    Raises:
        UsageError: A special character in the password makes the parts of the URL unclear.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # such as an unpaired bracket
        raise _unclear() from None
    hosts = parts.netloc.rpartition("@")[2]
    # With an unescaped "/", "?" or "#", the rest of a password would be read as a path.
    has_rest = "@" in parts.path or "@" in parts.query.partition("=")[0] or "@" in parts.fragment
    if has_rest or not all(map(_HOST.fullmatch, hosts.split(","))):
        raise _unclear()
    user = f"{unquote(parts.username)}@" if parts.username else ""
    return f"{scheme}://{user}{hosts}{parts.path}"


def _unclear() -> UsageError:
    return UsageError(
        "the URL of a database cannot be read: a special character in the user or password, or "
        "an invalid port",
        hint="write special characters of the password as %XX, "
        "with urllib.parse.quote(password, safe='')",
    )


def _secrets(url: str) -> list[str]:
    """Return the texts to hide, longest first."""
    parts = urlsplit(url)
    found = {url} if parts.password or parts.query else set()
    options = (each.partition("=") for each in parts.query.split("&"))
    passwords = [value for name, _, value in options if name in _SECRET_OPTIONS]
    for text in (parts.netloc.rpartition("@")[0].partition(":")[2], *passwords):
        found |= {text, unquote(text)}
    return sorted((each for each in found if len(each) >= _CHARACTERS_MIN), key=len, reverse=True)
