"""Aggregates that keep many values, and those of your own."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from streamkit.aggregates.base import (
    Aggregator,
    By,
    generic,
    item_of,
)
from streamkit.errors import UsageError
from streamkit.record import Value

V = TypeVar("V")
A = TypeVar("A")
R_co = TypeVar("R_co", covariant=True)


class CountDistinct(Aggregator[int]):
    """The number of different values. It keeps every one of them until the window closes."""

    first = "{add}(set(), {x})"
    add = "{add}({a}, {x})"
    is_mutable = True
    result_type = int

    def __init__(self, by: By) -> None:
        super().__init__(by)

    def names(self, field_type: Value) -> dict[str, Value]:
        return {"add": _add_distinct}

    def stored_type(self, field_type: Value) -> Value:
        return set[bytes]

    def merge(self, left: Value, right: Value) -> Value:
        return left | right

    def result(self, aggregate: Value) -> Value:
        return len(aggregate)


class CollectList(Aggregator[list[Value]]):
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

    def names(self, field_type: Value) -> dict[str, Value]:
        return {"append": self._append}

    def stored_type(self, field_type: Value) -> Value:
        return generic(list, generic(tuple, int, item_of(field_type)))

    def merge(self, left: Value, right: Value) -> Value:
        return [*left, *right]

    def result(self, aggregate: Value) -> Value:
        return [value for _, value in sorted(aggregate, key=lambda each: each[0])]

    def _append(self, values: list[Value], time_ms: int, value: Value) -> list[Value]:
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
        type: Value = None,
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

    def names(self, field_type: Value) -> dict[str, Value]:
        return {"init": self._init, "add": self._add}

    def stored_type(self, field_type: Value) -> Value:
        return self._type

    def merge(self, left: Value, right: Value) -> Value:
        assert self._merge is not None, "windows that merge refuse a Fold without it"
        return self._merge(left, right)

    def result(self, aggregate: Value) -> Value:
        return aggregate if self._result is None else self._result(aggregate)

    @property
    def can_merge(self) -> bool:
        return self._merge is not None


_encode = msgspec.json.Encoder(order="deterministic").encode


def _add_distinct(values: set[bytes], value: Value) -> set[bytes]:
    if value is not None:
        values.add(_encode(value))
    return values


def _returned(function: Callable[..., Value]) -> Value:
    try:
        return typing.get_type_hints(function).get("return")
    except (NameError, TypeError, AttributeError):  # names of a local scope, or not a function
        return None
