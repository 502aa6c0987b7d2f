"""Chooses the columns for the types of values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Final, get_origin

import msgspec
from msgspec import NODEFAULT
from msgspec import inspect as shape

from streamkit.errors import TopologyError
from streamkit.frames.column import Column
from streamkit.frames.moments import Dates, Durations, Instants, Locals, Times
from streamkit.frames.nested import Lists, Maps
from streamkit.frames.objects import Absent, Field, Objects
from streamkit.frames.scalars import (
    Binaries,
    Bools,
    Choices,
    Decimals,
    Floats,
    Ints,
    Nulls,
    Texts,
    Uuids,
)
from streamkit.record import Kind, Value

_Classes = tuple[type, ...]

_SIMPLE: Final[dict[type, Callable[..., Column]]] = {
    shape.BoolType: Bools,
    shape.DateType: Dates,
    shape.TimeType: Times,
    shape.TimeDeltaType: Durations,
    shape.UUIDType: Uuids,
}
# The types of values that msgspec can check, with the class of the values.
_RULED: Final[dict[type, tuple[Callable[..., Column], type]]] = {
    shape.IntType: (Ints, int),
    shape.FloatType: (Floats, float),
    shape.StrType: (Texts, str),
    shape.BytesType: (Binaries, bytes),
}
_BINARIES: Final[dict[type, type]] = {
    shape.ByteArrayType: bytearray,
    shape.MemoryViewType: memoryview,
}
_LISTS: Final[dict[type, tuple[type, _Classes]]] = {
    shape.ListType: (list, (list, tuple)),
    shape.CollectionType: (list, (list, tuple, set, frozenset)),
    shape.SetType: (set, (set, frozenset)),
    shape.FrozenSetType: (frozenset, (set, frozenset)),
    shape.VarTupleType: (tuple, (tuple, list)),
}
_WITH_FIELDS = shape.StructType | shape.DataclassType | shape.TypedDictType | shape.NamedTupleType


def objects_of(kind: Kind) -> Objects:
    """Return how values of a type with fields are columns.

    Raises:
        TopologyError: The type has no fields, or one of them cannot be a column.
    """
    try:
        found = _without_none(shape.type_info(kind))
    except Exception as error:  # msgspec has no common class for what it does not support
        raise TopologyError(f"values of {_shown(kind)} cannot be columns: {error}") from None
    if not isinstance(found, _WITH_FIELDS):
        hint = "use a msgspec.Struct, a dataclass, a TypedDict or a dict for the rows"
        if hasattr(kind, "__pydantic_validator__"):
            hint = f"turn them into dicts first: stream.map({kind.__name__}.model_dump)"
        elif isinstance(found, shape.UnionType):
            hint = "turn them into rows of one type first, with map"
        raise TopologyError(f"values of {_shown(kind)} cannot be rows of a frame", hint=hint)
    return _objects(found, _shown(kind), (), is_nullable=False)


def column_of(kind: Kind) -> Column:
    """Return the column for single values of a type, which may also be None.

    Raises:
        TopologyError: There is none.
    """
    return _column(shape.type_info(kind), f"a value of {_shown(kind)}", (), is_nullable=True)


def _column(found: shape.Type, what: str, above: _Classes, *, is_nullable: bool) -> Column:
    """Return the column for a type; ``above`` are the classes that it is a part of."""
    if isinstance(found, shape.Metadata):
        if isinstance(found.type, shape.DecimalType):
            extra = found.extra or {}
            return Decimals(extra.get("precision"), extra.get("scale"), is_nullable=is_nullable)
        return _column(found.type, what, above, is_nullable=is_nullable)
    if isinstance(found, shape.UnionType):
        return _of_union(found, what, above)
    if isinstance(found, shape.LiteralType):
        is_nullable = is_nullable or None in found.values
        return _choices(found, what, is_nullable=is_nullable)
    if isinstance(found, shape.EnumType):
        return _choices(found, what, is_nullable=is_nullable)
    if isinstance(found, _WITH_FIELDS):
        return _objects(found, found.cls.__name__, above, is_nullable=is_nullable)
    return _of_parts(found, what, above, is_nullable) or _scalar(found, what, is_nullable)


def _scalar(found: shape.Type, what: str, is_nullable: bool) -> Column:
    kind = type(found)
    if kind in _SIMPLE:
        return _SIMPLE[kind](is_nullable=is_nullable)
    if kind in _RULED:
        column, base = _RULED[kind]
        return column(is_nullable=is_nullable, rule=_rule_of(found, base))
    if kind in _BINARIES:
        return Binaries(_BINARIES[kind], is_nullable=is_nullable)
    if isinstance(found, shape.DateTimeType):
        return (Locals if found.tz is False else Instants)(is_nullable=is_nullable)
    if isinstance(found, shape.DecimalType):
        return Decimals(is_nullable=is_nullable)
    if isinstance(found, shape.NoneType):
        return Nulls()
    raise _refused(what, found)


def _of_parts(found: shape.Type, what: str, above: _Classes, is_nullable: bool) -> Column | None:
    """Return the column for a list, a set, a tuple or a dict; None for other types."""
    if type(found) in _LISTS:
        make, kinds = _LISTS[type(found)]
        part = _column(found.item_type, what, above, is_nullable=False)  # type: ignore[attr-defined]
        return Lists(part, make, kinds, is_nullable=is_nullable)
    if isinstance(found, shape.DictType):
        key = _column(found.key_type, what, above, is_nullable=False)
        part = _column(found.value_type, what, above, is_nullable=False)
        return Maps(key, part, is_nullable=is_nullable)
    return None


def _of_union(found: shape.UnionType, what: str, above: _Classes) -> Column:
    is_nullable = any(isinstance(each, shape.NoneType) for each in found.types)
    rest = [each for each in found.types if not isinstance(each, shape.NoneType)]
    if len(rest) == 1:
        return _column(rest[0], what, above, is_nullable=is_nullable)
    if {type(each) for each in rest} == {shape.IntType, shape.FloatType}:
        return Floats(is_nullable=is_nullable)
    raise TopologyError(
        f"{what} has values of several types, but a column has one type",
        hint="turn them into values of one type first, with map",
    )


def _without_none(found: shape.Type) -> shape.Type:
    if not isinstance(found, shape.UnionType):
        return found
    rest = tuple(each for each in found.types if not isinstance(each, shape.NoneType))
    return rest[0] if len(rest) == 1 else found


def _choices(found: shape.EnumType | shape.LiteralType, what: str, *, is_nullable: bool) -> Column:
    choices: dict[Value, Value]
    if isinstance(found, shape.EnumType):
        name, choices = found.cls.__name__, {each: each.value for each in found.cls}
    else:
        name, choices = "the Literal", {each: each for each in found.values if each is not None}
    kinds = {type(each) for each in choices.values()}
    if kinds not in ({str}, {int}):
        raise TopologyError(f"{what} has choices that are neither all str nor all int")
    return Choices(name, choices, is_nullable=is_nullable)


def _objects(found: _WITH_FIELDS, name: str, above: _Classes, *, is_nullable: bool) -> Objects:
    kind = found.cls
    if kind in above:
        raise TopologyError(f"{name} contains itself, so it cannot be columns")
    if not found.fields:
        raise TopologyError(f"{name} has no fields, so it cannot be columns")
    is_dict = isinstance(found, shape.TypedDictType)
    fields = [_field(each, name, (*above, kind), is_dict=is_dict) for each in found.fields]
    return Objects(
        dict if is_dict else get_origin(kind) or kind,
        name,
        fields,
        takes_order=not is_dict and _takes(kind, [each.key for each in fields]),
        is_nullable=is_nullable,
    )


def _field(found: shape.Field, name: str, above: _Classes, *, is_dict: bool) -> Field:
    has_default = found.default is not NODEFAULT or found.default_factory is not NODEFAULT
    column = _column(found.type, f"the field {found.name!r} of {name}", above, is_nullable=False)
    absent: Absent = "none"
    if not found.required and not has_default and not column.is_nullable:
        absent = "missing" if is_dict else "unset"
        column.is_nullable = True
    return Field(found.name, found.encode_name, column, not found.required, absent)


def _takes(kind: type, keys: Sequence[str]) -> bool:
    """Return whether a class can be called with its fields in order."""
    parameters = inspect.signature(get_origin(kind) or kind).parameters.values()
    return [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD] == [*keys]


def _rule_of(found: shape.Type, base: type) -> Kind:
    """Return what msgspec checks of values: the constraints of a type, or None."""
    given = {name: getattr(found, name) for name in found.__struct_fields__}
    given = {name: limit for name, limit in given.items() if limit is not None}
    return list[Annotated[base, msgspec.Meta(**given)]] if given else None  # type: ignore[valid-type]


def _refused(what: str, found: shape.Type) -> TopologyError:
    if isinstance(found, shape.AnyType):
        text = f"{what} may be of any type, but a column has one type"
        return TopologyError(text, hint="give it a type, or leave it out of the class")
    name = getattr(getattr(found, "cls", None), "__name__", type(found).__name__)
    return TopologyError(f"{what} has values of {name}, which cannot be a column")


def _shown(kind: Kind) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_origin(kind) else str(kind)
