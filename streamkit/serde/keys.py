"""Keys of records: what a user gives and gets, and their bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Union

from streamkit.errors import TopologyError, UsageError
from streamkit.record import Kind
from streamkit.serde.binding import BoundFormat, Serde, Usage, bound, method_of
from streamkit.serde.kinds import members

KeyReader = Callable[[bytes | None], Any]
_OPTION = "key_format="


def encode_key(key: Any) -> bytes | None:
    """Write a key: bytes raw, str as UTF-8, None for no key.

    Raises:
        UsageError: The key has another type.
    """
    if key is None or type(key) is bytes:
        return key
    if type(key) is str:
        return key.encode()
    raise UsageError(
        f"a key must be bytes, str or None, not {type(key).__name__} ({key!r})",
        hint="return bytes, str or None from key=, for example key=lambda row: str(row.id), "
        "or name a format with key_format=",
    )


def key_encoder(serde: Serde | None, usage: Usage) -> Callable[[Any], bytes | None]:
    """Return how the results of ``key=`` are written.

    Bytes and None are written as they are, everything else with the format.

    Raises:
        TopologyError: The format cannot represent keys of the type.
    """
    if serde is None:
        return encode_key
    found = bound(serde, usage)
    dumps = method_of(found, "dumps", _OPTION)
    checked = dumps if isinstance(found, BoundFormat) else lambda key: encode_key(dumps(key))
    return lambda key: key if key is None or type(key) is bytes else checked(key)


def key_reader(kind: Kind, serde: Serde | None = None, topic: str = "") -> KeyReader:
    """Return how a context shows keys: with a format, or else as ``str`` or ``bytes``.

    A record without a key has the key None. ``Context[bytes]`` shows the bytes, whatever the format
    of the keys is.

    Raises:
        TopologyError: The annotation is another type, or the format cannot represent it.
    """
    kinds = [each for each in members(kind) if each not in (None, type(None))]
    known = [each for each in kinds if each is not Any]
    if serde is not None and known != [bytes]:
        wanted = Union[tuple(kinds)] if kinds else None  # noqa: UP007
        return stored_key_reader(serde, Usage(wanted, topic, "key"))
    if known == [str]:
        return _key_text
    if known in ([], [bytes]):
        return _key_bytes
    raise TopologyError(
        f"a Context cannot have keys of type {kind}",
        hint="annotate Context[str] or Context[bytes], or name the format of the keys with "
        "key_format= of the source",
    )


def stored_key_reader(serde: Serde, usage: Usage) -> KeyReader:
    """Return how keys are read with a format; None if a record has no key."""
    loads = method_of(bound(serde, usage), "loads", _OPTION)
    return lambda key: None if key is None else loads(key)


def _key_text(key: bytes | None) -> str | None:
    return None if key is None else key.decode()


def _key_bytes(key: bytes | None) -> bytes | None:
    return key
