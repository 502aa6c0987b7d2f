"""Aggregates of numbers: counts, sums, means and quantiles."""

from __future__ import annotations

import math
import sys
from typing import TypeVar

from streamkit.aggregates.base import (
    ZEROS,
    Aggregator,
    By,
    generic,
    number_type,
    without_none,
)
from streamkit.errors import UsageError
from streamkit.record import Value

A = TypeVar("A")


class Count(Aggregator[int]):
    """The number of records; with ``by``, of those for which it does not return None."""

    result_type = int

    def __init__(self, by: By | None = None) -> None:
        super().__init__(by)
        if by is not None:
            self.first = "0 if {x} is None else 1"  # type: ignore[misc]
            self.add = "{a} if {x} is None else {a} + 1"  # type: ignore[misc]

    first = "1"
    add = "{a} + 1"

    def stored_type(self, field_type: Value) -> Value:
        return int

    def merge(self, left: Value, right: Value) -> Value:
        return left + right


class Sum(Aggregator[Value]):
    """The sum; 0 if there is no value."""

    first = "{zero} if {x} is None else {x}"
    add = "{a} if {x} is None else {a} + {x}"

    def __init__(self, by: By) -> None:
        super().__init__(by)

    def names(self, field_type: Value) -> dict[str, Value]:
        return {"zero": ZEROS.get(without_none(field_type), 0)}

    def stored_type(self, field_type: Value) -> Value:
        return number_type(field_type)

    def merge(self, left: Value, right: Value) -> Value:
        return left + right


class Mean(Aggregator[float | None]):
    """The mean; None if there is no value."""

    first = "(0, {zero}) if {x} is None else (1, {x})"
    add = "{a} if {x} is None else ({a}[0] + 1, {a}[1] + {x})"

    def __init__(self, by: By) -> None:
        super().__init__(by)

    def names(self, field_type: Value) -> dict[str, Value]:
        return {"zero": ZEROS.get(without_none(field_type), 0)}

    def stored_type(self, field_type: Value) -> Value:
        return generic(tuple, int, number_type(field_type))

    def merge(self, left: Value, right: Value) -> Value:
        return left[0] + right[0], left[1] + right[1]

    def result(self, aggregate: Value) -> Value:
        return aggregate[1] / aggregate[0] if aggregate[0] else None


class Std(Aggregator[float | None]):
    """The standard deviation of a sample; None if there are fewer than two values.

    Source: B. P. Welford, "Note on a method for calculating corrected sums of squares and
    products", Technometrics 4 (1962); merging: Chan, Golub and LeVeque (1979).
    """

    first = "(0, 0.0, 0.0) if {x} is None else (1, float({x}), 0.0)"
    add = "{a} if {x} is None else {step}({a}, {x})"

    def __init__(self, by: By) -> None:
        super().__init__(by)

    def names(self, field_type: Value) -> dict[str, Value]:
        return {"step": _welford}

    def stored_type(self, field_type: Value) -> Value:
        return tuple[int, float, float]

    def merge(self, left: Value, right: Value) -> Value:
        count = left[0] + right[0]
        if not count:
            return left
        apart = right[1] - left[1]
        mean = left[1] + apart * right[0] / count
        return count, mean, left[2] + right[2] + apart * apart * left[0] * right[0] / count

    def result(self, aggregate: Value) -> float | None:
        count, _, squares = aggregate
        return math.sqrt(squares / (count - 1)) if count > 1 else None


class Quantile(Aggregator[float | None]):
    """A quantile, such as 0.5 for the median; None if there is no value.

    The result differs from an exact value by at most ``accuracy`` of it. It does not depend on the
    order of the records.

    Args:
        q: From 0 to 1.
        by: A number.
        accuracy: Relative error.

    Source: Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
    relative-error guarantees", VLDB 2019.
    """

    first = "{add}(({{}}, {{}}, [0]), {x})"
    add = "{add}({a}, {x})"
    is_mutable = True

    def __init__(self, q: float, by: By, *, accuracy: float = 0.01) -> None:
        if not 0 <= q <= 1 or not 0 < accuracy < 1:
            raise UsageError(f"Quantile({q!r}): q must be from 0 to 1, and accuracy between")
        super().__init__(by)
        self._q = q
        self._accuracy = accuracy
        self._gamma = (1 + accuracy) / (1 - accuracy)
        self._log_gamma = math.log(self._gamma)

    def __str__(self) -> str:
        return f"Quantile with the accuracy {self._accuracy}"

    def names(self, field_type: Value) -> dict[str, Value]:
        return {"add": self._add}

    def stored_type(self, field_type: Value) -> Value:
        return tuple[dict[int, int], dict[int, int], list[int]]

    def merge(self, left: Value, right: Value) -> Value:
        above, below = dict(left[0]), dict(left[1])
        for target, source in ((above, right[0]), (below, right[1])):
            for bucket, count in source.items():
                target[bucket] = target.get(bucket, 0) + count
        return above, below, [left[2][0] + right[2][0]]

    def result(self, aggregate: Value) -> float | None:
        above, below, (zeros,) = aggregate
        count = sum(above.values()) + sum(below.values()) + zeros
        if not count:
            return None
        rank = self._q * (count - 1)
        buckets = [(-self._middle(each), below[each]) for each in sorted(below, reverse=True)]
        buckets += [(0.0, zeros)] if zeros else []
        buckets += [(self._middle(each), above[each]) for each in sorted(above)]
        seen = 0
        for value, rows in buckets:
            seen += rows
            if seen > rank:
                return value
        return buckets[-1][0]

    def _add(self, sketch: Value, value: Value) -> Value:
        if value is None:
            return sketch
        if not math.isfinite(value):
            raise ValueError(f"{value!r} has no place in a quantile")
        if value == 0:
            sketch[2][0] += 1
            return sketch
        counts = sketch[0] if value > 0 else sketch[1]
        bucket = math.ceil(math.log(abs(value)) / self._log_gamma)
        counts[bucket] = counts.get(bucket, 0) + 1
        return sketch

    def _middle(self, bucket: int) -> float:
        try:
            return 2 * self._gamma**bucket / (self._gamma + 1)
        except OverflowError:  # of a value near the largest float
            return sys.float_info.max


def _welford(before: tuple[int, float, float], value: float) -> tuple[int, float, float]:
    count = before[0] + 1
    apart = value - before[1]
    mean = before[1] + apart / count
    return count, mean, before[2] + apart * (value - mean)
