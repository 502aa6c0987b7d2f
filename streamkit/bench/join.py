"""`join`: orders joined with their payments, from two topics to a third one, state durable.

Each order has one payment at most 10 seconds after it. The baseline is a loop by hand over the
same client: it keeps the records of both topics in dicts until their match comes, knows that each
has only one, and loses them when it is killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import anyio
import msgspec

from streamkit.app import App
from streamkit.bench.environment import Environment, broker
from streamkit.bench.job import COMMIT_S, check_committed, run_job
from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.bench.timing import Stopwatch, best_of, inputs_not_collected, measured
from streamkit.bench.workload import skewed
from streamkit.client import Client as AsyncClient
from streamkit.client import Consumer, Producer
from streamkit.record import Chunk

# There is an order each millisecond, so up to 10,000 of them wait for their payments.
_WITHIN_MS: Final = 10_000
_FIRST_MS: Final = 1_700_000_000_000
_VALUE_BYTES: Final = 100
_NAME: Final = "bench-join"


class Order(msgspec.Struct):
    id: str
    price: int
    note: str


class Payment(msgspec.Struct):
    order: str
    amount: int
    note: str


class Paid(msgspec.Struct, order=True):
    order: str
    price: int
    amount: int


def id_of(order: Order) -> str:
    return order.id


def order_of(payment: Payment) -> str:
    return payment.order


def paid(order: Order, payment: Payment) -> Paid:
    return Paid(order.id, order.price, payment.amount)


class Topics(NamedTuple):
    orders: str
    payments: str
    sink: str


@dataclass(frozen=True, slots=True)
class Input:
    """The columns of both topics in order of time, and the results with their times, in order."""

    orders: tuple[list[bytes], list[int]]
    payments: tuple[list[bytes], list[int]]
    results: list[tuple[Paid, int]]


def run(scale: Scale) -> Result:
    pairs = scale.records // 2
    given = input_of(pairs)
    with broker(scale) as environment, environment.topic() as orders, environment.topic() as paying:
        for topic, (values, stamps_ms) in ((orders, given.orders), (paying, given.payments)):
            with environment.client.producer(topic) as producer:
                producer.send_many(values, timestamps_ms=stamps_ms)
                producer.flush()

        def side(job: Callable[[Environment, Topics], Stopwatch]) -> Callable[[], Timing]:
            def timed() -> Timing:
                with environment.topic() as sink:
                    watch = job(environment, Topics(orders, paying, sink))
                    _check(environment, sink, given.results, job.__name__)
                for topic in (orders, paying):
                    check_committed(environment, _NAME, topic, pairs, job.__name__)
                return watch.timing(2 * pairs)

            return timed

        with inputs_not_collected():
            best = best_of(scale.rounds, {"job": side(by_job), "hand": side(by_hand)})
    against = "a loop by hand with dicts, state in memory only"
    return Result(
        "join",
        f"{pairs:,} orders and their payments of {_VALUE_BYTES} B each, within {_WITHIN_MS:,} ms",
        [Comparison("job", best["job"], best["hand"], against)],
        [f"the job takes {best['job'].seconds / best['hand'].seconds:.2f} times the loop's time"],
    )


def input_of(pairs: int) -> Input:
    """Return records of 100 bytes each, and the expected results, computed without streamkit."""
    orders, payments, results = [], [], []
    for row, delay_ms in enumerate(skewed(pairs, _WITHIN_MS)):
        order = Order(f"order-{row:08d}", row % 1_000, "")
        payment = Payment(order.id, row % 997, "")
        at_ms = _FIRST_MS + row
        orders.append((at_ms, _filled(order)))
        payments.append((at_ms + delay_ms, _filled(payment)))
        results.append((Paid(order.id, order.price, payment.amount), at_ms + delay_ms))
    payments.sort()
    return Input(_columns(orders), _columns(payments), results)


def _filled(value: Order | Payment) -> bytes:
    value.note = "." * (_VALUE_BYTES - len(msgspec.json.encode(value)))
    return msgspec.json.encode(value)


def _columns(rows: list[tuple[int, bytes]]) -> tuple[list[bytes], list[int]]:
    return [value for _, value in rows], [at_ms for at_ms, _ in rows]


def by_job(environment: Environment, topics: Topics) -> Stopwatch:
    """Run the job as `streamkit run --once --drain` does."""
    app = App(_NAME)
    orders = app.stream(topics.orders, Order).key_by(id_of)
    payments = app.stream(topics.payments, Payment).key_by(order_of)
    orders.join(payments, combine=paid, within=_WITHIN_MS / 1_000).to(topics.sink)
    return run_job(app, environment, drain=True)


def by_hand(environment: Environment, topics: Topics) -> Stopwatch:
    """Do the same work in a loop over the client, with the waiting records in dicts."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(AsyncClient.connect(environment.address))
            sending = client.producer(topics.sink, isolation="read_committed")
            producer = await stack.enter_async_context(sending)
            reading = [
                client.consumer(each, until_end=True, consumer_id=_NAME, offset_strategy="manual")
                for each in (topics.orders, topics.payments)
            ]
            consumers = [await stack.enter_async_context(each) for each in reading]
            await _join_by_hand(consumers, producer)

    with measured() as watch:
        anyio.run(main)
    return watch


