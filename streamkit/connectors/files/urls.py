"""URLs of objects and of files of HTTP servers, and what is shown of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from streamkit.errors import UsageError

SCHEMES: Final = ("s3", "gs", "az", "abfs", "abfss", "http", "https")
_GLOB: Final = re.compile(r"[*?\[]")
_QUERY: Final = re.compile(r"(https?://[^\s?\"'<>]*)\?[^\s\"'<>]*")


def is_object(path: str) -> bool:
    """Return whether a path is the URL of an object."""
    return "://" in path


def is_http(path: str) -> bool:
    """Return whether a path is the URL of a file of an HTTP server."""
    return path.startswith(("http://", "https://"))


def divided(url: str) -> tuple[str, str]:
    """Return the root of a URL, such as ``s3://bucket``, and the path in it.

    Raises:
        UsageError: The URL cannot be read.
    """
    scheme, _, rest = without_query(url).partition("://")
    root, _, path = rest.partition("/")
    if scheme not in SCHEMES or not root:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise UsageError(f"{scheme}:// of a path is not known", hint=f"there are {known}")
    if "@" in root and not _is_account(scheme, root):
        raise UsageError(
            f"the URL {scheme}://***@{root.rpartition('@')[2]} has a password",
            hint='give it in store=, for example store={"secret_access_key": Secret(...)}',
        )
    if is_http(url) and "*" in path:
        raise UsageError(
            f"{scheme}://{root}: a path on an HTTP server has no pattern", hint="name each file"
        )
    return f"{scheme}://{root}", path


def _is_account(scheme: str, root: str) -> bool:
    """Return whether a root is ``container@account.dfs.core.windows.net``."""
    return scheme.startswith("abfs") and root.count("@") == 1 and ":" not in root


def check_different(paths: Iterable[str]) -> None:
    """Refuse URLs that differ only in their queries, as queries are not part of a position.

    Raises:
        UsageError: There are two such URLs.
    """
    known: dict[str, str] = {}
    for path in filter(is_http, paths):
        if known.setdefault(without_query(path), path) != path:
            raise UsageError(
                f"two URLs of {without_query(path)} differ only in their query",
                hint="read each with a source of its own",
            )


def without_query(url: str) -> str:
    """Return the URL of a file of an HTTP server without its query; other paths as they are."""
    return url.partition("?")[0] if is_http(url) else url


def shown(text: str) -> str:
    """Return a text in which no URL has a query, because it may be a signature."""
    return _QUERY.sub(r"\1?***", text)


def fixed_folder(path: str) -> str | None:
    """Return the folder before the first pattern of a path; None if it has no pattern."""
    first = _GLOB.search(path)
    return None if first is None else path[: first.start()].rpartition("/")[0]


def matching(pattern: str) -> re.Pattern[str]:
    """Return a pattern of paths as a regular expression."""
    found = re.sub(
        r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|.",
        lambda match: _REGEX.get(match[0]) or _plain(match[0]),
        pattern,
        flags=re.DOTALL,
    )
    return re.compile(found)


_REGEX: Final = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _plain(text: str) -> str:
    if len(text) == 1:
        return re.escape(text)
    return f"[{'^' if text[1] == '!' else ''}{re.escape(text[1:-1].lstrip('!'))}]".replace(
        r"\-", "-"
    )
