"""Aggregates of the records of a window: counts, sums, means and others.

Each gets values with ``by``, a function of the record's value. None is skipped: it counts as no
value. Sums and means of floats depend on the order of the records in their last digits.
"""

from __future__ import annotations

import math
import sys
import typing
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar, Final, Generic, TypeVar, get_args

import msgspec

from streamkit.errors import UsageError

V = TypeVar("V")
A = TypeVar("A")
R_co = TypeVar("R_co", covariant=True)
By = Callable[[Any], Any]
_NUMBER: Final = int | float
_ZEROS: Final[dict[Any, Any]] = {Decimal: Decimal(0), timedelta: timedelta(0)}


class Aggregator(Generic[R_co]):
    """One aggregate. Subclasses say how it begins, and what a record adds.

    ``first`` and ``add`` are Python expressions, from which the loop over records is made. They
    use ``{x}``, the value of the record, ``{t}``, its event time in ms, ``{a}``, the aggregate so
    far, and the names of `names`, in braces.

    Attributes:
        by: Gets the value of a record; None if the aggregate needs no value.
        is_mutable: ``add`` changes the aggregate in place.
        is_of_user: The aggregate has values or functions of the user, which may change it.
        result_type: The type of the result; None if it depends on ``by``.
    """

    first: ClassVar[str]
    add: ClassVar[str]
    is_mutable: ClassVar[bool] = False
    is_of_user: ClassVar[bool] = False
    result_type: ClassVar[Any] = None

    def __init__(self, by: By | None = None) -> None:
        if by is not None and not callable(by):
            raise UsageError(
                f"{type(self).__name__}({by!r}): the argument must be a function of the record",
                hint=f"for example {type(self).__name__}(lambda order: order.amount)",
            )
        self.by = by

    def __str__(self) -> str:
        """What the stored aggregate is, with the settings that change it."""
        return type(self).__name__

    def stored_type(self, field_type: Any) -> Any:
        """Return the type in which the aggregate is stored.

        Args:
            field_type: The type of the field for the result; Any if it is not known.
        """
        raise AssertionError("each aggregate defines it")

    def names(self, field_type: Any) -> dict[str, Any]:
        """Return the names that ``first`` and ``add`` use."""
        return {}

    def merge(self, left: Any, right: Any) -> Any:
        """Return the aggregate of two sets of records; the arguments stay as they are."""
        raise AssertionError("each aggregate defines it")

    def result(self, aggregate: Any) -> Any:
        """Return the result."""
        return aggregate

    @property
    def can_merge(self) -> bool:
        """Whether `merge` can be used, which sliding and session windows need."""
        return True


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

    def stored_type(self, field_type: Any) -> Any:
        return int

    def merge(self, left: Any, right: Any) -> Any:
        return left + right


class Sum(Aggregator[Any]):
    """The sum; 0 if there is no value."""

    first = "{zero} if {x} is None else {x}"
    add = "{a} if {x} is None else {a} + {x}"

    def __init__(self, by: By) -> None:
        super().__init__(by)

    def names(self, field_type: Any) -> dict[str, Any]:
        return {"zero": _ZEROS.get(_without_none(field_type), 0)}

    def stored_type(self, field_type: Any) -> Any:
        return _number_type(field_type)

    def merge(self, left: Any, right: Any) -> Any:
        return left + right


class Mean(Aggregator[float | None]):
    """The mean; None if there is no value."""

    first = "(0, {zero}) if {x} is None else (1, {x})"
    add = "{a} if {x} is None else ({a}[0] + 1, {a}[1] + {x})"

    def __init__(self, by: By) -> None:
        super().__init__(by)

    def names(self, field_type: Any) -> dict[str, Any]:
        return {"zero": _ZEROS.get(_without_none(field_type), 0)}

    def stored_type(self, field_type: Any) -> Any:
        return _generic(tuple, int, _number_type(field_type))

    def merge(self, left: Any, right: Any) -> Any:
        return left[0] + right[0], left[1] + right[1]

    def result(self, aggregate: Any) -> Any:
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

    def names(self, field_type: Any) -> dict[str, Any]:
        return {"step": _welford}

    def stored_type(self, field_type: Any) -> Any:
        return tuple[int, float, float]

    def merge(self, left: Any, right: Any) -> Any:
        count = left[0] + right[0]
        if not count:
            return left
        apart = right[1] - left[1]
        mean = left[1] + apart * right[0] / count
        return count, mean, left[2] + right[2] + apart * apart * left[0] * right[0] / count

    def result(self, aggregate: Any) -> float | None:
        count, _, squares = aggregate
        return math.sqrt(squares / (count - 1)) if count > 1 else None


