"""Whole jobs with Kafka: declared types, formats, bad values, tombstones and headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamkit import App, Context, Record
from streamkit.connectors.files import JsonLines
from streamkit.connectors.kafka import KafkaRecord, KafkaSink, KafkaSource
from streamkit.errors import StageError, TopologyError
from streamkit.formats import Json, MessagePack
from streamkit.policies import dead_letter
from tests.kafka.cluster import Cluster


class Order(msgspec.Struct):
    id: int
    item: str = ""


class Odd:
    """A class that JSON does not have."""


class Total(msgspec.Struct):
    id: int
    price: float


def ran(app: App, folder: Path) -> int:
    return app.run(embedded=True, once=True, data_dir=folder / "data")


def values_of(cluster: Cluster, topic: str) -> list[Any]:
    return [each.value() for each in cluster.read_all(topic)]


def read(source: KafkaSource, kind: Any, **options: Any) -> list[Any]:
    """Return the values that a stream of a source has."""
    app = App("reads")
    stream = app.stream(source, kind, **options)
    with app.test() as job:
        job.read(stream)
        return list(job.output(stream))


# --- types and formats ----------------------------------------------------------------


def test_values_have_the_declared_type_from_topic_to_topic(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("orders")
    cluster.create("totals")
    cluster.write("orders", [(0, b'{"id":1,"item":"pen"}')], key=b"k", timestamp=99)
    app = App("kafka-types")

    @app.source(KafkaSource(cluster.servers, "orders"))
    def total(order: Order) -> Total:
        return Total(order.id, len(order.item) / 2)

    total.to(KafkaSink(cluster.servers, "totals"), key=lambda each: str(each.id))
    assert ran(app, tmp_path) == 0
    (found,) = cluster.read_all("totals")
    assert (found.value(), found.key(), found.timestamp()[1]) == (b'{"id":1,"price":1.5}', b"1", 99)


def test_formats_of_values_and_keys_are_those_of_topics(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("orders")
    cluster.create("out")
    cluster.write("orders", [(0, msgspec.msgpack.encode(Order(7, "pen")))], key=b"42")
    app = App("kafka-formats")
    seen: list[tuple[Order, int]] = []

    @app.source(KafkaSource(cluster.servers, "orders"), value=MessagePack(), key_format=Json())
    def orders(order: Order, context: Context[int]) -> Order:
        seen.append((order, context.key))
        return order

    @app.stage(orders)
    def later(order: Order, context: Context[int]) -> Order:
        return Order(order.id + context.key, order.item)

    def number(order: Order) -> int:
        return order.id

    later.to(KafkaSink(cluster.servers, "out"), key=number, key_format=Json(), value=MessagePack())
    assert ran(app, tmp_path) == 0
    assert seen == [(Order(7, "pen"), 42)]
    (found,) = cluster.read_all("out")
    assert msgspec.msgpack.decode(found.value(), type=Order) == Order(49, "pen")
    assert found.key() == b"49"


def test_a_test_sends_values_in_their_format() -> None:
    app = App("sends")
    orders = app.stream(KafkaSource("host:9092", "orders"), Order | None, value=MessagePack())
    with app.test() as job:
        job.send(orders, Order(1), None)
        assert job.output(orders) == [Order(1), None]


def test_values_that_are_not_valid_are_skipped_or_put_aside(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("orders")
    rows = [b'{"id":1}', b"not JSON", b'{"id":"x"}', None, b'{"id":2}']
    cluster.write("orders", [(0, each) for each in rows], key=b"k")
    for topic in ("out", "letters"):
        cluster.create(topic)
    source = KafkaSource(cluster.servers, "orders")
    assert read(source, Order, on_error="skip") == [Order(1), Order(2)]
    app = App("kafka-letters")
    to_file, to_kafka = JsonLines(tmp_path / "dead.jsonl"), KafkaSink(cluster.servers, "letters")
    for name, letters in (("a", to_file), ("b", to_kafka)):
        stream = app.stream(source, Order, name=name, on_error=dead_letter(letters))
        stream.to(KafkaSink(cluster.servers, "out"), name=f"to-{name}")
    assert ran(app, tmp_path) == 0
    assert values_of(cluster, "out") == [b'{"id":1,"item":""}', b'{"id":2,"item":""}'] * 2
    for lines in (
        (tmp_path / "dead.jsonl").read_bytes().splitlines(),
        values_of(cluster, "letters"),
    ):
        found = [msgspec.json.decode(line) for line in lines]
        assert [(each["topic"], each["offset"], each["key"]) for each in found] == [
            ("orders", offset, "k") for offset in (1, 2, 3)
        ]
        assert found[0]["value"] == "not JSON"
        assert "no value (a tombstone)" in found[2]["error"]


def test_the_place_of_a_value_that_is_not_valid_is_in_the_error(cluster: Cluster) -> None:
    cluster.create("orders")
    cluster.write("orders", [(2, b'{"id":1}'), (2, b"bad")])
    with pytest.raises(StageError, match="orders-2 offset 1"):
        read(KafkaSource(cluster.servers, "orders"), Order)


# --- tombstones -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "option", "values"),
    [
        (bytes, "empty", [b"1", b""]),
        (str, "empty", ["1", ""]),
        (bytes | None, "empty", [b"1", None]),
        (str | None, "empty", ["1", None]),
        (int | None, "empty", [1, None]),
        (Any, "empty", [1, None]),
        (Record[int | None], "empty", [1, None]),
        (KafkaRecord[int | None], "empty", [1, None]),
        (int, "skip", [1]),
        (bytes, "skip", [b"1"]),
        (int | None, "skip", [1]),
        (KafkaRecord[int], "skip", [1]),
    ],
)
def test_a_tombstone_is_what_the_type_and_the_option_say(
    cluster: Cluster, kind: Any, option: Any, values: list[Any]
) -> None:
    cluster.create("in")
    cluster.write("in", [(0, b"1"), (0, None)], key=b"k")
    found = read(KafkaSource(cluster.servers, "in", tombstones=option), kind)
    assert [each.value if isinstance(each, Record) else each for each in found] == values


def test_a_tombstone_without_a_meaning_fails_with_a_hint(cluster: Cluster) -> None:
    cluster.create("in")
    cluster.write("in", [(0, None)])
    with pytest.raises(StageError, match="has no value") as failed:
        read(KafkaSource(cluster.servers, "in"), Order)
    assert '"| None"' in str(failed.value.__cause__.__notes__)  # type: ignore[union-attr]  # it has one


def test_skipped_tombstones_at_the_end_are_not_read_again(
    cluster: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for topic in ("in", "out"):
        cluster.create(topic)
    cluster.write("in", [(0, b"1"), (0, None), (0, None)])
    app = App("kafka-tombstones")
    stream = app.stream(KafkaSource(cluster.servers, "in", tombstones="skip"), bytes)
    stream.to(KafkaSink(cluster.servers, "out"))
    assert ran(app, tmp_path) == 0
    assert "3 records in, 1 out, 2 dropped" in capfd.readouterr().err
    assert ran(app, tmp_path) == 0
    assert "0 records in, 0 out" in capfd.readouterr().err
    cluster.write("in", [(0, b"2")])
    assert ran(app, tmp_path) == 0
    assert "1 records in, 1 out" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("kind", "tombstones", "given", "written"),
    [
        (bytes, False, b"", b""),
        (bytes, True, b"", None),
        (bytes | None, False, None, None),
        (bytes | None, True, b"", b""),
        (str | None, False, None, None),
        (str | None, False, "a", b"a"),
        (int | None, False, None, b"null"),
        (int | None, True, None, None),
        (int | None, True, 1, b"1"),
        (Order | None, True, None, None),
        (KafkaRecord[Order | None], True, KafkaRecord(None), None),
        (Record[Order | None], True, Record(None, key=b"k"), None),
        (Any, True, None, None),
        (Any, False, None, b"null"),
        (None, True, None, None),
    ],
)
def test_the_sink_writes_tombstones(
    kind: Any, tombstones: bool, given: Any, written: bytes | None
) -> None:
    encoder = KafkaSink("host:9092", "out", tombstones=tombstones).encoder(kind, None)
    value = given if isinstance(given, KafkaRecord) else getattr(given, "value", given)
    assert encoder.dumps(value) == written
    assert encoder.fault is None or encoder.fault([value], [written]) is None


def test_a_float_that_json_does_not_have_fails_beside_tombstones() -> None:
    encoder = KafkaSink("host:9092", "out", tombstones=True).encoder(float | None, None)
    assert encoder.fault is not None
    values = [None, 1.0, float("nan")]
    fault = encoder.fault(values, [encoder.dumps(each) for each in values])
    assert fault is not None
    assert fault[0] == 2


def test_none_is_a_tombstone_in_a_whole_job(cluster: Cluster, tmp_path: Path) -> None:
    for topic in ("in", "out"):
        cluster.create(topic)
    cluster.write("in", [(0, b'{"id":1}'), (0, None)], key=b"k")
    app = App("kafka-none")
    stream = app.stream(KafkaSource(cluster.servers, "in"), Order | None)
    stream.to(KafkaSink(cluster.servers, "out", tombstones=True))
    assert ran(app, tmp_path) == 0
    assert [(each.key(), each.value()) for each in cluster.read_all("out")] == [
        (b"k", b'{"id":1,"item":""}'),
        (b"k", None),
    ]


# --- headers --------------------------------------------------------------------------

HEADERS = (("trace", b"\x00\xff"), ("trace", b"2"), ("none", None))


def test_headers_are_read_and_written(cluster: Cluster, tmp_path: Path) -> None:
    for topic in ("in", "out"):
        cluster.create(topic)
    cluster.write("in", [(3, b'{"id":1}')], key=b"k", timestamp=99, headers=list(HEADERS))
    cluster.write("in", [(3, b'{"id":2}')], timestamp=98)
    app = App("kafka-headers")
    stream = app.stream(KafkaSource(cluster.servers, "in"), KafkaRecord[Order])
    seen: list[KafkaRecord[Order]] = []

    @app.stage(stream)
    def named(record: KafkaRecord[Order]) -> KafkaRecord[Order]:
        seen.append(record)
        return record.with_value(Order(record.value.id, "pen"))

    named.to(KafkaSink(cluster.servers, "out"))
    stream.to(KafkaSink(cluster.servers, "out"), name="again", key=lambda record: "other")
    assert ran(app, tmp_path) == 0
    assert seen == [
        KafkaRecord(Order(1), b"k", 99, 0, 3, "in", HEADERS),
        KafkaRecord(Order(2), None, 98, 1, 3, "in", ()),
    ]
    assert (seen[0].header("trace"), seen[0].header("none"), seen[0].header("x")) == (
        b"2",
        None,
        None,
    )
    found = {
        (m.value(), m.key(), m.timestamp()[1], tuple(m.headers() or ()))
        for m in cluster.read_all("out")
    }
    assert found == {
        (b'{"id":1,"item":"pen"}', b"k", 99, HEADERS),
        (b'{"id":2,"item":"pen"}', None, 98, ()),
        (b'{"id":1,"item":""}', b"other", 99, HEADERS),
        (b'{"id":2,"item":""}', b"other", 98, ()),
    }


def test_a_record_with_headers_is_a_record_for_other_sinks(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("in")
    cluster.write("in", [(0, b'{"id":1}')], key=b"k", timestamp=99, headers=list(HEADERS))
    app = App("kafka-to-fluvio")
    stream = app.stream(KafkaSource(cluster.servers, "in"), KafkaRecord[Order])
    stream.to("orders")
    stream.to(JsonLines(tmp_path / "out.jsonl"))
    with app.test() as job:
        job.read(stream)
        (found,) = job.records("orders")
    assert (found.value, found.key, found.timestamp_ms) == (b'{"id":1,"item":""}', b"k", 99)


def test_a_test_sends_records_with_headers() -> None:
    app = App("sends")
    stream = app.stream(KafkaSource("host:9092", "orders"), KafkaRecord[Order])
    with app.test() as job:
        job.send(stream, KafkaRecord(Order(1), headers=HEADERS))
        assert [each.headers for each in job.output(stream)] == [HEADERS]


@pytest.mark.parametrize("headers", [(("a", "text"),), (("a",),), ((1, b""),), {"a": b""}, "ab"])
def test_headers_that_are_not_valid_fail_like_any_record(headers: Any) -> None:
    encoder = KafkaSink("host:9092", "out").encoder(KafkaRecord[bytes], None)
    with pytest.raises(TypeError, match="header"):
        encoder.dumps(KafkaRecord(b"v", headers=headers))


def test_a_type_that_cannot_be_written_is_refused() -> None:
    app = App("refused")
    stream = app.stream(KafkaSource("host:9092", "in"), KafkaRecord[Order])

    @app.stage(stream)
    def odd(record: KafkaRecord[Order]) -> KafkaRecord[Odd]:
        return record.with_value(Odd())

    with pytest.raises(TopologyError, match="cannot be written as JSON"):
        odd.to(KafkaSink("host:9092", "out"))
