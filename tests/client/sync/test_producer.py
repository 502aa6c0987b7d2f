"""The producer without an event loop: order, limits, errors, and closing."""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, Final

import pytest

from streamkit import sync
from streamkit.errors import BrokerError, NotFlushed, RecordTooLarge, UsageError
from tests.broker_process import BrokerProcess
from tests.client.sync.interrupting import interrupted_at
from tests.proxy import Proxy, Stall

SOON_S: Final = 60.0


@pytest.fixture
def small(client: sync.Client, topic: str) -> str:
    """A topic whose broker rejects batches above one kilobyte."""
    client.admin.create_topic(f"{topic}-small", segment_size_bytes=1_024)
    return f"{topic}-small"


def stored(client: sync.Client, topic: str) -> list[bytes]:
    return [record.value for record in client.consumer(topic, until_end=True)]


def fail(_: object) -> None:
    raise ZeroDivisionError


def numbers(count: int, text: str = "") -> list[bytes]:
    return [f"{text}{number}".encode() for number in range(count)]


# --- order -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("each", "queue_bytes"), [(50, 500), (5_000, 8 << 20)])
def test_threads_may_share_a_producer_and_each_keeps_its_order(
    client: sync.Client, topic: str, each: int, queue_bytes: int
) -> None:
    threads = 8
    with client.producer(topic, queue_bytes=queue_bytes) as producer:

        def send(thread: int) -> list[sync.RecordHandle]:
            return [producer.send(value) for value in numbers(each, f"{thread}-")]

        with ThreadPoolExecutor(threads) as pool:
            handles = list(pool.map(send, range(threads)))
        offsets = [[handle.wait().offset for handle in part] for part in handles]
    found = stored(client, topic)
    assert len(found) == threads * each
    for thread in range(threads):
        assert [found[offset] for offset in offsets[thread]] == numbers(each, f"{thread}-")
        assert offsets[thread] == sorted(offsets[thread])


def test_single_records_and_columns_keep_their_order(client: sync.Client, topic: str) -> None:
    with client.producer(topic) as producer:
        expected = []
        for turn in range(50):
            producer.send(b"%d single" % turn)
            producer.send_many([b"%d first" % turn, b"%d second" % turn])
            expected += [b"%d single" % turn, b"%d first" % turn, b"%d second" % turn]
            if turn % 7 == 0:
                producer.flush()
                assert producer.unacknowledged == 0
    assert stored(client, topic) == expected


def test_records_for_a_chosen_partition_keep_their_order(client: sync.Client, topic: str) -> None:
    client.admin.add_partitions(topic, 2)
    with client.producer(topic) as producer:
        handles = []
        for value in numbers(300):
            number = int(value)
            key = None if number % 2 else b"key"
            partition = number % 3 if number % 5 else None
            handles.append((number, producer.send(value, key, partition=partition)))
        for number, handle in handles:
            if number % 5:
                assert handle.wait().partition == number % 3
    for partition in range(3):
        consumer = client.consumer(topic, partitions=partition, until_end=True)
        named = [int(record.value) for record in consumer if int(record.value) % 5]
        assert named == [n for n in range(300) if n % 5 and n % 3 == partition]


def test_columns_larger_than_the_queue_are_sent_completely(client: sync.Client, topic: str) -> None:
    values = numbers(20_000)
    with client.producer(topic, queue_bytes=10_000) as producer:
        found = producer.send_many(values, timestamps_ms=range(1, 20_001)).wait()
        assert list(found.offsets) == list(range(20_000))
        assert set(found.partitions) == {0}
    records = list(client.consumer(topic, until_end=True))
    assert [record.value for record in records] == values
    assert [record.timestamp_ms for record in records] == list(range(1, 20_001))


# --- limits ----------------------------------------------------------------------------------