async def _join_by_hand(consumers: Sequence[Consumer], producer: Producer) -> None:
    waiting = Waiting()
    reached_ms = {0: 0, 1: 0}
    last: dict[int, int] = {}

    async def commit() -> None:
        await producer.flush()
        for side, offset in last.items():
            await consumers[side].store(0, offset)

    due_s = time.monotonic() + COMMIT_S
    while reached_ms:
        # Read the topic that is less far in event time, so that few records wait.
        side = min(reached_ms, key=reached_ms.__getitem__)
        chunk = await consumers[side].next_chunk()
        if chunk is None:
            del reached_ms[side]
            continue
        values, keys, stamps_ms = waiting.pairs(side, chunk)
        if values:
            await producer.send_many(values, keys, timestamps_ms=stamps_ms)
        reached_ms[side], last[side] = chunk.timestamps_ms[-1], chunk.offsets[-1]
        if time.monotonic() >= due_s:
            await commit()
            due_s = time.monotonic() + COMMIT_S
    await commit()


class Waiting:
    """The orders and the payments of the loop by hand that wait: their times and values by key."""

    def __init__(self) -> None:
        self._waiting: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        self._decode = msgspec.json.Decoder(Order).decode, msgspec.json.Decoder(Payment).decode
        self._encode = msgspec.json.Encoder().encode

    def pairs(self, side: int, chunk: Chunk) -> tuple[list[bytes], list[bytes], list[int]]:
        """Return columns of the results that records of one side complete."""
        own, other = self._waiting[side], self._waiting[1 - side]
        decode, encode, key_of = self._decode[side], self._encode, (id_of, order_of)[side]
        values, keys, stamps_ms = [], [], []
        for data, at_ms in zip(chunk.values, chunk.timestamps_ms, strict=True):
            value: Any = decode(data)
            key = key_of(value)
            found = other.pop(key, None)
            if found is None:
                own[key] = at_ms, value
                continue
            match_ms, match = found
            if abs(match_ms - at_ms) <= _WITHIN_MS:
                values.append(encode(paid(match, value) if side else paid(value, match)))
                keys.append(key.encode())
                stamps_ms.append(max(at_ms, match_ms))
        return values, keys, stamps_ms


def _check(
    environment: Environment, sink: str, expected: Sequence[tuple[Paid, int]], side: str
) -> None:
    decode = msgspec.json.Decoder(Paid).decode
    found: list[tuple[Paid, int]] = []
    with environment.client.consumer(sink, until_end=True) as consumer:
        for chunk in consumer.chunks():
            results = list(map(decode, chunk.values))
            if [each.order.encode() for each in results] != list(chunk.keys):
                raise WrongOutput(f"{side}: the keys of the results are not those of the orders")
            found += zip(results, chunk.timestamps_ms, strict=True)
    if len(found) != len(expected):
        raise WrongOutput(f"{side}: {len(found):,} results instead of {len(expected):,}")
    if sorted(found) != expected:
        raise WrongOutput(f"{side}: the results differ from those expected")
