"""What a response of a JSON API has: its JSON, values at paths in it, and links to other pages."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from streamkit.connectors.http.address import joined
from streamkit.errors import StreamKitError

Path = str | Callable[[Any], Any]

_MISSING: Final = object()
_LINK: Final = re.compile(r"<([^<>]*)>((?:\s*;\s*[^;,\"=\s]+(?:\s*=\s*(?:\"[^\"]*\"|[^;,\"]*))?)*)")
_REL: Final = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^;,\"\s]*))", re.IGNORECASE)
# A double has all digits of a number with at most 15 of them.
_EXACT_CHARACTERS_MAX: Final = 16


def decode_body(data: bytes) -> Any:
    """Return the JSON of a body; a number that a float does not have exactly is a Decimal.

    Raises:
        ValueError: It is not JSON.
    """
    text = data.removeprefix(codecs.BOM_UTF8)
    if not text.strip():
        raise ValueError("it is empty")
    try:
        return _decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _number(text: str) -> float | Decimal:
    found = float(text)
    if math.isfinite(found) and len(text) <= _EXACT_CHARACTERS_MAX:
        return found
    exact = Decimal(text)
    return found if exact == Decimal(repr(found)) else exact


_decode: Final = msgspec.json.Decoder(float_hook=_number).decode
encode_row: Final = msgspec.json.Encoder(decimal_format="number").encode


def found_at(path: Path, value: Any, missing: Any = None) -> Any:
    """Return the value at a path such as ``data.items``, or ``missing`` if the path ends early."""
    if callable(path):
        return path(value)
    if isinstance(value, Mapping) and path in value:  # a name with a dot, such as @odata.nextLink
        return value[path]
    for name in filter(None, path.split(".")):
        if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, Mapping) and name in value:
            value = value[name]
        else:
            return None if value is None else missing
    return value


def rows_of(body: Any, path: Path | None) -> list[Any]:
    """Return the records of a body: the list at a path, or the body itself.

    Some services write null for an empty list.

    Raises:
        StreamKitError: There is no list at the path.
    """
    found = body if path is None else found_at(path, body, missing=_MISSING)
    if found is None and not callable(path):
        return []
    if path is None and not isinstance(found, list):
        return [found]
    if found is _MISSING:
        raise StreamKitError(
            f"a response has nothing at records={path!r}",
            hint="set records= to the path of the list, for example records='data.items'",
        )
    if not isinstance(found, list | tuple):
        raise StreamKitError(
            f"the records of a response must be a list, but records={path!r} is "
            f"{type(found).__name__}",
            hint="set records= to the path of the list, for example records='data.items'",
        )
    return list(found)


def next_link(header: str, url: str) -> str | None:
    """Return the URL that a header ``Link`` has for ``rel=next``; None if it has none."""
    for found in _LINK.finditer(header):
        rel = _REL.search(found[2])
        names = (rel[1] or rel[2] or "").lower().split() if rel else []
        if "next" in names:
            return joined(url, str(found[1]))
    return None


def linked_at(path: Path, body: Any, url: str) -> str | None:
    """Return the URL of the next page, which is in the body; None if no page follows.

    Raises:
        StreamKitError: It is not a text.
    """
    found = found_at(path, body)
    if found is None or found is False or found == "":
        return None
    if not isinstance(found, str):
        raise StreamKitError(
            f"the URL of the next page must be a text, but next_url={path!r} is "
            f"{type(found).__name__}"
        )
    return joined(url, found)
