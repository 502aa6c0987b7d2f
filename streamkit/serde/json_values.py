"""Values as JSON, and which of them JSON cannot hold."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import repeat
from operator import contains
from typing import Any

import msgspec

from streamkit.serde.kinds import may_hold_floats
from streamkit.serde.pydantic_values import dump_model, is_pydantic

Fault = tuple[int, Exception]
_LEAVES = (str, bytes, int, type(None))
_SEQUENCES = (list, tuple, set, frozenset)


def _other(value: Any) -> Any:
    """Encode what msgspec does not know."""
    if is_pydantic(type(value)):
        return msgspec.Raw(dump_model(value))
    raise TypeError(f"values of type {type(value).__name__!r} cannot be written as JSON")


# Writes NaN and infinity as null: whoever uses it looks for `lost_float` afterwards.
dumps = msgspec.json.Encoder(enc_hook=_other).encode


def encode_json(value: Any) -> bytes:
    """Write one value as JSON.

    Raises:
        TypeError: It has no form in JSON.
        ValueError: It holds NaN or infinity, which JSON cannot say.
    """
    data = dumps(value)
    fault = lost_float((value,), (data,))
    if fault is not None:
        raise fault[1]
    return data


def lost_float(values: Sequence[Any], encoded: Sequence[bytes]) -> Fault | None:
    """Find the first row with a float that JSON cannot hold, and say why.

    Such floats were written as ``null``, so only rows with one are looked at.
    """
    if not any(map(contains, encoded, repeat(b"null"))):
        return None
    for row, data in enumerate(encoded):
        if b"null" in data:
            path = not_finite(values[row])
            if path is not None:
                where = f" at {path}" if path else ""
                return row, ValueError(
                    f"JSON has no NaN and no infinity, and the value has one{where}: "
                    "write None, or use a format of your own with value="
                )
    return None


def not_finite(value: Any) -> str | None:
    """Return the path to the first float in a value that is NaN or infinite; None without one."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    if isinstance(value, _LEAVES):
        return None
    for step, part in _parts(value):
        path = not_finite(part)
        if path is not None:
            return f"{step}{path}"
    return None


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return ((f"[{key!r}]", part) for key, part in value.items())
    if isinstance(value, _SEQUENCES):
        return ((f"[{number}]", part) for number, part in enumerate(value))
    if isinstance(value, enum.Enum):
        return ((".value", value.value),)
    if is_pydantic(type(value)):
        extra = getattr(value, "__pydantic_extra__", None) or {}
        return ((f".{name}", part) for name, part in (*vars(value).items(), *extra.items()))
    kind: type = type(value)
    names = _float_fields(kind)
    return ((f".{name}", getattr(value, name, None)) for name in names)


@cache
def _float_fields(kind: type) -> tuple[str, ...]:
    """Return the fields of a Struct, dataclass or attrs class that may hold a float."""
    if issubclass(kind, msgspec.Struct):
        hints: dict[str, Any] = {each.name: each.type for each in msgspec.structs.fields(kind)}
    elif dataclasses.is_dataclass(kind):
        hints = dict.fromkeys(each.name for each in dataclasses.fields(kind))
    else:
        hints = dict.fromkeys(each.name for each in getattr(kind, "__attrs_attrs__", ()))
    return tuple(name for name, hint in hints.items() if hint is None or may_hold_floats(hint))