def test_senders_wait_when_the_queue_is_full_and_memory_stays_limited(
    cluster: BrokerProcess, topic: str
) -> None:
    stall = Stall("spu up")
    with (
        Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy,
        sync.Client.connect(proxy.address) as client,
        client.producer(topic, queue_bytes=10_000, linger=0) as producer,
    ):
        sent = threading.Semaphore(0)
        handles = []

        def send() -> None:
            for value in numbers(1_000):
                handles.append(producer.send(value * 20))
                sent.release()

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        assert stall.has_fired.wait(SOON_S)
        most = 0
        while sent.acquire(timeout=0.5):
            most += 1
        assert 0 < most < 1_000
        assert producer.unacknowledged == most
        stall.release()
        sender.join(SOON_S)
        assert [handle.wait().offset for handle in handles] == list(range(1_000))


# A call that is interrupted before it starts leaves a coroutine that was never awaited.
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.parametrize("options", [{}, {"partition": 1}], ids=["chosen", "named"])
def test_an_interrupt_at_any_line_leaves_complete_records_in_order(
    client: sync.Client, topic: str, options: dict[str, Any]
) -> None:
    client.admin.add_partitions(topic)
    kept = []
    with client.producer(topic, partition=1) as producer:
        number = 0
        for step in count():
            number += 1
            text = b"%d interrupted" % step
            with interrupted_at(step) as is_whole:
                producer.send(text, text, timestamp_ms=number, **options)
            if is_whole:
                break
            number += 1
            producer.send(b"%d kept" % step, b"%d kept" % step, timestamp_ms=number, **options)
            kept.append(b"%d kept" % step)
    assert len(kept) > 20
    records = list(client.consumer(topic, until_end=True))
    assert [record.key for record in records] == [record.value for record in records]
    stamps = [record.timestamp_ms for record in records]
    assert stamps == sorted(set(stamps)), "out of order, or twice"
    assert [record.value for record in records if b"kept" in record.value] == kept


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((bytes(2_000),), {}, RecordTooLarge, "max_request_size is 1000"),
        ((b"", bytes(2_000)), {}, RecordTooLarge, "max_request_size is 1000"),
        ((bytearray(b"x"),), {}, UsageError, "value is bytearray"),
        ((b"x", 5), {}, UsageError, "key is int"),
        ((b"x",), {"timestamp_ms": 1.5}, UsageError, "timestamp_ms=1.5"),
        ((b"x",), {"timestamp_ms": -5}, UsageError, "timestamp_ms=-5"),
        ((b"x",), {"partition": 1}, UsageError, "no partition 1"),
    ],
)
def test_send_refuses_records_that_can_never_be_sent(
    client: sync.Client,
    topic: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    with client.producer(topic, max_request_size=1_000) as producer:
        with pytest.raises(error, match=words):
            producer.send(*arguments, **options)
        assert producer.send(b"after it").wait().offset == 0


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        (([b"x", bytes(2_000)], None, None), RecordTooLarge, "row 1"),
        (([b"x"], [b"k", b"l"], None), UsageError, "1 values, but 2 keys"),
        (([b"x"], None, [1, 2]), UsageError, "1 values, but 2 timestamps_ms"),
        ((["x"], None, None), UsageError, "values contain str"),
        (([b"x"], ["k"], None), UsageError, "keys contain str"),
        (([b"x"], None, [-1]), UsageError, "timestamp_ms=-1"),
    ],
)
def test_send_many_refuses_all_rows_if_one_is_invalid(
    client: sync.Client,
    topic: str,
    columns: tuple[Any, Any, Any],
    error: type[Exception],
    words: str,
) -> None:
    values, keys, stamps = columns
    producer = client.producer(topic, max_request_size=1_000)
    with pytest.raises(error, match=words):
        producer.send_many(values, keys, timestamps_ms=stamps)
    producer.close()
    assert stored(client, topic) == []


