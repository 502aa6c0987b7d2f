"""What the formats of this package have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from streamkit.errors import DataError, RegistryError, TopologyError, UsageError
from streamkit.record import Kind, Value
from streamkit.serde.binding import BoundFormat, Usage
from streamkit.serde.kinds import bare, unsupported_in


@dataclass(frozen=True)
class Format(ABC):
    """A format that knows the type of its values, or learns it from the stage that it is used in.

    `loads` and `dumps` raise `DataError` for bytes and values that the format cannot represent.
    """

    type: Kind = None

    @abstractmethod
    def for_use(self, usage: Usage) -> BoundFormat:
        """Return the format for one use.

        Raises:
            TopologyError: It cannot represent values of the type.
        """

    def loads(self, data: bytes) -> Value:
        """Decode a value.

        Raises:
            DataError: The bytes are not a value of the type.
        """
        return self._unbound.loads(data)

    def dumps(self, value: Value) -> bytes:
        """Encode a value.

        Raises:
            DataError: The value cannot be represented.
        """
        data = self._unbound.dumps(value)
        fault = None if self._unbound.fault is None else self._unbound.fault((value,), (data,))
        if fault is not None:
            raise unwritable(fault[1], type(self).__name__)
        return data

    @cached_property
    def _unbound(self) -> BoundFormat:
        return self.for_use(Usage())

    def _kind(self, usage: Usage) -> Kind:
        """Return the type of the values: the format's own, or else that of the stage, or None."""
        return bare(usage.kind if self.type is None else self.type)


def unreadable(error: Exception, what: str) -> Exception:
    """Return the error for bytes that cannot be decoded: ``what`` names the format and the type."""
    if isinstance(error, RegistryError):
        return error
    return DataError(f"not valid {what}: {reason_of(error)}")


def unwritable(error: Exception, what: str) -> Exception:
    """Return the error for a value that cannot be encoded."""
    if isinstance(error, RegistryError):
        return error
    return DataError(f"cannot be written as {what}: {reason_of(error)}")


def reason_of(error: Exception) -> str:
    """Return what is wrong, from the error of a library."""
    if isinstance(error, UnicodeDecodeError):
        return f"not {error.encoding} text: {error.reason} at byte {error.start}"
    if isinstance(error, RecursionError):
        return "the value is nested too deeply"
    return str(error) or type(error).__name__


def reading(what: str, decode: Callable[[bytes], Value]) -> Callable[[bytes], Value]:
    """Return a decoder that raises `DataError` only."""

    def loads(data: bytes) -> Value:
        try:
            return decode(data)
        except Exception as error:
            raise unreadable(error, what) from error

    return loads


def writing(what: str, encode: Callable[[Value], bytes]) -> Callable[[Value], bytes]:
    """Return an encoder that raises `DataError` only."""

    def dumps(value: Value) -> bytes:
        try:
            return encode(value)
        except Exception as error:
            raise unwritable(error, what) from error

    return dumps


def described(name: str, kind: Kind) -> str:
    """Return a format and a type for an error text, such as ``JSON for Order``."""
    return name if kind is None or kind is Any else f"{name} for {shown_type(kind)}"


def shown_type(kind: Kind) -> str:
    """Return a type as a user would write it."""
    return str(kind.__name__ if isinstance(kind, type) else kind)


def refuse_unsupported(kind: Kind, name: str) -> None:
    """Refuse a type that msgspec cannot convert.

    Raises:
        TopologyError: It contains a class such as a plain one, or an unknown annotation.
    """
    try:
        refused = next(unsupported_in(kind), None)
    except Exception as error:  # an annotation that cannot be resolved
        raise TopologyError(f"{name} cannot represent values of {kind}: {error}") from None
    if refused is not None:
        raise TopologyError(
            f"{name} cannot represent values of type {shown_type(refused)}",
            hint="make it a msgspec.Struct or a dataclass",
        )


def missing_library(name: str, extra: str, what: str) -> UsageError:
    """Return the error for a library that is not installed."""
    return UsageError(
        f"{what} needs the library {name!r}",
        hint=f"install it: pip install 'fluvio-streamkit[{extra}]'",
    )
