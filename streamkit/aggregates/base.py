"""What an aggregate is: how it begins, what a record adds, and how it is stored."""

from __future__ import annotations

import typing
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import ClassVar, Final, Generic, TypeVar, get_args

from streamkit.errors import UsageError
from streamkit.record import Value

R_co = TypeVar("R_co", covariant=True)
By = Callable[[Value], Value]
NUMBER: Final = int | float
ZEROS: Final[dict[Value, Value]] = {Decimal: Decimal(0), timedelta: timedelta(0)}


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
    result_type: ClassVar[Value] = None

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

    def stored_type(self, field_type: Value) -> Value:
        """Return the type in which the aggregate is stored.

        Args:
            field_type: The type of the field for the result; Value if it is not known.
        """
        raise AssertionError("each aggregate defines it")

    def names(self, field_type: Value) -> dict[str, Value]:
        """Return the names that ``first`` and ``add`` use."""
        return {}

    def merge(self, left: Value, right: Value) -> Value:
        """Return the aggregate of two sets of records; the arguments stay as they are."""
        raise AssertionError("each aggregate defines it")

    def result(self, aggregate: Value) -> Value:
        """Return the result."""
        return aggregate

    @property
    def can_merge(self) -> bool:
        """Whether `merge` can be used, which sliding and session windows need."""
        return True


def generic(kind: Value, *items: Value) -> Value:
    """Return a type of a container with items of types that are known only at run time."""
    return kind[items]


def without_none(kind: Value) -> Value:
    """Return a type without None, if one type remains."""
    inner = [each for each in get_args(kind) if each is not type(None)]
    is_union = type(None) in get_args(kind)
    return inner[0] if is_union and len(inner) == 1 else kind


def number_type(field_type: Value) -> Value:
    kind = without_none(field_type)
    return kind if kind in ZEROS else NUMBER


def optional(field_type: Value) -> Value:
    return Value if field_type is Value else typing.Optional[field_type]  # noqa: UP045  # at run time


def item_of(field_type: Value) -> Value:
    """Return the type of the items of a list type."""
    inner = get_args(without_none(field_type))
    return inner[0] if inner else Value
