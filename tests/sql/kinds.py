"""Types of rows that the tests write and read, with values at the edges of what columns hold."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, NotRequired, TypedDict
from uuid import UUID

import msgspec


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Place(msgspec.Struct):
    city: str
    floors: list[int]


LocalTime = Annotated[dt.datetime, msgspec.Meta(tz=False)]


class Everything(msgspec.Struct, rename={"order": "Order", "text": "odd 'name' %s `?"}):
    """A field of every type, with a reserved word, upper case, quotes and a percent sign."""

    order: int
    amount: float
    is_open: bool
    text: str
    data: bytes
    at: dt.datetime
    local_at: LocalTime
    day: dt.date
    time: dt.time
    took: dt.timedelta
    price: Decimal
    id: UUID
    color: Color
    level: Level
    place: Place
    tags: list[str]
    more: dict[str, Any]
    note: str | None = None


INDIA = dt.timezone(dt.timedelta(hours=5, minutes=45))
USUAL = Everything(
    order=1,
    amount=0.1,
    is_open=True,
    text="tab\t newline\n backslash\\ \\N quote' dollar$ €𝄞",
    data=b"\x00\xff\\x",
    at=dt.datetime(2024, 2, 29, 23, 59, 59, 999_999, INDIA),
    local_at=dt.datetime(2024, 10, 27, 2, 30),  # noqa: DTZ001
    day=dt.date(2024, 2, 29),
    time=dt.time(23, 59, 59, 1),
    took=dt.timedelta(days=-1, seconds=5, microseconds=7),
    price=Decimal("12345678901234567890.123456789012345678901234567890"),
    id=UUID(int=7),
    color=Color.BLUE,
    level=Level.HIGH,
    place=Place("Zürich", [1, 2]),
    tags=[],
    more={"a": [1, None, {"b": 1.5}], "nul": "\\u0000 is no NUL"},
)
EDGES = [
    USUAL,
    msgspec.structs.replace(USUAL, order=-(2**63), amount=-0.0, is_open=False, text="", data=b""),
    msgspec.structs.replace(
        USUAL,
        order=2**63 - 1,
        amount=float("inf"),
        at=dt.datetime(1, 1, 2, tzinfo=dt.UTC),
        local_at=dt.datetime.max,  # noqa: DTZ901
        day=dt.date.min,
        time=dt.time.max,
        took=dt.timedelta(0),
        price=Decimal("-0.10"),
        note="x" * 10_000,
    ),
    msgspec.structs.replace(
        USUAL, order=3, amount=5e-324, at=dt.datetime.max.replace(tzinfo=dt.UTC), note=""
    ),
]


class Total(msgspec.Struct):
    id: int
    name: str
    total: float | None = None


@dataclass
class TotalData:
    id: int
    name: str
    total: float | None = None


class TotalDict(TypedDict):
    id: int
    name: str
    total: NotRequired[float]
