"""`produce-single`: call `send` for each record, until every record is acknowledged."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from streamkit.bench.environment import Environment, broker
from streamkit.bench.official import MISSING, timing_of
from streamkit.bench.produce import checked
from streamkit.bench.result import Comparison, Result, Scale, Timing
from streamkit.bench.timing import Stopwatch, best_of, measured
from streamkit.bench.workload import keys_of, values_of
from streamkit.client import Client as AsyncClient


def run(scale: Scale) -> Result:
    records = scale.records
    values, keys = values_of(records), keys_of(records)
    with broker(scale) as environment:
        sides: dict[str, Callable[[], Timing]] = {
            "sync": checked(
                environment,
                records,
                lambda topic: send_each(environment, topic, values, keys).timing(records),
            ),
            "async": checked(
                environment,
                records,
                lambda topic: send_each_async(environment, topic, values, keys).timing(records),
            ),
        }
        if (official := environment.official) is not None:
            sides["official"] = checked(
                environment,
                records,
                lambda topic: timing_of(official.run("send", topic=topic, records=records)),
            )
        best = best_of(scale.rounds, sides)
    against = "official client, send in a loop and flush"
    comparisons = [
        Comparison("sync", best["sync"], best.get("official"), against, 3.0),
        Comparison("async", best["async"], best.get("official"), against, 3.0),
    ]
    missing = "" if "official" in best else MISSING
    work = f"{records:,} records of 100 B with keys, one at a time, all acknowledged"
    return Result("produce-single", work, comparisons, missing=missing)


def send_each_async(
    environment: Environment, topic: str, values: list[bytes], keys: list[bytes]
) -> Stopwatch:
    """Send records one by one with the async client."""

    async def main() -> Stopwatch:
        async with (
            AsyncClient.connect(environment.address) as client,
            client.producer(topic) as producer,
        ):
            with measured() as watch:
                for value, key in zip(values, keys, strict=True):
                    await producer.send(value, key)
                await producer.flush()
            return watch

    return anyio.run(main)


def send_each(
    environment: Environment, topic: str, values: list[bytes], keys: list[bytes]
) -> Stopwatch:
    """Send records one by one with the sync client."""
    with environment.client.producer(topic) as producer, measured() as watch:
        for value, key in zip(values, keys, strict=True):
            producer.send(value, key)
        producer.flush()
    return watch
