"""The Kafka source and sink keep the contract of connectors, as the public checks test it."""

from __future__ import annotations

from typing import Any

import msgspec

from streamkit import Record
from streamkit.connectors.kafka import KafkaRecord, KafkaSink, KafkaSource
from streamkit.testing import check_sink, check_source
from tests.conftest import IS_DEEP
from tests.kafka.cluster import Cluster


class Order(msgspec.Struct, frozen=True):
    id: int


# Each row costs several connections.
ORDERS = [Order(each) for each in range(300 if IS_DEEP else 40)]


def fill(cluster: Cluster, topic: str, values: list[bytes | None], partitions: int = 4) -> None:
    cluster.create(topic, partitions)
    cluster.write(topic, [(row % partitions, value) for row, value in enumerate(values)])


def test_the_source_keeps_the_contract(cluster: Cluster) -> None:
    encoded = [msgspec.json.encode(each) for each in ORDERS]
    fill(cluster, "orders", [*encoded])
    fill(cluster, "poison", [b"bad", *encoded, None, b"{}"], partitions=1)
    cluster.create("empty")
    check_source(
        lambda: KafkaSource(cluster.servers, "orders"),
        ORDERS,
        kind=Order,
        empty=lambda: KafkaSource(cluster.servers, "empty"),
        unopenable=lambda: KafkaSource(cluster.servers, "missing"),
        poison=(lambda: KafkaSource(cluster.servers, "poison"), 3),
    )


def test_a_source_that_skips_tombstones_keeps_the_contract(cluster: Cluster) -> None:
    encoded = [msgspec.json.encode(each) for each in ORDERS[:20]]
    with_tombstones = [each for value in encoded for each in (value, None)]
    fill(cluster, "orders", with_tombstones, partitions=1)
    fill(cluster, "poison", [b"bad", *with_tombstones], partitions=1)
    check_source(
        lambda: KafkaSource(cluster.servers, "orders", tombstones="skip"),
        ORDERS[:20],
        kind=Order,
        poison=(lambda: KafkaSource(cluster.servers, "poison", tombstones="skip"), 1),
    )


def record(number: int) -> KafkaRecord[int]:
    headers = (("n", b"%d" % number),)
    return KafkaRecord(number, None, 7, number // 2, number % 2, "orders", headers)


def test_a_source_of_records_with_headers_keeps_the_contract(cluster: Cluster) -> None:
    cluster.create("orders", 2)
    for number in range(16):
        row = (number % 2, b"%d" % number)
        cluster.write("orders", [row], timestamp=7, headers=[("n", b"%d" % number)])
    check_source(
        lambda: KafkaSource(cluster.servers, "orders"),
        [record(number) for number in range(16)],
        kind=KafkaRecord[int],
    )


def test_a_source_of_large_records_keeps_the_contract(cluster: Cluster) -> None:
    values = [bytes([each]) * 300_000 for each in range(12)]
    fill(cluster, "large", [*values], partitions=2)
    check_source(lambda: KafkaSource(cluster.servers, "large"), values, kind=bytes)


def test_the_sink_keeps_the_contract(cluster: Cluster) -> None:
    cluster.create("out", 1)

    def written() -> list[Any]:
        return [each.value() for each in cluster.read_all("out")]

    values: list[Any] = [b"%d" % each for each in range(20)]
    check_sink(
        lambda: KafkaSink(cluster.servers, "out", tombstones=True),
        written,
        [*values, None],
        kind=bytes | None,
        ordered=True,
        poison=[b"x" * 1_000_000, Record(b"x" * 999_000, key=b"k" * 5_000)],
        unopenable=lambda: KafkaSink(cluster.servers, "missing"),
    )
