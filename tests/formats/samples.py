"""Types with values of every kind, for all formats."""

from __future__ import annotations

import enum
import math
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from hypothesis import strategies as st

from streamkit.formats import Avro, CsvLine, Json, MessagePack

CENTS = {"type": "bytes", "logicalType": "decimal", "precision": 14, "scale": 2}
Price = Annotated[Decimal, msgspec.Meta(extra={"avro": CENTS})]


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Flat(msgspec.Struct):
    """One row of a table."""

    number: int
    text: str
    ratio: float
    is_new: bool
    raw: bytes
    at: datetime
    day: date
    clock: time
    id: uuid.UUID
    price: Price
    color: Color
    level: Level
    size: Literal["S", "M"]
    span: timedelta
    maybe_text: str | None = None
    maybe_number: int | None = 5
    maybe_day: date | None = None


@dataclass
class Place:
    name: str
    at: tuple[float, float] = (0.0, 0.0)


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float


class Nested(msgspec.Struct, rename="camel"):
    flat_row: Flat
    places: list[Place]
    scores: dict[str, float]
    by_number: dict[int, str]
    shape: Circle | Square
    one_of: int | str | bool | None
    tags: set[str] = set()
    best: Place | None = None


class Tree(msgspec.Struct):
    weight: int
    children: list[Tree] = []


@dataclass
class Wide:
    names: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
MOMENTS = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001  # the zone is another argument
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3))]),
)
PRICES = st.decimals(-(10**11), 10**11, places=2)
# Years 1 to 9999, which texts and numbers of every format can hold.
FLATS = st.builds(
    Flat,
    number=INT64,
    text=TEXT,
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    is_new=st.booleans(),
    raw=st.binary(max_size=20),
    at=MOMENTS,
    day=st.dates(),
    clock=st.times(),
    id=st.uuids(),
    price=PRICES,
    color=st.sampled_from(Color),
    level=st.sampled_from(Level),
    size=st.sampled_from(["S", "M"]),
    span=st.timedeltas(timedelta(days=-999), timedelta(days=999)),
    maybe_text=st.none() | TEXT,
    maybe_number=st.none() | INT64,
    maybe_day=st.none() | st.dates(),
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLACES = st.builds(Place, TEXT, st.tuples(FINITE, FINITE))
NESTED = st.builds(
    Nested,
    flat_row=FLATS,
    places=st.lists(PLACES, max_size=3),
    scores=st.dictionaries(TEXT, FINITE, max_size=3),
    by_number=st.dictionaries(INT64, TEXT, max_size=3),
    shape=st.builds(Circle, FINITE) | st.builds(Square, FINITE),
    one_of=INT64 | TEXT | st.booleans() | st.none(),
    tags=st.sets(TEXT, max_size=3),
    best=st.none() | PLACES,
)
TREES = st.recursive(
    st.builds(Tree, INT64),
    lambda trees: st.builds(Tree, INT64, st.lists(trees, max_size=3)),
    max_leaves=8,
)
WIDE = st.builds(
    Wide,
    st.lists(TEXT, min_size=500, max_size=2_000),
    st.dictionaries(TEXT, INT64, min_size=20, max_size=50),
)
FORMATS: list[tuple[Any, Any, st.SearchStrategy[Any]]] = [
    (CsvLine, Flat, FLATS),
    *(
        (form, kind, values)
        for form in (Avro, Json, MessagePack)
        for kind, values in (
            (Flat, FLATS),
            (Nested, NESTED),
            (Tree, TREES),
            (Place, PLACES),
            (list[Place], st.lists(PLACES, max_size=3)),
            (dict[str, Place], st.dictionaries(TEXT, PLACES, max_size=3)),
            (int, INT64),
            (str, TEXT),
            (bytes, st.binary()),
            (bool, st.booleans()),
            (float, FINITE),
            (uuid.UUID, st.uuids()),
            (Price, PRICES),
            (str | None, st.none() | TEXT),
        )
    ),
]


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal, also if a float is NaN."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


def one_flat(ratio: float = 1.5) -> Flat:
    return Flat(
        number=1,
        text="x",
        ratio=ratio,
        is_new=True,
        raw=b"\xff",
        at=datetime(2013, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        day=date(2013, 1, 2),
        clock=time(3, 4, 5, 6),
        id=uuid.UUID(int=7),
        price=Decimal("12.50"),
        color=Color.BLUE,
        level=Level.HIGH,
        size="M",
        span=timedelta(minutes=1),
    )
