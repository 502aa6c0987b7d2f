"""`produce`: send whole columns to a topic, until every record is acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import anyio

from streamkit.bench.environment import Environment, broker
from streamkit.bench.official import MISSING, OfficialClient, timing_of
from streamkit.bench.result import Comparison, Result, Scale, Timing
from streamkit.bench.timing import Stopwatch, best_of, measured
from streamkit.bench.verify import verify_written
from streamkit.bench.workload import keys_of, values_of
from streamkit.client import Client as AsyncClient

_TUNED_BATCH_BYTES = 256 << 10
_TUNED_LINGER_MS = 10
# Options of our producer, and the same options of the official client.
VARIANTS: Final[dict[str, tuple[dict[str, Any], dict[str, Any] | None]]] = {
    "defaults": ({}, None),
    "tuned": (
        {"batch_size": _TUNED_BATCH_BYTES, "linger": _TUNED_LINGER_MS / 1e3},
        {"batch_size": _TUNED_BATCH_BYTES, "linger": _TUNED_LINGER_MS},
    ),
    "tuned, lz4": (
        {
            "batch_size": _TUNED_BATCH_BYTES,
            "linger": _TUNED_LINGER_MS / 1e3,
            "compression": "lz4",
        },
        {"batch_size": _TUNED_BATCH_BYTES, "linger": _TUNED_LINGER_MS, "compression": "Lz4"},
    ),
}


def run(scale: Scale) -> Result:
    records = scale.records
    values, keys = values_of(records), keys_of(records)

    with broker(scale) as environment:

        def ours(options: dict[str, Any]) -> Callable[[], Timing]:
            def write(topic: str) -> Timing:
                return send_columns(environment, topic, values, keys, options).timing(records)

            return checked(environment, records, write)

        def theirs(
            official: OfficialClient, options: dict[str, Any] | None
        ) -> Callable[[], Timing]:
            def write(topic: str) -> Timing:
                answer = official.run("send_all", topic=topic, records=records, options=options)
                return timing_of(answer)

            return checked(environment, records, write)

        sides: dict[str, Callable[[], Timing]] = {}
        for what, (own_options, official_options) in VARIANTS.items():
            sides[what] = ours(own_options)
            if environment.official is not None:
                sides[f"official, {what}"] = theirs(environment.official, official_options)
        best = best_of(scale.rounds, sides)
    against = "official client, send_all and flush"
    comparisons = [
        Comparison(what, best[what], best.get(f"official, {what}"), against, 8.0)
        for what in VARIANTS
    ]
    notes = [f"tuned: batches of {_TUNED_BATCH_BYTES:,} B and a linger of {_TUNED_LINGER_MS} ms"]
    missing = "" if "official, tuned" in best else MISSING
    work = f"{records:,} records of 100 B with keys, all acknowledged"
    return Result("produce", work, comparisons, notes, missing)


def checked(
    environment: Environment, records: int, write: Callable[[str], Timing]
) -> Callable[[], Timing]:
    """Return a function that writes to a new topic, then reads the topic back to check it."""

    def timed() -> Timing:
        not_before_ms = time.time_ns() // 1_000_000
        with environment.topic() as topic:
            timing = write(topic)
            verify_written(environment, topic, records, not_before_ms=not_before_ms)
        return timing

    return timed


def send_columns(
    environment: Environment,
    topic: str,
    values: list[bytes],
    keys: list[bytes],
    options: dict[str, Any],
) -> Stopwatch:
    """Send columns and wait until every record is stored."""

    async def main() -> Stopwatch:
        async with (
            AsyncClient.connect(environment.address) as client,
            client.producer(topic, **options) as producer,
        ):
            with measured() as watch:
                await producer.send_many(values, keys)
                await producer.flush()
            return watch

    return anyio.run(main)
