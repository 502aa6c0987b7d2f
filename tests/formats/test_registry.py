"""Schemas and ids of a registry: what is asked for, how often, and what happens if that fails."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamkit import Secret
from streamkit.errors import DataError, RegistryError, UsageError
from streamkit.formats import Avro, Protobuf, SchemaRegistry
from streamkit.serde.binding import Usage
from tests.formats.messages import Address, Customer, Order
from tests.formats.test_avro_schemas import record
from tests.schema_registry import PASSWORD, USER, Fault, Registry, closed_port, running_registry


class Item(msgspec.Struct):
    sku: str
    count: int = 1


class Sized(msgspec.Struct):
    sku: str
    size: int


SINK = Usage(Item, "items", is_written=True)


@pytest.fixture
def server() -> Iterator[Registry]:
    with running_registry() as running:
        yield running


def written(registry: SchemaRegistry, value: Any, **more: Any) -> bytes:
    return Avro(registry=registry, **more).for_use(SINK).dumps(value)


def reader(registry: SchemaRegistry, kind: Any = Item) -> Callable[[bytes], Any]:
    return Avro(registry=registry).for_use(Usage(kind, "items")).loads


# --- ids ---------------------------------------------------------------------------


def test_a_value_begins_with_the_id_of_its_schema(server: Registry) -> None:
    server.add("other", {"type": "string"})
    data = written(SchemaRegistry(server.url), Item("x", 2))
    assert data == b"\0\0\0\0\2\x02x\x04"
    assert reader(SchemaRegistry(server.url + "/"))(data) == Item("x", 2)
    assert server.state.subjects["items-value"] == [2]


def test_each_schema_is_asked_for_once(server: Registry) -> None:
    registry = SchemaRegistry(server.url)
    dumps = Avro(registry=registry).for_use(SINK).dumps
    stored = [dumps(Item("x", number)) for number in range(100)]
    loads = reader(registry)
    assert [loads(data).count for data in stored] == list(range(100))
    assert reader(registry)(stored[0]) == Item("x", 0)
    assert written(registry, Item("x")) == stored[1]
    assert server.state.requests == {
        "POST /subjects/items-value/versions": 1, "GET /schemas/ids/1": 1,
    }  # fmt: skip


def test_nothing_is_sent_before_a_record_needs_a_schema(server: Registry) -> None:
    registry = SchemaRegistry(server.url)
    Avro(registry=registry).for_use(SINK)
    Avro(Item, registry=registry).for_use(Usage(None, "items"))
    Protobuf(Order, registry=registry).for_use(Usage(None, "items", is_written=True))
    assert server.requests() == 0


@pytest.mark.parametrize(
    ("subject", "part", "name"),
    [
        ("topic", "value", "items-value"),
        ("topic", "key", "items-key"),
        ("record", "value", "Item"),
        ("topic-record", "value", "items-Item"),
    ],
)
def test_the_subject_has_this_name(server: Registry, subject: Any, part: Any, name: str) -> None:
    registry = SchemaRegistry(server.url, subject=subject)
    Avro(registry=registry).for_use(Usage(Item, "items", part, is_written=True)).dumps(Item("x"))
    assert list(server.state.subjects) == [name]


def test_the_name_of_a_record_contains_its_namespace(server: Registry) -> None:
    schema = {**record("Item", ("sku", "string"), ("count", "int")), "namespace": "com.shop"}
    written(SchemaRegistry(server.url, subject="topic-record"), Item("x"), schema=schema)
    assert list(server.state.subjects) == ["items-com.shop.Item"]


def test_a_subject_with_special_characters_is_found(server: Registry) -> None:
    registry = SchemaRegistry(server.url)
    usage = Usage(Item, "a/b ä?", is_written=True)
    Avro(registry=registry).for_use(usage).dumps(Item("x"))
    assert list(server.state.subjects) == ["a/b ä?-value"]


def test_without_a_topic_the_subject_is_an_error(server: Registry) -> None:
    with pytest.raises(DataError, match="depends on the topic"):
        Avro(Item, registry=SchemaRegistry(server.url)).dumps(Item("x"))


def test_values_of_several_schemas_are_read_from_one_topic(server: Registry) -> None:
    registry = SchemaRegistry(server.url)
    old = written(registry, {"sku": "a"}, schema=record("Item", ("sku", "string")), type=dict)
    new = record("Item", ("sku", "string"), ("count", "int", 1), ("more", ["null", "string"], None))
    later = written(registry, {"sku": "b", "count": 2, "more": "x"}, schema=new, type=dict)
    loads = reader(registry)
    assert [loads(data) for data in (old, later, old)] == [Item("a", 1), Item("b", 2), Item("a", 1)]
    resolved = Avro(dict, schema=new, registry=registry).for_use(Usage(None, "items")).loads
    assert resolved(old) == {"sku": "a", "count": 1, "more": None}
    assert server.requests("GET") == 2


def test_a_schema_is_registered_as_it_was_written(server: Registry, tmp_path: Path) -> None:
    text = """{"type": "record", "doc": "a thing", "namespace": "shop", "name": "Item",
        "fields": [{"name": "sku", "type": "string", "doc": "d"}, {"name": "count", "type": "int"}]}
    """
    (tmp_path / "item.avsc").write_text(text)
    (tmp_path / "shop.Item.avsc").write_text(text)
    (tmp_path / "list.avsc").write_text('{"type": "array", "items": "shop.Item"}')
    registry = SchemaRegistry(server.url)
    written(registry, Item("x"), schema=text)
    written(registry, Item("x"), schema_file=tmp_path / "item.avsc")
    written(registry, Item("x"), schema=json.loads(text))
    items = Avro(registry=registry, schema_file=tmp_path / "list.avsc")
    items.for_use(Usage(list[Item], "lists", is_written=True)).dumps([Item("x")])
    sent = [json.loads(each["schema"]) for each in server.state.bodies]
    assert sent[:-1] == [json.loads(text)] * (len(sent) - 1)
    assert sent[-1]["items"]["name"] == "shop.Item"


# --- look-up only ----------------------------------------------------------------------


def test_without_registration_a_schema_must_be_known(server: Registry) -> None:
    registry = SchemaRegistry(server.url, register=False)
    schema = record("Item", ("sku", "string"), ("count", "int"))
    with pytest.raises(RegistryError, match="does not know the subject") as caught:
        written(registry, Item("x"), schema=schema)
    assert "register" in caught.value.hint
    server.add("items-value", "string")
    with pytest.raises(RegistryError, match="does not know the schema"):
        written(registry, Item("x"), schema=schema)
    server.state.subjects.clear()
    server.add("items-value", schema)
    assert written(registry, Item("x"), schema=schema)[4] == 2
    assert server.requests("/versions") == 0


def test_without_registration_a_type_is_written_with_the_latest_schema(server: Registry) -> None:
    registry = SchemaRegistry(server.url, register=False)
    with pytest.raises(RegistryError, match="does not know the subject"):
        written(registry, Item("x"))
    latest = record("com.shop.Thing", ("count", "int"), ("note", ["null", "string"], None),
                    ("sku", "string"))  # fmt: skip
    server.add("items-value", record("com.shop.Thing", ("sku", "string"), ("count", "int")))
    server.add("items-value", latest)
    assert written(registry, Item("x", 2)) == b"\0\0\0\0\2\x04\0\x02x"
    assert written(registry, {"sku": "x", "count": 2, "note": "n"}, type=dict)[-2:] == b"\x02x"


@pytest.mark.parametrize(
    ("latest", "more", "words"),
    [
        (record("Item", ("sku", "string")), {}, "the schema has no field 'count'"),
        ('syntax = "proto3";', {"schemaType": "PROTOBUF"}, "is PROTOBUF, not AVRO"),
    ],
)
def test_a_latest_schema_that_does_not_fit_is_not_the_fault_of_a_record(
    server: Registry, latest: Any, more: dict[str, Any], words: str
) -> None:
    server.add("items-value", latest, **more)
    with pytest.raises(RegistryError, match="the latest schema of the subject 'items-value'") as e:
        written(SchemaRegistry(server.url, register=False), Item("x"))
    assert words in str(e.value)


# --- references ------------------------------------------------------------------------


def test_schemas_that_name_others_are_read(server: Registry) -> None:
    """A names B and C, which both name D, as in an issue of another tool."""

    def add(name: str, fields: list[tuple[str, Any]], *named: str) -> int:
        references = [
            {"name": f"shop.{each}", "subject": f"shop.{each}", "version": 1} for each in named
        ]
        return server.add(f"shop.{name}", record(f"shop.{name}", *fields), references=references)

    add("D", [("x", "double")])
    add("C", [("d", "shop.D"), ("next", ["null", "shop.C"])], "D")
    add("B", [("d", "D")], "D")
    number = add("A", [("b", "shop.B"), ("c", "shop.C"), ("d", "shop.D")], "C", "B", "D")
    d = b"\0\0\0\0\0\0\xf8\x3f"
    loads = reader(SchemaRegistry(server.url), dict)
    expected = {"b": {"d": {"x": 1.5}}, "c": {"d": {"x": 1.5}, "next": None}, "d": {"x": 1.5}}
    assert loads(b"\0\0\0\0" + bytes([number]) + d + d + b"\0" + d) == expected
    assert server.requests() == 4
    with pytest.raises(DataError, match="nested too deeply"):
        loads(b"\0\0\0\0" + bytes([number]) + d + d + (b"\2" + d) * 5_000)


def test_a_message_is_registered_with_the_files_that_it_imports(server: Registry) -> None:
    registry = SchemaRegistry(server.url)
    form = Protobuf(Order, registry=registry)
    usage = Usage(None, "orders", is_written=True)
    order = Order(id=5, customer="ann")
    data = form.for_use(usage).dumps(order)
    assert data == b"\0\0\0\0\2" + b"\0" + order.SerializeToString()
    assert form.for_use(Usage(None, "orders")).loads(data) == order
    assert list(server.state.subjects) == ["shop/money.proto", "orders-value"]
    (body,) = [each for each in server.state.schemas if each.get("references")]
    assert body["schemaType"] == "PROTOBUF"
    assert body["references"] == [
        {"name": "shop/money.proto", "subject": "shop/money.proto", "version": 1}
    ]
    assert server.requests("GET") == 0


def test_a_message_without_registration_has_the_id_of_the_latest_schema(server: Registry) -> None:
    registry = SchemaRegistry(server.url, register=False)
    server.add("orders-value", "int")
    usage = Usage(Customer, "orders", is_written=True)
    with pytest.raises(RegistryError, match="is AVRO, not PROTOBUF"):
        Protobuf(registry=registry).for_use(usage).dumps(Customer())
    server.add("orders-value", 'syntax = "proto3";', schemaType="PROTOBUF")
    registry = SchemaRegistry(server.url, register=False)
    assert Protobuf(registry=registry).for_use(usage).dumps(Customer()) == b"\0\0\0\0\2\x02\x02"


# --- the client of Confluent ------------------------------------------------------------

# Values that confluent-kafka 2.16.1 for Python has written to this registry.
CONFLUENT = {
    "avro": "00000000010a02027880a0b7e6eb5b",
    "order": "00000000030008051203616e6e",
    "customer": "000000000302020a03626f62",
    "address": "00000000030402020a0178",
}


def test_values_are_those_of_the_client_of_confluent(server: Registry) -> None:
    class Noted(msgspec.Struct):
        id: int
        note: str | None
        at: datetime

    moment = {"type": "long", "logicalType": "timestamp-millis"}
    schema = record("N", ("id", "long"), ("note", ["null", "string"], None), ("at", moment))
    registry = SchemaRegistry(server.url)
    usage = Usage(Noted, "noted", is_written=True)
    avro = Avro(schema=schema, registry=registry).for_use(usage)
    noted = Noted(5, "x", datetime(2020, 1, 1, tzinfo=UTC))
    stored = bytes.fromhex(CONFLUENT["avro"])
    assert avro.dumps(noted) == stored
    assert avro.loads(stored) == noted
    for name, message in (
        ("order", Order(id=5, customer="ann")),
        ("customer", Customer(name="bob")),
        ("address", Address(city="x")),
    ):
        form = Protobuf(type(message), registry=SchemaRegistry(server.url, subject="record"))
        data = bytes.fromhex(CONFLUENT[name])
        assert form.loads(data) == message
        assert form.dumps(message)[5:] == data[5:]  # after the id of the schema


# --- bytes that are no value -------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b'{"sku": "x"}', "wrong magic byte 123 instead of 0"),
        (b"\x01\0\0\0\1", "wrong magic byte 1"),
        (b"\0\0\0\1", "truncated: 4 bytes"),
        (b"\0\0\0\0\1\x02", "truncated"),
        (b"\0\0\0\0\1\x02x\x04\0", "trailing bytes"),
        (b"\0\0\0\0\x63\x02x\x04", "schema id unknown"),
        (b"\0\0\0\0\2\x02x", "is PROTOBUF, not AVRO"),
    ],
)
def test_a_record_without_a_valid_id_and_value_is_refused(
    server: Registry, data: bytes, words: str
) -> None:
    server.add("items-value", record("Item", ("sku", "string"), ("count", "int")))
    server.add("orders-value", 'syntax = "proto3";', schemaType="PROTOBUF")
    with pytest.raises(DataError) as caught:
        reader(SchemaRegistry(server.url))(data)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        (b"", "indexes are truncated"),
        (b"\x80", "indexes are truncated"),
        (b"\x04\x02", "indexes are truncated"),
        (b"\x02\x01", "message index -1 is negative"),
        (b"\x01", "-1 message indexes"),
        (b"\xff\xff\xff\xff\x7f", "message indexes"),
        (b"\x02\x02", r"it is the message [1] of its file, not [0]"),
        (b"\x04\x02\x02", r"it is the message [1, 1] of its file, not [0]"),
        (b"\0\xff", "Error parsing message"),
    ],
)
def test_message_indexes_that_are_not_those_of_the_class_are_refused(
    server: Registry, rest: bytes, words: str
) -> None:
    form = Protobuf(Order, registry=SchemaRegistry(server.url))
    with pytest.raises(DataError) as caught:
        form.loads(b"\0\0\0\0\1" + rest)
    assert words in str(caught.value)


def test_the_indexes_of_a_first_message_may_be_written_in_full(server: Registry) -> None:
    form = Protobuf(Order, registry=SchemaRegistry(server.url))
    assert form.loads(b"\0\0\0\0\1\x02\x00\x08\x05") == Order(id=5)
    nested = Protobuf(Address, registry=SchemaRegistry(server.url, subject="record"))
    data = nested.dumps(Address(city="x"))
    assert data[5:8] == b"\x04\x02\x02"  # two indexes, from outside to inside: 1, 1
    assert nested.loads(data) == Address(city="x")


def test_an_unknown_id_is_asked_for_again_after_a_while(
    server: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    registry = SchemaRegistry(server.url, now_s=lambda: now_s[0])
    loads = reader(registry, str)
    for _ in range(5):
        with pytest.raises(DataError, match="schema id unknown"):
            loads(b"\0\0\0\0\1\x02x")
    assert server.requests() == 1
    server.add("items-value", "string")
    with pytest.raises(DataError, match="schema id unknown"):
        loads(b"\0\0\0\0\1\x02x")
    now_s[0] = 31.0
    assert loads(b"\0\0\0\0\1\x02x") == "x"


# --- a registry that fails ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words", "is_retryable"),
    [
        (500, "status 500: a fault on purpose", True),
        (503, "status 503", True),
        (429, "status 429", True),
        (401, "it refuses the login", False),
        (403, "it refuses the login", False),
        (409, "not compatible with an earlier version", False),
        (422, "it refuses the schema", False),
        (302, "status 302", False),
        ("html", "status 404: <html>no such page</html>", False),
        ("garbage", "its response is not JSON", False),
        ("close", "cannot be reached", True),
        ("hang", "has not answered GET /schemas/ids/1 within 0.3 s", True),
        ("drip", "has not answered GET /schemas/ids/1 within 0.3 s", True),
        ("empty", "has no schema", False),
    ],
)
def test_a_failure_of_the_registry_is_not_the_fault_of_a_record(
    server: Registry, fault: Fault, words: str, is_retryable: bool
) -> None:
    server.add("items-value", "string")
    registry = SchemaRegistry(server.url, timeout=timedelta(seconds=0.3))
    loads = reader(registry, str)
    server.fail_next(fault)
    began_s = time.monotonic()
    with pytest.raises(RegistryError) as caught:
        loads(b"\0\0\0\0\1\x02x")
    assert time.monotonic() - began_s < 3
    assert words in str(caught.value)
    assert server.url in str(caught.value)
    assert caught.value.retryable is is_retryable
    server.state.released.set()
    assert loads(b"\0\0\0\0\1\x02x") == "x"  # the failure was not kept


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_request_that_is_late_leaves_no_thread(server: Registry, fault: Fault) -> None:
    server.fail_next(fault)
    with pytest.raises(RegistryError, match="has not answered"):
        reader(SchemaRegistry(server.url, timeout=0.2))(b"\0\0\0\0\1\x02x")
    for thread in threading.enumerate():
        if thread.name == "streamkit-registry":
            thread.join(5)
            assert not thread.is_alive()


def test_an_invalid_environment_is_not_the_fault_of_a_record(
    server: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "nonsense://[")
    monkeypatch.setenv("ALL_PROXY", "nonsense://[")
    with pytest.raises(RegistryError, match="cannot be reached"):
        written(SchemaRegistry(server.url), Item("x"))


def test_a_registry_that_refuses_connections_is_named() -> None:
    with closed_port() as url, pytest.raises(RegistryError, match="cannot be reached") as caught:
        written(SchemaRegistry(url), Item("x"))
    assert caught.value.retryable
    assert url in str(caught.value)


def test_an_incompatible_schema_is_refused_with_its_subject(server: Registry) -> None:
    server.add("items-value", record("Item", ("sku", "string")))
    registry = SchemaRegistry(server.url)
    with pytest.raises(RegistryError, match="is incompatible") as caught:
        Avro(registry=registry).for_use(Usage(Sized, "items", is_written=True)).dumps(Sized("x", 1))
    assert "subject 'items-value'" in str(caught.value)
    assert caught.value.status == 409
    assert "compatibility rule" in caught.value.hint


# --- passwords ---------------------------------------------------------------------------


def test_a_password_is_sent_and_never_shown(server: Registry) -> None:
    server.state.needs_login = True
    right = SchemaRegistry(server.url, auth=(USER, Secret(PASSWORD)))
    assert written(right, Item("x"))[:1] == b"\0"
    wrong = SchemaRegistry(server.url, auth=(USER, Secret("not this one")))
    with pytest.raises(RegistryError, match="it refuses the login: Unauthorized") as caught:
        written(wrong, Item("x"))
    shown = f"{caught.value} {caught.value.__cause__!r} {wrong!r} {Avro(registry=wrong)!r}"
    assert "not this one" not in shown
    with pytest.raises(UsageError, match="must not contain a password") as refused:
        SchemaRegistry("http://user:hunter2@registry:8081")
    assert "hunter2" not in f"{refused.value} {refused.value.hint}"


def test_a_password_may_come_from_a_function(server: Registry) -> None:
    server.state.needs_login = True
    registry = SchemaRegistry(server.url, auth=lambda: (USER, Secret(PASSWORD)))
    assert written(registry, Item("x"))[:1] == b"\0"

    def fails() -> Any:
        raise LookupError("no settings yet")

    with pytest.raises(RegistryError, match=r"auth= of .* has failed: no settings yet"):
        written(SchemaRegistry(server.url, auth=fails), Item("x"))
