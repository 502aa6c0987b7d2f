"""The producer against a running broker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Literal

import anyio
import pytest

from streamkit import Client, Topic
from streamkit.client.produce.handles import RecordMetadata
from streamkit.errors import (
    BrokerError,
    RecordTooLarge,
    TopicNotFound,
    UsageError,
)
from streamkit.protocol.batch import OVERHEAD_BYTES
from streamkit.protocol.codec import record_bytes
from streamkit.protocol.compression import Codec
from streamkit.protocol.error_codes import Code
from tests.client.conftest import NewTopic
from tests.client.reading import batches_of, read_all, values_of
from tests.protocol.recorded import read_json

CompressionName = Literal["none", "gzip", "snappy", "lz4", "zstd"]
CODECS: Final[tuple[CompressionName, ...]] = ("none", "gzip", "snappy", "lz4", "zstd")
KEYED: Final = [vector for vector in read_json("siphash.json") if vector["kind"] == "keyed"]
# Longer than any test may take: a record that waits for this linger is never sent.
FOREVER_S: Final = 3_600
SOON_S: Final = 60.0


# --- Stored records --------------------------------------------------------------------


async def test_a_record_is_read_as_it_was_sent(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic()
    before_ms = time.time_ns() // 1_000_000
    async with client.producer(topic) as producer:
        stored = await (await producer.send(b"value", b"key"))
    (record,) = await read_all(client, topic)
    assert stored == RecordMetadata(0, 0)
    assert (record.value, record.key, record.offset, record.topic) == (b"value", b"key", 0, topic)
    assert before_ms <= record.timestamp_ms <= time.time_ns() // 1_000_000


async def test_text_is_sent_as_utf8(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic()
    async with client.producer(Topic(topic)) as producer:
        await producer.send("grüße", "schlüssel")
    (record,) = await read_all(client, topic)
    assert (record.value_text, record.key_text) == ("grüße", "schlüssel")


async def test_an_empty_key_differs_from_no_key(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic()
    async with client.producer(topic) as producer:
        await producer.send(b"1", b"")
        await producer.send(b"2")
        await producer.send_many([b"3", b"4"], [b"", None])
        await producer.send(b"", None)
    found = [(record.value, record.key) for record in await read_all(client, topic)]
    assert found == [(b"1", b""), (b"2", None), (b"3", b""), (b"4", None), (b"", None)]


async def test_explicit_timestamps_are_kept_even_if_far_apart(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    times_ms = [1_357_034_400_000, 1_357_034_399_000, 1, 4_102_444_800_000, 4_102_444_800_000]
    async with client.producer(topic, linger=FOREVER_S) as producer:
        for time_ms in times_ms:
            await producer.send(b"x", timestamp_ms=time_ms)
        await producer.send_many([b"y"] * len(times_ms), timestamps_ms=times_ms)
    assert [record.timestamp_ms for record in await read_all(client, topic)] == times_ms * 2


@pytest.mark.parametrize("batch_size", [150, 16_384])
async def test_the_timestamp_of_one_record_is_not_used_for_another(
    client: Client, new_topic: NewTopic, batch_size: int
) -> None:
    """A batch whose first timestamp is 0 has no timestamps at all."""
    topic = await new_topic()
    times_ms = [0, 5, 0, 0, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0]
    async with client.producer(topic, linger=FOREVER_S, batch_size=batch_size) as producer:
        for time_ms in times_ms:
            await producer.send(bytes(20), timestamp_ms=time_ms)
        await producer.send_many([bytes(20)] * len(times_ms), timestamps_ms=times_ms)
        await producer.send(bytes(20), timestamp_ms=0)
        await producer.send_many([bytes(20)] * len(times_ms), timestamps_ms=times_ms)
    found = [max(0, record.timestamp_ms) for record in await read_all(client, topic)]
    assert found == [*times_ms, *times_ms, 0, *times_ms]


async def test_columns_are_read_row_by_row(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic(3)
    values = [b"%d" % row for row in range(20_000)]
    keys = [b"%d" % (row % 100) for row in range(20_000)]
    async with client.producer(topic) as producer:
        stored = await (await producer.send_many(values, keys))
    found = {(r.partition, r.offset): (r.value, r.key) for r in await read_all(client, topic)}
    assert len(found) == len(values)
    places = zip(stored.partitions, stored.offsets, strict=True)
    assert [found[place] for place in places] == list(zip(values, keys, strict=True))


async def test_columns_of_different_length_are_refused(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic()
    async with client.producer(topic) as producer:
        with pytest.raises(UsageError, match="2 values, but 1 keys"):
            await producer.send_many([b"a", b"b"], [b"k"])
        with pytest.raises(UsageError, match="2 values, but 3 timestamps_ms"):
            await producer.send_many([b"a", b"b"], timestamps_ms=[1, 2, 3])
    assert await values_of(client, topic) == []


async def test_empty_columns_are_stored_immediately(client: Client, new_topic: NewTopic) -> None:
    async with client.producer(await new_topic()) as producer:
        stored = await (await producer.send_many([]))
    assert (stored.partitions, stored.offsets) == ([], [])


async def test_single_records_and_columns_keep_their_order(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    expected = []
    async with client.producer(topic, batch_size=200) as producer:
        for turn in range(50):
            values = [b"%d-%d" % (turn, row) for row in range(turn % 7)]
            await producer.send(b"%d" % turn)
            await producer.send_many(values)
            expected += [b"%d" % turn, *values]
    assert await values_of(client, topic) == expected


# --- Compression -----------------------------------------------------------------------


@pytest.mark.parametrize("compression", CODECS)
async def test_records_can_be_written_and_read_with_every_compression(
    client: Client, new_topic: NewTopic, compression: CompressionName
) -> None:
    topic = await new_topic()
    values = [b"%d" % row * 20 for row in range(1_000)]
    async with client.producer(topic, compression=compression) as producer:
        await producer.send_many(values)
    assert await values_of(client, topic) == values
    codecs = {header.codec_number for header in await batches_of(client, topic)}
    assert codecs == {Codec.parse(compression)}


@pytest.mark.parametrize("compression", CODECS)
async def test_a_producer_uses_the_compression_of_its_topic(
    client: Client, new_topic: NewTopic, compression: CompressionName
) -> None:
    topic = await new_topic(compression=compression)
    async with client.producer(topic) as producer:
        await producer.send(b"x" * 100)
    (header,) = await batches_of(client, topic)
    assert header.codec_number == Codec.parse(compression)


async def test_a_producer_that_uses_a_compression_the_topic_does_not_allow_is_refused(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(compression="gzip")
    with pytest.raises(UsageError, match=r"lz4.*gzip|gzip.*lz4"):
        async with client.producer(topic, compression="lz4"):
            pass
    async with client.producer(topic, compression="gzip") as producer:
        await producer.send(b"x")


# --- When batches are sent ----------------------------------------------------------------


async def test_awaiting_a_handle_does_not_wait_for_the_linger(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    with anyio.fail_after(SOON_S):
        async with client.producer(topic, linger=FOREVER_S) as producer:
            assert (await (await producer.send(b"1"))).offset == 0
            many = await producer.send_many([b"2", b"3"])
            assert (await many).offsets == [1, 2]
            handle = await producer.send(b"4")
            assert [(await handle).offset, (await handle).offset] == [3, 3]


async def test_a_flush_does_not_wait_for_the_linger(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic(3)
    with anyio.fail_after(SOON_S):
        async with client.producer(topic, linger=FOREVER_S) as producer:
            for _ in range(9):
                await producer.send(b"x")
            assert producer.unacknowledged == 9
            await producer.flush()
            assert producer.unacknowledged == 0
            assert len(await values_of(client, topic)) == 9
            await producer.flush()  # nothing is queued


async def test_a_flush_ends_even_if_other_tasks_keep_sending(
    client: Client, new_topic: NewTopic
) -> None:
    async with client.producer(await new_topic(), linger=0) as producer:

        async def send_forever() -> None:
            while True:
                await (await producer.send(b"x"))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(send_forever)
            with anyio.fail_after(SOON_S):
                for _ in range(20):
                    await producer.send(b"y")
                    await producer.flush()
            tasks.cancel_scope.cancel()


async def test_closing_stores_queued_records(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic(2)
    with anyio.fail_after(SOON_S):
        async with client.producer(topic, linger=FOREVER_S) as producer:
            handles = [await producer.send(b"%d" % n) for n in range(10)]
    assert len(await values_of(client, topic)) == 10
    assert {(await handle).partition for handle in handles} == {0, 1}


async def test_a_closed_producer_refuses_records(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic()
    async with client.producer(topic) as producer:
        await producer.send(b"before")
    with anyio.fail_after(SOON_S):
        with pytest.raises(UsageError, match="closed"):
            await producer.send(b"behind")
        with pytest.raises(UsageError, match="closed"):
            await producer.send_many([b"behind"])
    assert await values_of(client, topic) == [b"before"]


async def test_the_linger_fills_batches(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic()
    async with client.producer(topic, linger=FOREVER_S, batch_size=1_000) as producer:
        for number in range(100):
            await producer.send(b"%03d" % number * 10)
    sizes = [header.size_bytes + 4 for header in await batches_of(client, topic)]
    assert all(900 < size <= 1_004 for size in sizes[:-1])


async def test_by_default_a_record_is_sent_without_a_flush(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    async with client.consumer(topic) as consumer, client.producer(topic) as producer:
        with anyio.fail_after(SOON_S):
            await producer.send(b"x")
            chunk = await consumer.next_chunk()
    assert chunk is not None
    assert chunk.values == [b"x"]


async def test_thousands_of_tasks_may_wait_for_one_batch(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    offsets: list[int] = []
    async with client.producer(topic, linger=FOREVER_S, batch_size=1 << 20) as producer:

        async def send(number: int) -> None:
            offsets.append((await (await producer.send(b"%d" % number))).offset)

        async with anyio.create_task_group() as tasks:
            for number in range(3_000):
                tasks.start_soon(send, number)
    assert sorted(offsets) == list(range(3_000))


# --- Choice of partition-------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [2, 3, 7, 16])
async def test_keys_go_where_every_fluvio_client_puts_them(
    client: Client, new_topic: NewTopic, partitions: int
) -> None:
    topic = await new_topic(partitions)
    keys = [bytes.fromhex(vector["key_hex"]) for vector in KEYED]
    expected = [vector["mods"][str(partitions)] for vector in KEYED]
    async with client.producer(topic, linger=FOREVER_S) as producer:
        singles = [await producer.send(b"x", key) for key in keys]
        many = await producer.send_many([b"y"] * len(keys), keys)
        assert [(await handle).partition for handle in singles] == expected
        assert (await many).partitions == expected


async def test_records_without_a_key_are_distributed_round_robin(
    client: Client, new_topic: NewTopic
) -> None:
    async with client.producer(await new_topic(3)) as producer:
        singles = [await producer.send(b"x") for _ in range(4)]
        many = await producer.send_many([b"y"] * 5)
        again = await producer.send(b"z")
        assert [(await handle).partition for handle in singles] == [0, 1, 2, 0]
        assert (await many).partitions == [1, 2, 0, 1, 2]
        assert (await again).partition == 0


async def test_a_record_with_a_key_does_not_count_in_the_round_robin(
    client: Client, new_topic: NewTopic
) -> None:
    async with client.producer(await new_topic(3)) as producer:
        handles = [await producer.send(b"x", key) for key in (None, b"a", None, b"b", None)]
        partitions = [(await handle).partition for handle in handles]
    assert [partitions[0], partitions[2], partitions[4]] == [0, 1, 2]


async def test_a_partition_can_be_chosen(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic(3)
    async with client.producer(topic, partition=2) as producer:
        assert (await (await producer.send(b"x", b"a"))).partition == 2
        assert (await (await producer.send_many([b"x", b"y"], [b"a", None]))).partitions == [2, 2]
    async with client.producer(topic) as producer:
        assert (await (await producer.send(b"x", b"a", partition=0))).partition == 0
        with pytest.raises(UsageError, match="no partition 3"):
            await producer.send(b"x", partition=3)
        with pytest.raises(UsageError, match="no partition -1"):
            await producer.send(b"x", partition=-1)
    with pytest.raises(UsageError, match="no partition 3"):
        await client.producer(topic, partition=3).open()


async def test_a_custom_partitioner_is_used(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic(4)
    chooses: Callable[..., list[int]] = lambda keys, count: [count - 1 - len(k) for k in keys]  # noqa: E731
    async with client.producer(topic, partitioner=chooses) as producer:
        assert (await (await producer.send(b"x", b"a"))).partition == 2
        assert (await (await producer.send_many([b"x"] * 3, [b"", b"aa", b"a"]))).partitions == [
            3,
            1,
            2,
        ]


async def test_partitions_added_later_are_used(client: Client, new_topic: NewTopic) -> None:
    topic = await new_topic(1)
    async with client.producer(topic) as producer:
        await (await producer.send(b"x"))
        await client.admin.add_partitions(topic, 2)
        many = await producer.send_many([b"y"] * 6)
        assert set((await many).partitions) == {0, 1, 2}
        singles = [await producer.send(b"z") for _ in range(3)]
        assert {(await handle).partition for handle in singles} == {0, 1, 2}


async def test_there_can_be_more_partitions_than_open_requests(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(300)
    async with client.producer(topic, linger=FOREVER_S) as producer:
        many = await producer.send_many([b"%d" % n for n in range(900)])
        assert sorted((await many).offsets) == [0] * 300 + [1] * 300 + [2] * 300
    assert len(await values_of(client, topic)) == 900


# --- Refused input ---------------------------------------------------------------------------


async def test_an_unknown_topic_is_refused_with_a_suggestion(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    with pytest.raises(TopicNotFound, match=f"topic not found: {topic}x") as caught:
        await client.producer(f"{topic}x").open()
    assert "did you mean" in caught.value.hint


async def test_only_a_record_above_max_request_size_is_too_large(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    limit = 1_000
    fits = max(
        n for n in range(limit) if OVERHEAD_BYTES + record_bytes(0, 0, b"k", bytes(n)) <= limit
    )
    async with client.producer(topic, max_request_size=limit, linger=FOREVER_S) as producer:
        await producer.send(b"x" * 100, b"k")  # an open batch must make no difference
        await producer.send(b"y" * fits, b"k")
        with pytest.raises(RecordTooLarge, match="1001 bytes, but max_request_size is 1000"):
            await producer.send(b"z" * (fits + 1), b"k")
        with pytest.raises(RecordTooLarge, match="row 1"):
            await producer.send_many([b"", b"z" * (fits + 1)], [b"k", b"k"])
        await producer.send(b"last", b"k")
        assert producer.fits(b"z" * fits, b"k")
        assert not producer.fits(b"z" * (fits + 1), b"k")
    found = [value[:4] for value in await values_of(client, topic)]
    assert found == [b"xxxx", b"yyyy", b"last"]


async def test_a_record_above_the_batch_size_has_its_own_batch(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    async with client.producer(topic, batch_size=1_000, linger=FOREVER_S) as producer:
        for size in (10, 10, 5_000, 10, 10):
            await producer.send(b"x" * size)
    assert [h.record_count for h in await batches_of(client, topic)] == [2, 1, 2]


async def test_a_refused_batch_does_not_affect_the_others(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(segment_size_bytes=2_000)
    async with client.producer(topic, batch_size=500, linger=FOREVER_S) as producer:
        good = [await producer.send(b"a" * 300) for _ in range(5)]
        bad = await producer.send(b"b" * 3_000)
        good += [await producer.send(b"c" * 300) for _ in range(5)]
        with pytest.raises(BrokerError, match="too large") as caught:
            await producer.flush()
        assert caught.value.code == Code.MESSAGE_TOO_LARGE
        assert [(await handle).offset for handle in good] == list(range(10))
        with pytest.raises(BrokerError, match="too large"):
            await bad
        await producer.flush()  # a refusal is raised once
        good.append(await producer.send(b"usable"))
        assert (await good[-1]).offset == 10
    assert len(await values_of(client, topic)) == 11


async def test_the_rows_of_a_refused_batch_are_reported(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(segment_size_bytes=2_000)
    async with client.producer(topic, batch_size=500) as producer:
        many = await producer.send_many([b"a" * 300, b"b" * 3_000, b"c" * 300])
        ((rows, error),) = await many.refusals()
        assert (list(rows), isinstance(error, BrokerError)) == ([1], True)
        with pytest.raises(BrokerError, match="too large"):
            await many
        with pytest.raises(BrokerError, match="too large"):
            await producer.flush()
    assert [value[:1] for value in await values_of(client, topic)] == [b"a", b"c"]


async def test_close_raises_an_error_that_no_handle_has_raised(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(segment_size_bytes=2_000)
    with pytest.raises(BrokerError, match="too large"):
        async with client.producer(topic) as producer:
            await producer.send(b"x" * 3_000)


async def test_an_error_in_the_block_has_priority_over_a_refused_record(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(segment_size_bytes=2_000)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what is tested
        async with client.producer(topic) as producer:
            await producer.send(b"x" * 3_000)
            raise ZeroDivisionError


async def test_records_for_a_deleted_topic_are_refused_with_its_name(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    async with client.producer(topic, linger=FOREVER_S) as producer:
        await (await producer.send(b"x"))
        await client.admin.delete_topic(topic)
        with anyio.fail_after(SOON_S), pytest.raises(TopicNotFound, match=topic):
            await (await producer.send(b"y"))
        with pytest.raises(TopicNotFound, match=topic):
            await producer.flush()


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"max_request_size": 0},
        {"queue_bytes": 0},
        {"linger": -1},
        {"timeout": -1},
        {"isolation": "sometimes"},
        {"compression": "rar"},
    ],
)
async def test_invalid_options_are_refused(client: Client, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        client.producer("any", **options)


async def test_the_objects_of_a_client_have_a_readable_repr(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    assert repr(client) == f"Client({client.address!r})"
    assert repr(client.consumer(topic)) == f"Consumer({topic!r})"
    async with client.producer(topic, linger=3_600) as producer:
        handle = await producer.send(b"x")
        many = await producer.send_many([b"y", b"z"])
        assert repr(producer) == f"Producer({topic!r}, unacknowledged=3)"
        assert repr(handle) == "RecordHandle(partition=0, pending)"
        assert repr(many) == "RecordsHandle(2 records, pending)"
        await producer.flush()
        assert repr(handle) == "RecordHandle(partition=0, offset=0)"
        assert repr(many) == "RecordsHandle(2 records)"


async def test_an_error_in_the_block_gets_a_note_about_undelivered_records(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(segment_size_bytes=2_000)

    async def fail() -> None:
        async with client.producer(topic) as producer:
            await producer.send(bytes(20_000))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        await fail()
    assert "too large" in raised.value.__notes__[0]


async def test_a_partitioner_that_returns_too_few_partitions_is_refused(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic(2)
    async with client.producer(topic, partitioner=lambda keys, count: [0]) as producer:
        with pytest.raises(UsageError, match="returned 1 partitions for 3 keys"):
            await producer.send_many([b"a", b"b", b"c"])
    with pytest.raises(UsageError, match="partition and partitioner cannot"):
        client.producer(topic, partition=0, partitioner=lambda keys, count: [0])


async def test_a_cancelled_block_logs_unacknowledged_records(
    client: Client, new_topic: NewTopic, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await new_topic()
    with anyio.CancelScope() as scope:
        async with client.producer(topic, linger=3_600) as producer:
            await producer.send(b"x")
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert f"1 records for '{topic}' were not acknowledged" in caplog.text


@pytest.mark.parametrize("content", [bytearray(b"x"), 7, None, ["x"]])
async def test_a_value_that_is_neither_bytes_nor_text_is_refused(
    client: Client, new_topic: NewTopic, content: Any
) -> None:
    topic = await new_topic()
    async with client.producer(topic) as producer:
        with pytest.raises(UsageError, match=f"value is {type(content).__name__}, not bytes"):
            await producer.send(content)
        if content is not None:
            with pytest.raises(UsageError, match=f"key is {type(content).__name__}, not bytes"):
                await producer.send(b"x", content)
    assert await values_of(client, topic) == []
