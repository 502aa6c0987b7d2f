"""`latency`: from produce to consume through the job of `etl`, at 2,000 records a second.

Producer, job, consumer and broker are four processes; this process is the consumer. In place of
the job, the baseline runs a loop by hand over the same client that sends each chunk at once. The
id of an order is the time at which it was sent, on the clock that all processes share.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from signal import SIG_IGN, SIGTERM, signal
from statistics import quantiles
from typing import Final

import anyio
import msgspec
from msgspec.structs import replace

from streamkit.bench.environment import Environment, broker
from streamkit.bench.etl import (
    NAME,
    Invoice,
    Order,
    bill_of,
    encoded_order,
    is_large,
    job_by_verbs,
    key_of,
    loop_by_hand,
    orders_of,
)
from streamkit.bench.job import check_committed
from streamkit.bench.process import Answer, in_process
from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.client import Client as AsyncClient

RECORDS_PER_S: Final = 2_000
_RECORDS_MAX: Final = 20_000
_GOAL: Final = 1 / 1.3
# The first results are not counted: the processes warm up.
_WARM_UP_SHARE: Final = 10
_WAIT_S_MAX: Final = 60.0
_LARGE_ROW: Final = 1


@dataclass(frozen=True, slots=True)
class Latencies:
    """The percentiles of one run, and the CPU time of the job or the loop."""

    p50_s: float
    p99_s: float
    cpu_s: float


def run(scale: Scale) -> Result:
    records = min(scale.records, _RECORDS_MAX)
    sides: dict[str, Callable[..., Answer]] = {"job": run_job, "hand": run_by_hand}
    found: dict[str, list[Latencies]] = {name: [] for name in sides}
    with broker(scale) as environment:
        for _ in range(scale.rounds):
            for name, function in sides.items():
                found[name].append(_measured(environment, function, records))
    best = {
        (what, side): Timing(min(getattr(each, what) for each in runs))
        for what in ("p50_s", "p99_s")
        for side, runs in found.items()
    }
    cpu_us = {
        side: min(each.cpu_s for each in runs) / records * 1e6 for side, runs in found.items()
    }
    against = "a loop by hand over the same client"
    return Result(
        "latency",
        f"{records:,} orders of 200 B at {RECORDS_PER_S:,} a second, half of them kept",
        [
            Comparison("p50", best["p50_s", "job"], best["p50_s", "hand"], against, _GOAL),
            Comparison("p99", best["p99_s", "job"], best["p99_s", "hand"], against, _GOAL),
        ],
        [
            f"CPU per order, with the start of the process: {cpu_us['job']:,.0f} us in the "
            f"job, {cpu_us['hand']:,.0f} us in the loop",
        ],
    )


def run_job(address: str, source: str, sink: str, state_dir: str, records: int) -> Answer:
    """Run the job until a SIGTERM."""
    app = job_by_verbs(source, sink)
    code = app.run(cluster=address, data_dir=state_dir, fresh_state=True)
    if code:
        raise WrongOutput(f"the job ended with exit code {code}")
    return {"cpu_s": time.process_time()}


def run_by_hand(address: str, source: str, sink: str, state_dir: str, records: int) -> Answer:
    """Run the loop by hand until it has read all records."""
    signal(SIGTERM, SIG_IGN)  # it ends by itself

    async def main() -> None:
        await loop_by_hand(address, source, sink, records, linger=0)

    anyio.run(main)
    return {"cpu_s": time.process_time()}


def produce(address: str, topic: str, records: int) -> Answer:
    """Send orders at a constant rate."""

    async def main() -> None:
        async with (
            AsyncClient.connect(address) as client,
            client.producer(topic, linger=0) as producer,
        ):
            started_s = time.monotonic()
            for row in range(records):
                left_s = started_s + row / RECORDS_PER_S - time.monotonic()
                if left_s > 0:
                    await anyio.sleep(left_s)
                await producer.send(encoded_order(row, time.monotonic_ns()), key_of(row))
            await producer.flush()

    anyio.run(main)
    return {}


def _measured(environment: Environment, side: Callable[..., Answer], records: int) -> Latencies:
    name, folder = side.__name__, environment.folder
    with environment.topic() as source, environment.topic() as sink:
        sent = records + 1  # the first order shows that the other process runs
        topics = {"address": environment.address, "source": source, "sink": sink}
        with in_process(side, folder, state_dir=str(folder), records=sent, **topics) as other:
            try:
                arrivals = anyio.run(_consumed, environment, source, sink, records)
            except TimeoutError:
                raise WrongOutput(f"{name}: bills are missing after {_WAIT_S_MAX} s") from None
            other.stop()
            cpu_s = other.answer()["cpu_s"]
        check_committed(environment, NAME, source, sent, name)
    return _latencies(arrivals, records, name, cpu_s)


async def _consumed(
    environment: Environment, source: str, sink: str, records: int
) -> list[tuple[int, bytes]]:
    """Return the bills of the producer's orders, each with the time of its arrival in ns."""
    found: list[tuple[int, bytes]] = []
    address = environment.address
    async with AsyncClient.connect(address) as client, client.consumer(sink) as consumer:

        async def read(count: int) -> None:
            while len(found) < count and (chunk := await consumer.next_chunk()) is not None:
                now_ns = time.monotonic_ns()
                found.extend((now_ns, value) for value in chunk.values)

        with anyio.fail_after(_WAIT_S_MAX + records / RECORDS_PER_S):
            async with client.producer(source, linger=0) as producer:
                await producer.send(encoded_order(_LARGE_ROW, 0), key_of(_LARGE_ROW))
            await read(1)
            folder = environment.folder
            with in_process(
                produce, folder, address=address, topic=source, records=records
            ) as other:
                await read(1 + records // 2)
                other.answer()
    return found[1:]


def _latencies(
    arrivals: list[tuple[int, bytes]], records: int, side: str, cpu_s: float
) -> Latencies:
    """Check the bills, and return the percentiles of their latencies."""
    decode = msgspec.json.Decoder(Invoice).decode
    bills = [decode(value) for _, value in arrivals]
    orders = map(msgspec.json.Decoder(Order).decode, orders_of(records).values)
    expected = [bill_of(order) for order in orders if is_large(order)]
    if [replace(each, id=0) for each in bills] != [replace(each, id=0) for each in expected]:
        raise WrongOutput(f"{side}: the bills differ from those expected")
    all_s = [(at_ns - bill.id) / 1e9 for (at_ns, _), bill in zip(arrivals, bills, strict=True)]
    if min(all_s) <= 0:
        raise WrongOutput(f"{side}: a bill arrived {-min(all_s)} s before its order was sent")
    cuts = quantiles(all_s[len(all_s) // _WARM_UP_SHARE :], n=100)
    return Latencies(cuts[49], cuts[98], cpu_s)
