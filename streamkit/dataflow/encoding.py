"""The last step before a sink: encodes values as bytes and checks that nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from streamkit.dataflow.operators import one_per_row
from streamkit.dataflow.steps import Room, RowFailed, Stateless
from streamkit.record import Chunk
from streamkit.serde.values import ValueEncoder


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
