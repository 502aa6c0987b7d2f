"""Writes values as JSON."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from streamkit.serde.finite import lost_float
from streamkit.serde.kinds import is_pydantic
from streamkit.serde.pydantic_values import dump_model


def _other(value: Any) -> Any:
    """Encode a value of a type that msgspec does not support."""
    if is_pydantic(type(value)):
        return msgspec.Raw(dump_model(value))
    raise TypeError(f"values of type {type(value).__name__!r} cannot be written as JSON")


def plain_values(value: Any) -> Any:
    """Return a value as `dumps` writes it, but times, decimals and bytes stay what they are.

    Raises:
        TypeError: The value cannot be written as JSON.
    """
    return msgspec.to_builtins(value, builtin_types=_KEPT, str_keys=True, enc_hook=_plain_other)


def _plain_other(value: Any) -> Any:
    if is_pydantic(type(value)):
        return msgspec.json.decode(dump_model(value))
    return _other(value)


_KEPT: Final = (bytes, bytearray, datetime, date, time, timedelta, Decimal)
# Writes NaN and infinity as null, so callers must check with `lost_float` afterwards.
dumps = msgspec.json.Encoder(enc_hook=_other).encode


def encode_json(value: Any) -> bytes:
    """Write one value as JSON.

    Raises:
        TypeError: The value cannot be written as JSON.
        ValueError: The value contains NaN or infinity, which JSON does not have.
    """
    data = dumps(value)
    fault = lost_float((value,), (data,))
    if fault is not None:
        raise fault[1]
    return data
