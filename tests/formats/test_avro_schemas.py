"""Avro schemas: of types, of files, and of values that were written with another one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import fastavro
import msgspec
import pytest

from streamkit.errors import DataError, TopologyError, UsageError
from streamkit.formats import Avro
from streamkit.formats.avro_types import schema_of
from streamkit.serde.binding import Usage
from tests.formats.samples import Color, Flat, Price, Tree, one_flat

T = TypeVar("T")


class Item(msgspec.Struct):
    sku: str
    count: int = 1


class Order(msgspec.Struct):
    id: int
    items: list[Item]
    note: str | None = None


class Box(msgspec.Struct, Generic[T]):
    inside: T


class Airport(TypedDict):
    code: str


class Pair(NamedTuple):
    a: int
    b: str


@dataclass
class Place:
    name: str
    tags: list[str]


def record(name: str, *fields: tuple[Any, ...]) -> dict[str, Any]:
    """Return the schema of a record from names, types and perhaps defaults."""
    return {
        "type": "record",
        "name": name,
        "fields": [
            {"name": each[0], "type": each[1], **({"default": each[2]} if len(each) > 2 else {})}
            for each in fields
        ],
    }


def by_hand(schema: Any, value: Any) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), value)
    return stream.getvalue()


STRINGS = {"type": "array", "items": "string"}

# --- schemas of types --------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (int, "long"),
        (str | None, ["null", "string"]),
        (int | str | None, ["null", "long", "string"]),
        (tuple[int, str], {"type": "array", "items": ["long", "string"]}),
        (tuple[int, int], {"type": "array", "items": "long"}),
        (Pair, {"type": "array", "items": ["long", "string"]}),
        (dict[str, list[float]], {"type": "map", "values": {"type": "array", "items": "double"}}),
        (Color, {"type": "enum", "name": "Color", "symbols": ["red", "blue"]}),
        (Airport, record("Airport", ("code", "string"))),
        (Place, record("Place", ("name", "string"), ("tags", STRINGS))),
        (Box[float], record("Box_float", ("inside", "double"))),
        (Annotated[datetime, msgspec.Meta(tz=False)],
         {"type": "long", "logicalType": "local-timestamp-micros"}),
        (Annotated[int, msgspec.Meta(extra={"avro": "int"})], "int"),
        (Order, record(
            "Order",
            ("id", "long"),
            ("items", {"type": "array", "items": record(
                "Item", ("sku", "string"), ("count", "long", 1))}),
            ("note", ["null", "string"], None),
        )),
        (Tree, record(
            "Tree", ("weight", "long"), ("children", {"type": "array", "items": "Tree"}, []))),
    ],
)  # fmt: skip
def test_a_type_has_this_schema(kind: Any, schema: Any) -> None:
    assert schema_of(kind) == schema
    fastavro.parse_schema(schema_of(kind))


def test_fastavro_reads_and_writes_the_same_bytes() -> None:
    schema = schema_of(Flat)
    data = Avro(Flat).dumps(one_flat())
    read = fastavro.schemaless_reader(BytesIO(data), fastavro.parse_schema(schema), None)
    assert isinstance(read, dict)
    assert (read["number"], read["price"], read["color"]) == (1, Decimal("12.50"), "blue")
    assert by_hand(schema, read) == data


def test_two_classes_with_one_name_are_refused() -> None:
    class Item(msgspec.Struct):
        other: int

    class Both(msgspec.Struct):
        one: Order
        two: Item

    Both.__annotations__["two"] = Item
    Both.__annotations__["one"] = Order
    with pytest.raises(TopologyError, match="two classes in Both have the name 'Item'"):
        schema_of(Both)


# --- given schemas ---------------------------------------------------------------------


def test_a_schema_comes_from_a_file_and_the_files_that_it_names(tmp_path: Path) -> None:
    item = record("com.shop.Item", ("sku", "string"), ("count", "int"))
    order = record(
        "com.shop.Order",
        ("id", "long"),
        ("items", {"type": "array", "items": "com.shop.Item"}),
        ("note", ["null", "string"], None),
    )
    (tmp_path / "com.shop.Item.avsc").write_text(json.dumps(item))
    (tmp_path / "com.shop.Order.avsc").write_text(json.dumps(order))
    form = Avro(Order, schema_file=tmp_path / "com.shop.Order.avsc")
    value = Order(5, [Item("x", 2)])
    assert form.loads(form.dumps(value)) == value
    assert Avro(schema_file=str(tmp_path / "com.shop.Order.avsc")).loads(form.dumps(value)) == {
        "id": 5, "items": [{"sku": "x", "count": 2}], "note": None,
    }  # fmt: skip
    with pytest.raises(DataError, match="32 bits - at"):
        form.dumps(Order(5, [Item("x", 2**31)]))


@pytest.mark.parametrize("schema", ['"string"', "string", {"type": "string"}])
def test_a_schema_may_be_a_text_or_objects(schema: Any) -> None:
    assert Avro(schema=schema).dumps("x") == b"\x02x"


def test_types_that_avro_writes_as_text_are_converted() -> None:
    class Texts(msgspec.Struct):
        price: Decimal
        at: datetime
        raw: bytes

    form = Avro(Texts, schema=record("T", ("price", "string"), ("at", "string"), ("raw", "string")))
    value = Texts(Decimal("1.50"), datetime(2013, 1, 2, tzinfo=UTC), b"\xff")
    assert form.dumps(value) == b"\x081.50\x282013-01-02T00:00:00Z\x08/w=="
    with pytest.raises(DataError, match="Expected `bytes`, got `str`"):  # it may be no base64
        form.loads(form.dumps(value))


@pytest.mark.parametrize(
    ("kind", "schema", "words"),
    [
        (Order, record("Order", ("id", "long"), ("items", {"type": "array", "items": record(
            "Item", ("sku", "string"), ("count", "long"))})), "no field 'note', which Order has"),
        (Item, record("Item", ("sku", "string"), ("count", "int"), ("size", "int")),
         "Item has no field 'size', which the schema has without a default"),
        (list[Item], {"type": "array", "items": record("Item", ("sku", "string"))},
         "has no field 'count', which Item has"),
        (Order, record("O", ("id", "long"), ("items", {"type": "array", "items": record(
            "Item", ("sku", "string"))}), ("note", ["null", "string"])), "(in the field 'items')"),
    ],
)  # fmt: skip
def test_a_schema_that_does_not_fit_the_type_is_refused_in_a_sink(
    kind: Any, schema: Any, words: str
) -> None:
    with pytest.raises(TopologyError) as caught:
        Avro(schema=schema).for_use(Usage(kind, "orders", is_written=True))
    assert words in str(caught.value)
    Avro(schema=schema).for_use(Usage(kind, "orders"))  # a source may leave fields out


def test_omitted_defaults_are_those_of_the_schema() -> None:
    class Short(msgspec.Struct, omit_defaults=True):
        size: int = 5
        note: str | None = None

    assert Avro(Short).loads(Avro(Short).dumps(Short())) == Short()
    other = record("Short", ("size", "long", 7), ("note", ["null", "string"], None))
    with pytest.raises(DataError, match="omits the default of 'size'"):
        Avro(Short, schema=other).dumps(Short())


def test_a_tagged_union_is_read_as_the_class_that_was_written() -> None:
    class A(msgspec.Struct, tag=True):
        x: float

    class B(msgspec.Struct, tag=True):
        x: float

    A.__module__ = B.__module__ = __name__
    form = Avro(list[A | B])
    values = [A(1.0), B(2.0), A(3.0)]
    assert form.loads(form.dumps(values)) == values


# --- evolution -------------------------------------------------------------------------

OLD = record("Order", ("id", "int"), ("customer", "string"), ("color", {
    "type": "enum", "name": "Color", "symbols": ["red", "blue"]}))  # fmt: skip
STORED = by_hand(OLD, {"id": 7, "customer": "ann", "color": "red"})


class Newer(msgspec.Struct):
    """It has lost ``customer`` and has got ``size``; ``id`` is a long."""

    id: int
    color: Color
    size: int = 1


def test_a_value_with_an_older_schema_is_read_as_the_type() -> None:
    form = Avro(Newer, writer_schema=OLD)
    assert form.loads(STORED) == Newer(7, Color.RED)


def test_a_value_is_resolved_to_the_schema_of_the_reader() -> None:
    newer = record("Order", ("id", "double"), ("size", "long", 3), ("color", "string", "none"))
    older = {**OLD, "fields": OLD["fields"][:2]}
    form = Avro(schema=newer, writer_schema=older)
    stored = by_hand(older, {"id": 7, "customer": "x"})
    assert form.loads(stored) == {"id": 7.0, "size": 3, "color": "none"}


def test_a_writer_schema_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "old.avsc").write_text(json.dumps(OLD))
    assert Avro(Newer, writer_schema=tmp_path / "old.avsc").loads(STORED) == Newer(7, Color.RED)


@pytest.mark.parametrize(
    ("reader", "words"),
    [
        (record("Order", ("id", "int"), ("size", "int")), "No default value for"),
        (record("Order", ("id", "boolean")), "boolean"),
    ],
)
def test_a_schema_that_cannot_read_older_values_fails_on_the_record(
    reader: Any, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        Avro(schema=reader, writer_schema=OLD).loads(STORED)


def test_a_missing_field_and_an_unknown_symbol_fail_on_the_record() -> None:
    class Needs(msgspec.Struct):
        id: int
        size: int

    class Few(msgspec.Struct):
        color: Annotated[str, msgspec.Meta(pattern="^blue$")]

    with pytest.raises(DataError, match="missing required field `size`"):
        Avro(Needs, writer_schema=OLD).loads(STORED)
    with pytest.raises(DataError, match="blue"):
        Avro(Few, writer_schema=OLD).loads(STORED)


def test_values_of_dicts_are_those_of_fastavro() -> None:
    form = Avro(dict[str, Any], schema=OLD)
    assert form.loads(STORED) == {"id": 7, "customer": "ann", "color": "red"}
    assert form.dumps(form.loads(STORED)) == STORED


def test_a_dict_may_contain_objects() -> None:
    form = Avro(schema=schema_of(Order))
    assert form.dumps({"id": 1, "items": [Item("x")], "note": None}) == (
        form.dumps(Order(1, [Item("x")]))
    )
    assert Avro(schema={"type": "array", "items": schema_of(Color)}).dumps([Color.RED])


def test_logical_types_in_unions_with_null_are_kept() -> None:
    class Optional(msgspec.Struct):
        price: Price | None
        at: datetime | None
        raw: bytes | None = b"x"

    form = Avro(Optional)
    full = Optional(Decimal("1.50"), datetime(2013, 1, 2, tzinfo=UTC), b"\xff")
    assert form.loads(form.dumps(full)) == full
    assert form.loads(form.dumps(Optional(None, None))) == Optional(None, None)


def test_an_invalid_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.avsc").write_text("{")
    with pytest.raises(UsageError, match=r"bad\.avsc cannot be used"):
        Avro(schema_file=tmp_path / "bad.avsc").for_use(Usage(int, "a"))
    with pytest.raises(UsageError, match="symbol"):
        Avro(schema={"type": "enum", "name": "E", "symbols": ["a-b"]}).for_use(Usage(int, "a"))
