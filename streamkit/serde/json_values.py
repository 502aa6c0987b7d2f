"""Writes values as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from streamkit.serde.finite import lost_float
from streamkit.serde.kinds import is_pydantic
from streamkit.serde.pydantic_values import dump_model


def _other(value: Any) -> Any:
    """Encode a value of a type that msgspec does not support."""
    if is_pydantic(type(value)):
        return msgspec.Raw(dump_model(value))
    raise TypeError(f"values of type {type(value).__name__!r} cannot be written as JSON")


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
