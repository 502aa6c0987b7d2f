"""What a column is: values of one type as an array of Arrow, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import NoneType
from typing import ClassVar

import msgspec
from msgspec import UNSET, UnsetType

from streamkit.errors import DataError, shown
from streamkit.frames.libraries import missing
from streamkit.record import Kind, Value

try:
    import pyarrow
    from pyarrow import types as arrow_types
except ImportError as error:
    raise missing("pyarrow", "arrow", error) from None

__all__ = ["Column", "ColumnError", "arrow_types", "first_failed", "misfit", "pyarrow", "reason"]


class ColumnError(DataError):
    """A value does not fit into its column, or not into the field of a row."""


class Column(ABC):
    """Converts the values of one type to an array and back.

    ``arrow`` is the type of the array, ``name`` is what a user calls the type of the values, and
    ``kinds`` are their classes.

    Args:
        is_nullable: Whether a value may be None.
        rule: The type of a list of values that msgspec checks, such as one with a range; None if
            there is nothing to check.
    """

    arrow: pyarrow.DataType
    name: str
    kinds: tuple[type, ...] = ()
    # Classes whose values Arrow would change in silence, although they derive from those of values.
    refused: ClassVar[tuple[type, ...]] = ()

    def __init__(self, *, is_nullable: bool = False, rule: Kind = None) -> None:
        self.is_nullable = is_nullable
        self._known = set(self.kinds)
        self._rule = rule

    def build(self, values: Sequence[Value]) -> pyarrow.Array:
        """Return an array of values.

        Raises:
            Exception: A value does not fit. Arrow and Python have many errors for that.
        """
        kinds = set(map(type, values))
        if UnsetType in kinds:
            values = [None if value is UNSET else value for value in values]
            kinds = (kinds - {UnsetType}) | {NoneType}
        if NoneType in kinds:
            if not self.is_nullable:
                raise ColumnError(f"it is None, but its type is {self.name}")
            kinds.remove(NoneType)
        if not kinds <= self._known:
            self._check(kinds - self._known)
        return self._build(values)

    def read(self, array: pyarrow.Array) -> list[Value]:
        """Return the values of an array for which there is no `problem`.

        Raises:
            Exception: A value does not fit.
        """
        if array.null_count and not self.is_nullable:
            raise ColumnError(f"it is null, but its type is {self.name}")
        if arrow_types.is_null(array.type):
            return [None] * len(array)
        if arrow_types.is_dictionary(array.type):  # which libraries use for categories
            array = array.dictionary_decode()
        found = self._read(array if array.type == self.arrow else self._cast(array))
        if self._rule is not None:
            msgspec.convert([each for each in found if each is not None], self._rule)
        return found

    def problem(self, given: pyarrow.DataType) -> str:
        """Return why an array of a type cannot be read, or an empty text."""
        plain = given.value_type if arrow_types.is_dictionary(given) else given
        if arrow_types.is_null(plain) or plain == self.arrow or self.reads(plain):
            return ""
        return f"has the type {given}, but {self.name} needs {self.arrow}"

    def exact(self, array: pyarrow.Array) -> pyarrow.Array | None:
        """Return an array as one of the type ``arrow``, if all its values can certainly be read.

        None means that `read` has to find out.
        """
        if self._rule is not None or (array.null_count and not self.is_nullable):
            return None
        if array.type != self.arrow:
            if not self._widens(array.type):
                return None
            try:
                array = array.cast(self.arrow)
            except pyarrow.ArrowInvalid:
                return None
        return array if self._is_certain(array) else None

    def _widens(self, given: pyarrow.DataType) -> bool:
        """Return whether an array of another type can be cast without a loss, or the cast fails."""
        return False

    def _is_certain(self, array: pyarrow.Array) -> bool:
        """Return whether all values of an array of the type ``arrow`` can be read."""
        return False

    @abstractmethod
    def reads(self, given: pyarrow.DataType) -> bool:
        """Return whether an array of another type than ``arrow`` has the same kind of values."""

    @abstractmethod
    def _build(self, values: Sequence[Value]) -> pyarrow.Array: ...

    @abstractmethod
    def _read(self, array: pyarrow.Array) -> list[Value]: ...

    def _cast(self, array: pyarrow.Array) -> pyarrow.Array:
        return array.cast(self.arrow)

    def _check(self, kinds: set[type]) -> None:
        for kind in kinds:
            if issubclass(kind, self.refused) or not issubclass(kind, self.kinds):
                raise ColumnError(f"it is of type {kind.__name__}, not {self.name}")
            self._known.add(kind)


def first_failed(convert: Callable[[Value], object], values: Value, count: int) -> int:
    """Return the first of ``count`` values that ``convert`` fails on, which it does."""
    good, bad = 0, count
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            convert(values[:middle])
        except Exception:  # the caller reports the error of that value
            bad = middle
        else:
            good = middle
    return good


def reason(error: Exception) -> str:
    """Return why a value does not fit, without the place that msgspec names."""
    text = str(error).partition(" - at `$")[0]
    return text if isinstance(error, ColumnError) else f"{type(error).__name__}: {text}"


def misfit(what: str, value: Value, error: Exception) -> str:
    """Return the text for a value that does not fit."""
    return f"{what} is {shown(value)}: {reason(error)}"
