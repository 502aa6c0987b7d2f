"""Columns of lists and dicts. Their parts are columns too, which are built and read at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain, pairwise

from streamkit.frames.column import Column, arrow_types, pyarrow
from streamkit.record import Value


class Lists(Column):
    """Lists, sets and tuples. ``make`` makes one of a list; ``kinds`` are their classes."""

    name = "list"

    def __init__(
        self,
        part: Column,
        make: Callable[[list[Value]], Value],
        kinds: tuple[type, ...],
        *,
        is_nullable: bool = False,
    ) -> None:
        self.kinds = kinds
        super().__init__(is_nullable=is_nullable)
        self._part = part
        self._make = make
        self.arrow = pyarrow.list_(pyarrow.field("item", part.arrow, part.is_nullable))

    def reads(self, given: pyarrow.DataType) -> bool:
        return _is_list(given) and not self._part.problem(given.value_type)

    def _build(self, values: Sequence[Value]) -> pyarrow.Array:
        parts = self._part.build(list(chain.from_iterable(filter(None, values))))
        return pyarrow.ListArray.from_arrays(_offsets(values), parts, type=self.arrow)

    def _cast(self, array: pyarrow.Array) -> pyarrow.Array:
        # Only the kind of list; the parts cast themselves, and more strictly.
        is_plain = arrow_types.is_list(array.type)
        return array if is_plain else array.cast(pyarrow.list_(array.type.value_type))

    def _read(self, array: pyarrow.Array) -> list[Value]:
        parts = self._part.read(array.flatten())
        lengths = array.value_lengths().to_pylist()
        ends = accumulate((each or 0 for each in lengths), initial=0)
        make = self._make
        return [
            None if length is None else make(parts[start:end])
            for length, (start, end) in zip(lengths, pairwise(ends), strict=True)
        ]


class Maps(Column):
    """Dicts with keys of one type and values of another one."""

    name = "dict"
    kinds = (dict,)

    def __init__(self, key: Column, part: Column, *, is_nullable: bool = False) -> None:
        super().__init__(is_nullable=is_nullable)
        self._key = key
        self._part = part
        value = pyarrow.field("value", part.arrow, part.is_nullable)
        self.arrow = pyarrow.map_(pyarrow.field("key", key.arrow, False), value)

    def reads(self, given: pyarrow.DataType) -> bool:
        if not arrow_types.is_map(given):
            return False
        return not (self._key.problem(given.key_type) or self._part.problem(given.item_type))

    def _build(self, values: Sequence[Value]) -> pyarrow.Array:
        full = list(filter(None, values))
        keys = self._key.build(list(chain.from_iterable(full)))
        parts = self._part.build(list(chain.from_iterable(each.values() for each in full)))
        return pyarrow.MapArray.from_arrays(_offsets(values), keys, parts, type=self.arrow)

    def _cast(self, array: pyarrow.Array) -> pyarrow.Array:
        return array  # its keys and values cast themselves

    def _read(self, array: pyarrow.Array) -> list[Value]:
        # The keys and items of a slice are those of the whole array.
        ends = array.offsets.to_pylist()
        first, count = ends[0], ends[-1] - ends[0]
        keys = self._key.read(array.keys.slice(first, count))
        parts = self._part.read(array.items.slice(first, count))
        places = [(start - first, end - first) for start, end in pairwise(ends)]
        found: list[Value] = [
            dict(zip(keys[start:end], parts[start:end], strict=True)) for start, end in places
        ]
        if not array.null_count:
            return found
        is_valid = array.is_valid().to_pylist()
        return [each if valid else None for each, valid in zip(found, is_valid, strict=True)]


def _offsets(values: Iterable[Value]) -> pyarrow.Array:
    """Return where each value begins in the column of all parts; null for None."""
    listed = list(values)
    ends = list(accumulate((0 if each is None else len(each) for each in listed), initial=0))
    starts = [None if each is None else start for each, start in zip(listed, ends, strict=False)]
    return pyarrow.array([*starts, ends[-1]], pyarrow.int32())


def _is_list(given: pyarrow.DataType) -> bool:
    return bool(
        arrow_types.is_list(given)
        or arrow_types.is_large_list(given)
        or arrow_types.is_fixed_size_list(given)
        or arrow_types.is_list_view(given)
        or arrow_types.is_large_list_view(given)
    )
