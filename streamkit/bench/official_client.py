"""Runs one task with the official client and prints its timing as JSON.

Run it with a Python that has the official client; streamkit need not be installed there:

    python official_client.py '{"work": "consume", "topic": "t", "records": 1000}'
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import sys
import time
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

# Faster than 1,000 rows per call, and than all rows in one call.
_ROWS_PER_CALL = 10_000


class Stopwatch:
    """Measures the time of a block."""

    def __enter__(self) -> Stopwatch:
        self.started_s, self.started_cpu_s = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.started_s
        self.cpu_s = time.process_time() - self.started_cpu_s


def main() -> None:
    request = json.loads(sys.argv[1])
    work: Any = {
        "consume": consume,
        "consume_async": consume_async,
        "send_all": send_all,
        "send": send,
    }[request.pop("work")]
    workload = runpy.run_path(str(Path(__file__).with_name("workload.py")))
    answer = work(import_module("fluvio"), workload, **request)
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # the client's threads may crash the interpreter while it shuts down


def consume(
    fluvio: Any,
    workload: dict[str, Any],
    topic: str,
    records: int,
    max_bytes: int | None = None,
    keeps: bool = False,
) -> dict[str, Any]:
    builder = fluvio.ConsumerConfigExtBuilder(topic)
    if max_bytes is not None:
        builder.max_bytes(max_bytes)
    config = builder.build()
    client = fluvio.Fluvio.connect()
    read = _read(workload, keeps)
    with Stopwatch() as watch:
        for record in islice(client.consumer_with_config(config), records):
            read.add_record(
                bytes(record.value()), bytes(record.key()), record.offset(), record.timestamp()
            )
    return _answer(watch, records, read.as_list())


def consume_async(
    fluvio: Any, workload: dict[str, Any], topic: str, records: int, keeps: bool = False
) -> dict[str, Any]:
    client = fluvio.Fluvio.connect()
    read = _read(workload, keeps)
    watch = Stopwatch()

    async def main() -> None:
        with watch:
            stream = await client.partition_consumer(topic, 0).async_stream(
                fluvio.Offset.beginning()
            )
            count = 0
            async for record in stream:
                read.add_record(
                    bytes(record.value()), bytes(record.key()), record.offset(), record.timestamp()
                )
                count += 1
                if count == records:
                    return

    asyncio.run(main())
    return _answer(watch, records, read.as_list())


def _read(workload: dict[str, Any], keeps: bool) -> Any:
    return workload["Columns" if keeps else "Totals"]()


def send_all(
    fluvio: Any,
    workload: dict[str, Any],
    topic: str,
    records: int,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    rows = list(zip(workload["keys_of"](records), workload["values_of"](records), strict=True))
    producer = _producer(fluvio, topic, options)
    with Stopwatch() as watch:
        for start in range(0, records, _ROWS_PER_CALL):
            producer.send_all(rows[start : start + _ROWS_PER_CALL])
        producer.flush()
    return _answer(watch, records)


def send(
    fluvio: Any,
    workload: dict[str, Any],
    topic: str,
    records: int,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    keys, values = workload["keys_of"](records), workload["values_of"](records)
    producer = _producer(fluvio, topic, options)
    with Stopwatch() as watch:
        for key, value in zip(keys, values, strict=True):
            producer.send(key, value)
        producer.flush()
    return _answer(watch, records)


def _producer(fluvio: Any, topic: str, options: dict[str, Any] | None) -> Any:
    client = fluvio.Fluvio.connect()
    if options is None:
        return client.topic_producer(topic)
    builder = fluvio.TopicProducerConfigBuilder()
    for name, value in options.items():
        if name == "compression":
            value = getattr(fluvio.Compression, value)
        builder = getattr(builder, name)(value)
    return client.topic_producer_with_config(topic, builder.build())


def _answer(watch: Stopwatch, records: int, read: list[int] | None = None) -> dict[str, Any]:
    return {
        "seconds": watch.seconds,
        "cpu_s": watch.cpu_s,
        "records": records,
        "read": read,
    }


if __name__ == "__main__":
    main()
