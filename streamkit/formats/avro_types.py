"""Avro schemas of types, and whether a type fits a schema.

| type | schema |
|---|---|
| bool, str, bytes, None | boolean, string, bytes, null |
| int, float | long, double |
| datetime | timestamp-micros; local-timestamp-micros with ``Meta(tz=False)`` |
| date, time, UUID | date, time-micros, uuid |
| timedelta | string, as in ISO 8601 |
| Enum, Literal | enum if all values are texts that Avro allows as symbols; else string or long |
| list, set, tuple | array |
| dict | map; keys become texts |
| Struct, dataclass, TypedDict | record |
| union | union |

``msgspec.Meta(extra={"avro": ...})`` sets the schema of a part, such as the precision of a Decimal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect as shape

from streamkit.errors import TopologyError
from streamkit.formats.format import shown_type
from streamkit.record import Kind

Schema = Any  # a text, a list or a dict, as in the JSON of a schema
Records = shape.StructType | shape.DataclassType | shape.TypedDictType
_SYMBOL: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_SIMPLE: Final[dict[type, Schema]] = {
    shape.BoolType: "boolean",
    shape.IntType: "long",
    shape.FloatType: "double",
    shape.StrType: "string",
    shape.NoneType: "null",
    shape.BytesType: "bytes",
    shape.ByteArrayType: "bytes",
    shape.MemoryViewType: "bytes",
    shape.TimeDeltaType: "string",
    shape.DateType: {"type": "int", "logicalType": "date"},
    shape.TimeType: {"type": "long", "logicalType": "time-micros"},
    shape.UUIDType: {"type": "string", "logicalType": "uuid"},
}
_LISTS: Final = (
    shape.ListType | shape.SetType | shape.FrozenSetType | shape.CollectionType | shape.VarTupleType
)
_DECIMAL_HINT: Final = (
    'annotate Annotated[Decimal, msgspec.Meta(extra={"avro": {"type": "bytes", "logicalType": '
    '"decimal", "precision": 12, "scale": 2}})]'
)


def schema_of(kind: Kind) -> Schema:
    """Return the schema of a type.

    Raises:
        TopologyError: The type has no schema; the message says which part.
    """
    return _Deriving(kind).schema(shape_of(kind))


def shape_of(kind: Kind) -> shape.Type:
    """Return what msgspec knows of a type.

    Raises:
        TopologyError: It cannot be resolved.
    """
    try:
        return shape.type_info(kind)
    except Exception as error:  # an annotation that cannot be resolved
        raise TopologyError(f"Avro cannot represent values of {kind}: {error}") from None


class _Deriving:
    """Makes the schema of one type; a record that occurs again is only named."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._names: dict[str, Kind] = {}

    def schema(self, part: shape.Type) -> Schema:
        match part:
            case shape.Metadata(extra={"avro": found}):
                return found
            case shape.Metadata(type=inner):
                return self.schema(inner)
            case shape.DateTimeType(tz=tz):
                name = "local-timestamp-micros" if tz is False else "timestamp-micros"
                return {"type": "long", "logicalType": name}
            case shape.EnumType(cls=cls):
                return self._choice([each.value for each in cls], cls.__name__, cls)
            case shape.LiteralType(values=values):
                return self._choice(list(values), "", None)
            case shape.UnionType(types=types):
                return _union(map(self.schema, types))
            case shape.TupleType(item_types=types):
                return {"type": "array", "items": _union(map(self.schema, types))}
            case shape.NamedTupleType(fields=fields):
                return {"type": "array", "items": _union(self.schema(f.type) for f in fields)}
            case shape.DictType(value_type=value):
                return {"type": "map", "values": self.schema(value)}
        if isinstance(part, _LISTS):
            return {"type": "array", "items": self.schema(part.item_type)}
        if isinstance(part, Records):
            return self._record(part)
        if type(part) in _SIMPLE:
            return _SIMPLE[type(part)]
        raise self._refusal(part)

    def _record(self, part: Records) -> Schema:
        name = _name_of(part.cls)
        if name in self._names:
            self._refuse_namesake(name, part.cls)
            return name
        if getattr(part, "array_like", False):
            raise TopologyError(
                f"Avro cannot represent {shown_type(part.cls)}: it is array_like",
                hint="Avro has names of fields; remove array_like=True",
            )
        self._names[name] = part.cls
        tag = getattr(part, "tag", None)
        fields = [] if tag is None else [self._tag(name, part)]
        return {"type": "record", "name": name, "fields": [*fields, *map(self._field, part.fields)]}

    def _tag(self, name: str, part: Any) -> Schema:
        return {"name": part.tag_field, "type": self._choice([part.tag], f"{name}_tag", part.cls)}

    def _field(self, field: shape.Field) -> Schema:
        schema = self.schema(field.type)
        default = _default_of(field)
        if default is msgspec.NODEFAULT:
            return {"name": field.encode_name, "type": schema}
        if isinstance(schema, list):  # the default belongs to the first branch of a union
            schema = sorted(schema, key=lambda branch: not _is_of(default, branch))
        first = schema[0] if isinstance(schema, list) else schema
        if not _is_of(default, first):
            return {"name": field.encode_name, "type": schema}
        return {"name": field.encode_name, "type": schema, "default": default}

    def _choice(self, values: list[Any], name: str, cls: Kind) -> Schema:
        if name and all(isinstance(each, str) and _SYMBOL.fullmatch(each) for each in values):
            if name in self._names:
                self._refuse_namesake(name, cls)
                return name
            self._names[name] = cls
            return {"type": "enum", "name": name, "symbols": values}
        kinds: dict[type, Schema] = {str: "string", int: "long", type(None): "null"}
        return _union(kinds[type(each)] for each in values)

    def _refuse_namesake(self, name: str, cls: Kind) -> None:
        if self._names[name] is not cls and self._names[name] != cls:
            raise TopologyError(
                f"two classes in {shown_type(self._kind)} have the name {name!r}",
                hint="rename one of them, or give the schema with schema=",
            )

    def _refusal(self, part: shape.Type) -> TopologyError:
        name = type(part).__name__.removesuffix("Type")
        if isinstance(part, shape.CustomType):
            name = shown_type(part.cls)
        return TopologyError(
            f"{name} in {shown_type(self._kind)} has no Avro schema",
            hint=_DECIMAL_HINT
            if isinstance(part, shape.DecimalType)
            else "use another type, or give the schema with schema= or schema_file=",
        )