class Min(Aggregator[Any]):
    """The smallest value; None if there is none."""

    is_of_user = True
    first = "{x}"
    add = "{a} if {x} is None or ({a} is not None and {a} <= {x}) else {x}"

    def __init__(self, by: By) -> None:
        super().__init__(by)

    def stored_type(self, field_type: Any) -> Any:
        return _optional(field_type)

    def merge(self, left: Any, right: Any) -> Any:
        if left is None or right is None:
            return right if left is None else left
        return min(left, right)


class Max(Aggregator[Any]):
    """The largest value; None if there is none."""

    is_of_user = True
    first = "{x}"
    add = "{a} if {x} is None or ({a} is not None and {a} >= {x}) else {x}"

    def __init__(self, by: By) -> None:
        super().__init__(by)

    def stored_type(self, field_type: Any) -> Any:
        return _optional(field_type)

    def merge(self, left: Any, right: Any) -> Any:
        if left is None or right is None:
            return right if left is None else left
        return max(left, right)


class First(Aggregator[Any]):
    """The value of the record with the lowest event time; None if there is none.

    Of records with the same event time, the first that arrived.
    """

    is_of_user = True
    first = "None if {x} is None else ({t}, {x})"
    add = "{a} if {x} is None or ({a} is not None and {a}[0] <= {t}) else ({t}, {x})"

    def __init__(self, by: By) -> None:
        super().__init__(by)

    def stored_type(self, field_type: Any) -> Any:
        return _generic(tuple, int, _optional(field_type)) | None

    def merge(self, left: Any, right: Any) -> Any:
        if left is None or right is None:
            return right if left is None else left
        return left if left[0] <= right[0] else right

    def result(self, aggregate: Any) -> Any:
        return None if aggregate is None else aggregate[1]


class Last(Aggregator[Any]):
    """The value of the record with the highest event time; None if there is none.

    Of records with the same event time, the last that arrived.
    """

    is_of_user = True
    first = "None if {x} is None else ({t}, {x})"
    add = "{a} if {x} is None or ({a} is not None and {a}[0] > {t}) else ({t}, {x})"

    def __init__(self, by: By) -> None:
        super().__init__(by)

    def stored_type(self, field_type: Any) -> Any:
        return _generic(tuple, int, _optional(field_type)) | None

    def merge(self, left: Any, right: Any) -> Any:
        if left is None or right is None:
            return right if left is None else left
        return left if left[0] > right[0] else right

    def result(self, aggregate: Any) -> Any:
        return None if aggregate is None else aggregate[1]


class TopN(Aggregator[list[Any]]):
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

    def names(self, field_type: Any) -> dict[str, Any]:
        return {"push": self._push}

    def stored_type(self, field_type: Any) -> Any:
        item = _item_of(field_type)
        pair = (item, None) if self._lists_values else (Any, item)
        return _generic(list, _generic(tuple, *pair))

    def merge(self, left: Any, right: Any) -> Any:
        merged = list(left)
        for each in right:
            self._push(merged, each)
        return merged

    def result(self, aggregate: Any) -> Any:
        return [value if self._lists_values else item for value, item in aggregate]

    def _push(self, top: list[Any], ranked: tuple[Any, Any]) -> list[Any]:
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


class CountDistinct(Aggregator[int]):
    """The number of different values. It keeps every one of them until the window closes."""

    first = "{add}(set(), {x})"
    add = "{add}({a}, {x})"
    is_mutable = True
    result_type = int

    def __init__(self, by: By) -> None:
        super().__init__(by)

    def names(self, field_type: Any) -> dict[str, Any]:
        return {"add": _add_distinct}

    def stored_type(self, field_type: Any) -> Any:
        return set[bytes]

    def merge(self, left: Any, right: Any) -> Any:
        return left | right

    def result(self, aggregate: Any) -> Any:
        return len(aggregate)


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

    def names(self, field_type: Any) -> dict[str, Any]:
        return {"add": self._add}

    def stored_type(self, field_type: Any) -> Any:
        return tuple[dict[int, int], dict[int, int], list[int]]

    def merge(self, left: Any, right: Any) -> Any:
        above, below = dict(left[0]), dict(left[1])
        for target, source in ((above, right[0]), (below, right[1])):
            for bucket, count in source.items():
                target[bucket] = target.get(bucket, 0) + count
        return above, below, [left[2][0] + right[2][0]]

    def result(self, aggregate: Any) -> float | None:
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

    def _add(self, sketch: Any, value: Any) -> Any:
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


