"""Values of pydantic's models. pydantic is never imported: who has a model has imported it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from streamkit.serde.kinds import bare, classes_in, is_pydantic


def holds_pydantic(kind: Any) -> bool:
    """Tell whether a type is a model, or is made of some."""
    if "pydantic" not in sys.modules:
        return False
    kind = bare(kind)
    if is_pydantic(kind) or any(map(holds_pydantic, get_args(kind))):
        return True
    try:
        return any(map(is_pydantic, classes_in(kind)))
    except Exception:  # said where the type is used, with more words
        return False


def pydantic_loads(kind: Any) -> Callable[[bytes], Any]:
    """Choose what reads values of a type from JSON."""
    loads: Callable[[bytes], Any] = _adapter(kind).validate_json
    return loads


def pydantic_dumps(kind: Any) -> Callable[[Any], bytes]:
    """Choose what writes values of a type as JSON that `pydantic_loads` can read."""
    # By alias and without computed fields, since that is what validation takes; a value of
    # another type is an error, not a warning.
    return partial(_adapter(kind).dump_json, by_alias=True, round_trip=True, warnings="error")


def dump_model(value: Any) -> bytes:
    """Write one model as JSON."""
    data: bytes = pydantic_dumps(type(value))(value)
    return data


def _adapter(kind: Any) -> Any:
    return sys.modules["pydantic"].TypeAdapter(kind)