def _name_of(cls: Kind) -> str:
    """Return the name of a record; a generic class has its types in it."""
    text = cls.__name__ if isinstance(cls, type) else str(cls).rsplit(".", maxsplit=1)[-1]
    return re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")


def _union(schemas: Iterable[Schema]) -> Schema:
    """Return a union without branches that occur twice; the only branch if there is one."""
    found: list[Schema] = []
    for each in schemas:
        for branch in each if isinstance(each, list) else [each]:
            if branch not in found:
                found.append(branch)
    found.sort(key=lambda branch: branch != "null")
    return found[0] if len(found) == 1 else found


def _default_of(field: shape.Field) -> Any:
    """Return the default of a field as a schema has it; NODEFAULT without one."""
    if field.default_factory in (list, dict):
        return field.default_factory()
    if field.default is msgspec.NODEFAULT:
        return msgspec.NODEFAULT
    return msgspec.to_builtins(field.default)


def _is_of(default: Any, schema: Schema) -> bool:
    """Return whether a default may be written in a schema, as JSON."""
    match schema, default:
        case ("null", None) | ("boolean", bool()):
            return True
        case ("long", int()) | ("double", int() | float()):
            is_number = not isinstance(default, bool)
            return is_number and default == default and abs(default) < 2**63
        case ("string", str()):
            return True
        case ({"type": "enum", "symbols": symbols}, str()):
            return default in symbols
        case ({"type": "array"}, []):
            return True
        case ({"type": "map"}, {}):
            return not default
    return False


def misfits(part: shape.Type, schema: Schema, where: str = "") -> Iterator[str]:
    """Yield why values of a type cannot be written with a schema, as far as types show it.

    Args:
        part: The type.
        schema: As fastavro parses it.
        where: The field of the outer record, for the text.
    """
    part, schema = _plain(part), _plain_schema(schema)
    if isinstance(part, Records) and isinstance(schema, dict) and "fields" in schema:
        yield from _of_record(part, schema, where)
    elif isinstance(part, _LISTS) and isinstance(schema, dict) and "items" in schema:
        yield from misfits(part.item_type, schema["items"], where)
    elif isinstance(part, shape.DictType) and isinstance(schema, dict) and "values" in schema:
        yield from misfits(part.value_type, schema["values"], where)


def _of_record(part: Records, schema: Schema, where: str) -> Iterator[str]:
    name = f"{shown_type(part.cls)}"
    known = {each["name"]: each for each in schema["fields"]}
    own = {each.encode_name: each for each in part.fields}
    tags = {getattr(part, "tag_field", None)}
    at = f" (in the field {where!r})" if where else ""
    for each in own:
        if each not in known:
            yield f"the schema has no field {each!r}, which {name} has{at}"
    for each, field in known.items():
        if each not in own and each not in tags and "default" not in field:
            yield f"{name} has no field {each!r}, which the schema has without a default{at}"
    config = getattr(part.cls, "__struct_config__", None)
    if getattr(config, "omit_defaults", False):
        for each, field in own.items():
            default = known.get(each, {}).get("default", msgspec.NODEFAULT)
            if not field.required and _default_of(field) != default:
                yield f"{name} omits the default of {each!r}, and the schema has another{at}"
    for each in own.keys() & known.keys():
        yield from misfits(own[each].type, known[each]["type"], each)


def _plain(part: shape.Type) -> shape.Type:
    """Return a type without its constraints and None."""
    while isinstance(part, shape.Metadata):
        part = part.type
    if isinstance(part, shape.UnionType):
        rest = [each for each in part.types if not isinstance(each, shape.NoneType)]
        return _plain(rest[0]) if len(rest) == 1 else part
    return part


def _plain_schema(schema: Schema) -> Schema:
    if isinstance(schema, list):
        rest = [each for each in schema if each != "null"]
        return rest[0] if len(rest) == 1 else schema
    return schema