def test_handle_and_flush_raise_the_error_of_a_refused_record(
    client: sync.Client, small: str
) -> None:
    with client.producer(small, batch_size=100) as producer:
        good, bad = producer.send(b"good"), producer.send(bytes(2_000))
        assert good.wait().offset == 0
        with pytest.raises(BrokerError, match="too large"):
            bad.wait()
        with pytest.raises(BrokerError, match="too large"):
            producer.flush()
        producer.flush()
        many = producer.send_many([bytes(2_000)])
        with pytest.raises(BrokerError, match="too large"):
            many.wait()
        with pytest.raises(BrokerError, match="too large"):
            producer.close()
    assert stored(client, small) == [b"good"]


def test_handles_and_flush_raise_the_error_of_a_partitioner(
    client: sync.Client, topic: str
) -> None:
    client.admin.add_partitions(topic)

    def choose(keys: Sequence[bytes | None], partitions: int) -> list[int]:
        if b"bad" in keys:
            raise ZeroDivisionError("no place for it")
        return [0] * len(keys)

    with client.producer(topic, partitioner=choose) as producer:
        assert producer.send(b"good", b"good").wait().offset == 0
        bad = producer.send(b"bad", b"bad")
        with pytest.raises(ZeroDivisionError, match="no place"):
            bad.wait()
        with pytest.raises(ZeroDivisionError, match="no place"):
            producer.flush()
        assert producer.send(b"good", b"good").wait().offset == 1


def test_a_partitioner_error_for_one_record_does_not_affect_the_others(
    client: sync.Client, topic: str
) -> None:
    client.admin.add_partitions(topic)

    def choose(keys: Sequence[bytes | None], partitions: int) -> list[int]:
        return [7 if key == b"bad" else 0 for key in keys]

    producer = client.producer(topic, partitioner=choose, linger=3_600)
    handles = [producer.send(b"%d" % n, b"bad" if n == 500 else b"good") for n in range(1_000)]
    with pytest.raises(UsageError, match="no partition 7"):
        producer.close()
    for number, handle in enumerate(handles):
        if number == 500:
            with pytest.raises(UsageError, match="no partition 7"):
                handle.wait()
        else:
            handle.wait()
    assert len(stored(client, topic)) == 999


def test_a_callback_that_calls_the_client_is_refused_instead_of_hanging(
    cluster: BrokerProcess, client: sync.Client, topic: str
) -> None:
    errors: list[Exception] = []
    called = threading.Event()

    def on_retry(error: Exception, attempt: int) -> None:
        try:
            client.admin.list_topics()
        except UsageError as problem:
            errors.append(problem)
        called.set()

    with (
        Proxy(cluster.sc_port, cluster.spu_port, stall := Stall("spu up")) as proxy,
        sync.Client.connect(proxy.address, connect_timeout=0.2) as other,
        other.producer(topic, on_retry=on_retry) as producer,
    ):
        producer.send(b"x")
        producer.send_now()
        assert called.wait(SOON_S)
        stall.release()
    assert "wait for itself" in str(errors[0])


# --- closing ---------------------------------------------------------------------------------


def test_closing_twice_does_nothing_and_sending_afterwards_is_refused(
    client: sync.Client, topic: str
) -> None:
    producer = client.producer(topic)
    handle = producer.send(b"x")
    producer.close()
    producer.close()
    assert handle.wait().offset == 0
    producer.flush()
    for use in (
        lambda: producer.send(b"y"),
        lambda: producer.send_many([b"y"]),
        producer.open,
    ):
        with pytest.raises(UsageError, match="is closed"):
            use()
    assert stored(client, topic) == [b"x"]


def test_closing_an_unused_producer_does_not_connect() -> None:
    producer = sync.Client.connect("127.0.0.1:1").producer("none")
    producer.close()
    with pytest.raises(UsageError, match="is closed"):
        producer.send(b"x")


def test_a_deadline_ends_closing_and_reports_unacknowledged_records(
    cluster: BrokerProcess, topic: str
) -> None:
    with (
        Proxy(cluster.sc_port, cluster.spu_port, Stall("spu up")) as proxy,
        sync.Client.connect(proxy.address) as client,
    ):
        producer = client.producer(topic)
        handles = [producer.send(value) for value in numbers(12)]
        with pytest.raises(NotFlushed, match=r"^12 records .*within 0.1 s"):
            producer.close(deadline_s=0.1)
        for handle in handles:
            with pytest.raises(NotFlushed):
                handle.wait()
        with pytest.raises(UsageError, match="is closed"):
            producer.send(b"x")


