"""What a format is, and how it learns where it is used: the type, the topic, key or value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from streamkit.errors import TopologyError
from streamkit.record import Kind, Value
from streamkit.serde.finite import Fault

FindFault = Callable[[Sequence[Any], Sequence[bytes]], Fault | None]
Part = Literal["key", "value"]


class Serde(Protocol):
    """A format for ``value=`` and ``key_format=``.

    If it also has a method ``for_use(usage)``, streamkit calls that once with a `Usage`, while the
    graph is built, and uses the returned format.
    """

    def loads(self, data: bytes, /) -> Any:
        """Decode a value; raise if the bytes are not valid."""

    def dumps(self, value: Any, /) -> bytes:
        """Encode a value."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Where a format is used.

    Attributes:
        kind: The annotated type of the values; None if it is not known.
        topic: The topic whose records have the values.
        part: Whether the values are keys or values of records.
        is_written: Whether a sink writes the values; otherwise a source reads them.
    """

    kind: Kind = None
    topic: str = ""
    part: Part = "value"
    is_written: bool = False


@dataclass(frozen=True, slots=True)
class BoundFormat:
    """A format for one `Usage`. ``dumps`` returns bytes or raises.

    ``fault`` finds values in a column that ``dumps`` has not refused, although their bytes do not
    represent them; see `streamkit.serde.values.ValueEncoder`.
    """

    loads: Callable[[bytes], Value]
    dumps: Callable[[Value], bytes]
    fault: FindFault | None = None


def bound(serde: Serde, usage: Usage) -> Serde | BoundFormat:
    """Return a format for one use; a format without ``for_use`` is the same everywhere.

    Raises:
        TopologyError: The format cannot represent values of the type.
    """
    for_use = None if isinstance(serde, type) else getattr(serde, "for_use", None)
    found: Serde | BoundFormat = serde if for_use is None else for_use(usage)
    return found


def method_of(serde: object, name: str, option: str = "value=") -> Callable[[Any], Any]:
    """Return a method of a format.

    Raises:
        TopologyError: The format does not have the method, or it is not a plain method.
    """
    if isinstance(serde, type):
        raise TopologyError(
            f"{option}{serde.__name__} is a class, not a format",
            hint=f"use an instance: {option}{serde.__name__}()",
        )
    method = getattr(serde, name, None)
    is_lazy = inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method)
    if not callable(method) or is_lazy:
        raise TopologyError(
            f"{option}{serde!r} needs a plain method {name!r}",
            hint="a format has two plain methods, loads(data) and dumps(value)",
        )
    found: Callable[[Any], Any] = method
    return found
