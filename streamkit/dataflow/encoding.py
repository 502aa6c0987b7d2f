"""The first step after a source decodes values; the last one before a sink encodes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from streamkit.dataflow.contracts import Decoder
from streamkit.dataflow.operators import one_per_row
from streamkit.dataflow.steps import Room, RowFailed, Stateless
from streamkit.record import Chunk
from streamkit.serde.binding import BoundFormat, Serde
from streamkit.serde.values import ValueEncoder


@dataclass(frozen=True, slots=True)
class Decode(Stateless):
    """Replaces each row of a connector with its value.

    The whole column is decoded at once. Only if that fails, each row is decoded alone, which finds
    the first row that is not valid. ``serde`` is the user's format, if there is one.
    """

    decoder: Decoder
    serde: Serde | BoundFormat | None = None

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        many = self.decoder.many
        if many is not None:
            try:
                values = many(chunk.values)
            except Exception:
                pass  # the row is found below, where it raises again
            else:
                assert len(values) == len(chunk), "a decoder returns one value for each row"
                return chunk.with_values(values)
        decode = partial(map, self.decoder.one)
        return chunk.with_values(one_per_row(decode, chunk, room))


@dataclass(frozen=True, slots=True)
class Encode(Stateless):
    """Replaces each value with its bytes.

    Some faults, such as NaN in JSON, do not make the encoder raise. They are searched for in the
    whole column afterwards; such a row fails as if the encoder had raised.
    """

    encoder: ValueEncoder

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        def checked(encoded: Chunk) -> Chunk:
            return self._checked(chunk, encoded)

        encoded = one_per_row(partial(map, self.encoder.dumps), chunk, room, finish=checked)
        return checked(chunk.with_values(encoded))

    def _checked(self, chunk: Chunk, encoded: Chunk) -> Chunk:
        """Return ``encoded``, which has the first rows of ``chunk``, if it has no faults."""
        if self.encoder.fault is None:
            return encoded
        values = chunk.slice(0, len(encoded)).values
        fault = self.encoder.fault(values, encoded.values)
        if fault is None:
            return encoded
        row, error = fault
        raise RowFailed(row, encoded.slice(0, row)) from error
