"""`etl`: a job from topic to topic, compared with a hand-written loop over the same client.

Both decode JSON of 200 bytes into a Struct, keep half of them, convert each to another Struct,
and write it as JSON with the record's key and timestamp. Both wait for every acknowledgement and
commit the offsets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import anyio
import msgspec

from streamkit.app import App
from streamkit.bench.environment import Environment, broker
from streamkit.bench.job import COMMIT_S, check_committed, run_job
from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.bench.timing import Stopwatch, best_of, measured
from streamkit.bench.workload import checksum
from streamkit.client import Client as AsyncClient
from streamkit.record import Chunk

_FIRST_MS = 1_700_000_000_000
_VALUE_BYTES = 200
NAME = "bench-etl"
_encode = msgspec.json.Encoder().encode


class Order(msgspec.Struct):
    id: int
    customer: str
    city: str
    quantity: int
    price: float
    note: str


class Invoice(msgspec.Struct):
    id: int
    customer: str
    city: str
    total: float


_decode = msgspec.json.Decoder(Order).decode


def is_large(order: Order) -> bool:
    return order.quantity >= 5


def bill_of(order: Order) -> Invoice:
    return Invoice(order.id, order.customer, order.city, order.quantity * order.price)


@dataclass(frozen=True, slots=True)
class TopicContent:
    """The found or expected content of a topic."""

    values: list[bytes]
    keys: list[bytes]
    stamps_ms: list[int]

    def checksum(self) -> list[int]:
        return checksum(self.values, self.keys, [], self.stamps_ms)


def run(scale: Scale) -> Result:
    orders = orders_of(scale.records)
    expected = expected_of(orders)
    with broker(scale) as environment, environment.topic() as source:
        with environment.client.producer(source) as producer:
            producer.send_many(orders.values, orders.keys, timestamps_ms=orders.stamps_ms)
            producer.flush()

        def side(job: Callable[[Environment, str, str], Stopwatch]) -> Callable[[], Timing]:
            def timed() -> Timing:
                with environment.topic() as sink:
                    watch = job(environment, source, sink)
                    _check(environment, source, sink, expected, job.__name__, scale.records)
                return watch.timing(scale.records)

            return timed

        best = best_of(
            scale.rounds,
            {"verbs": side(by_verbs), "hand": side(by_hand), "decorators": side(by_decorators)},
        )
    against = "a hand-written loop over the same client"
    comparisons = [
        Comparison(what, best[what], best["hand"], against, 1 / 1.5)
        for what in ("verbs", "decorators")
    ]
    notes = [
        f"{what}: {best[what].seconds / best['hand'].seconds:.2f} times the loop's time"
        for what in ("verbs", "decorators")
    ]
    work = f"{scale.records:,} orders of {_VALUE_BYTES} B from topic to topic, half of them kept"
    return Result("etl", work, comparisons, notes)


def orders_of(records: int) -> TopicContent:
    """Return orders of 200 bytes each; every second one is large."""
    values = [encoded_order(row, row) for row in range(records)]
    stamps_ms = [_FIRST_MS + row // 100 for row in range(records)]
    return TopicContent(values, list(map(key_of, range(records))), stamps_ms)


def encoded_order(row: int, number: int) -> bytes:
    """Return the order of a row, with a number as its id."""
    order = Order(
        number,
        f"customer-{row * 7 % 10_000:05d}",
        ("Lisbon", "Nairobi", "Osaka", "Quito")[row % 4],
        row % 2 * 5 + row % 5,
        (row % 1_000) / 4 + 1,
        "",
    )
    order.note = "." * (_VALUE_BYTES - len(_encode(order)))
    return _encode(order)


def key_of(row: int) -> bytes:
    """Return the key of the order of a row."""
    return b"%05d" % (row * 7 % 10_000)


def expected_of(orders: TopicContent) -> TopicContent:
    """Return the expected output, computed without streamkit."""
    decode = msgspec.json.Decoder(Order).decode
    values, keys, stamps = [], [], []
    for value, key, stamp in zip(orders.values, orders.keys, orders.stamps_ms, strict=True):
        order = decode(value)
        if is_large(order):
            values.append(_encode(bill_of(order)))
            keys.append(key)
            stamps.append(stamp)
    return TopicContent(values, keys, stamps)


def by_verbs(environment: Environment, source: str, sink: str) -> Stopwatch:
    """Run the job built with `filter` and `map`, as `streamkit run --once` does."""
    return run_job(job_by_verbs(source, sink), environment)


def job_by_verbs(source: str, sink: str) -> App:
    """Return the job built with `filter` and `map`."""
    app = App(NAME)
    app.stream(source, Order).filter(is_large).map(bill_of).to(sink)
    return app


def by_decorators(environment: Environment, source: str, sink: str) -> Stopwatch:
    """Run the job built with decorated functions."""
    app = App(NAME)

    @app.source(source)
    def orders(order: Order) -> Order:
        return order

    @app.stage(orders)
    def bills(order: Order) -> Invoice | None:
        return bill_of(order) if is_large(order) else None

    @app.sink(bills, to=sink)
    def billed(bill: Invoice) -> Invoice:
        return bill

    return run_job(app, environment)


def by_hand(environment: Environment, source: str, sink: str) -> Stopwatch:
    """Do the same work in a loop over the client."""
    with measured() as watch:
        anyio.run(loop_by_hand, environment.address, source, sink, None)
    return watch


async def loop_by_hand(
    address: str, source: str, sink: str, records: int | None, **options: Any
) -> None:
    """Read a number of orders, or up to the end for None, and write their bills.

    Args:
        address: The broker.
        source: The topic of the orders.
        sink: The topic of the bills.
        records: The number of orders.
        options: Options of the producer.
    """
    async with (
        AsyncClient.connect(address) as client,
        client.producer(sink, isolation="read_committed", **options) as producer,
        client.consumer(
            source, until_end=records is None, consumer_id=NAME, offset_strategy="manual"
        ) as consumer,
    ):
        last = -1
        due_s = time.monotonic() + COMMIT_S
        while last + 1 != records and (chunk := await consumer.next_chunk()) is not None:
            values, keys, stamps_ms = _bills(chunk)
            await producer.send_many(values, keys, timestamps_ms=stamps_ms)
            last = chunk.offsets[-1]
            if time.monotonic() >= due_s:
                await producer.flush()
                await consumer.store(chunk.partition, last)
                due_s = time.monotonic() + COMMIT_S
        await producer.flush()
        await consumer.store(0, last)


def _bills(chunk: Chunk) -> tuple[list[bytes], list[bytes | None], list[int]]:
    rows = [
        (_encode(bill_of(order)), key, stamp_ms)
        for value, key, stamp_ms in zip(chunk.values, chunk.keys, chunk.timestamps_ms, strict=True)
        if is_large(order := _decode(value))
    ]
    values, keys, stamps_ms = (list(map(itemgetter(column), rows)) for column in range(3))
    return values, keys, stamps_ms


def _check(
    environment: Environment,
    source: str,
    sink: str,
    expected: TopicContent,
    side: str,
    records: int,
) -> None:
    found = TopicContent([], [], [])
    with environment.client.consumer(sink, until_end=True) as consumer:
        for chunk in consumer.chunks():
            found.values.extend(chunk.values)
            found.keys.extend(key or b"" for key in chunk.keys)
            found.stamps_ms.extend(chunk.timestamps_ms)
    if len(found.values) != len(expected.values):
        raise WrongOutput(
            f"{side}: {len(found.values):,} bills instead of {len(expected.values):,}"
        )
    if found.checksum() != expected.checksum():
        raise WrongOutput(f"{side}: the bills differ from those expected")
    check_committed(environment, NAME, source, records, side)
