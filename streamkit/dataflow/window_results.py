"""Makes the results of windows: objects of the user's class, or what a function returns."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import repeat
from operator import itemgetter
from typing import Final

import msgspec

from streamkit.aggregates import Aggregator
from streamkit.dataflow.keys import group_key_reader
from streamkit.dataflow.operators import one_per_row, without_none
from streamkit.dataflow.steps import Room, Stateless
from streamkit.dataflow.topology import clashes, type_name
from streamkit.errors import TopologyError
from streamkit.record import TIMESTAMP_MS_MAX, Chunk, Kind, Value
from streamkit.windows import Window

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Fields that a result gets from the window, if its class has them.
_KEY, _START, _END = "key", "window_start", "window_end"
_OF_WINDOW: Final = (_KEY, _START, _END)
_NO_FIELD: Final = object()


@dataclass(frozen=True, slots=True)
class ResultType:
    """The class of results: its fields by name with their types, and which of them are needed."""

    cls: Kind
    fields: dict[str, Value]
    required: frozenset[str]

    def takes_in_order(self, names: Iterable[str]) -> bool:
        """Return whether the class takes these fields by position, before any others."""
        if typing.is_typeddict(self.cls):
            return False
        parameters = list(inspect.signature(self.cls).parameters.values())
        given = list(names)
        first = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
        return first[: len(given)] == given


def as_results(
    of: ResultType | None, results: dict[str, Callable[[Value], Value]], key_type: Kind
) -> AsResults:
    """Return the step that makes results; ``results`` are the functions of each aggregate."""
    if of is None:
        return AsResults(None, results, key_type)
    given = [name for name in of.fields if name in results or name in _OF_WINDOW]
    return AsResults(of, results, key_type, of.takes_in_order(given))


def _is_same(result: Callable[[Value], Value]) -> bool:
    """Return whether a function of an aggregate returns its argument."""
    return getattr(result, "__func__", None) is Aggregator.result


def result_type(cls: Kind) -> ResultType:
    """Return the fields of a class of results.

    Raises:
        TopologyError: It has no fields.
    """
    try:
        if isinstance(cls, type) and issubclass(cls, msgspec.Struct):
            infos = msgspec.structs.fields(cls)
            needed = {each.name for each in infos if each.required}
            return ResultType(cls, {each.name: each.type for each in infos}, frozenset(needed))
        if typing.is_typeddict(cls):
            return ResultType(cls, typing.get_type_hints(cls), cls.__required_keys__)
        if dataclasses.is_dataclass(cls):
            hints = typing.get_type_hints(cls)
            of_class = [each for each in dataclasses.fields(cls) if each.init]
            needed = {
                each.name
                for each in of_class
                if each.default is dataclasses.MISSING
                and each.default_factory is dataclasses.MISSING
            }
            kinds = {each.name: hints[each.name] for each in of_class}
            return ResultType(cls, kinds, frozenset(needed))
    except (TypeError, NameError) as error:
        raise TopologyError(f"the fields of {type_name(cls)} are not known: {error}") from error
    raise TopologyError(
        f"{type_name(cls)} has no fields for the results",
        hint="use a msgspec.Struct, a dataclass or a TypedDict, or leave it out for dicts",
    )


def check_fields(of: ResultType, aggregates: dict[str, Aggregator[Value]]) -> None:
    """Refuse aggregates that do not fit the fields of the class of results.

    Raises:
        TopologyError: A field is missing, or too many, or of another type.
    """
    name = type_name(of.cls)
    known = ", ".join(of.fields)
    for field, aggregate in aggregates.items():
        if field not in of.fields:
            raise TopologyError(f"{name} has no field {field!r}", hint=f"it has {known}")
        kind = aggregate.result_type
        if kind is not None and clashes(kind, of.fields[field]):
            raise TopologyError(
                f"the field {field!r} of {name} is {type_name(of.fields[field])}, but "
                f"{type(aggregate).__name__} gives {type_name(kind)}"
            )
    missing = of.required - aggregates.keys() - set(_OF_WINDOW)
    if missing:
        first = sorted(missing)[0]
        raise TopologyError(
            f"{name} needs the field {first!r}, which no aggregate gives",
            hint=f"add it, for example {first}=Count(), or give the field a default",
        )


@dataclass(frozen=True, slots=True)
class AsResults(Stateless):
    """Make a result of each `streamkit.dataflow.windowed.Row`.

    Without ``of``, results are dicts with the fields of the window and the aggregates.
    """

    of: ResultType | None
    results: dict[str, Callable[[Value], Value]]
    key_type: Kind
    is_positional: bool = False

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        keys = iter(chunk.keys)
        key_of = group_key_reader(self.key_type)

        def results(rows: Sequence[Value]) -> Iterable[Value]:
            own = [next(keys) for _ in rows]
            return self._results(rows, map(key_of, own))

        return chunk.with_values(one_per_row(results, chunk, room))

    def _results(self, rows: Sequence[Value], keys: Iterable[Value]) -> Iterable[Value]:
        starts, ends, found = map(list, zip(*rows, strict=True))
        columns: dict[str, Iterable[Value]] = {
            _KEY: keys,
            _START: map(self._time(_START), starts),
            _END: map(self._time(_END), ends),
        }
        for at, (name, result) in enumerate(self.results.items()):
            column = map(itemgetter(at), found)
            columns[name] = column if _is_same(result) else map(result, column)
        if self.of is None:
            return map(dict, map(zip, repeat(list(columns)), zip(*columns.values(), strict=False)))
        fields = self.of.fields
        chosen = {name: columns[name] for name in fields if name in columns}
        if self.is_positional:
            return map(self.of.cls, *chosen.values())
        build: Callable[..., Value] = self.of.cls
        names = list(chosen)
        return (
            build(**dict(zip(names, values, strict=True)))
            for values in zip(*chosen.values(), strict=False)
        )

    def _time(self, field: str) -> Callable[[int], Value]:
        """Return how a field shows a time: as ms if it is an int, otherwise as a datetime."""
        kind = datetime if self.of is None else self.of.fields.get(field, datetime)
        return int if kind is int else moment


@dataclass(frozen=True, slots=True)
class Applied(Stateless):
    """Call a function with each window and its values; drop the result None."""

    function: Callable[[Window[Value], list[Value]], Value]
    result: Callable[[Value], Value]
    key_of: Callable[[bytes | None], Value]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        keys = iter(chunk.keys)

        def call(row: Value) -> Value:
            start, end, (values,) = row
            window = Window(self.key_of(next(keys)), moment(start), moment(end))
            return self.function(window, self.result(values))

        values = one_per_row(lambda rows: map(call, rows), chunk, room, finish=without_none)
        return without_none(chunk.with_values(values))


@dataclass(frozen=True, slots=True)
class AsValues(Stateless):
    """Make the result of the only aggregate the value."""

    result: Callable[[Value], Value]

    def apply(self, chunk: Chunk, room: Room) -> Chunk:
        return chunk.with_values([self.result(row[2][0]) for row in chunk.values])


@lru_cache(4_096)
def moment(time_ms: int) -> datetime:
    """Return ms since the epoch as a datetime in UTC, at most the last one there is."""
    return _EPOCH + timedelta(milliseconds=min(time_ms, TIMESTAMP_MS_MAX))
