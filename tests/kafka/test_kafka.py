"""A Kafka topic as source and sink, against the mock cluster of librdkafka."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import confluent_kafka
import pytest

from streamkit import Secret
from streamkit.connectors import Chunk, RowFailed
from streamkit.connectors.kafka import KafkaSink, KafkaSource
from streamkit.errors import ConfigError, RecordTooLarge, StreamKitError, UsageError
from tests.kafka.cluster import PRODUCE, TOPIC_AUTHORIZATION_FAILED, Cluster
from tests.kafka.conftest import Notes, ShiftedClock, env_of, read_rows
from tests.kafka.markers import write_marker

pytestmark = pytest.mark.anyio


async def test_every_partition_is_read_with_keys_and_timestamps(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("in")
    cluster.write("in", [(0, b"a"), (1, b"b"), (0, b"c")], key=b"k", timestamp=1234)
    rows = await read_rows(KafkaSource(cluster.servers, "in"), tmp_path, {})
    found = [
        (c.topic, c.partition, c.offsets[r], c.values[r], c.keys[r], c.timestamps_ms[r])
        for c, r in rows
    ]
    assert sorted(found) == [
        ("in", 0, 0, b"a", b"k", 1234),
        ("in", 0, 1, b"c", b"k", 1234),
        ("in", 1, 0, b"b", b"k", 1234),
    ]


@pytest.mark.parametrize("at", range(6))
async def test_a_reader_resumes_exactly_after_every_row(
    cluster: Cluster, tmp_path: Path, at: int
) -> None:
    cluster.create("in")
    cluster.write("in", [(0, b"%d" % each) for each in range(6)])
    source = KafkaSource(cluster.servers, "in")
    chunk, row = (await read_rows(source, tmp_path, {}))[at]
    reader = source.reader(env_of(tmp_path, []))
    key, position = reader.position_after(chunk.slice(0, row + 1))
    await reader.close()
    rest = await read_rows(source, tmp_path, {key: position})
    assert [c.values[r] for c, r in rest] == [b"%d" % each for each in range(at + 1, 6)]


async def test_a_topic_without_records_ends_at_once(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("in")
    assert await read_rows(KafkaSource(cluster.servers, "in"), tmp_path, {}) == []


async def test_start_end_reads_no_older_records(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("in")
    cluster.write("in", [(0, b"old")])
    assert await read_rows(KafkaSource(cluster.servers, "in", start="end"), tmp_path, {}) == []


async def test_a_partition_without_a_position_is_read_from_its_beginning(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("in")
    cluster.write("in", [(0, b"a"), (1, b"new")])
    source = KafkaSource(cluster.servers, "in", start="end")
    rows = await read_rows(source, tmp_path, {"0": "1"})
    assert [c.values[r] for c, r in rows] == [b"new"]


async def test_a_committed_offset_after_the_end_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("in")
    with pytest.raises(ConfigError, match="committed offset 7 of partition 0 is after the end"):
        await read_rows(KafkaSource(cluster.servers, "in"), tmp_path, {"0": "7"})


async def test_a_lost_partition_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("in")
    with pytest.raises(ConfigError, match="has no partition 7"):
        await read_rows(KafkaSource(cluster.servers, "in"), tmp_path, {"7": "0"})


async def test_an_unknown_topic_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'unknown' does not exist"):
        await read_rows(KafkaSource(cluster.servers, "unknown"), tmp_path, {})


async def test_a_cancelled_call_loses_no_record(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("in")
    cluster.write("in", [(0, b"%d" % each) for each in range(50)])
    reader = KafkaSource(cluster.servers, "in").reader(env_of(tmp_path, []))
    await reader.open({})
    with anyio.CancelScope() as scope:
        scope.cancel()
        await reader.next()
    values: list[bytes] = []
    while (chunk := await reader.next()) is not None:
        values += chunk.values
    await reader.close()
    assert values == [b"%d" % each for each in range(50)]


async def test_new_partitions_are_found_and_read_from_their_beginning(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Growing(confluent_kafka.Consumer):
        """Sees only the first partitions: the mock cluster cannot add any."""

        count = 2

        def list_topics(self, *given: Any, **options: Any) -> Any:
            found = super().list_topics(*given, **options)
            partitions = found.topics["in"].partitions
            for number in set(partitions) - set(range(Growing.count)):
                del partitions[number]
            return found

    monkeypatch.setattr(confluent_kafka, "Consumer", Growing)
    cluster.create("in")
    cluster.write("in", [(1, b"old"), (3, b"new")])
    notes, clock = Notes(), ShiftedClock()
    env = replace(env_of(tmp_path, notes, until_end=False), clock=clock)
    reader = KafkaSource(cluster.servers, "in", start="end").reader(env)
    facts = await reader.open({})
    assert facts.start_offsets == {"0": "0", "1": "1"}
    Growing.count = 4
    clock.shift_s = 31.0
    with anyio.fail_after(30):
        chunk = await reader.next()
    assert chunk is not None
    assert (chunk.partition, chunk.values, reader.position_after(chunk)) == (
        3,
        [b"new"],
        ("3", "1"),
    )
    await reader.close()
    assert [each.rpartition(": ")[2] for each in notes] == [
        "reads the new partition 2",
        "reads the new partition 3",
    ]


@pytest.mark.parametrize("until_end", [True, False])
async def test_the_marker_of_a_transaction_is_neither_a_record_nor_lag(
    cluster: Cluster, tmp_path: Path, until_end: bool
) -> None:
    cluster.create("in", 1)
    cluster.write("in", [(0, b"1"), (0, b"2")])
    write_marker(cluster.servers, "in", 0)
    assert cluster.ends("in") == {0: 3}
    source = KafkaSource(cluster.servers, "in", config={"fetch.wait.max.ms": 5})
    reader = source.reader(env_of(tmp_path, [], until_end=until_end))
    await reader.open({})
    chunk = await reader.next()
    assert chunk is not None
    assert chunk.values == [b"1", b"2"]
    with anyio.move_on_after(None if until_end else 2):
        while await reader.next() is not None:
            raise AssertionError("there is no other record")
    assert reader.lag() == 0
    key, position = reader.position_after(chunk)
    await reader.close()
    assert await read_rows(source, tmp_path, {key: position}) == []


async def test_a_record_is_returned_when_it_arrives(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("in")
    # The mock cluster answers only at the end of this time.
    source = KafkaSource(cluster.servers, "in", config={"fetch.wait.max.ms": 5})
    reader = source.reader(env_of(tmp_path, [], until_end=False))
    await reader.open({})
    waits: list[float] = []
    for number in range(20):
        await anyio.to_thread.run_sync(partial(cluster.write, "in", [(0, b"%d" % number)]))
        started_s = time.monotonic()
        assert await reader.next() is not None
        waits.append(time.monotonic() - started_s)
    await reader.close()
    assert min(waits) < 0.05


async def test_a_broker_that_is_away_is_waited_for_with_a_note(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        servers = f"127.0.0.1:{free.getsockname()[1]}"
        notes = Notes()
        reader = KafkaSource(servers, "in").reader(env_of(tmp_path, notes))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader.open, {})
            await notes.wait_for("is not reachable")
            tasks.cancel_scope.cancel()
        await reader.close()
    (note,) = notes
    assert note.startswith(f"Kafka topic in at {servers} is not reachable; retrying: ")
    assert note.endswith("Connection refused")


async def test_what_is_written_is_delivered_when_the_commit_is_ready(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("out")
    writer = KafkaSink(cluster.servers, "out").writer(env_of(tmp_path, []))
    await writer.open({})
    count = 5_000
    values = [b"%d" % each for each in range(count - 1)]
    await writer.write(Chunk([*values, None], [b"k"] * count, [99] * count, range(count)))
    assert writer.unacknowledged == count
    await writer.prepare_commit(is_last=True).wait()
    assert writer.unacknowledged == 0
    await writer.close()
    found = cluster.read("out", count)
    assert [each.value() for each in found] == [*values, None]
    assert {(each.key(), each.timestamp()[1]) for each in found} == {(b"k", 99)}


async def test_a_full_buffer_makes_a_write_wait(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("out")
    sink = KafkaSink(cluster.servers, "out", config={"queue.buffering.max.messages": 10})
    writer = sink.writer(env_of(tmp_path, []))
    await writer.open({})
    await writer.write(Chunk([b"v"] * 500, [None] * 500, [-1] * 500, range(500)))
    await writer.prepare_commit(is_last=True).wait()
    await writer.close()
    assert len(cluster.read("out", 500)) == 500


async def test_a_delivery_error_fails_the_commit(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("out")
    writer = KafkaSink(cluster.servers, "out").writer(env_of(tmp_path, []))
    await writer.open({})
    cluster.fail(PRODUCE, TOPIC_AUTHORIZATION_FAILED)
    await writer.write(Chunk([b"v"], [None], [-1], [0]))
    prepared = writer.prepare_commit(is_last=False)
    try:
        with pytest.raises(StreamKitError, match=r"Kafka topic out .*authorization failed"):
            await prepared.wait()
        with pytest.raises(StreamKitError, match="authorization failed"):
            await writer.write(Chunk([b"v"], [None], [-1], [1]))
    finally:
        await writer.close()


async def test_a_record_that_is_too_large_fails_alone(cluster: Cluster, tmp_path: Path) -> None:
    writer = KafkaSink(cluster.servers, "out").writer(env_of(tmp_path, []))
    with pytest.raises(RowFailed) as failed:
        writer.on_chunk(Chunk([b"a", b"x" * 1_000_000], [None] * 2, [0] * 2, range(2)))
    assert failed.value.row == 1
    assert isinstance(failed.value.__cause__, RecordTooLarge)
    await writer.close()


def test_a_password_must_be_a_secret_and_is_not_shown() -> None:
    with pytest.raises(UsageError, match=r"'sasl.password' must be a Secret"):
        KafkaSink("host:9092", "out", config={"sasl.password": "hunter2"})
    sink = KafkaSink("host:9092", "out", config={"sasl.password": Secret("hunter2")})
    assert "hunter2" not in f"{sink!r} {sink}"


@pytest.mark.parametrize(
    "name", ["acks", "enable.auto.commit", "bootstrap.servers", "transactional.id"]
)
def test_an_option_that_streamkit_sets_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is set by streamkit"):
        KafkaSource("host:9092", "in", config={name: "1"})
