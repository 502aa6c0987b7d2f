"""The last step before a sink: values become bytes, and none of them says something else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from streamkit.dataflow.operators import Room, RowFailed, Stateless, one_per_row
from streamkit.record import Chunk
from streamkit.serde.values import ValueEncoder


@dataclass(frozen=True, slots=True)
class Encode(Stateless):
    """Replace each value by its bytes.

    Encoders do not call back for each record, so what they cannot see is looked for in the whole
    column afterwards, and fails like a function that raised on that row.
    """

    encoder: ValueEncoder

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        def checked(encoded: Chunk) -> Chunk:
            return self._checked(chunk, encoded)

        encoded = one_per_row(partial(map, self.encoder.dumps), chunk, room, finish=checked)
        return checked(chunk.with_values(encoded))

    def _checked(self, chunk: Chunk, encoded: Chunk) -> Chunk:
        """Return ``encoded``, which has the first rows of ``chunk``, if every row is right."""
        if self.encoder.fault is None:
            return encoded
        values = chunk.slice(0, len(encoded)).values
        fault = self.encoder.fault(values, encoded.values)
        if fault is None:
            return encoded
        row, error = fault
        raise RowFailed(row, encoded.slice(0, row)) from error
