"""MessagePack, as msgspec reads and writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from streamkit.errors import TopologyError
from streamkit.formats.format import Format, described, reading, refuse_unsupported, writing
from streamkit.serde.binding import BoundFormat, Usage

_dumps = msgspec.msgpack.Encoder().encode
_in_order = msgspec.msgpack.Encoder(order="deterministic").encode


@dataclass(frozen=True)
class MessagePack(Format):
    """MessagePack: the types of JSON in binary, and also bytes, NaN and infinity.

    Whole numbers have at most 64 bits.

    Args:
        type: The type of the values; by default the annotated one.
    """

    def for_use(self, usage: Usage) -> BoundFormat:
        kind = self._kind(usage)
        kind = Any if kind is None else kind
        refuse_unsupported(kind, "MessagePack")
        try:
            loads = msgspec.msgpack.Decoder(kind).decode
        except (TypeError, ValueError) as error:
            raise TopologyError(f"MessagePack cannot represent {kind}: {error}") from None
        what = described("MessagePack", kind)
        dumps = _in_order if usage.part == "key" else _dumps
        return BoundFormat(reading(what, loads), writing(what, dumps))
