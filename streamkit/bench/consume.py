"""`consume`: read a topic and compare every column with what was written.

Both clients make bytes of every value and append value, key, offset and timestamp to lists;
the checksums are computed behind the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from streamkit.bench.official import MISSING, OfficialClient, timing_of
from streamkit.bench.place import Place, broker
from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.bench.turns import Watch, best_of, measured
from streamkit.bench.workload import checksum, keys_of, values_of
from streamkit.client import Client as AsyncClient

_FIRST_MS = 1_700_000_000_000
_TUNED_BYTES = 4 << 20
# The official async stream is some fifty times slower than its iterator.
_ASYNC_SHARE = 50


@dataclass(slots=True)
class Read:
    """The four columns as they were read."""

    values: list[bytes]
    keys: list[Any]
    offsets: list[int]
    stamps_ms: list[int]

    @classmethod
    def nothing(cls) -> Read:
        return cls([], [], [], [])

    def checksum(self) -> list[int]:
        return checksum(self.values, self.keys, self.offsets, self.stamps_ms)


def run(scale: Scale) -> Result:
    records = scale.records
    fewer = max(1, records // _ASYNC_SHARE)
    with broker(scale) as place, place.topic() as topic:
        written = write(place, topic, records)
        wanted = written.checksum()
        wanted_first = Read(
            written.values[:fewer],
            written.keys[:fewer],
            written.offsets[:fewer],
            written.stamps_ms[:fewer],
        ).checksum()
        del written

        def ours(way: Callable[..., Watch], **options: Any) -> Callable[[], Timing]:
            def timed() -> Timing:
                read = Read.nothing()
                watch = way(place, topic, read, **options)
                _compare(read.checksum(), wanted, f"streamkit, {way.__name__}")
                return watch.timing(records)

            return timed

        sides = {
            "chunks": ours(by_chunks),
            "records": ours(by_records),
            "async": ours(by_records_async),
            "chunks, tuned": ours(by_chunks, max_bytes=_TUNED_BYTES),
            "records, tuned": ours(by_records, max_bytes=_TUNED_BYTES),
        }
        if place.official is not None:
            sides |= _official_sides(place.official, topic, records, fewer, wanted, wanted_first)
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


def write(place: Place, topic: str, records: int) -> Read:
    """Fill a topic; return what a reader must find."""
    values, keys = values_of(records), keys_of(records)
    stamps = [_FIRST_MS + row // 100 for row in range(records)]
    with place.client.producer(topic) as producer:
        producer.send_many(values, keys, timestamps_ms=stamps)
        producer.flush()
    return Read(values, keys, list(range(records)), stamps)


def by_chunks(place: Place, topic: str, read: Read, **options: Any) -> Watch:
    """Read columns, by the client without an event loop."""
    with measured() as watch, place.client.consumer(topic, until_end=True, **options) as consumer:
        for chunk in consumer.chunks():
            read.values += chunk.values
            read.keys += chunk.keys
            read.offsets += chunk.offsets
            read.stamps_ms += chunk.timestamps_ms
    return watch


def by_records(place: Place, topic: str, read: Read, **options: Any) -> Watch:
    """Read one record after another, by the client without an event loop."""
    with measured() as watch, place.client.consumer(topic, until_end=True, **options) as consumer:
        for record in consumer:
            read.values.append(record.value)
            read.keys.append(record.key)
            read.offsets.append(record.offset)
            read.stamps_ms.append(record.timestamp_ms)
    return watch


def by_records_async(place: Place, topic: str, read: Read) -> Watch:
    """Read one record after another on an event loop."""

    async def main() -> Watch:
        async with AsyncClient.connect(place.address) as client:
            with measured() as watch:
                async with client.consumer(topic, until_end=True) as consumer:
                    async for record in consumer:
                        read.values.append(record.value)
                        read.keys.append(record.key)
                        read.offsets.append(record.offset)
                        read.stamps_ms.append(record.timestamp_ms)
            return watch

    return anyio.run(main)


def _official_sides(
    official: OfficialClient,
    topic: str,
    records: int,
    fewer: int,
    wanted: list[int],
    wanted_first: list[int],
) -> dict[str, Callable[[], Timing]]:
    def side(work: str, count: int, expected: list[int], **options: Any) -> Callable[[], Timing]:
        def timed() -> Timing:
            answer = official.run(work, topic=topic, records=count, **options)
            _compare(answer["checksum"], expected, f"the official client, {work}")
            return timing_of(answer)

        return timed

    return {
        "official client, iteration": side("consume", records, wanted),
        "official client, iteration, tuned": side(
            "consume", records, wanted, max_bytes=_TUNED_BYTES
        ),
        "official client, async stream": side("consume_async", fewer, wanted_first),
    }


def _compare(found: list[int], wanted: list[int], who: str) -> None:
    names = ("values", "keys", "offsets", "timestamps")
    wrong = [name for name, a, b in zip(names, found, wanted, strict=True) if a != b]
    if wrong:
        raise WrongOutput(f"{who} read other {' and '.join(wrong)} than were written")