def test_stopping_a_producer_ends_a_send_that_waits_for_queue_space(
    cluster: BrokerProcess, topic: str
) -> None:
    with (
        Proxy(cluster.sc_port, cluster.spu_port, stall := Stall("spu up")) as proxy,
        sync.Client.connect(proxy.address) as client,
    ):
        producer = client.producer(topic, queue_bytes=1_000)
        errors: list[Exception] = []

        def send() -> None:
            try:
                while True:
                    producer.send(bytes(100))
            except UsageError as error:
                errors.append(error)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        assert stall.has_fired.wait(SOON_S)
        producer.stop()
        sender.join(SOON_S)
        assert "is closed" in str(errors[0])


def test_closing_the_client_flushes_its_producers(cluster: BrokerProcess, topic: str) -> None:
    with sync.Client.connect(cluster.address) as client:
        client.producer(topic, linger=3_600).send_many(numbers(100))
        client.producer(topic, linger=3_600).send(b"last")
    client.close()
    with pytest.raises(UsageError, match="is closed"):
        client.admin.list_topics()
    with pytest.raises(UsageError, match="is closed"):
        client.producer(topic).send(b"x")
    with sync.Client.connect(cluster.address) as again:
        assert sorted(stored(again, topic)) == sorted([*numbers(100), b"last"])


def test_closing_the_client_raises_for_undelivered_records(
    cluster: BrokerProcess, client: sync.Client, small: str
) -> None:
    with (
        pytest.raises(BrokerError, match="too large"),
        sync.Client.connect(cluster.address) as other,
    ):
        other.producer(small).send(bytes(2_000))
    with Proxy(cluster.sc_port, cluster.spu_port, Stall("spu up")) as proxy:
        away = sync.Client.connect(proxy.address)
        away.producer(small).send(b"x")
        with pytest.raises(NotFlushed, match=r"^1 record"):
            away.close(deadline_s=0.1)


def test_closing_takes_no_longer_than_the_close_timeout(cluster: BrokerProcess, small: str) -> None:
    with Proxy(cluster.sc_port, cluster.spu_port, Stall("spu up")) as proxy:
        away = sync.Client.connect(proxy.address)
        producer = away.producer(small, close_timeout=0.1)
        producer.send(b"x")
        with pytest.raises(NotFlushed, match=r"^1 record.* within 0\.1 s"):
            producer.close()
        away.close()


def test_the_objects_of_a_client_have_a_readable_repr(client: sync.Client, topic: str) -> None:
    producer = client.producer(topic)
    assert repr(client) == f"Client({client.address!r})"
    assert repr(producer) == f"Producer({topic!r})"
    assert repr(client.consumer(topic)) == f"Consumer({topic!r})"
    assert repr(producer.send(b"x")) == "RecordHandle(row 0)"
    assert repr(producer.send_many([b"x"] * 3)) == "RecordsHandle(3 records)"
    producer.close()


def test_a_garbage_collected_producer_delivers_its_records(client: sync.Client, topic: str) -> None:
    handle = client.producer(topic, linger=3_600).send(b"nobody has me")
    gc.collect()
    assert next(iter(client.consumer(topic))).value == b"nobody has me"
    assert handle.wait().offset == 0


def test_an_error_in_the_block_gets_a_note_about_undelivered_records(
    client: sync.Client, topic: str, small: str
) -> None:
    with pytest.raises(ZeroDivisionError) as raised, client.producer(topic) as producer:
        fail(producer.send(b"before"))
    assert stored(client, topic) == [b"before"]
    assert not hasattr(raised.value, "__notes__")
    with pytest.raises(ZeroDivisionError) as raised, client.producer(small) as producer:
        fail(producer.send(bytes(2_000)))
    assert "too large" in raised.value.__notes__[0]
