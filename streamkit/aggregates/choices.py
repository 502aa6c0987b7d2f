"""Aggregates that choose some of the values."""

from __future__ import annotations

from streamkit.aggregates.base import (
    Aggregator,
    By,
    generic,
    item_of,
    optional,
)
from streamkit.errors import UsageError
from streamkit.record import Value


class _Choice(Aggregator[Value]):
    """One of the values; None if there is none. Subclasses choose between two of them."""

    is_of_user = True

    def __init__(self, by: By) -> None:
        super().__init__(by)

    def stored_type(self, field_type: Value) -> Value:
        return optional(field_type)

    def merge(self, left: Value, right: Value) -> Value:
        if left is None or right is None:
            return right if left is None else left
        return self._chosen(left, right)

    def _chosen(self, left: Value, right: Value) -> Value:
        raise AssertionError("each choice defines it")


class Min(_Choice):
    """The smallest value; None if there is none."""

    first = "{x}"
    add = "{a} if {x} is None or ({a} is not None and {a} <= {x}) else {x}"

    def _chosen(self, left: Value, right: Value) -> Value:
        return min(left, right)


class Max(_Choice):
    """The largest value; None if there is none."""

    first = "{x}"
    add = "{a} if {x} is None or ({a} is not None and {a} >= {x}) else {x}"

    def _chosen(self, left: Value, right: Value) -> Value:
        return max(left, right)


class _TimedChoice(_Choice):
    """The value of one record, which is kept with its event time."""

    def stored_type(self, field_type: Value) -> Value:
        return generic(tuple, int, optional(field_type)) | None

    def result(self, aggregate: Value) -> Value:
        return None if aggregate is None else aggregate[1]


class First(_TimedChoice):
    """The value of the record with the lowest event time; None if there is none.

    Of records with the same event time, the first that arrived.
    """

    first = "None if {x} is None else ({t}, {x})"
    add = "{a} if {x} is None or ({a} is not None and {a}[0] <= {t}) else ({t}, {x})"

    def _chosen(self, left: Value, right: Value) -> Value:
        return left if left[0] <= right[0] else right


class Last(_TimedChoice):
    """The value of the record with the highest event time; None if there is none.

    Of records with the same event time, the last that arrived.
    """

    first = "None if {x} is None else ({t}, {x})"
    add = "{a} if {x} is None or ({a} is not None and {a}[0] > {t}) else ({t}, {x})"

    def _chosen(self, left: Value, right: Value) -> Value:
        return left if left[0] > right[0] else right


class TopN(Aggregator[list[Value]]):
    """The largest values, largest first.

    Args:
        n: How many.
        by: The value that is compared.
        of: What is listed; by default the value itself.
    """

    is_of_user = True
    first = "{push}([], {x})"
    add = "{push}({a}, {x})"
    is_mutable = True

    def __init__(self, n: int, by: By, of: By | None = None) -> None:
        if type(n) is not int or n < 1:
            raise UsageError(f"TopN({n!r}): the number must be at least 1")
        super().__init__(by)
        rank = by
        self.by = (
            (lambda row: (rank(row), None)) if of is None else lambda row: (rank(row), of(row))
        )
        self._lists_values = of is None
        self._n = n

    def __str__(self) -> str:
        return f"TopN {self._n}"

    def names(self, field_type: Value) -> dict[str, Value]:
        return {"push": self._push}

    def stored_type(self, field_type: Value) -> Value:
        item = item_of(field_type)
        pair = (item, None) if self._lists_values else (Value, item)
        return generic(list, generic(tuple, *pair))

    def merge(self, left: Value, right: Value) -> Value:
        merged = list(left)
        for each in right:
            self._push(merged, each)
        return merged

    def result(self, aggregate: Value) -> Value:
        return [value if self._lists_values else item for value, item in aggregate]

    def _push(self, top: list[Value], ranked: tuple[Value, Value]) -> list[Value]:
        value = ranked[0]
        if value is None:
            return top
        at = len(top)
        while at and top[at - 1][0] < value:
            at -= 1
        if at < self._n:
            top.insert(at, ranked)
            del top[self._n :]
        return top
