"""The consumer without an event loop: resumed loops, positions, and offsets."""

from __future__ import annotations

import threading
from itertools import chain, count, islice
from typing import Any, Final

import pytest

from streamkit import sync
from streamkit.errors import OffsetOutOfRange, UsageError
from tests.broker_process import BrokerProcess
from tests.client.sync.interrupting import interrupted_at
from tests.client.sync.program import interrupt_once_it_waits

SOON_S: Final = 60.0
COUNT: Final = 100


@pytest.fixture
def topic(client: sync.Client, topic: str) -> str:
    """A topic with a hundred records, whose values are their offsets."""
    with client.producer(topic) as producer:
        producer.send_many([b"%d" % number for number in range(COUNT)])
    return topic


def offset_of(client: sync.Client, consumer_id: str) -> int | None:
    found = [each for each in client.admin.list_consumers() if each.consumer_id == consumer_id]
    return found[0].offset if found else None


def fail(_: object) -> None:
    raise ZeroDivisionError


def test_iterating_again_resumes_with_the_next_record(client: sync.Client, topic: str) -> None:
    with client.consumer(topic, until_end=True) as consumer:
        first = [record.offset for record in islice(consumer, 10)]
        for record in consumer:
            assert record.offset == 10
            break
        rest = next(consumer.chunks())
        assert [*first, record.offset, *rest.offsets] == list(range(COUNT))
        assert [record.offset for record in rest.records()] == list(range(11, COUNT))
        assert consumer.next_chunk() is None
        assert list(consumer) == []


def test_a_record_has_the_value_of_every_column(client: sync.Client, topic: str) -> None:
    with client.producer(topic) as producer:
        producer.send(b"value", b"key", timestamp_ms=7)
    (record,) = client.consumer(topic, start=COUNT, until_end=True)
    assert (record.value, record.key, record.timestamp_ms) == (b"value", b"key", 7)
    assert (record.offset, record.partition, record.topic) == (COUNT, 0, topic)


def test_a_consumer_without_a_block_closes_with_its_loop(client: sync.Client, topic: str) -> None:
    consumer = client.consumer(topic)
    assert next(iter(consumer)).offset == 0
    with pytest.raises(UsageError, match="is closed"):
        next(iter(consumer))
    consumer.close()


def test_closing_ends_a_wait_of_another_thread(client: sync.Client, topic: str) -> None:
    consumer = client.consumer(topic, start="end")
    consumer.open()
    errors: list[Exception] = []
    begins = threading.Event()

    def read() -> None:
        begins.set()
        try:
            consumer.next_chunk()
        except UsageError as error:
            errors.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert begins.wait(SOON_S)
    consumer.close()
    consumer.close()
    reader.join(SOON_S)
    assert "closed" in str(errors[0])
    with pytest.raises(UsageError, match="closed"):
        consumer.next_chunk()


def test_closing_the_client_ends_a_wait_of_another_thread(
    cluster: BrokerProcess, topic: str
) -> None:
    other = sync.Client.connect(cluster.address)
    consumer = other.consumer(topic, start=COUNT - 1)
    assert consumer.next_chunk() is not None
    errors: list[Exception] = []

    def read() -> None:
        try:
            consumer.next_chunk()
        except UsageError as error:
            errors.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    other.close()
    reader.join(SOON_S)
    assert "closed" in str(errors[0])


def test_threads_may_share_a_consumer_and_each_record_goes_to_one(
    client: sync.Client, topic: str
) -> None:
    with client.consumer(topic, until_end=True, max_bytes=1_000) as consumer:
        found: list[list[int]] = [[], [], []]

        def read(mine: list[int]) -> None:
            mine += [record.offset for record in consumer]

        threads = [threading.Thread(target=read, args=(mine,), daemon=True) for mine in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON_S)
    assert sorted(chain.from_iterable(found)) == list(range(COUNT))


def test_commit_stores_the_records_that_the_loop_has_finished(
    client: sync.Client, topic: str
) -> None:
    with client.consumer(topic, consumer_id=topic, offset_strategy="manual") as consumer:
        records = iter(consumer)
        next(records)
        consumer.commit()
        assert offset_of(client, topic) is None
        record = list(islice(records, 9))[-1]
        assert record.offset == 9
        consumer.commit()
        assert offset_of(client, topic) == 8
        consumer.commit(record)
        assert offset_of(client, topic) == 9
        consumer.commit()
        assert offset_of(client, topic) == 9
        next(consumer.chunks())
        consumer.commit()
        assert offset_of(client, topic) == 9
        consumer.commit_yielded()
        assert offset_of(client, topic) == COUNT - 1
        consumer.store(0, 3)
        assert offset_of(client, topic) == 3


