"""`streamkit copy` between Kafka and Fluvio, as a process, which is also killed."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit import Offset
from streamkit.cli.copy import app_of
from streamkit.connectors.ends import sink_of, source_of
from streamkit.connectors.kafka import KafkaSink, KafkaSource
from streamkit.errors import UsageError
from streamkit.sync import Client
from tests.cli.processes import run, started
from tests.kafka.cluster import Cluster
from tests.stop.job_environment import Place, place_in

BYTES = b"\x00\xff not JSON"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as found:
        yield found


def copied(place: Place, *ends: str) -> str:
    done = run(place.folder, "copy", *place.options, *ends)
    assert done.code == 0, done.err
    return done.err


def test_kafka_to_fluvio_keeps_bytes_keys_and_timestamps(cluster: Cluster, place: Place) -> None:
    cluster.create("orders")
    cluster.write("orders", [(0, BYTES), (0, b"")], key=b"k\xff", timestamp=1234)
    cluster.write("orders", [(0, b"last")], timestamp=5)
    ends = (f"kafka://{cluster.servers}/orders", "fluvio:orders")
    assert "3 records in, 3 out" in copied(place, *ends)
    cluster.write("orders", [(1, b"later")])
    assert "1 records in, 1 out" in copied(place, *ends)
    found = [each for chunk in place.chunks("orders") for each in chunk.records()]
    assert [(each.value, each.key, each.timestamp_ms) for each in found[:3]] == [
        (BYTES, b"k\xff", 1234),
        (b"", b"k\xff", 1234),
        (b"last", None, 5),
    ]
    assert found[3].value == b"later"


def test_fluvio_to_kafka_keeps_bytes_keys_and_timestamps(cluster: Cluster, place: Place) -> None:
    cluster.create("orders")
    with Client.connect(place.address) as client:
        client.admin.create_topic("orders", 1)
        with client.producer("orders") as producer:
            producer.send_many([BYTES, b"", b"last"], keys=[b"k\xff", b"e", None])
    (chunk,) = place.chunks("orders")
    copied(place, "fluvio:orders", f"kafka://{cluster.servers}/orders")
    found = [(m.value(), m.key(), m.timestamp()[1]) for m in cluster.read("orders", 3)]
    assert sorted(map(str, found)) == sorted(
        map(str, zip(chunk.values, chunk.keys, chunk.timestamps_ms, strict=True))
    )


def test_kafka_to_kafka_keeps_tombstones_and_empty_values(cluster: Cluster, place: Place) -> None:
    for topic in ("a", "b"):
        cluster.create(topic)
    cluster.write("a", [(0, None), (0, b""), (0, BYTES)], key=b"k")
    copied(place, *(f"kafka://{cluster.servers}/{topic}" for topic in ("a", "b")))
    assert [each.value() for each in cluster.read("b", 3)] == [None, b"", BYTES]


def test_kafka_to_a_file_writes_json(cluster: Cluster, place: Place) -> None:
    cluster.create("orders")
    cluster.write("orders", [(0, b'{"id": 1}'), (0, None)])
    copied(place, f"kafka://{cluster.servers}/orders", "out.jsonl")
    assert (place.folder / "out.jsonl").read_bytes() == b'{"id":1}\nnull\n'


@pytest.mark.parametrize("is_from_kafka", [True, False])
def test_a_killed_copy_loses_nothing(
    cluster: Cluster, place: Place, *, is_from_kafka: bool
) -> None:
    count = 20_000
    cluster.create("orders")
    values = [b"%d" % each for each in range(count)]
    ends = [f"kafka://{cluster.servers}/orders", "fluvio:orders"]
    with Client.connect(place.address) as client:
        client.admin.create_topic("orders", 3)
        if is_from_kafka:
            cluster.write("orders", [(each % 4, value) for each, value in enumerate(values)])
        else:
            ends.reverse()
            with client.producer("orders") as producer:
                producer.send_many(values)
    with started(place.folder, "copy", *place.options, *ends, "--follow", "--json") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b'"commits":' in line and b'"commits":0' not in line:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
    copied(place, *ends)
    found: Any
    if is_from_kafka:
        found = place.values("orders")
    else:
        found = [each.value() for each in cluster.read_all("orders")]
    assert Counter(found).keys() == set(values)


def test_the_url_of_a_topic_has_options() -> None:
    assert source_of("kafka://a:1,b:2/my.topic?start=end&tombstones=skip") == KafkaSource(
        "a:1,b:2", "my.topic", "end", "skip"
    )
    assert sink_of("kafka://a:1/t?tombstones=true&linger.ms=1") == KafkaSink(
        "a:1", "t", tombstones=True, config={"linger.ms": "1"}
    )


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("beginning+100", "beginning+100"),
        ("20260701", "20260701"),
        ("2026-07-01T12:00:00Z", Offset.at_time(1_782_907_200_000)),
        ("2026-07-01T14:00:00+02:00", Offset.at_time(1_782_907_200_000)),
    ],
)
def test_the_start_of_a_url_is_an_offset_or_a_time(text: str, start: Offset | str) -> None:
    found = source_of(f"kafka://a:1/t?start={text}&removed=skip")
    assert found == KafkaSource("a:1", "t", start, removed="skip")


def test_user_and_password_of_a_url_are_for_sasl() -> None:
    end = "kafka://ann:p%40ss@a:1/t?sasl.mechanism=SCRAM-SHA-512"
    source = source_of(end)
    assert isinstance(source, KafkaSource)
    assert source.servers == "a:1"
    assert source.config["sasl.username"] == "ann"
    assert source.config["sasl.mechanism"] == "SCRAM-SHA-512"
    assert source.config["security.protocol"] == "sasl_ssl"
    assert source.config["sasl.password"].reveal() == "p@ss"  # type: ignore[union-attr]  # a Secret
    assert "p@ss" not in f"{source!r} {source} {app_of(end, 'fluvio:t').topology}"


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("kafka://host:9092", "needs servers and a topic"),
        ("kafka:///topic", "needs servers and a topic"),
        ("kafka://host:9092/a/b", "needs servers and a topic"),
        ("kafka://host/t?sasl.password=x", "may not have 'sasl.password'"),
        ("kafka://host/t?tombstones=perhaps", "tombstones='perhaps' is not valid"),
        ("kafka://host/t?start=noon", "'noon' is not a valid offset"),
        ("kafka://host/t?start=2026-07-01T12:00:00", "has no time zone"),
        ("kafka://host/t?removed=perhaps", "removed='perhaps' is not valid"),
        ("kafka://host/t?acks=1", "'acks' is set by streamkit"),
    ],
)
def test_a_url_that_is_not_valid_is_refused(end: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        source_of(end)