class CollectList(Aggregator[list[Any]]):
    """All values, in order of event time.

    Args:
        by: What is listed.
        limit: The most values of one window; a record after that fails.
    """

    first = "{append}([], {t}, {x})"
    add = "{append}({a}, {t}, {x})"
    is_mutable = True
    is_of_user = True

    def __init__(self, by: By, *, limit: int = 10_000) -> None:
        super().__init__(by)
        self._limit = limit

    def names(self, field_type: Any) -> dict[str, Any]:
        return {"append": self._append}

    def stored_type(self, field_type: Any) -> Any:
        return _generic(list, _generic(tuple, int, _item_of(field_type)))

    def merge(self, left: Any, right: Any) -> Any:
        return [*left, *right]

    def result(self, aggregate: Any) -> Any:
        return [value for _, value in sorted(aggregate, key=lambda each: each[0])]

    def _append(self, values: list[Any], time_ms: int, value: Any) -> list[Any]:
        if value is None:
            return values
        if len(values) >= self._limit:
            raise ValueError(
                f"the window has more than {self._limit:,} values for one key; raise limit="
            )
        values.append((time_ms, value))
        return values


class Fold(Aggregator[R_co], Generic[V, A, R_co]):
    """An aggregate of your own.

    Args:
        init: Creates an aggregate without records.
        add: Returns the aggregate with one more value.
        merge: Returns the aggregate of two aggregates; sliding and session windows need it.
        result: Returns the result; by default the aggregate.
        type: The type of the aggregate, for storing it; by default what ``add`` is annotated to
            return.

    Raises:
        UsageError: The type is not known.
    """

    is_of_user = True
    first = "{add}({init}(), {x})"
    add = "{add}({copy}({a}), {x})"

    def __init__(
        self,
        init: Callable[[], A],
        add: Callable[[A, V], A],
        merge: Callable[[A, A], A] | None = None,
        result: Callable[[A], R_co] | None = None,
        *,
        type: Any = None,
    ) -> None:
        super().__init__(lambda value: value)
        self._init = init
        self._add = add
        self._merge = merge
        self._result = result
        self._type = _returned(add) if type is None else type
        if self._type is None:
            raise UsageError(
                "Fold needs the type of its aggregate, to store it",
                hint="annotate what add returns, or give type=",
            )

    def names(self, field_type: Any) -> dict[str, Any]:
        return {"init": self._init, "add": self._add}

    def stored_type(self, field_type: Any) -> Any:
        return self._type

    def merge(self, left: Any, right: Any) -> Any:
        assert self._merge is not None, "windows that merge refuse a Fold without it"
        return self._merge(left, right)

    def result(self, aggregate: Any) -> Any:
        return aggregate if self._result is None else self._result(aggregate)

    @property
    def can_merge(self) -> bool:
        return self._merge is not None


def _welford(before: tuple[int, float, float], value: float) -> tuple[int, float, float]:
    count = before[0] + 1
    apart = value - before[1]
    mean = before[1] + apart / count
    return count, mean, before[2] + apart * (value - mean)


_encode = msgspec.json.Encoder(order="deterministic").encode


def _add_distinct(values: set[bytes], value: Any) -> set[bytes]:
    if value is not None:
        values.add(_encode(value))
    return values


def _generic(kind: Any, *items: Any) -> Any:
    """Return a type of a container with items of types that are known only at run time."""
    return kind[items]


def _without_none(kind: Any) -> Any:
    """Return a type without None, if one type remains."""
    inner = [each for each in get_args(kind) if each is not type(None)]
    is_union = type(None) in get_args(kind)
    return inner[0] if is_union and len(inner) == 1 else kind


def _number_type(field_type: Any) -> Any:
    kind = _without_none(field_type)
    return kind if kind in _ZEROS else _NUMBER


def _optional(field_type: Any) -> Any:
    return Any if field_type is Any else typing.Optional[field_type]  # noqa: UP045  # at run time


def _item_of(field_type: Any) -> Any:
    """Return the type of the items of a list type."""
    inner = get_args(_without_none(field_type))
    return inner[0] if inner else Any


def _returned(function: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(function).get("return")
    except (NameError, TypeError, AttributeError):  # names of a local scope, or not a function
        return None