@pytest.mark.parametrize("way", ["records", "chunks"])
def test_the_auto_strategy_commits_processed_records_and_not_fetched_ones(
    client: sync.Client, topic: str, way: str
) -> None:
    options: dict[str, Any] = {"consumer_id": topic, "offset_strategy": "auto"}
    with client.consumer(topic, **options) as consumer:
        if way == "records":
            assert len(list(islice(consumer, 10))) == 10
        else:
            next(consumer.chunks())
        assert offset_of(client, topic) is None
    assert offset_of(client, topic) == (8 if way == "records" else None)
    assert len(list(client.consumer(topic, until_end=True, **options))) == (
        COUNT - 9 if way == "records" else COUNT
    )
    assert offset_of(client, topic) == COUNT - 1


def test_seek_moves_a_running_loop_immediately(client: sync.Client, topic: str) -> None:
    with client.consumer(topic) as consumer:
        found = []
        for record in consumer:
            found.append(record.offset)
            if found == [0, 1, 2]:
                assert consumer.seek(0, 97) == 97
            if len(found) == 6:
                assert consumer.seek(0, "beginning+50") == 50
            if len(found) == 8:
                break
        assert found == [0, 1, 2, 97, 98, 99, 50, 51]
        assert consumer.seek(0, "end-1") == COUNT - 1
        assert next(iter(consumer)).offset == COUNT - 1


def test_seek_drops_the_records_requested_by_an_interrupted_wait(
    client: sync.Client, topic: str
) -> None:
    with client.consumer(topic, start="end") as consumer, client.producer(topic) as producer:
        interrupt_once_it_waits()
        with pytest.raises(KeyboardInterrupt):
            next(iter(consumer))
        producer.send(b"nobody waits for it").wait()
        while consumer.next_offsets() == {0: COUNT}:
            pass
        consumer.seek(0, 42)
        assert next(iter(consumer)).offset == 42


def test_an_interrupted_wait_loses_nothing(client: sync.Client, topic: str) -> None:
    with client.consumer(topic, start="end") as consumer, client.producer(topic) as producer:
        interrupt_once_it_waits()
        with pytest.raises(KeyboardInterrupt):
            next(iter(consumer))
        producer.send_many([b"first", b"second"]).wait()
        while consumer.next_offsets() == {0: COUNT}:
            pass
        assert [record.value for record in islice(consumer, 2)] == [b"first", b"second"]


# A call that is interrupted before it starts leaves a coroutine that was never awaited.
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
def test_an_interrupt_at_any_line_of_a_wait_loses_nothing(client: sync.Client, topic: str) -> None:
    found: list[int] = []
    with client.consumer(topic, until_end=True, max_bytes=1_000) as consumer:
        for step in count():
            with interrupted_at(step, "loop_iterator.py") as is_whole:
                for chunk in consumer.chunks():
                    found += chunk.offsets
            if is_whole:
                break
    assert found == list(range(COUNT))
    assert step >= 8


def test_lag_counts_records_that_were_not_returned_yet(client: sync.Client, topic: str) -> None:
    with client.consumer(topic, until_end=True) as consumer:
        assert consumer.lag() == {0: COUNT}
        list(islice(consumer, 10))
        assert consumer.lag() == {0: COUNT - 10}
        assert consumer.ends() == consumer.end_offsets() == {0: COUNT}
        assert consumer.start_offsets() == {0: 0}
        assert consumer.high_watermarks() == {0: COUNT}
        list(consumer)
        assert consumer.lag() == {0: 0}
        assert consumer.next_offsets() == {0: COUNT}
        assert consumer.metrics.records == COUNT


def test_a_loop_raises_an_error_and_seek_continues_after_it(
    client: sync.Client, topic: str
) -> None:
    with client.consumer(topic, start=COUNT + 50) as consumer:
        for _ in range(2):
            with pytest.raises(OffsetOutOfRange):
                next(iter(consumer))
        consumer.seek(0, 5)
        assert next(iter(consumer)).offset == 5


def test_an_error_in_the_block_is_raised_and_stores_no_offset(
    client: sync.Client, topic: str
) -> None:
    options: dict[str, Any] = {"consumer_id": topic, "offset_strategy": "auto"}
    with pytest.raises(ZeroDivisionError), client.consumer(topic, **options) as consumer:
        fail(list(islice(consumer, 10)))
    assert offset_of(client, topic) is None
