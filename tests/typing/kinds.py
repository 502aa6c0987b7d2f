"""Types that annotations of stages may have."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    LiteralString,
    NamedTuple,
    NewType,
    Protocol,
    SupportsInt,
    TypedDict,
    TypeVar,
    runtime_checkable,
)

from msgspec import Struct

from streamkit import Record

T = TypeVar("T")
Code = NewType("Code", str)


class A(Struct):
    x: int


class B(A):
    y: int


class C(Struct):
    x: int


@dataclass
class Data:
    x: int


class Plain: ...


class Dynamic(Any): ...  # type: ignore[misc]  # its values may be anything


class Untidy(Dynamic, Plain): ...


class Airport(TypedDict):
    code: str


class Runway(TypedDict):
    code: str


class HasX(Protocol):
    x: int


@runtime_checkable
class HasXToo(Protocol):
    x: int


@runtime_checkable
class Named(Protocol):
    def name(self) -> str: ...


class Shape(ABC):
    @abstractmethod
    def area(self) -> float: ...


class Square(Shape):
    def area(self) -> float:
        return 1.0


class Color(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    HI = "hi"


class Pair(NamedTuple):
    a: int
    b: int


class Box(Struct, Generic[T]):
    inside: T


# Each type as it is written in an annotation.
KINDS: list[Any] = [
    int,
    float,
    complex,
    bool,
    str,
    bytes,
    bytearray,
    memoryview,
    object,
    Any,
    None,
    list,
    dict,
    set,
    tuple,
    type,
    list[int],
    dict[str, Any],
    tuple[int, ...],
    type[A],
    Callable,
    Callable[..., Any],
    Hashable,
    Sized,
    Iterable,
    Iterable[int],
    Mapping,
    Mapping[str, Any],
    Sequence[int],
    SupportsInt,
    Code,
    Literal["a"],
    LiteralString,
    Annotated[int, "x"],
    int | None,
    A | C,
    A,
    B,
    C,
    Data,
    Plain,
    Dynamic,
    Untidy,
    Airport,
    Runway,
    HasX,
    HasXToo,
    Named,
    Shape,
    Square,
    Color,
    Level,
    Word,
    Pair,
    Box,
    Box[int],
    Record,
    Record[A],
    Record[Any],
    date,
    datetime,
    Decimal,
]
