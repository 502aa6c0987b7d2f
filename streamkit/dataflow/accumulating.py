"""The loop that adds records to aggregates, made for the aggregates of one stage.

The loop runs for each record, so it is generated as one Python function: with calls of a method
for each aggregate it would take three times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from streamkit.aggregates import Aggregator
from streamkit.dataflow.operators import fill
from streamkit.dataflow.steps import Interrupted, Room
from streamkit.record import Chunk, Kind, Value
from streamkit.state.change_log import StateFormat
from streamkit.state.panes import COPIED
from streamkit.state.types import format_of

# An aggregate of one key: a tuple with an item for each aggregator.
Aggregate = tuple[Value, ...]


class Update(Protocol):
    """Adds records to the aggregates of their keys.

    It appends the old aggregate of each record to ``old``, so after an error its length is the
    row that failed. An aggregate that can change in place is copied the first time it is met;
    the old one of later times is then `COPIED`.
    """

    def __call__(
        self,
        values: dict[bytes, Aggregate],
        keys: Sequence[bytes],
        times_ms: Sequence[int],
        columns: Sequence[Sequence[Value]],
        old: list[Value],
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Accumulator:
    """How a stage aggregates: the values it needs of a record, the loop, and the stored form.

    ``identity`` says what is stored: another one cannot be read as this. ``merges`` and
    ``results`` are the methods of the aggregates, which leave stored aggregates as they are.
    """

    aggregates: tuple[Aggregator[Value], ...]
    update: Update
    form: StateFormat
    stored_type: Kind
    identity: str
    merges: tuple[Callable[[Value, Value], Value], ...]
    results: tuple[Callable[[Value], Value], ...]

    def columns(self, chunk: Chunk, room: Room) -> tuple[list[list[Value]], Interrupted | None]:
        """Get the values of each aggregate that needs some.

        Returns:
            A column for each of them, all of the same length; and why they are shorter than the
            chunk, if a function of the user failed or the time is over.
        """
        found: list[list[Value]] = []
        interrupted: Interrupted | None = None
        for each in self.aggregates:
            if each.by is None:
                continue
            column: list[Value] = []
            found.append(column)
            try:
                fill(column, partial(map, each.by), chunk, room, lambda done: done)
            except Interrupted as error:
                interrupted = error
                chunk = chunk.slice(0, error.row)
        if interrupted is not None:
            for column in found:
                del column[len(chunk) :]
        return found, interrupted

    def merge(self, left: Aggregate, right: Aggregate) -> Aggregate:
        """Return the aggregate of two sets of records."""
        return tuple(merge(a, b) for merge, a, b in zip(self.merges, left, right, strict=True))


def accumulator(
    fields: Mapping[str, Aggregator[Value]], field_types: Sequence[Value], name: str
) -> Accumulator:
    """Return how a stage aggregates.

    Args:
        fields: At least one aggregate, by the field of its result.
        field_types: The type of the result of each; Value if it is not known.
        name: The name of the stage, for errors.

    Raises:
        TopologyError: An aggregate cannot be stored.
    """
    aggregates = tuple(fields.values())
    pairs = list(zip(aggregates, field_types, strict=True))
    identity = ", ".join(f"{field}={each}" for field, each in fields.items())
    stored = [each.stored_type(kind) for each, kind in pairs]
    kind = _tuple(stored)
    form = format_of(kind, name)
    forms = [format_of(each, name) for each in stored]
    return Accumulator(
        aggregates,
        _compiled(pairs, stored, name),
        form,
        kind,
        identity,
        tuple(map(_merge, aggregates, forms)),
        tuple(map(_result, aggregates, forms)),
    )


def _merge(aggregate: Aggregator[Value], form: StateFormat) -> Callable[[Value, Value], Value]:
    """Return how two aggregates become one; a function of the user gets copies of them."""
    if form.is_immutable or not aggregate.is_of_user:
        return aggregate.merge
    return lambda left, right: aggregate.merge(form.copy(left), form.copy(right))


def _result(aggregate: Aggregator[Value], form: StateFormat) -> Callable[[Value], Value]:
    """Return how an aggregate becomes a result, which the user may change in place."""
    if form.is_immutable or not aggregate.is_of_user:
        return aggregate.result
    return lambda found: aggregate.result(form.copy(found))


def _compiled(
    pairs: list[tuple[Aggregator[Value], Value]], stored: list[Value], name: str
) -> Update:
    scope: dict[str, Value] = {"copied": COPIED}
    firsts, adds, inputs = [], [], []
    for at, (each, kind) in enumerate(pairs):
        names = {"x": f"x{at}", "a": f"a{at}", "t": "t"}
        for inner, value in {
            **each.names(kind),
            "copy": format_of(stored[at], name).copy,
        }.items():
            names[inner] = f"{inner}{at}"
            scope[f"{inner}{at}"] = value
        firsts.append(each.first.format(**names))
        adds.append(each.add.format(**names))
        if each.by is not None:
            inputs.append(f"x{at}")
    is_mutable = any(each.is_mutable for each, _ in pairs)
    if is_mutable:
        scope["copy"] = format_of(_tuple(stored), name).copy
    text = _text(firsts, adds, inputs, is_mutable=is_mutable)
    exec(compile(text, f"<aggregates of {name}>", "exec"), scope)  # made of expressions of ours
    update: Update = scope["update"]
    return update


def _text(firsts: list[str], adds: list[str], inputs: list[str], *, is_mutable: bool) -> str:
    """Return the loop as the text of a Python function."""
    old_names = " ".join(f"a{at}," for at in range(len(firsts)))
    added = f"({', '.join(adds)},)"
    row = ", ".join(["key", "t", *inputs])
    lines = [
        "def update(values, keys, times_ms, columns, old):",
        "    get, push = values.get, old.append",
        "    fresh = set()",
        f"    for {row} in zip(keys, times_ms, *columns):",
        "        before = get(key)",
        "        if before is None:",
        f"            values[key] = ({', '.join(firsts)},)",
    ]
    if is_mutable:
        lines += [
            "            fresh.add(key)",
            "        elif key in fresh:",
            f"            {old_names} = before",
            f"            values[key] = {added}",
            "            before = copied",
            "        else:",
            f"            {old_names} = copy(before)",
            f"            values[key] = {added}",
            "            fresh.add(key)",
        ]
    else:
        lines += [
            "        else:",
            f"            {old_names} = before",
            f"            values[key] = {added}",
        ]
    lines.append("        push(before)")
    return "\n".join(lines)


def _tuple(items: list[Value]) -> Kind:
    """Return the type of a tuple of items of types that are known only at run time."""
    container: Kind = tuple
    return container[tuple(items)]
