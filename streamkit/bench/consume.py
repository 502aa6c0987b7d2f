"""`consume`: read the value, key, offset and timestamp of every record of a topic.

Each side reads the topic twice. The first read is not timed: it keeps all columns and compares
their checksums with what was written. The second read is timed: it adds up the columns without
keeping them, as a job does, because keeping a million records costs as much as reading them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio

from streamkit.bench.environment import Environment, broker
from streamkit.bench.official import MISSING, OfficialClient, timing_of
from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.bench.timing import Stopwatch, best_of, measured
from streamkit.bench.workload import Columns, Totals, keys_of, values_of
from streamkit.client import Client as AsyncClient

_FIRST_MS = 1_700_000_000_000
_TUNED_BYTES = 4 << 20
# The official async stream is about fifty times slower than its iterator.
_ASYNC_SHARE = 50

Read = Columns | Totals
Side = Callable[[], Timing]


def run(scale: Scale) -> Result:
    records = scale.records
    fewer = max(1, records // _ASYNC_SHARE)
    with broker(scale) as environment, environment.topic() as topic:
        written = write(environment, topic, records)
        tuned = {"max_bytes": _TUNED_BYTES}
        sides = {
            "chunks": _ours(by_chunks, environment, topic, written),
            "records": _ours(by_records, environment, topic, written),
            "async": _ours(by_records_async, environment, topic, written),
            "chunks, tuned": _ours(by_chunks, environment, topic, written, **tuned),
            "records, tuned": _ours(by_records, environment, topic, written, **tuned),
        }
        if environment.official is not None:
            sides |= _official_sides(environment.official, topic, written, _first(written, fewer))
        best = best_of(scale.rounds, sides)
    sync, stream = "official client, iteration", "official client, async stream"
    comparisons = [
        Comparison("chunks", best["chunks"], best.get(sync), sync, 10.0),
        Comparison("records", best["records"], best.get(sync), sync, 3.0),
        Comparison("async", best["async"], best.get(stream), stream, 100.0),
        Comparison("chunks, tuned", best["chunks, tuned"], best.get(f"{sync}, tuned"), sync, 10.0),
        Comparison("records, tuned", best["records, tuned"], best.get(f"{sync}, tuned"), sync, 3.0),
    ]
    notes = [f"tuned: max_bytes {_TUNED_BYTES:,} on both sides; the async stream read {fewer:,}"]
    missing = "" if stream in best else MISSING
    return Result("consume", f"{records:,} records of 100 B", comparisons, notes, missing)


def write(environment: Environment, topic: str, records: int) -> Columns:
    """Fill a topic; return the columns that a reader must find."""
    written = Columns()
    stamps = [_FIRST_MS + row // 100 for row in range(records)]
    written.add(values_of(records), keys_of(records), range(records), stamps)
    with environment.client.producer(topic) as producer:
        producer.send_many(written.values, written.keys, timestamps_ms=stamps)
        producer.flush()
    return written


def by_chunks(environment: Environment, topic: str, read: Read, **options: Any) -> Stopwatch:
    """Read chunks with the sync client."""
    with (
        measured() as watch,
        environment.client.consumer(topic, until_end=True, **options) as consumer,
    ):
        for chunk in consumer.chunks():
            read.add(chunk.values, chunk.keys, chunk.offsets, chunk.timestamps_ms)
    return watch


def by_records(environment: Environment, topic: str, read: Read, **options: Any) -> Stopwatch:
    """Read record by record with the sync client."""
    with (
        measured() as watch,
        environment.client.consumer(topic, until_end=True, **options) as consumer,
    ):
        for record in consumer:
            read.add_record(record.value, record.key, record.offset, record.timestamp_ms)
    return watch


def by_records_async(environment: Environment, topic: str, read: Read) -> Stopwatch:
    """Read record by record with the async client."""

    async def main() -> Stopwatch:
        async with AsyncClient.connect(environment.address) as client:
            with measured() as watch:
                async with client.consumer(topic, until_end=True) as consumer:
                    async for record in consumer:
                        read.add_record(
                            record.value, record.key, record.offset, record.timestamp_ms
                        )
            return watch

    return anyio.run(main)


def _ours(
    reader: Callable[..., Stopwatch],
    environment: Environment,
    topic: str,
    written: Columns,
    **options: Any,
) -> Side:
    side = f"streamkit, {reader.__name__}"
    is_checked = False

    def timed() -> Timing:
        nonlocal is_checked
        if not is_checked:
            kept = Columns()
            reader(environment, topic, kept, **options)
            _compare(kept.as_list(), written.as_list(), side)
            is_checked = True
            del kept
        totals = Totals()
        watch = reader(environment, topic, totals, **options)
        _compare(totals.as_list(), _totals_of(written), side)
        return watch.timing(totals.records)

    return timed


def _official_sides(
    official: OfficialClient, topic: str, written: Columns, written_first: Columns
) -> dict[str, Side]:
    def side(work: str, expected: Columns, **options: Any) -> Side:
        run = partial(official.run, work, topic=topic, records=len(expected.values), **options)
        is_checked = False

        def timed() -> Timing:
            nonlocal is_checked
            if not is_checked:
                kept = run(keeps=True)["read"]
                _compare(kept, expected.as_list(), f"the official client, {work}")
                is_checked = True
            answer = run()
            _compare(answer["read"], _totals_of(expected), f"the official client, {work}")
            return timing_of(answer)

        return timed

    return {
        "official client, iteration": side("consume", written),
        "official client, iteration, tuned": side("consume", written, max_bytes=_TUNED_BYTES),
        "official client, async stream": side("consume_async", written_first),
    }


def _first(columns: Columns, count: int) -> Columns:
    found = Columns()
    found.add(
        columns.values[:count],
        columns.keys[:count],
        columns.offsets[:count],
        columns.stamps_ms[:count],
    )
    return found


def _totals_of(columns: Columns) -> list[int]:
    totals = Totals()
    totals.add(columns.values, columns.keys, columns.offsets, columns.stamps_ms)
    return totals.as_list()


def _compare(found: list[int], expected: list[int], side: str) -> None:
    names = ["values", "keys", "offsets", "timestamps"]
    if len(found) > len(names):
        names.insert(0, "numbers of records")  # the first item of `Totals.as_list`
    wrong = [name for name, a, b in zip(names, found, expected, strict=True) if a != b]
    if wrong:
        raise WrongOutput(f"{side}: wrong {' and '.join(wrong)} in the records read")
