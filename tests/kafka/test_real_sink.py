"""A Kafka topic as a sink, against a real broker."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from streamkit.connectors import Chunk, RowFailed
from streamkit.env import SystemClock
from streamkit.errors import StreamKitError
from tests.kafka.conftest import opened_writer, rows, write
from tests.kafka.lost_answers import losing_answers
from tests.kafka.server import KafkaServer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_all_that_records_have_is_written(
    kafka: KafkaServer, tmp_path: Path, codec: str
) -> None:
    topic = kafka.topics.new(3)
    writer = await opened_writer(tmp_path, kafka.servers, topic, **{"compression.type": codec})
    values = [b"v", None, b"", (b"with", [("a", b"\x00"), ("b", None)]), (None, [("c", b"")])]
    await writer.write(Chunk(values, [b"k\xff"] * 5, [7, 8, 9, 10, 11], range(5)))
    await writer.prepare_commit(is_last=True).wait()
    await writer.close()
    found = kafka.topics.read_all(topic)
    assert [(m.value(), m.timestamp()[1], m.headers()) for m in found] == [
        (b"v", 7, None),
        (None, 8, None),
        (b"", 9, None),
        (b"with", 10, [("a", b"\x00"), ("b", None)]),
        (None, 11, [("c", b"")]),
    ]
    assert {(m.key(), m.partition()) for m in found} == {(b"k\xff", found[0].partition())}


async def test_batches_whose_responses_are_lost_are_written_once_and_in_order(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new()
    values = [b"%d" % each for each in range(5_000)]
    with losing_answers(kafka.port, every=4, times=6) as answers:
        writer = await opened_writer(
            tmp_path, answers.servers, topic, **{"batch.num.messages": 100}
        )
        await write(writer, values)
        await writer.close()
    assert answers.lost == 6
    assert kafka.topics.values(topic) == values


async def test_a_broker_that_is_killed_in_between_has_each_record_once_and_in_order(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new()
    values = [b"%d" % each for each in range(20_000)]
    writer = await opened_writer(tmp_path, kafka.servers, topic)
    await write(writer, values[:5_000])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, writer, values[5_000:])
        await anyio.to_thread.run_sync(kafka.kill)
        await anyio.to_thread.run_sync(kafka.start)
    await writer.close()
    assert kafka.topics.values(topic) == values


async def test_a_producer_whose_records_were_all_removed_writes_on(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new()
    writer = await opened_writer(tmp_path, kafka.servers, topic)
    await write(writer, [b"1", b"2"])
    kafka.topics.delete_records(topic, 0, 2)
    await write(writer, [b"3"])
    await writer.close()
    assert kafka.topics.values(topic) == [b"3"]


# --- what the broker refuses ----------------------------------------------------------


async def test_a_batch_is_not_larger_than_the_topic_allows(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new(max_message_bytes="5000")
    values = [b"%d" % each * 200 for each in range(1_000)]
    for codec in ("none", "zstd"):
        writer = await opened_writer(tmp_path, kafka.servers, topic, **{"compression.type": codec})
        await write(writer, values)
        await writer.close()
    assert kafka.topics.values(topic) == values * 2


@pytest.mark.parametrize("limit", [5_000, 1_048_588, 3_000_000])
async def test_a_record_is_as_large_as_the_topic_allows(
    kafka: KafkaServer, tmp_path: Path, limit: int
) -> None:
    topic = kafka.topics.new(max_message_bytes=f"{limit}")
    writer = await opened_writer(tmp_path, kafka.servers, topic)
    largest = [b"x" * (limit - 100), (b"y" * (limit - 116), [("header", b"")]), b"last"]
    for value in largest:
        assert len(writer.on_chunk(rows([value]))) == 1
    await write(writer, largest)
    with pytest.raises(RowFailed) as failed:
        writer.on_chunk(rows([b"fits", b"x" * (limit - 99)]))
    assert failed.value.row == 1
    assert f"accepts {limit - 100}" in str(failed.value.__cause__)
    await writer.close()
    assert len(kafka.topics.values(topic)) == 3


async def test_a_record_that_fits_only_when_it_is_compressed_is_written(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new(max_message_bytes="5000")
    writer = await opened_writer(tmp_path, kafka.servers, topic, **{"compression.type": "lz4"})
    value = b"x" * 100_000
    assert len(writer.on_chunk(rows([value]))) == 1
    await write(writer, [value])
    await writer.close()
    assert kafka.topics.values(topic) == [value]


@pytest.mark.parametrize(
    ("option", "shift_ms"),
    [
        ("after", 7_200_000),
        ("before", -7_200_000),
    ],
)
async def test_a_timestamp_that_the_topic_does_not_accept_fails_alone(
    kafka: KafkaServer, tmp_path: Path, option: str, shift_ms: int
) -> None:
    topic = kafka.topics.new(1, **{f"message_timestamp_{option}_max_ms": "3600000"})
    writer = await opened_writer(tmp_path, kafka.servers, topic)
    now_ms = SystemClock().wall_ms()
    times_ms = [now_ms, -1, now_ms + shift_ms // 4, now_ms + shift_ms, now_ms]
    chunk = Chunk([b"%d" % each for each in range(5)], [None] * 5, times_ms, range(5))
    with pytest.raises(RowFailed) as failed:
        writer.on_chunk(chunk)
    assert failed.value.row == 3
    assert f"does not accept the timestamp {now_ms + shift_ms}" in str(failed.value.__cause__)
    accepted = writer.on_chunk(chunk.select([True, True, True, False, True]))
    await writer.write(accepted)
    await writer.prepare_commit(is_last=True).wait()
    await writer.close()
    assert kafka.topics.values(topic) == [b"0", b"1", b"2", b"4"]


async def test_a_topic_that_sets_timestamps_accepts_any(kafka: KafkaServer, tmp_path: Path) -> None:
    topic = kafka.topics.new(message_timestamp_type="LogAppendTime")
    writer = await opened_writer(tmp_path, kafka.servers, topic)
    future = Chunk([b"v"], [None], [SystemClock().wall_ms() + 10**10], [0])
    await writer.write(writer.on_chunk(future))
    await writer.prepare_commit(is_last=True).wait()
    await writer.close()
    assert kafka.topics.values(topic) == [b"v"]


async def test_a_topic_that_was_deleted_fails_the_commit(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new()
    quick = {"topic.metadata.propagation.max.ms": 500, "topic.metadata.refresh.interval.ms": 500}
    writer = await opened_writer(tmp_path, kafka.servers, topic, **quick)
    await write(writer, [b"1"])
    kafka.topics.delete(topic)
    with pytest.raises(StreamKitError, match="Unknown partition") as failed:
        await write(writer, [b"2"])
    assert "the topic was deleted" in failed.value.hint
    await writer.close()
