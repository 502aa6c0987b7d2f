"""`window`: a keyed count and sum in windows of 10 seconds, from topic to topic, state durable.

The keys are skewed, and a key has about two records in each of its windows. The baseline is a
loop by hand over the same client: it keeps the open windows in a dict, emits a window when event
time passes its end, and loses the open windows when it is killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
import msgspec

from streamkit.aggregates import Count, Sum
from streamkit.app import App
from streamkit.bench.environment import Environment, broker
from streamkit.bench.job import COMMIT_S, check_committed, run_job
from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.bench.timing import Stopwatch, best_of, inputs_not_collected, measured
from streamkit.bench.workload import skewed
from streamkit.client import Client as AsyncClient
from streamkit.windows import Tumbling

KEYS: Final = 10_000
_WINDOW_MS: Final = 10_000
# The start of a window. The first record comes in its middle, so that a short run closes one.
_FIRST_WINDOW_MS: Final = 1_700_000_000_000
# With these keys, so many records in a window are about two for each key that has any.
_RECORDS_PER_WINDOW_AND_KEY: Final = 1.25
_VALUE_BYTES: Final = 100
_NAME: Final = "bench-window"


class Sale(msgspec.Struct):
    shop: str
    amount: int
    note: str


class Sales(msgspec.Struct, order=True):
    key: str
    window_start: int
    count: int
    amount: int


def shop_of(sale: Sale) -> str:
    return sale.shop


def amount_of(sale: Sale) -> int:
    return sale.amount


@dataclass(frozen=True, slots=True)
class Input:
    """The records of the source, and the results that they must give, in order of key."""

    values: list[bytes]
    stamps_ms: list[int]
    results: list[Sales]


def run(scale: Scale) -> Result:
    return measure("window", KEYS, scale)


def measure(name: str, keys: int, scale: Scale) -> Result:
    """Compare a job with a loop by hand, with a number of distinct keys."""
    sales = sales_of(scale.records, keys)
    with broker(scale) as environment, environment.topic() as source:
        with environment.client.producer(source) as producer:
            producer.send_many(sales.values, timestamps_ms=sales.stamps_ms)
            producer.flush()

        def side(job: Callable[[Environment, str, str], Stopwatch]) -> Callable[[], Timing]:
            def timed() -> Timing:
                with environment.topic() as sink:
                    watch = job(environment, source, sink)
                    _check(environment, sink, sales.results, job.__name__)
                check_committed(environment, _NAME, source, scale.records, job.__name__)
                return watch.timing(scale.records)

            return timed

        with inputs_not_collected():
            best = best_of(scale.rounds, {"job": side(by_job), "hand": side(by_hand)})
    against = "a loop by hand with dicts, state in memory only"
    windows = len({each.window_start for each in sales.results})
    return Result(
        name,
        f"{scale.records:,} sales of {_VALUE_BYTES} B, up to {keys:,} keys",
        [Comparison("job", best["job"], best["hand"], against)],
        [
            f"{windows:,} windows, {len(sales.results):,} results, "
            f"{scale.records / len(sales.results):.2f} records per result",
            f"the job takes {best['job'].seconds / best['hand'].seconds:.2f} times the loop's time",
        ],
    )


def sales_of(records: int, keys: int) -> Input:
    """Return sales of 100 bytes each, and the expected results, computed without streamkit."""
    encode = msgspec.json.Encoder().encode
    per_window = keys * _RECORDS_PER_WINDOW_AND_KEY
    values, stamps_ms = [], []
    totals: dict[tuple[int, str], list[int]] = {}
    for row, number in enumerate(skewed(records, keys)):
        sale = Sale(f"shop-{number:07d}", row % 1_000, "")
        sale.note = "." * (_VALUE_BYTES - len(encode(sale)))
        values.append(encode(sale))
        stamp_ms = _FIRST_WINDOW_MS + int((0.5 + row / per_window) * _WINDOW_MS)
        stamps_ms.append(stamp_ms)
        found = totals.setdefault((stamp_ms - stamp_ms % _WINDOW_MS, sale.shop), [0, 0])
        found[0] += 1
        found[1] += sale.amount
    results = [Sales(shop, start, *found) for (start, shop), found in totals.items()]
    return Input(values, stamps_ms, sorted(results))


def by_job(environment: Environment, source: str, sink: str) -> Stopwatch:
    """Run the job as `streamkit run --once --drain` does."""
    app = App(_NAME)
    windows = app.stream(source, Sale).key_by(shop_of).window(Tumbling(seconds=_WINDOW_MS / 1_000))
    windows.aggregate(Sales, count=Count(), amount=Sum(amount_of)).to(sink)
    return run_job(app, environment, drain=True)


def by_hand(environment: Environment, source: str, sink: str) -> Stopwatch:
    """Do the same work in a loop over the client, with the open windows in a dict."""

    async def main() -> None:
        async with (
            AsyncClient.connect(environment.address) as client,
            client.producer(sink, isolation="read_committed") as producer,
            client.consumer(
                source, until_end=True, consumer_id=_NAME, offset_strategy="manual"
            ) as consumer,
        ):
            windows = OpenWindows()
            due_s = time.monotonic() + COMMIT_S
            while (chunk := await consumer.next_chunk()) is not None:
                windows.add(chunk.values, chunk.timestamps_ms)
                for closed in windows.closed(max(chunk.timestamps_ms)):
                    await producer.send_many(*closed[:2], timestamps_ms=closed[2])
                last = chunk.offsets[-1]
                if time.monotonic() >= due_s:
                    await producer.flush()
                    await consumer.store(chunk.partition, last)
                    due_s = time.monotonic() + COMMIT_S
            for closed in windows.closed(None):
                await producer.send_many(*closed[:2], timestamps_ms=closed[2])
            await producer.flush()
            await consumer.store(0, last)

    with measured() as watch:
        anyio.run(main)
    return watch


class OpenWindows:
    """The windows of the loop by hand: counts and sums by window and key."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(Sale).decode
        self._encode = msgspec.json.Encoder().encode
        self._open: dict[int, dict[str, tuple[int, int]]] = {}

    def add(self, values: Sequence[bytes], stamps_ms: Sequence[int]) -> None:
        decode = self._decode
        for value, stamp_ms in zip(values, stamps_ms, strict=True):
            sale = decode(value)
            start = stamp_ms - stamp_ms % _WINDOW_MS
            window = self._open.get(start)
            if window is None:
                window = self._open[start] = {}
            count, amount = window.get(shop_of(sale), (0, 0))
            window[sale.shop] = (count + 1, amount + amount_of(sale))

    def closed(
        self, watermark_ms: int | None
    ) -> Iterator[tuple[list[bytes], list[bytes], list[int]]]:
        """Remove the windows that end by a time, and yield columns of results; None for all."""
        for start in sorted(self._open):
            end = start + _WINDOW_MS
            if watermark_ms is not None and end > watermark_ms:
                return
            window = self._open.pop(start)
            encode = self._encode
            values = [
                encode(Sales(key, start, count, amount)) for key, (count, amount) in window.items()
            ]
            yield values, [key.encode() for key in window], [end - 1] * len(window)


def _check(environment: Environment, sink: str, expected: list[Sales], side: str) -> None:
    decode = msgspec.json.Decoder(Sales).decode
    found: list[Sales] = []
    with environment.client.consumer(sink, until_end=True) as consumer:
        for chunk in consumer.chunks():
            found += map(decode, chunk.values)
            for sales, key, stamp_ms in zip(
                found[-len(chunk) :], chunk.keys, chunk.timestamps_ms, strict=True
            ):
                if (key, stamp_ms) != (sales.key.encode(), sales.window_start + _WINDOW_MS - 1):
                    raise WrongOutput(f"{side}: {sales} has the key {key!r} and time {stamp_ms}")
    if len(found) != len(expected):
        raise WrongOutput(f"{side}: {len(found):,} results instead of {len(expected):,}")
    for what in ("count", "amount"):
        total, wanted = (sum(getattr(each, what) for each in of) for of in (found, expected))
        if total != wanted:
            raise WrongOutput(f"{side}: the total {what} is {total:,} instead of {wanted:,}")
    if sorted(found) != expected:
        raise WrongOutput(f"{side}: the results differ from those expected")
