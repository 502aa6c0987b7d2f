"""A Kafka topic as a source, against a real broker."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamkit import Offset
from streamkit.connectors import Chunk
from streamkit.connectors.kafka import KafkaRecord, KafkaSource
from streamkit.connectors.kafka.reader import KafkaReader
from streamkit.errors import ConfigError, StreamKitError
from tests.kafka.conftest import Notes, ShiftedClock, env_of, read_rows
from tests.kafka.server import KafkaServer
from tests.proxy import Flip, Proxy, Replace

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

_PATIENCE_S = 60.0
_QUICK = {"reconnect.backoff.max.ms": 200, "fetch.wait.max.ms": 10}


def source_of(kafka: KafkaServer, topic: str, **options: Any) -> KafkaSource:
    return KafkaSource(kafka.servers, topic, config=_QUICK, **options)


async def values_of(
    source: KafkaSource, folder: Path, committed: dict[str, str] | None = None
) -> list[Any]:
    return [c.values[r] for c, r in await read_rows(source, folder, committed or {})]


async def next_of(reader: KafkaReader) -> Chunk:
    with anyio.fail_after(_PATIENCE_S):
        chunk = await reader.next()
    assert chunk is not None
    return chunk


async def read_on(reader: KafkaReader, offsets: list[int], clock: ShiftedClock) -> None:
    """Read until it fails, and let time pass where no records come."""
    while True:
        with anyio.move_on_after(0.3):
            offsets += (await next_of(reader)).offsets
        clock.shift_s += 31.0


# --- records --------------------------------------------------------------------------


async def test_every_partition_is_read_with_all_that_records_have(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new(3)
    headers = [("trace", b"\x00\xff"), ("none", None), ("trace", b"")]
    kafka.topics.write(
        topic, [(0, b"a"), (2, None), (0, b"")], key=b"k\xff", timestamp=1234, headers=headers
    )
    kafka.topics.write(topic, [(1, b"plain")], timestamp=5)
    env = replace(env_of(tmp_path, []), kind=KafkaRecord[bytes | None])
    rows = await read_rows(source_of(kafka, topic), tmp_path, {}, env=env)
    assert sorted((c.values[r] for c, r in rows), key=lambda each: each.partition) == [
        KafkaRecord(b"a", b"k\xff", 1234, 0, 0, topic, tuple(headers)),
        KafkaRecord(b"", b"k\xff", 1234, 1, 0, topic, tuple(headers)),
        KafkaRecord(b"plain", None, 5, 0, 1, topic),
        KafkaRecord(None, b"k\xff", 1234, 0, 2, topic, tuple(headers)),
    ]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_compression_is_read(kafka: KafkaServer, tmp_path: Path, codec: str) -> None:
    values = [b"%d" % each * 50 for each in range(2_000)]
    for where in ("producer", "broker"):
        topic = kafka.topics.new(compression_type=codec if where == "broker" else "producer")
        config = {"compression.type": codec} if where == "producer" else {}
        kafka.topics.write(topic, [(0, each) for each in values], config=config)
        assert await values_of(source_of(kafka, topic), tmp_path) == values


async def test_the_time_of_the_append_is_the_timestamp_if_the_topic_says_so(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new(message_timestamp_type="LogAppendTime")
    kafka.topics.write(topic, [(0, b"v")], timestamp=1234)
    ((chunk, row),) = await read_rows(source_of(kafka, topic), tmp_path, {})
    assert chunk.timestamps_ms[row] > 1_700_000_000_000


async def test_a_record_that_is_larger_than_a_fetch_is_read(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new(max_message_bytes="20000000")
    values = [b"a", b"x" * 15_000_000, b"b"]
    config = {"message.max.bytes": 20_000_000}
    kafka.topics.write(topic, [(0, each) for each in values], config=config)
    assert await values_of(source_of(kafka, topic), tmp_path) == values


async def test_a_damaged_batch_is_an_error(kafka: KafkaServer, tmp_path: Path) -> None:
    topic = kafka.topics.new()
    kafka.topics.write(topic, [(0, b"the value is 1")])
    with Proxy(kafka.port, kafka.port) as proxy:
        own, real = (b"127.0.0.1" + each.to_bytes(4, "big") for each in (proxy.port, kafka.port))
        damage = Flip("sc down", b"value is")

        def redirected(frame: bytes) -> bytes | None:
            return frame.replace(real, own) if real in frame else None

        proxy.restart(damage, Replace("sc down", redirected))
        source = KafkaSource(proxy.address, topic, config=_QUICK)
        with pytest.raises(StreamKitError, match="CRC32C"):
            await values_of(source, tmp_path)
        assert damage.fired == 1
    assert await values_of(source_of(kafka, topic), tmp_path) == [b"the value is 1"]


# --- gaps -----------------------------------------------------------------------------


async def test_a_compacted_topic_is_read_over_its_gaps(kafka: KafkaServer, tmp_path: Path) -> None:
    topic = kafka.topics.new(
        cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.001"
    )
    kafka.topics.write(topic, [(0, b"%d" % each) for each in range(1_000)], key=b"same")
    kafka.topics.write(topic, [(0, b"other")], key=b"other")
    with anyio.fail_after(_PATIENCE_S):
        number = 0
        while len(await anyio.to_thread.run_sync(kafka.topics.values, topic)) > 50:
            number += 1  # only closed segments are compacted, and a write closes one
            kafka.topics.write(topic, [(0, b"last %d" % number)], key=b"last")
    rows = await read_rows(source_of(kafka, topic), tmp_path, {})
    offsets = [c.offsets[r] for c, r in rows]
    assert offsets[0] == 999
    assert [c.values[r] for c, r in rows][:2] == [b"999", b"other"]
    # A committed offset may be in a gap.
    assert await values_of(source_of(kafka, topic), tmp_path, {"0": "5"}) == [
        c.values[r] for c, r in rows
    ]
    ends = kafka.topics.ends(topic)[0]
    assert await values_of(source_of(kafka, topic), tmp_path, {"0": f"{ends}"}) == []


async def test_records_of_aborted_transactions_are_not_read(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new(2)
    kafka.topics.transaction(topic, [(0, b"1"), (1, b"2")], commits=True)
    kafka.topics.transaction(topic, [(0, b"no"), (1, b"no")], commits=False)
    kafka.topics.write(topic, [(0, b"3")])
    kafka.topics.transaction(topic, [(0, b"no")] * 500, commits=False)
    rows = await read_rows(source_of(kafka, topic), tmp_path, {})
    assert sorted(c.values[r] for c, r in rows) == [b"1", b"2", b"3"]
    assert max(c.offsets[r] for c, r in rows) > 1  # over the markers
    uncommitted = KafkaSource(
        kafka.servers, topic, config={**_QUICK, "isolation.level": "read_uncommitted"}
    )
    assert (await values_of(uncommitted, tmp_path)).count(b"no") == 502


async def test_an_open_transaction_is_the_end_until_it_is_committed(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new()
    kafka.topics.write(topic, [(0, b"1")])
    producer = kafka.topics.transactional("open")
    producer.begin_transaction()
    producer.produce(topic, b"2", partition=0)
    producer.flush(30)
    kafka.topics.write(topic, [(0, b"3")])
    assert await values_of(source_of(kafka, topic), tmp_path) == [b"1"]
    reader = source_of(kafka, topic).reader(env_of(tmp_path, [], until_end=False))
    await reader.open({})
    assert (await next_of(reader)).values == [b"1"]
    await anyio.to_thread.run_sync(producer.commit_transaction)
    found: list[Any] = []
    while len(found) < 2:
        found += (await next_of(reader)).values
    assert found == [b"2", b"3"]
    await reader.close()


async def test_the_position_passes_markers_only_after_the_records_before_them(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new()
    kafka.topics.transaction(topic, [(0, b"1"), (0, b"2")], commits=True)
    reader = source_of(kafka, topic).reader(env_of(tmp_path, []))
    await reader.open({})
    chunk = await next_of(reader)
    assert await reader.next() is None
    assert reader.skipped_positions() == {}
    reader.position_after(chunk.slice(0, 1))
    assert reader.skipped_positions() == {}
    reader.position_after(chunk.slice(1, 2))
    assert reader.skipped_positions() == {"0": "3"}
    assert reader.skipped_positions() == {}
    await reader.close()


# --- retention, partitions, topics ----------------------------------------------------


async def test_a_position_whose_records_were_removed_is_refused(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new()
    kafka.topics.write(topic, [(0, b"%d" % each) for each in range(10)])
    kafka.topics.delete_records(topic, 0, 6)
    source = source_of(kafka, topic)
    with pytest.raises(ConfigError, match=r"offset 5 of partition 0 was removed .* has 6 to 10"):
        await values_of(source, tmp_path, {"0": "5"})
    rest = [b"6", b"7", b"8", b"9"]
    assert await values_of(source, tmp_path, {"0": "6"}) == rest
    for start in ("beginning", "2", "end-9"):
        assert await values_of(source_of(kafka, topic, start=start), tmp_path) == rest


async def test_records_that_are_removed_before_they_were_read_are_an_error(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new()
    kafka.topics.write(topic, [(0, b"x" * 900_000)] * 100)
    reader = source_of(kafka, topic).reader(env_of(tmp_path, [], until_end=False))
    await reader.open({})
    offsets = list((await next_of(reader)).offsets)
    await anyio.to_thread.run_sync(partial(kafka.topics.delete_records, topic, 0, 99))
    with pytest.raises(StreamKitError, match="Offset out of range"):
        await read_on(reader, offsets, ShiftedClock())
    await reader.close()
    assert len(offsets) < 99


async def test_removed_records_can_be_skipped_with_a_message(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new()
    kafka.topics.write(topic, [(0, b"x" * 900_000)] * 100)
    notes: list[str] = []
    source = source_of(kafka, topic, removed="skip")
    reader = source.reader(env_of(tmp_path, notes))
    await reader.open({})
    chunk = await next_of(reader)
    await anyio.to_thread.run_sync(partial(kafka.topics.delete_records, topic, 0, 99))
    while chunk.offsets[-1] < 99:
        chunk = await next_of(reader)
    assert list(chunk.offsets) == [99]
    assert await reader.next() is None
    assert reader.lag() == 0
    await reader.close()
    assert f"{topic} at {kafka.servers}: the offsets " in notes[0]
    assert notes[0].endswith("before the job has read them; continues at 99")
    rows = await read_rows(source, tmp_path, {"0": "5"}, env=env_of(tmp_path, notes))
    assert [c.offsets[r] for c, r in rows] == [99]
    assert "the offsets 5 to 98 of partition 0 were removed" in notes[-1]


async def test_new_partitions_are_found_and_read_from_their_beginning(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new(1)
    kafka.topics.write(topic, [(0, b"old")])
    notes, clock = Notes(), ShiftedClock()
    env = replace(env_of(tmp_path, notes, until_end=False), clock=clock)
    reader = source_of(kafka, topic, start="end").reader(env)
    await reader.open({})
    await anyio.to_thread.run_sync(partial(kafka.topics.add_partitions, topic, 3))
    await anyio.to_thread.run_sync(partial(kafka.topics.write, topic, [(2, b"new")]))
    clock.shift_s = 31.0
    chunk = await next_of(reader)
    assert (chunk.partition, chunk.values) == (2, [b"new"])
    await reader.close()
    assert [each.rpartition(": ")[2] for each in notes] == [
        "reads the new partition 1",
        "reads the new partition 2",
    ]


async def test_a_topic_that_is_deleted_while_it_is_read_is_an_error(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new()
    kafka.topics.write(topic, [(0, b"1")])
    clock = ShiftedClock()
    env = replace(env_of(tmp_path, [], until_end=False), clock=clock)
    reader = source_of(kafka, topic).reader(env)
    await reader.open({})
    await next_of(reader)
    await anyio.to_thread.run_sync(kafka.topics.delete, topic)
    with pytest.raises(ConfigError, match=f"topic '{topic}' does not exist"):
        await read_on(reader, [], clock)
    await reader.close()


async def test_a_topic_that_was_created_again_is_not_resumed(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new()
    kafka.topics.write(topic, [(0, b"old")])
    clock = ShiftedClock()
    env = replace(env_of(tmp_path, [], until_end=False), clock=clock)
    reader = source_of(kafka, topic).reader(env)
    facts = await reader.open({})
    committed = dict(facts.start_offsets or {})
    key, position = reader.position_after(await next_of(reader))
    kafka.topics.delete(topic)
    kafka.topics.create(topic)
    kafka.topics.write(topic, [(0, b"new 1"), (0, b"new 2")])
    with pytest.raises(ConfigError, match=f"{topic} .* was deleted and created again"):
        await read_on(reader, [], clock)
    await reader.close()
    with pytest.raises(ConfigError, match=f"{topic} .* was deleted and created again"):
        await values_of(source_of(kafka, topic), tmp_path, {**committed, key: position})
    elsewhere = {key: position, "topic": "another-cluster another-topic"}
    assert await values_of(source_of(kafka, topic), tmp_path, elsewhere) == [b"new 2"]


# --- where the first run starts -------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "values"),
    [
        ("beginning", [b"0", b"1", b"2", b"3"]),
        ("beginning+3", [b"3"]),
        ("end", []),
        ("end-1", [b"3"]),
        (2, [b"2", b"3"]),
        (9, []),
        (Offset.at_time(0), [b"0", b"1", b"2", b"3"]),
        (Offset.at_time(2_000), [b"1", b"2", b"3"]),
        (Offset.at_time(2_001), [b"2", b"3"]),
        (Offset.at_time(4_001), []),
    ],
)
async def test_the_first_run_starts_at_start(
    kafka: KafkaServer, tmp_path: Path, start: str | int | Offset, values: list[bytes]
) -> None:
    topic = kafka.topics.new()
    for each in range(4):
        kafka.topics.write(topic, [(0, b"%d" % each)], timestamp=1_000 + each * 1_000)
    assert await values_of(source_of(kafka, topic, start=start), tmp_path) == values
