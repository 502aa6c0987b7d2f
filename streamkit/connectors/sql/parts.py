"""The parts of a source: ranges of its key that are read at the same time. Usually there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from streamkit.connectors.sql.pages import Place, Position, read_position
from streamkit.connectors.sql.queries import split_range
from streamkit.errors import StateMismatch
from streamkit.record import Value


class _Name(msgspec.Struct, frozen=True):
    """The name of a part in commits. It keeps the range, so that a later run has the same parts."""

    number: int
    order: tuple[str, ...]
    after: int | None = None
    until: int | None = None


@dataclass(slots=True)
class Part:
    """A range of the rows in order.

    ``after`` and ``until`` are bounds of the first ordering column; None is no bound. ``read`` is
    the position of the last row that was read.
    """

    number: int
    order: tuple[str, ...]
    after: int | None = None
    until: int | None = None
    read: Position = field(default_factory=lambda: Position(0, ()))

    @property
    def name(self) -> str:
        """The name of the part in commits."""
        return msgspec.json.encode(_Name(self.number, self.order, self.after, self.until)).decode()

    def begin(self) -> Place | None:
        """Return the place after which the next page begins; None at the beginning."""
        if self.read.place:
            return self.read.place
        return None if self.after is None else (self.after,)

    def end(self, last: Place) -> Place:
        """Return the place of the last row to read, given that of the last row of all."""
        if self.until is None or last[0] <= self.until:
            return last
        return (self.until,)


def new_parts(order: tuple[str, ...], count: int, low: Value, high: Value) -> list[Part]:
    """Return the parts of a source that nothing is committed of."""
    ends: list[int | None] = [*split_range(low, high, count)]
    bounds = zip([None, *ends], [*ends, None], strict=True)
    return [Part(number, order, *pair) for number, pair in enumerate(bounds)]


def committed_parts(order: Sequence[str], committed: Mapping[str, str]) -> list[Part]:
    """Return the parts that a commit has.

    Raises:
        StateMismatch: They are those of another order, so they say nothing about this one.
    """
    found = []
    for name, text in committed.items():
        try:
            part = msgspec.json.decode(name, type=_Name)
        except msgspec.MsgspecError as error:
            raise _other(order, name) from error
        if part.order != tuple(order):
            raise _other(order, ", ".join(part.order))
        position = read_position(text, order)
        found.append(Part(part.number, part.order, part.after, part.until, position))
    return sorted(found, key=lambda part: part.number)


def _other(order: Sequence[str], found: str) -> StateMismatch:
    return StateMismatch(
        f"the committed position is one in the order of {found}, but the rows are now in the "
        f"order of {', '.join(order)}",
        hint="start over with --fresh-state, or give the source another name=",
    )
