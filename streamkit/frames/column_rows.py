"""Rows that are still columns: they become values only where a single row is needed.

This file does not import pyarrow, because the engine asks for the class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, overload

from streamkit.record import Kind, Value

if TYPE_CHECKING:
    import pyarrow


class ColumnRows(Sequence[Value]):
    """The rows of a batch of Arrow as a sequence.

    A slice shares the columns. The values are made when one is indexed or all are iterated, and
    kept.

    Args:
        batch: The columns.
        kind: The type of the rows, whose columns these are.
        make: Returns the values of a batch; it must not fail.
    """

    __slots__ = ("_make", "_values", "batch", "kind")

    def __init__(
        self,
        batch: pyarrow.RecordBatch,
        kind: Kind,
        make: Callable[[pyarrow.RecordBatch], list[Value]],
    ) -> None:
        self.batch = batch
        self.kind = kind
        self._make = make
        self._values: list[Value] | None = None

    def __len__(self) -> int:
        return self.batch.num_rows  # type: ignore[no-any-return]

    @property
    def mean_bytes(self) -> int:
        """The size of a row in the columns."""
        return max(1, int(self.batch.nbytes) // max(1, len(self)))

    def values(self) -> list[Value]:
        """Return the values of all rows."""
        if self._values is None:
            self._values = self._make(self.batch)
        return self._values

    def part(self, start: int, stop: int) -> ColumnRows:
        """Return the rows from ``start`` up to ``stop``, without ``stop``."""
        batch = self.batch.slice(start, max(0, min(stop, len(self)) - start))
        found = ColumnRows(batch, self.kind, self._make)
        if self._values is not None:
            found._values = self._values[start:stop]
        return found

    def __iter__(self) -> Iterator[Value]:
        return iter(self.values())

    @overload
    def __getitem__(self, at: int) -> Value: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Value]: ...

    def __getitem__(self, at: int | slice) -> Value:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            return self.part(start, stop) if step == 1 else self.values()[at]
        if self._values is not None:
            return self._values[at]
        row = range(len(self))[at]
        return self._make(self.batch.slice(row, 1))[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return self.values() == list(other)

    __hash__ = None  # type: ignore[assignment]  # as for a list

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self.values(),)


def joined_values(parts: Sequence[Sequence[Value]]) -> Sequence[Value]:
    """Return the values of several parts; as columns, if all of them are of the same ones."""
    if len(parts) == 1:
        return parts[0]
    columns = [each for each in parts if type(each) is ColumnRows]
    if not columns or len(columns) < len(parts):
        return list(chain.from_iterable(parts))
    first = columns[0]
    if any(each.batch.schema != first.batch.schema for each in columns):
        return list(chain.from_iterable(parts))
    import pyarrow

    batch = pyarrow.concat_batches([each.batch for each in columns])
    return ColumnRows(batch, first.kind, first._make)


def single_values(values: Sequence[Value]) -> Sequence[Value]:
    """Return a column of values that can be indexed quickly."""
    return values.values() if type(values) is ColumnRows else values
