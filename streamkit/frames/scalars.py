"""Columns of single values: numbers, text, bytes, enums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import ClassVar, Final
from uuid import UUID

from streamkit.frames.column import Column, ColumnError, arrow_types, pyarrow
from streamkit.record import Kind, Value

# As in Spark, for a Decimal whose type does not say how many places it has.
DECIMAL_PRECISION: Final = 38
DECIMAL_SCALE: Final = 18


class _Plain(Column):
    """Values that Arrow converts exactly, once their classes are checked."""

    def _build(self, values: Sequence[Value]) -> pyarrow.Array:
        return pyarrow.array(values, self.arrow)

    def _read(self, array: pyarrow.Array) -> list[Value]:
        found: list[Value] = array.to_pylist()
        return found


class Ints(_Plain):
    """Integers of 64 bits."""

    arrow = pyarrow.int64()
    name = "int"
    kinds = (int,)
    refused = (bool,)

    def _build(self, values: Sequence[Value]) -> pyarrow.Array:
        try:
            return super()._build(values)
        except OverflowError:
            raise ColumnError("it does not fit into 64 bits") from None

    def reads(self, given: pyarrow.DataType) -> bool:
        # Numbers with a fraction are refused by the cast. pandas has integers as floats easily.
        return bool(arrow_types.is_integer(given) or arrow_types.is_floating(given))

    def _widens(self, given: pyarrow.DataType) -> bool:
        return bool(arrow_types.is_integer(given)) and given != pyarrow.uint64()

    def _is_certain(self, array: pyarrow.Array) -> bool:
        return True


class Floats(_Plain):
    """Numbers of 64 bits with a fraction."""

    arrow = pyarrow.float64()
    name = "float"
    kinds = (float, int)
    refused = (bool,)

    def reads(self, given: pyarrow.DataType) -> bool:
        is_real = arrow_types.is_floating(given) or arrow_types.is_decimal(given)
        return bool(is_real or arrow_types.is_integer(given))

    def _widens(self, given: pyarrow.DataType) -> bool:
        return bool(arrow_types.is_floating(given))

    def _is_certain(self, array: pyarrow.Array) -> bool:
        return True


class Bools(_Plain):
    """True and false."""

    arrow = pyarrow.bool_()
    name = "bool"
    kinds = (bool,)

    def reads(self, given: pyarrow.DataType) -> bool:
        return False

    def _is_certain(self, array: pyarrow.Array) -> bool:
        return True


def is_text(given: pyarrow.DataType) -> bool:
    """Return whether an array has texts."""
    return bool(
        arrow_types.is_string(given)
        or arrow_types.is_large_string(given)
        or arrow_types.is_string_view(given)
    )


def _is_ascii(array: pyarrow.Array) -> bool:
    """Return whether all texts are ASCII, as far as one look at their bytes shows it.

    This is many times faster than to validate each text. Where the array is a small part of its
    buffer, the whole buffer is not looked at.
    """
    if arrow_types.is_string_view(array.type):
        return False
    data = array.buffers()[-1]
    return data is None or (data.size <= 2 * array.nbytes and data.to_pybytes().isascii())


class Texts(_Plain):
    """Text."""

    arrow = pyarrow.string()
    name = "str"
    kinds = (str,)

    def reads(self, given: pyarrow.DataType) -> bool:
        return is_text(given)

    def _widens(self, given: pyarrow.DataType) -> bool:
        return is_text(given)

    def _is_certain(self, array: pyarrow.Array) -> bool:
        if _is_ascii(array):
            return True
        try:
            array.validate(full=True)  # files may have texts that are not UTF-8
        except pyarrow.ArrowInvalid:
            return False
        return True


class Binaries(_Plain):
    """Bytes; ``make`` turns them into another class."""

    arrow = pyarrow.binary()
    name = "bytes"
    kinds = (bytes, bytearray, memoryview)

    def __init__(self, make: type = bytes, *, is_nullable: bool = False, rule: Kind = None) -> None:
        super().__init__(is_nullable=is_nullable, rule=rule)
        self._make = make

    def reads(self, given: pyarrow.DataType) -> bool:
        is_binary = arrow_types.is_large_binary(given) or arrow_types.is_binary_view(given)
        return bool(is_binary or arrow_types.is_fixed_size_binary(given))

    def _widens(self, given: pyarrow.DataType) -> bool:
        return self.reads(given)

    def _is_certain(self, array: pyarrow.Array) -> bool:
        return self._make is bytes

    def _read(self, array: pyarrow.Array) -> list[Value]:
        found = super()._read(array)
        if self._make is bytes:
            return found
        return [None if each is None else self._make(each) for each in found]


class Nulls(_Plain):
    """Values of which only None is known."""

    arrow = pyarrow.null()
    name = "None"

    def __init__(self) -> None:
        super().__init__(is_nullable=True)

    def reads(self, given: pyarrow.DataType) -> bool:
        return False


class Decimals(_Plain):
    """Decimal numbers with a fixed number of places.

    Without a declared ``scale``, zeros at the end are not kept: 1.50 becomes 1.5, which is equal.
    """

    name = "Decimal"
    kinds = (Decimal,)

    def __init__(
        self, precision: int | None = None, scale: int | None = None, *, is_nullable: bool = False
    ) -> None:
        super().__init__(is_nullable=is_nullable)
        self._is_stripped = scale is None
        self.arrow = pyarrow.decimal128(
            DECIMAL_PRECISION if precision is None else precision,
            DECIMAL_SCALE if scale is None else scale,
        )

    def reads(self, given: pyarrow.DataType) -> bool:
        return bool(arrow_types.is_decimal(given) or arrow_types.is_integer(given))

    def _cast(self, array: pyarrow.Array) -> pyarrow.Array:
        if arrow_types.is_integer(array.type):  # Arrow converts them only if all could fit
            return pyarrow.array(array.to_pylist(), self.arrow)
        return array.cast(self.arrow)

    def _read(self, array: pyarrow.Array) -> list[Value]:
        found = super()._read(array)
        return list(map(_stripped, found)) if self._is_stripped else found


def _stripped(number: Decimal | None) -> Decimal | None:
    if number is None:
        return None
    short = number.normalize()
    exponent = short.as_tuple().exponent
    is_large = isinstance(exponent, int) and exponent > 0
    return short.quantize(Decimal(1)) if is_large else short


class Uuids(_Plain):
    """UUIDs as text, which all libraries know."""

    arrow = pyarrow.string()
    name = "UUID"
    kinds = (UUID,)

    def reads(self, given: pyarrow.DataType) -> bool:
        return is_text(given)

    def _build(self, values: Sequence[Value]) -> pyarrow.Array:
        return pyarrow.array([None if each is None else str(each) for each in values], self.arrow)

    def _read(self, array: pyarrow.Array) -> list[Value]:
        return [None if each is None else UUID(each) for each in array.to_pylist()]


class Choices(Column):
    """Members of an enum, or values of a Literal: what is stored, by the value in the program.

    Texts are stored as a dictionary of all choices in their order, so that it is the same in each
    batch. Numbers are stored as integers.
    """

    number_type: ClassVar[pyarrow.DataType] = pyarrow.int64()

    def __init__(
        self, name: str, choices: dict[Value, str] | dict[Value, int], *, is_nullable: bool = False
    ) -> None:
        super().__init__(is_nullable=is_nullable)
        self.name = name
        stored = list(choices.values())
        self._codes = {choice: code for code, choice in enumerate(choices)}
        self._found: dict[Value, Value] = {each: choice for choice, each in choices.items()}
        self._is_text = isinstance(stored[0], str)
        self._stored = pyarrow.array(stored)
        self.arrow = (
            pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
            if self._is_text
            else self.number_type
        )

    def reads(self, given: pyarrow.DataType) -> bool:
        return is_text(given) if self._is_text else bool(arrow_types.is_integer(given))

    def _check(self, kinds: set[type]) -> None:
        pass  # whether each value is one of the choices is found below

    def _build(self, values: Sequence[Value]) -> pyarrow.Array:
        codes = self._looked_up(self._codes, values)
        indices = pyarrow.array(codes, pyarrow.int32())
        if not self._is_text:
            return self._stored.take(indices)
        return pyarrow.DictionaryArray.from_arrays(indices, self._stored)

    def _cast(self, array: pyarrow.Array) -> pyarrow.Array:
        return array  # only its values are read

    def _read(self, array: pyarrow.Array) -> list[Value]:
        plain = array.cast(pyarrow.string() if self._is_text else self.number_type)
        return self._looked_up(self._found, plain.to_pylist())

    def _looked_up(self, table: dict[Value, Value], values: Sequence[Value]) -> list[Value]:
        find: Callable[[Value], Value] = table.__getitem__
        try:
            if None in values:
                return [None if each is None else find(each) for each in values]
            return list(map(find, values))
        except (KeyError, TypeError):
            raise ColumnError(f"it is not one of the values of {self.name}") from None
