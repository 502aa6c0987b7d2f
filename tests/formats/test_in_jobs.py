"""Formats in jobs: types come from the stages, and errors follow the policies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamkit import App, Context, Record, Topic
from streamkit.dataflow.dead_letters import decode_letter
from streamkit.errors import DataError, RegistryError, StageError, TopologyError, UsageError
from streamkit.formats import Avro, CsvLine, Json, MessagePack, Protobuf, Raw, SchemaRegistry, Text
from streamkit.policies import dead_letter, retry
from tests.formats import messages
from tests.formats.test_avro_schemas import record
from tests.schema_registry import Registry, closed_port, running_registry

HERE = Path(__file__)


class Order(msgspec.Struct):
    id: int
    customer: str


class Total(msgspec.Struct):
    customer: str
    cents: int = 100


@pytest.fixture
def server() -> Iterator[Registry]:
    with running_registry() as running:
        yield running


SCHEMA = record("com.shop.Order", ("id", "int"), ("customer", "string"))


@pytest.mark.parametrize(
    "form", [Avro(), Avro(schema=SCHEMA), CsvLine(), CsvLine(delimiter=";"), Json(), MessagePack()]
)
def test_a_format_without_a_type_gets_that_of_the_stage(form: Any) -> None:
    app = App("orders")

    @app.source("orders", value=form)
    def orders(order: Order) -> Order:
        return order

    @app.source("orders-2", value=form)
    def records(order: Record[Order]) -> Order:
        return order.value

    app.stream("orders-3", Order, value=form).merge(orders, records).to("copies", value=form)

    @app.sink(orders, to="totals", value=type(form)())
    def totals(order: Order) -> Total:
        return Total(order.customer)

    orders.map(lambda order: Total(order.customer)).to(Topic("typed", Total), value=type(form)())
    with app.test() as job:
        for source in ("orders", "orders-2", "orders-3"):
            job.send(source, Order(1, "ann"))
        stored = job.output("copies")
        assert stored == [type(form)(Order, **_options(form)).dumps(Order(1, "ann"))] * 3
        assert job.output("totals") == [type(form)(Total).dumps(Total("ann"))]
        assert job.output("typed") == [type(form)(Total).dumps(Total("ann"))]


def _options(form: Any) -> dict[str, Any]:
    if isinstance(form, CsvLine):
        return {"delimiter": form.delimiter}
    return {"schema": form.schema} if isinstance(form, Avro) else {}


def test_messages_text_and_bytes_pass_a_job() -> None:
    app = App("plain")
    app.stream("orders", messages.Order, value=Protobuf()).to("copies", value=Protobuf())
    app.stream("texts", str, value=Text("latin-1")).to("utf-8", value=Text())
    app.stream("raw", bytes, value=Raw()).to("raw-2", value=Raw())
    app.stream("any", Any, value=MessagePack()).to("json", value=Json())
    with app.test() as job:
        job.send("orders", messages.Order(id=5))
        job.send("texts", "ä", b"\xe4")
        job.send("raw", b"\xff")
        job.send("any", {"x": [1]})
        assert job.output("copies") == [b"\x08\x05"]
        assert job.output("utf-8") == ["ä".encode()] * 2
        assert job.output("raw-2") == [b"\xff"]
        assert job.output("json") == [b'{"x":[1]}']


@pytest.mark.parametrize("form", [Json(Order), Avro(Order), MessagePack(Order), CsvLine(Order)])
def test_a_format_of_another_type_is_refused_with_the_line_of_the_user(form: Any) -> None:
    app = App("types")
    totals = app.stream("totals", Total)
    with pytest.raises(TopologyError, match="values of type Order, but Total is given") as caught:
        totals.to("out", value=form)
    assert caught.value.at.startswith(f"{HERE}:")
    with pytest.raises(TopologyError, match="values of type Order, but Total is expected"):
        app.stream("others", Total, value=form)
    with pytest.raises(TopologyError) as caught:
        app.source("others", value=form)(_total)
    assert caught.value.at.startswith(f"{HERE}:")
    totals.map(lambda total: Order(1, "x")).to("orders", value=form)


def _total(total: Total) -> Total:
    return total


def test_a_type_that_the_schema_does_not_fit_is_refused_with_the_line_of_the_user() -> None:
    totals = App("types").stream("totals", Total)
    with pytest.raises(TopologyError, match="has no field 'cents', which Total has") as caught:
        totals.to("out", value=Avro(schema=SCHEMA))
    assert caught.value.at.startswith(f"{HERE}:")


def test_a_format_class_instead_of_an_instance_is_refused() -> None:
    rows = App("classes").stream("rows", Order)
    with pytest.raises(TopologyError, match="value=Json is a class"):
        rows.to("out", value=Json)  # type: ignore[call-overload]
    with pytest.raises(TopologyError, match="key_format=Json is a class"):
        rows.to("out", key=lambda row: row.id, key_format=Json)  # type: ignore[call-overload]


# --- errors ------------------------------------------------------------------------


def test_a_value_that_cannot_be_decoded_follows_the_policy_of_its_source() -> None:
    good, bad = Avro(Order).dumps(Order(1, "ann")), b"\x02\x08an"
    policies: list[tuple[Any, int]] = [("skip", 0), (dead_letter("dead"), 1)]
    for policy, letters in policies:
        app = App("lenient")
        app.stream("orders", Order, value=Avro(), on_error=policy).to("out")
        with app.test() as job:
            job.send("orders", *map(Record, (good, bad, good)))
            assert len(job.output("out")) == 2
            found = [decode_letter(data) for data in job.output("dead")] if letters else []
            assert [(each.value_bytes, each.error_type) for each in found] == (
                [(bad, "DataError")] * letters
            )
            for each in found:
                assert "not valid Avro for Order: truncated" in each.error
    app = App("strict")
    app.stream("orders", Order, value=Avro()).to("out")
    with app.test() as job, pytest.raises(StageError, match="truncated") as caught:
        job.send("orders", Record(bad))
    assert isinstance(caught.value.__cause__, DataError)


def test_a_value_that_cannot_be_encoded_follows_the_policy_of_its_sink() -> None:
    app = App("lenient")
    numbers = app.stream("numbers", float)
    numbers.to("json", value=Json(), on_error="skip")
    numbers.map(lambda number: number).to("avro", value=Avro(int), on_error="skip")
    with app.test() as job:
        job.send("numbers", 1.5)
        assert job.output("json") == [b"1.5"]
        assert job.output("avro") == []
    app = App("nan")
    app.stream("numbers", int).map(lambda number: number / 2 if number else float("nan")).to(
        "out", value=Json(float), on_error="skip"
    )
    with app.test() as job:
        job.send("numbers", 1, 0, 2)
        assert job.output("out") == [b"0.5", b"1.0"]


def test_a_dead_letter_of_a_message_can_be_replayed() -> None:
    app = App("letters")
    orders = app.stream("orders", messages.Order, value=Protobuf())

    @app.stage(orders, on_error=dead_letter("dead"))
    def fails(order: messages.Order) -> messages.Order:
        raise ValueError("no")

    fails.to("out", value=Protobuf())
    with app.test() as job:
        job.send("orders", messages.Order(id=200))
        (letter,) = [decode_letter(data) for data in job.output("dead")]
    assert letter.is_replayable
    assert letter.value_bytes == messages.Order(id=200).SerializeToString()


@pytest.mark.parametrize("policy", ["skip", dead_letter("dead"), retry(attempts=1).then("skip")])
def test_no_record_is_left_out_because_the_registry_is_down(policy: Any) -> None:
    """In other tools, a handler that skips bad records also skips all records in an outage."""
    with closed_port() as url:
        registry = SchemaRegistry(url)
        app = App("reading")
        app.stream("orders", Order, value=Avro(registry=registry), on_error=policy).to("out")
        with app.test() as job, pytest.raises(StageError, match="cannot be reached") as caught:
            job.send("orders", Record(b"\0\0\0\0\1\x02"))
        assert isinstance(caught.value.__cause__, RegistryError)
        app = App("writing")
        app.stream("orders", Order).to("out", value=Avro(registry=registry), on_error=policy)
        with app.test() as job, pytest.raises(StageError, match="cannot be reached"):
            job.send("orders", Order(1, "ann"))


def test_a_record_with_an_unknown_schema_is_skipped(server: Registry) -> None:
    app = App("reading")
    app.stream(
        "orders", Order, value=Avro(registry=SchemaRegistry(server.url)), on_error="skip"
    ).to("out", value=Avro(registry=SchemaRegistry(server.url)))
    with app.test() as job:
        job.send("orders", Record(b"\0\0\0\0\x63\x02"), Order(1, "ann"), Record(b'{"id": 5}'))
        assert job.output("out") == [b"\0\0\0\0\1\x02\x06ann"]
    assert list(server.state.subjects) == ["orders-value", "out-value"]


def test_a_registry_that_comes_back_is_waited_for_with_retries(
    server: Registry, tmp_path: Path
) -> None:
    writing = App("writing")
    _made(writing, Order(1, "ann"), Order(2, "bob")).to(
        "orders", value=Avro(registry=SchemaRegistry(server.url))
    )
    assert writing.run(embedded=True, once=True, data_dir=tmp_path) == 0
    server.fail_next(503, "close", 503)
    registry = SchemaRegistry(server.url)
    reading = App("reading")
    found: list[int] = []
    policy = retry(attempts=5, delay=0.01, on=RegistryError)
    orders = reading.stream("orders", Order, value=Avro(registry=registry), on_error=policy)

    @reading.sink(orders)
    def ids(order: Order) -> None:
        found.append(order.id)

    assert reading.run(embedded=True, once=True, data_dir=tmp_path) == 0
    assert found == [1, 2]


def test_a_job_fails_at_the_first_record_if_the_registry_refuses_its_schema(
    server: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.add("orders-value", record("Order", ("id", "long")))
    app = App("writing")
    _made(app, Order(1, "ann")).to(
        "orders", value=Avro(registry=SchemaRegistry(server.url)), on_error="skip"
    )
    assert app.run(embedded=True, once=True, data_dir=tmp_path) == 1
    report = capfd.readouterr().err
    assert "subject 'orders-value'" in report
    assert "the schema is not compatible with an earlier version" in report


def _made(app: App, *orders: Order) -> Any:
    @app.source
    def made() -> Iterator[Order]:
        yield from orders

    return made


# --- keys ----------------------------------------------------------------------------


class Key(msgspec.Struct, frozen=True):
    shop: str
    number: int


def keys_of(app: App, topic: str, key: Any, kind: Any, form: Any) -> list[Any]:
    """Send a key through a source, and through a stage after it; return what both get."""
    found: list[Any] = []

    def first(value: str, context: Context[Any]) -> str:
        found.append(context.key)
        return value

    def second(value: str, context: Context[Any]) -> str:
        found.append(context.key)
        return value

    first.__annotations__["context"] = second.__annotations__["context"] = Context[kind]
    source = app.source(topic, key_format=form)(first)
    app.stage(source.filter(bool))(second).to("out")
    with app.test() as job:
        job.send(topic, Record("x", key))
        assert [each.key for each in job.records("out")] == [key]
    return found


@pytest.mark.parametrize(
    ("form", "kind", "stored", "key"),
    [
        (Json(), int, b"5", 5),
        (Json(int), Any, b"5", 5),
        (Json(), Key, b'{"shop":"a","number":1}', Key("a", 1)),
        (Json(), Key | None, None, None),
        (Json(str), str, b'"x"', "x"),
        (Json(), bytes, b"5", b"5"),
        (Avro(), int, b"\x0a", 5),
        (Avro(schema="string"), str, b"\x02x", "x"),
        (MessagePack(), list[int], b"\x91\x05", [5]),
        (Text("latin-1"), str, b"\xe4", "ä"),
        (None, str, b"x", "x"),
    ],
)
def test_a_context_shows_keys_in_their_format(form: Any, kind: Any, stored: Any, key: Any) -> None:
    assert keys_of(App("keys"), "rows", stored, kind, form) == [key, key]


@pytest.mark.parametrize(
    ("form", "key", "stored"),
    [
        (Json(), 5, b"5"),
        (Json(), {"b": 1, "a": 2}, b'{"a":2,"b":1}'),
        (Json(), "x", b'"x"'),
        (Json(), b"raw", b"raw"),
        (Json(), None, None),
        (Avro(int), 5, b"\x0a"),
        (MessagePack(), Key("a", 1), b"\x82\xa4shop\xa1a\xa6number\x01"),
        (Protobuf(messages.Money), messages.Money(cents=5), b"\x08\x05"),
        (Text("latin-1"), "ä", b"\xe4"),
        (None, "ä", "ä".encode()),
    ],
)
def test_a_sink_writes_keys_in_their_format(form: Any, key: Any, stored: Any) -> None:
    app = App("keys")
    rows = app.stream("rows", str)
    rows.to("out", key=lambda row: key, key_format=form)

    @app.sink(rows, to="shaped", key=lambda row: key, key_format=form)
    def shaped(row: str) -> str:
        return row

    with app.test() as job:
        job.send("rows", "x")
        assert [each.key for each in job.records("out")] == [stored]
        assert [each.key for each in job.records("shaped")] == [stored]


def test_the_annotation_of_a_key_function_decides_the_type_of_its_keys(server: Registry) -> None:
    def number(order: Order) -> int:
        return order.id

    app = App("keys")
    app.stream("orders", Order).to(
        "out", key=number, key_format=Avro(registry=SchemaRegistry(server.url))
    )
    with app.test() as job:
        job.send("orders", Order(5, "ann"))
        assert [each.key for each in job.records("out")] == [b"\0\0\0\0\1\x0a"]
    assert list(server.state.subjects) == ["out-key"]


def test_a_key_that_cannot_be_read_or_written_is_an_error_of_its_stage() -> None:
    app = App("keys")
    rows = app.stream("rows", str, key_format=Json(int))

    @app.stage(rows, on_error="skip")
    def number(row: str, context: Context[int]) -> str:
        return f"{row}{context.key}"

    number.to("out")
    rows.to("avro", key=lambda row: row, key_format=Avro(int), on_error="skip")
    with app.test() as job:
        job.send("rows", Record("a", b"1"), Record("b", b"x"), Record("c", b"3"))
        assert job.output("out") == [b"a1", b"c3"]
        assert job.output("avro") == []


def test_streams_with_different_formats_of_keys_have_no_common_keys() -> None:
    app = App("keys")
    one = app.stream("one", str, key_format=Json(int))
    same = app.stream("same", str, key_format=Json(int))
    other = app.stream("other", str)

    def number(row: str, context: Context[int]) -> str:
        return f"{context.key + 1}"

    app.stage(one, same)(number).to("out")
    with pytest.raises(TopologyError, match="different formats of keys") as caught:
        app.stage(one, other, name="both")(number)
    assert caught.value.at.startswith(f"{HERE}:")
    with pytest.raises(TopologyError, match="cannot have keys of type"):
        app.stage(other, name="other-2")(number)
    with pytest.raises(TopologyError, match="values of type str, but int is expected"):
        app.stage(app.stream("texts", str, key_format=Json(str)), name="texts-2")(number)
    with app.test() as job:
        job.send("same", Record("x", b"5"))
        assert job.output("out") == [b"6"]


def test_keys_of_a_group_have_no_format() -> None:
    app = App("keys")
    grouped = app.stream("rows", Order, key_format=Json(int)).key_by(lambda order: order.customer)

    @app.stage(grouped)
    def named(order: Order, context: Context[str]) -> str:
        return context.key

    named.to("out")
    with app.test() as job:
        job.send("rows", Record(Order(1, "ann"), b"7"))
        assert job.output("out") == [b"ann"]


def test_a_table_is_found_by_the_keys_in_their_format() -> None:
    app = App("table")
    customers = app.table("customers", Total, key_format=Avro(int))
    orders = app.stream("orders", Order)
    found = orders.lookup(customers, on=lambda order: order.id, combine=lambda o, row: row.cents)
    found.to("out")
    with app.test() as job:
        job.send(customers, Record(Total("ann", 250), b"\x0a"))
        job.send("orders", Order(5, "ann"))
        assert job.output("out") == [b"250"]
        assert job.state(customers, 5) == Total("ann", 250)


def test_an_empty_value_of_a_table_deletes_its_row(server: Registry) -> None:
    """In other tools, a deletion is refused because it has no magic byte."""
    app = App("table")
    form = Avro(registry=SchemaRegistry(server.url))
    customers = app.table("customers", Total, value=form, key_format=Avro(int))
    app.stream("orders", Order).lookup(
        customers, on=lambda order: order.id, combine=lambda order, row: row.cents
    ).to("out")
    with app.test() as job:
        job.send(customers, Record(Total("ann"), b"\x0a"), Record(b"", b"\x0a"))
        assert job.state(customers, 5) is None


def test_one_format_has_a_schema_for_each_topic(server: Registry) -> None:
    """In another client, a serializer has one id, so a second topic gets that of the first."""
    app = App("topics")
    form = Avro(registry=SchemaRegistry(server.url))
    app.stream("orders", Order).to("a", value=form)
    app.stream("totals", Total).to("b", value=form)
    with app.test() as job:
        job.send("totals", Total("ann"))
        job.send("orders", Order(1, "ann"))
        assert job.output("b")[0][4] == 1
        assert job.output("a")[0][4] == 2
    assert server.state.subjects == {"b-value": [1], "a-value": [2]}


def test_a_key_format_without_keys_is_refused() -> None:
    rows = App("keys").stream("rows", Order)
    with pytest.raises(UsageError, match="no effect without key="):
        rows.to("out", key_format=Json())  # type: ignore[call-overload]
