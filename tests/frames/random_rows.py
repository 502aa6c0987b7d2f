"""Random types of rows with random values, and the frames that they go through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from streamkit.frames.kinds import ARROW_BATCH, ARROW_TABLE, PANDAS, POLARS, FrameKind

FRAMES: list[FrameKind] = [ARROW_BATCH, ARROW_TABLE, POLARS, PANDAS]


class Color(Enum):
    RED = "red"
    GREEN = "green"


class Level(IntEnum):
    LOW = 1
    HIGH = 7


class Place(msgspec.Struct, frozen=True, rename="camel"):
    lat_itude: float
    name: str | None = None


class Sized(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    size: int = 0
    where: Place | None = None


@dataclass(frozen=True)
class Mark:
    """A type, with a strategy for its values."""

    kind: Any
    values: SearchStrategy[Any]


INTS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-5)), timezone(timedelta(minutes=330))])
# Hypothesis adds the time zone, which must not lead out of the years 1 to 9999.
_FIRST, _LAST = datetime(2, 1, 1), datetime(9998, 1, 1)  # noqa: DTZ001
INSTANTS = st.datetimes(_FIRST, _LAST, timezones=ZONES)
PLACES = st.builds(Place, FLOATS, st.none() | TEXTS)

LEAVES: list[Mark] = [
    Mark(int, INTS),
    Mark(float, FLOATS),
    Mark(bool, st.booleans()),
    Mark(str, TEXTS),
    Mark(bytes, st.binary(max_size=4)),
    Mark(datetime, INSTANTS),
    Mark(Annotated[datetime, msgspec.Meta(tz=False)], st.datetimes()),
    Mark(date, st.dates()),
    Mark(time, st.times()),
    Mark(timedelta, st.timedeltas(timedelta(days=-(10**8)), timedelta(days=10**8))),
    Mark(Decimal, st.decimals(-(10**19), 10**19, places=3)),
    Mark(
        Annotated[Decimal, msgspec.Meta(extra={"precision": 20, "scale": 2})],
        st.decimals(-(10**9), 10**9, places=2),
    ),
    Mark(UUID, st.uuids()),
    Mark(Color, st.sampled_from(Color)),
    Mark(Level, st.sampled_from(Level)),
    Mark(Literal["a", "b"], st.sampled_from(["a", "b"])),
    Mark(Literal[3, 5], st.sampled_from([3, 5])),
    Mark(Annotated[int, msgspec.Meta(ge=0)], st.integers(0, 9)),
    Mark(Place, PLACES),
    Mark(Sized, st.builds(Sized, INTS, st.none() | PLACES)),
]


def nullable(of: Mark) -> Mark:
    return Mark(of.kind | None, st.none() | of.values)


def listed(of: Mark) -> Mark:
    return Mark(list[of.kind], st.lists(of.values, max_size=3))  # type: ignore[name-defined]


def mapped(of: Mark) -> Mark:
    kind = dict[str, of.kind]  # type: ignore[name-defined]
    return Mark(kind, st.dictionaries(TEXTS, of.values, max_size=3))


marks = st.recursive(
    st.sampled_from(LEAVES),
    lambda of: of.map(listed) | of.map(mapped) | of.map(nullable),
    max_leaves=3,
)


@st.composite
def rows(draw: Callable[[SearchStrategy[Any]], Any]) -> tuple[type[msgspec.Struct], list[Any]]:
    """Draw a class of rows, and some rows of it."""
    fields = draw(st.lists(marks, min_size=1, max_size=4))
    names = [f"field_{number}" for number in range(len(fields))]
    kind = msgspec.defstruct("Row", [(n, f.kind) for n, f in zip(names, fields, strict=True)])
    row = st.builds(kind, *(each.values for each in fields))
    return kind, draw(st.lists(row, min_size=1, max_size=6))


def pieces(values: list[Any], count: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), count):
        yield values[start : start + count]
