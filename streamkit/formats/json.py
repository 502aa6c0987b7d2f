"""JSON, always: text has quotes, also if the type is ``str``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from streamkit.formats.format import Format, described, reading, unwritable, writing
from streamkit.record import Value
from streamkit.serde.binding import BoundFormat, FindFault, Usage
from streamkit.serde.values import json_encoder, json_loads

_in_order = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True)
class Json(Format):
    """JSON, as msgspec or pydantic write it. Unlike without a format, text has quotes.

    As a key format, it writes the fields of objects in one order, so that equal keys have equal
    bytes.

    Args:
        type: The type of the values; by default the annotated one.
    """

    def for_use(self, usage: Usage) -> BoundFormat:
        kind = self._kind(usage)
        kind = Any if kind is None else kind
        what = described("JSON", kind)
        encoder = json_encoder(kind)
        loads, dumps = reading(what, json_loads(kind)), writing(what, encoder.dumps)
        if usage.part == "key":
            return BoundFormat(loads, writing(what, lambda key: _key(key, encoder.fault)))
        return BoundFormat(loads, dumps, _named(encoder.fault, what))


def _key(key: Value, find: FindFault | None) -> bytes:
    data = _in_order(key)
    fault = None if find is None else find((key,), (data,))
    if fault is not None:
        raise fault[1]
    return data


def _named(find: FindFault | None, what: str) -> FindFault | None:
    """Return a search for faults whose errors are those of the format."""
    if find is None:
        return None

    def fault(values: Any, encoded: Any) -> tuple[int, Exception] | None:
        found = find(values, encoded)
        return None if found is None else (found[0], unwritable(found[1], what))

    return fault
